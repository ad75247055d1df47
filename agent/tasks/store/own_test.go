package store

import (
	"context"
	"testing"
	"time"
)

// The end of an attempt that could not be kept leaves a job that runs by the
// database alone.
func TestAJobWhoseEndCouldNotBeKeptRunsAgain(t *testing.T) {
	both := func(t *testing.T, o Options) {
		o.Lease = time.Second
		s := open(t, o)
		ran := make(chan Job, 10)
		s.start(2, func(_ context.Context, j Job) {
			if j.Attempt == 1 {
				// As after a Finish that the database could not do.
				s.mu.Lock()
				s.running[j.ID].finished.Store(true)
				s.mu.Unlock()
			} else {
				s.finish(j, Completed(nil))
			}
			ran <- j
		})
		in := s.insert(New{})[0]
		<-ran

		j := <-ran

		if j.ID != in.ID || j.Attempt != 2 || j.Failures[0].Error != "how its attempt ended could not be kept" {
			t.Errorf("%+v", j)
		}
	}
	t.Run("SQLite", func(t *testing.T) { both(t, inFile(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		if server == nil {
			t.Skip(absent)
		}
		both(t, inServer(t))
	})
}

// One that takes longer than a lease is not taken away: this process is alive.
func TestAJobThatRunsForLongerThanALeaseIsLeftAlone(t *testing.T) {
	both := func(t *testing.T, o Options) {
		o.Lease = 500 * time.Millisecond
		s := open(t, o)
		began, end := make(chan Job, 10), make(chan struct{})
		s.start(2, func(_ context.Context, j Job) {
			began <- j
			<-end
			s.finish(j, Completed(nil))
		})
		in := s.insert(New{})[0]
		<-began

		for range 3 { // rounds of upkeep, each of which would find it
			time.Sleep(600 * time.Millisecond)
			s.background(s.reapOwn)
		}
		close(end)

		if j := s.eventually(in.ID, Done); j.Attempt != 1 || len(began) > 0 {
			t.Errorf("%+v, and begun %d times more", j, len(began))
		}
	}
	t.Run("SQLite", func(t *testing.T) { both(t, inFile(t)) })
	t.Run("PostgreSQL", func(t *testing.T) {
		if server == nil {
			t.Skip(absent)
		}
		both(t, inServer(t))
	})
}

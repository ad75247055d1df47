package store

import (
	"context"
	"sync/atomic"
	"testing"
	"time"
)

func TestQueuesChangeWhileJobsRun(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		// Given one worker, which is at a job that does not end,
		started, release := make(chan Job, 10), make(chan struct{})
		s.start(1, func(_ context.Context, j Job) {
			started <- j
			<-release
			s.finish(j, Completed(nil))
		})
		s.insert(New{}, New{}, New{}, New{Queue: "other"})
		<-started

		// when there are to be two, and one of another queue,
		if err := s.SetQueues(t.Context(), map[string]int{"default": 2, "other": 1}); err != nil {
			t.Fatal(err)
		}

		// then two more jobs begin beside it, and the fourth waits.
		<-started
		<-started
		select {
		case j := <-started:
			t.Errorf("%+v runs too", j)
		case <-time.After(50 * time.Millisecond):
		}
		close(release)
		<-started
	})
}

func TestNoMoreJobsRunThanThereAreSlots(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		var running, most, ended atomic.Int64
		s.start(3, func(_ context.Context, j Job) {
			if n := running.Add(1); n > most.Load() {
				most.Store(n)
			}
			time.Sleep(time.Millisecond)
			running.Add(-1)
			s.finish(j, Completed(nil))
			ended.Add(1)
		})
		var last Job
		for range 6 {
			last = s.insert(make([]New, 10)...)[9]
		}
		s.eventually(last.ID, Done)
		for ended.Load() < 60 {
			time.Sleep(time.Millisecond)
		}
		if most.Load() > 3 {
			t.Errorf("%d ran at once", most.Load())
		}
	})
}

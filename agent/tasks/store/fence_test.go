package store

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

func TestAReportThatComesTwiceEndsNoOtherAttempt(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		// Given a worker that put its attempt off, after which another one got the job,
		in := s.insert(New{Queue: "app"})[0]
		first := s.lease("app", "w1", 1)[0]
		s.finish(first, Snooze(time.Now(), "later"))
		var second []Job
		for len(second) == 0 {
			second = s.lease("app", "w2", 1)
		}

		// when the first one's report arrives again,
		err := s.Finish(t.Context(), Held{first.ID, first.Attempt}, Snooze(time.Now(), "later"), nil)

		// then it is refused, and the second one's attempt stands.
		if !errors.Is(err, ErrLost) {
			t.Errorf("%v, want ErrLost", err)
		}
		if second[0].Attempt == first.Attempt {
			t.Errorf("both attempts are number %d", first.Attempt)
		}
		s.finish(second[0], Completed(nil))
		if j := s.get(in.ID); j.State != Done {
			t.Errorf("it is %+v", j)
		}
	})
}

// busy holds the writer until its release is called.
func (s *shelf) busy() (release func()) {
	held, begun := make(chan struct{}), make(chan struct{})
	var done sync.WaitGroup
	done.Go(func() {
		_ = s.Update(context.Background(), func(context.Context, Tx) error {
			close(begun)
			<-held
			return nil
		})
	})
	<-begun
	return func() {
		close(held)
		done.Wait()
	}
}

func TestNothingIsLeasedToAWorkerThatWentAway(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{Queue: "app"})[0]
		release := s.busy()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()

		_, err := s.Lease(ctx, LeaseRequest{Queues: []string{"app"}, Worker: "w", Max: 1, For: map[string]time.Duration{"app": time.Minute}})
		release()

		if !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		s.insert(New{Queue: "other"}) // behind the lease, if there was one
		if j := s.get(in.ID); j.State != Available || j.Attempt != 0 {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestWhatPostgreSQLCannotKeepIsRefusedOrReplaced(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		for _, n := range []New{{Facts: Facts{Tenant: "a\x00b"}}, {Tags: []string{"a,b"}}, {Tags: []string{""}}} {
			n.Kind, n.Queue, n.MaxAttempts = "echo", "app", 1
			if _, err := s.Insert(t.Context(), []New{n}); err == nil {
				t.Errorf("%+v was accepted", n)
			}
		}
		s.insert(New{Queue: "app"})
		j := s.lease("app", "w", 1)[0]

		s.finish(j, GiveUp("it said \x00\xff"))

		if j := s.get(j.ID); j.State != Discarded || j.Note != "it said \uFFFD\uFFFD" {
			t.Errorf("it is %+v", j)
		}
	})
}

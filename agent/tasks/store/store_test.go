package store

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"
)

func TestAJobIsKeptRunAndDone(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		ran := make(chan Job, 1)
		s.start(4, func(_ context.Context, j Job) {
			s.finish(j, Completed([]byte("HELLO")))
			ran <- j
		})

		in := s.insert(New{Body: []byte("hello"), Tags: []string{"a"}, Facts: Facts{Tenant: "t1", Deadline: time.Date(2026, 12, 24, 18, 0, 0, 0, time.UTC)}})[0]

		if j := <-ran; j.ID != in.ID || string(j.Body) != "hello" || j.Attempt != 1 || j.State != Running || j.Facts.Tenant != "t1" || j.Facts.Deadline.Year() != 2026 {
			t.Errorf("it ran as %+v", j)
		}
		if j := s.get(in.ID); j.State != Done || string(j.Output) != "HELLO" || string(j.Body) != "hello" || j.EndedAt.IsZero() || j.StartedAt.IsZero() || j.Worker != s.self || j.Tags[0] != "a" {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestAFailureIsTriedAgainUntilItIsGivenUp(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		again := make(chan time.Time, 1)
		s.start(1, func(_ context.Context, j Job) {
			if j.Attempt == 1 {
				at := time.Now().Add(50 * time.Millisecond)
				again <- at
				s.finish(j, Retry(at, "it is down"))
			} else {
				s.finish(j, GiveUp("it is gone"))
			}
		})

		in := s.insert(New{})[0]

		j := s.eventually(in.ID, Discarded)
		if len(j.Failures) != 2 || j.Failures[0].Error != "it is down" || j.Failures[0].Attempt != 1 || j.Failures[1].Error != "it is gone" || j.Note != "it is gone" {
			t.Errorf("it is %+v", j)
		}
		if at := <-again; j.StartedAt.Before(at.Add(-time.Millisecond)) { // which SQLite rounds to
			t.Errorf("tried again at %v, which was to be at %v", j.StartedAt, at)
		}
	})
}

func TestASnoozeCountsNoAttempt(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		s.start(1, func(_ context.Context, j Job) {
			if j.Snoozes < 3 {
				s.finish(j, Snooze(time.Now(), "the breaker is open"))
			} else {
				s.finish(j, Completed(nil))
			}
		})

		in := s.insert(New{MaxAttempts: 1})[0]

		if j := s.eventually(in.ID, Done); j.Attempt != 4 || j.MaxAttempts != 4 || j.Snoozes != 3 || len(j.Failures) != 0 {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestAPanicAndSilenceAreFailedAttempts(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		s.start(1, func(_ context.Context, j Job) {
			if string(j.Body) == "panic" {
				panic("oh no")
			}
		})

		in := s.insert(New{Body: []byte("panic"), MaxAttempts: 1}, New{MaxAttempts: 1})

		if j := s.eventually(in[0].ID, Discarded); j.Note != "the agent panicked over it: oh no" {
			t.Errorf("it is %+v", j)
		}
		if j := s.eventually(in[1].ID, Discarded); j.Note != "the attempt ended and did not say how" {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestAUniqueKeyNamesOneJob(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		key := []byte("signup-7")
		first, err := s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1, Unique: key, Body: []byte("1")}, {Kind: "echo", Queue: "default", MaxAttempts: 1, Unique: key, Body: []byte("2")}})
		if err != nil {
			t.Fatal(err)
		}
		second, err := s.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1, Unique: key, Body: []byte("3")}})
		if err != nil {
			t.Fatal(err)
		}

		id := first[0].Job.ID
		if first[0].Existed || !first[1].Existed || !second[0].Existed || first[1].Job.ID != id || second[0].Job.ID != id || string(second[0].Job.Body) != "1" {
			t.Errorf("%+v, then %+v", first, second)
		}
		if list, err := s.List(t.Context(), Filter{}); err != nil || len(list) != 1 || s.Waiting("default") != 1 {
			t.Errorf("%d jobs, %d wait, %v", len(list), s.Waiting("default"), err)
		}
	})
}

func TestAKeyUntilEndedIsFreeAgainAtTheEnd(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		n := New{Unique: []byte("k"), UntilEnded: true}
		first := s.insert(n)[0]
		same := s.insert(n)[0]
		if _, err := s.Cancel(t.Context(), first.ID); err != nil {
			t.Fatal(err)
		}
		other := s.insert(n)[0]

		if same.ID != first.ID || other.ID == first.ID {
			t.Errorf("%d, %d, %d", first.ID, same.ID, other.ID)
		}
	})
}

func TestAListIsNarrowedDownAndTurnsPages(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{Tags: []string{"red", "blue"}, Body: []byte("x")}, New{Kind: "mail", Queue: "mails", Facts: Facts{Parent: 77}}, New{RunAt: time.Now().Add(time.Hour), Tags: []string{"red"}}, New{Pending: true})
		ids := []int64{in[0].ID, in[1].ID, in[2].ID, in[3].ID}

		for _, test := range []struct {
			name   string
			filter Filter
			want   []int64
		}{
			{"all, the newest first", Filter{}, []int64{ids[3], ids[2], ids[1], ids[0]}},
			{"by state", Filter{States: []State{Scheduled, Pending}}, []int64{ids[3], ids[2]}},
			{"by kind", Filter{Kind: "mail"}, []int64{ids[1]}},
			{"by queue", Filter{Queue: "default"}, []int64{ids[3], ids[2], ids[0]}},
			{"by tag", Filter{Tag: "red"}, []int64{ids[2], ids[0]}},
			{"by parent", Filter{Parent: 77}, []int64{ids[1]}},
			{"by several", Filter{Tag: "red", States: []State{Available}}, []int64{ids[0]}},
			{"a page", Filter{Limit: 2}, []int64{ids[3], ids[2]}},
			{"the next one", Filter{Limit: 2, After: ids[2]}, []int64{ids[1], ids[0]}},
		} {
			list, err := s.List(t.Context(), test.filter)
			var got []int64
			for _, j := range list {
				got = append(got, j.ID)
				if j.Body != nil {
					t.Errorf("%s: a body without being asked for", test.name)
				}
			}
			if err != nil || !slices.Equal(got, test.want) {
				t.Errorf("%s: %v %v, want %v", test.name, got, err, test.want)
			}
		}
		whole, err := s.List(t.Context(), Filter{Tag: "blue", Payload: true})
		if err != nil || string(whole[0].Body) != "x" {
			t.Errorf("%+v %v", whole, err)
		}
	})
}

func TestPurgeDeletesWhatHasEnded(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{}, New{}, New{Kind: "mail"})
		for _, j := range in[1:] {
			if _, err := s.Cancel(t.Context(), j.ID); err != nil {
				t.Fatal(err)
			}
		}

		n, err := s.Purge(t.Context(), PurgeFilter{States: []State{Cancelled}, Kind: "echo", EndedBefore: time.Now().Add(time.Second)})

		if n != 1 || err != nil {
			t.Errorf("%d %v", n, err)
		}
		if _, err := s.Get(t.Context(), in[1].ID); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if _, err := s.Purge(t.Context(), PurgeFilter{States: []State{Running}}); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		s.get(in[0].ID)
		s.get(in[2].ID)
	})
}

func TestCancelAndRetry(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		runs := make(chan Job, 10)
		s.start(2, func(ctx context.Context, j Job) {
			runs <- j
			if string(j.Body) == "long" {
				<-ctx.Done()
				if !errors.Is(context.Cause(ctx), ErrCancelled) {
					t.Errorf("it ended by %v", context.Cause(ctx))
				}
				s.finish(j, Stopped("somebody cancelled it"))
				return
			}
			s.finish(j, Completed(nil))
		})
		waits := s.insert(New{RunAt: time.Now().Add(time.Hour)})[0]
		long := s.insert(New{Body: []byte("long")})[0]
		<-runs

		cancelled, err := s.Cancel(t.Context(), waits.ID)
		if err != nil || cancelled.State != Cancelled || s.Waiting("default") != 0 {
			t.Errorf("%+v %v, %d wait", cancelled, err, s.Waiting("default"))
		}
		running, err := s.Cancel(t.Context(), long.ID)
		if err != nil || running.State != Running || !running.CancelRequested {
			t.Errorf("%+v %v", running, err)
		}
		s.eventually(long.ID, Cancelled)

		if again, err := s.Retry(t.Context(), waits.ID); err != nil || again.State != Available {
			t.Errorf("%+v %v", again, err)
		}
		s.eventually(waits.ID, Done)
		if _, err := s.Retry(t.Context(), waits.ID); !errors.Is(err, ErrState) {
			t.Error(err)
		}
		if _, err := s.Cancel(t.Context(), 12345); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
	})
}

func TestAPausedQueueStartsNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		ran := make(chan struct{}, 10)
		s.start(2, func(_ context.Context, j Job) {
			s.finish(j, Completed(nil))
			ran <- struct{}{}
		})
		s.insert(New{})
		<-ran
		for _, queue := range []string{"default", "save"} {
			if err := s.Pause(t.Context(), queue); err != nil {
				t.Fatal(err)
			}
		}

		in := s.insert(New{}, New{Queue: "save", Kind: "save"})
		select {
		case <-ran:
			t.Error("a job of a paused queue ran")
		case <-time.After(200 * time.Millisecond):
		}
		if jobs := s.lease("save", "w", 1); len(jobs) != 0 {
			t.Errorf("leased %+v", jobs)
		}
		queues, err := s.Queues(t.Context(), []string{"default", "save", "other"})
		if err != nil || !queues[0].Paused || queues[0].Available != 1 || !queues[1].Paused || queues[2].Paused || queues[0].Oldest.IsZero() {
			t.Errorf("%+v %v", queues, err)
		}
		for _, queue := range []string{"default", "save"} {
			if err := s.Resume(t.Context(), queue); err != nil {
				t.Fatal(err)
			}
		}
		<-ran
		if jobs := s.lease("save", "w", 1); len(jobs) != 1 || jobs[0].ID != in[1].ID {
			t.Errorf("leased %+v", jobs)
		}
	})
}

func TestATransactionIsWholeOrNothing(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		chain := s.insert(New{Kind: "chain", Pending: true})[0]
		step := s.insert(New{Kind: "save", Queue: "save", Facts: Facts{Parent: chain.ID}})[0]
		held := s.lease("save", "w", 1)[0]
		boom := errors.New("boom")

		err := s.Finish(t.Context(), Held{held.ID, held.Attempt}, Completed(nil), func(ctx context.Context, tx Tx) error {
			if _, err := tx.Insert(ctx, []New{{Kind: "save", Queue: "save", MaxAttempts: 1}}); err != nil {
				return err
			}
			return boom
		})
		if !errors.Is(err, boom) {
			t.Fatal(err)
		}
		if j := s.get(step.ID); j.State != Running {
			t.Errorf("the step is %+v", j)
		}
		err = s.Finish(t.Context(), Held{held.ID, held.Attempt}, Completed([]byte("7")), func(ctx context.Context, tx Tx) error {
			c, err := tx.Get(ctx, chain.ID)
			if err != nil || c.State != Pending {
				t.Errorf("%+v %v", c, err)
			}
			if err := tx.SetProgress(ctx, chain.ID, []byte("half")); err != nil {
				return err
			}
			_, err = tx.Insert(ctx, []New{{Kind: "save", Queue: "save", MaxAttempts: 1}})
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		if j := s.get(step.ID); j.State != Done || string(j.Output) != "7" {
			t.Errorf("the step is %+v", j)
		}
		if c := s.get(chain.ID); string(c.Progress) != "half" || c.State != Pending {
			t.Errorf("the chain is %+v", c)
		}
		if s.Waiting("save") != 1 {
			t.Errorf("%d wait", s.Waiting("save"))
		}
		err = s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.End(ctx, chain.ID, Completed([]byte("all"))) })
		if c := s.get(chain.ID); err != nil || c.State != Done || string(c.Output) != "all" {
			t.Errorf("the chain is %+v, %v", c, err)
		}
	})
}

func TestALeaseIsFenced(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{Kind: "save", Queue: "save"})[0]
		first := s.lease("save", "w1", 5)
		if len(first) != 1 || first[0].ID != in.ID || first[0].Attempt != 1 || first[0].Worker != "w1" {
			t.Fatalf("%+v", first)
		}
		until := time.Now().Add(time.Second)
		renewed, err := s.Renew(t.Context(), []Held{{in.ID, 1}, {in.ID, 2}}, []time.Time{until, until})
		if err != nil || renewed[0].Until.IsZero() || !renewed[1].Until.IsZero() {
			t.Fatal(renewed, err)
		}

		// When the lease has lapsed, another worker gets it,
		s.eventually(in.ID, Available)
		second := s.lease("save", "w2", 1)
		if len(second) != 1 || second[0].Attempt != 2 || second[0].Failures[0].Error != "the worker's lease ended before it said how it went" {
			t.Fatalf("%+v", second)
		}
		// and the first one's word counts no more.
		if err := s.Finish(t.Context(), Held{in.ID, 1}, Completed(nil), nil); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
		if renewed, err := s.Renew(t.Context(), []Held{{in.ID, 1}}, []time.Time{until}); err != nil || !renewed[0].Until.IsZero() {
			t.Error(renewed, err)
		}
		s.finish(second[0], Completed(nil))
		if err := s.Finish(t.Context(), Held{in.ID, 2}, Completed(nil), nil); !errors.Is(err, ErrLost) {
			t.Error(err)
		}
	})
}

func TestALeaseOfAJobThatWasPutOffIsRenewed(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		s.insert(New{Kind: "save", Queue: "save"})
		s.finish(s.lease("save", "w1", 1)[0], Snooze(time.Now(), "later"))
		again := s.lease("save", "w2", 1)[0]
		until := time.Now().Add(time.Minute)

		renewed, err := s.Renew(t.Context(), []Held{{again.ID, again.Attempt}}, []time.Time{until})

		if err != nil || !renewed[0].Until.Equal(until) {
			t.Error(renewed, err)
		}
	})
}

func TestALeasedJobThatIsCancelledSaysSo(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{Kind: "save", Queue: "save"})[0]
		held := s.lease("save", "w", 1)[0]
		if _, err := s.Cancel(t.Context(), in.ID); err != nil {
			t.Fatal(err)
		}

		renewed, err := s.Renew(t.Context(), []Held{{held.ID, held.Attempt}}, []time.Time{time.Now().Add(time.Second)})

		if err != nil || !renewed[0].CancelRequested {
			t.Fatal(renewed, err)
		}
		s.finish(held, Retry(time.Now(), "told to stop"))
		if j := s.get(in.ID); j.State != Cancelled {
			t.Errorf("it is %+v", j)
		}
	})
}

func TestTenantsTakeTurns(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		var many []New
		for range 200 {
			many = append(many, New{Kind: "save", Queue: "save", Facts: Facts{Tenant: "a"}})
		}
		s.insert(many...)
		s.insert(New{Kind: "save", Queue: "save", Facts: Facts{Tenant: "b"}}, New{Kind: "save", Queue: "save", Facts: Facts{Tenant: "b"}}, New{Kind: "save", Queue: "save"}, New{Kind: "save", Queue: "save", Facts: Facts{Tenant: "c"}, Priority: 1})

		var got []string
		for range 4 {
			for _, j := range s.lease("save", "w", 2) {
				got = append(got, j.Facts.Tenant)
			}
		}

		// The first priority, then each in turn, the one without a name too.
		if want := []string{"c", "", "a", "b", "a", "b", "a", "a"}; !slices.Equal(got, want) {
			t.Errorf("%q, want %q", got, want)
		}
	})
}

func TestTimesAreKept(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		ran := make(chan time.Time, 10)
		s.start(4, func(_ context.Context, j Job) {
			now := time.Now()
			s.finish(j, Completed(nil))
			ran <- now
		})
		for _, d := range []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond} {
			at := time.Now().Add(d)
			s.insert(New{RunAt: at})
			late := (<-ran).Sub(at)
			if late < -time.Millisecond {
				t.Errorf("%v early", -late)
			}
			t.Logf("after %v: %v late", d, late)
		}
	})
}

func TestAKeyAndADeadlineAreFound(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		now := time.Now()
		in := s.insert(New{Unique: []byte("k")}, New{Facts: Facts{Deadline: now.Add(-time.Minute)}}, New{Facts: Facts{Deadline: now.Add(time.Hour).In(time.FixedZone("", 3600))}})

		if j, err := s.Find(t.Context(), []byte("k")); err != nil || j.ID != in[0].ID {
			t.Errorf("%+v %v", j, err)
		}
		if _, err := s.Find(t.Context(), []byte("other")); !errors.Is(err, ErrNotFound) {
			t.Error(err)
		}
		if late, err := s.Overdue(t.Context(), now, 10); err != nil || len(late) != 1 || late[0].ID != in[1].ID {
			t.Errorf("%+v %v", late, err)
		}
		if late, err := s.Overdue(t.Context(), now.Add(2*time.Hour), 10); err != nil || len(late) != 2 {
			t.Errorf("%+v %v", late, err)
		}
	})
}

func TestAChainIsReopened(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		chain := s.insert(New{Kind: "chain", Pending: true})[0]
		if err := s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.End(ctx, chain.ID, GiveUp("a step failed")) }); err != nil {
			t.Fatal(err)
		}
		if c := s.get(chain.ID); c.State != Discarded || c.Failures[0].Error != "a step failed" {
			t.Errorf("%+v", c)
		}

		err := s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.Reopen(ctx, chain.ID) })

		if c := s.get(chain.ID); err != nil || c.State != Pending || !c.EndedAt.IsZero() || c.Note != "" {
			t.Errorf("%+v %v", c, err)
		}
	})
}

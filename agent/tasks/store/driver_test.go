package store

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

func TestWhatHasBeenKeptForLongEnoughIsDeleted(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		// Given jobs that ended in each way, and one that waits,
		var ended []Job
		for _, o := range []Outcome{Completed(nil), GiveUp("gone"), Stopped("asked")} {
			s.insert(New{Queue: "app", Tags: []string{"x"}})
			j := s.lease("app", "w", 1)[0]
			s.finish(j, o)
			ended = append(ended, j)
		}
		waits := s.insert(New{Queue: "app"})[0]
		future := time.Now().Add(time.Minute)
		e := &executor{s.exec, s.Store}

		// when River deletes those that were cancelled or are done,
		n, err := e.JobDeleteBefore(t.Context(), &riverdriver.JobDeleteBeforeParams{
			CancelledDoDelete: true, CancelledFinalizedAtHorizon: future, CompletedDoDelete: true, CompletedFinalizedAtHorizon: future,
			DiscardedFinalizedAtHorizon: future, Max: 100,
		})

		// then those are gone, with their tags, and no others.
		if err != nil || n != 2 {
			t.Errorf("%d were deleted, %v", n, err)
		}
		for i, gone := range []bool{true, false, true} {
			if _, err := s.Get(t.Context(), ended[i].ID); gone != errors.Is(err, ErrNotFound) {
				t.Errorf("%d: %v", i, err)
			}
		}
		if jobs, err := s.List(t.Context(), Filter{Tag: "x"}); err != nil || len(jobs) != 1 {
			t.Errorf("%+v %v", jobs, err)
		}
		s.get(waits.ID)
	})
}

func TestWhatNobodyHereKnowsIsLeftWhereTenantsTakeTurns(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		other := s.insert(New{Kind: "other", Facts: Facts{Tenant: "a"}}, New{Kind: "other", Facts: Facts{Tenant: "b"}})
		known := s.insert(New{Facts: Facts{Tenant: "a"}}, New{Facts: Facts{Tenant: "b"}})
		s.start(1, func(_ context.Context, j Job) { s.finish(j, Completed(nil)) })

		for _, j := range known {
			s.eventually(j.ID, Done)
		}

		for _, j := range other {
			if j := s.get(j.ID); j.State != Available || j.Attempt != 0 {
				t.Errorf("it is %+v", j)
			}
		}
	})
}

func TestWhatIsScheduledBecomesAvailable(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		now := time.Now()
		in := s.insert(New{RunAt: now.Add(time.Minute)}, New{RunAt: now.Add(time.Hour)})
		tx, err := (&executor{s.exec, s.Store}).Begin(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		horizon := now.Add(2 * time.Minute)

		results, err := tx.JobSchedule(t.Context(), &riverdriver.JobScheduleParams{Max: 10, Now: &horizon})

		if err := errors.Join(err, tx.Commit(t.Context())); err != nil || len(results) != 1 || results[0].Job.ID != in[0].ID {
			t.Errorf("%+v %v", results, err)
		}
		if a, b := s.get(in[0].ID), s.get(in[1].ID); a.State != Available || b.State != Scheduled || a.RunAt.Sub(now) < 59*time.Second {
			t.Errorf("they are %+v and %+v", a, b)
		}
	})
}

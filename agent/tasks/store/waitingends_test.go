package store

import (
	"context"
	"errors"
	"testing"
	"time"
)

func TestOverdueJobsAreFound(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		deadline := time.Date(2026, 3, 29, 2, 0, 0, 0, time.FixedZone("CEST", 7200))
		in := s.insert(
			New{Facts: Facts{Deadline: deadline.Add(500 * time.Millisecond)}},
			New{Facts: Facts{Deadline: deadline}, Pending: true},
			New{Facts: Facts{Deadline: deadline.Add(time.Hour)}},
			New{},
			New{Facts: Facts{Deadline: deadline}, RunAt: time.Now().Add(time.Hour)},
		)
		if err := s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.End(ctx, in[4].ID, GiveUp("too late")) }); err != nil {
			t.Fatal(err)
		}
		for _, tc := range []struct {
			after time.Duration
			want  int
		}{{0, 0}, {time.Second, 2}, {time.Minute, 2}, {2 * time.Hour, 3}} {
			found, err := s.Overdue(t.Context(), deadline.Add(tc.after), 10)
			if err != nil || len(found) != tc.want {
				t.Errorf("%v after it %d are overdue, %v; want %d", tc.after, len(found), err, tc.want)
			}
		}
		if found, err := s.Overdue(t.Context(), deadline.Add(2*time.Hour), 1); err != nil || len(found) != 1 || found[0].ID == in[2].ID {
			t.Errorf("the first that is overdue: %+v, %v", found, err)
		}
	})
}

func TestAJobThatWaitsIsEnded(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		in := s.insert(New{}, New{RunAt: time.Now().Add(time.Hour)})
		for _, j := range in {
			if err := s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.End(ctx, j.ID, GiveUp("too late")) }); err != nil {
				t.Fatal(err)
			}
			if got := s.get(j.ID); got.State != Discarded || got.Note != "too late" || len(got.Failures) != 1 || got.EndedAt.IsZero() {
				t.Errorf("it is %+v", got)
			}
			err := s.Update(t.Context(), func(ctx context.Context, tx Tx) error { return tx.End(ctx, j.ID, GiveUp("again")) })
			if !errors.Is(err, ErrState) {
				t.Errorf("ended twice: %v", err)
			}
		}
		if s.Waiting("default") != 0 {
			t.Errorf("%d wait", s.Waiting("default"))
		}
	})
}

func TestAPendingJobBeginsAnew(t *testing.T) {
	everywhere(t, func(t *testing.T, s *shelf) {
		id := s.insert(New{Pending: true})[0].ID
		update := func(do func(ctx context.Context, tx Tx) error) error { return s.Update(t.Context(), do) }
		if err := update(func(ctx context.Context, tx Tx) error { return tx.Reopen(ctx, id) }); !errors.Is(err, ErrState) {
			t.Errorf("reopened before it ended: %v", err)
		}
		if err := update(func(ctx context.Context, tx Tx) error {
			if err := tx.SetProgress(ctx, id, []byte("half")); err != nil {
				return err
			}
			return tx.End(ctx, id, GiveUp("no"))
		}); err != nil {
			t.Fatal(err)
		}
		if err := update(func(ctx context.Context, tx Tx) error { return tx.Reopen(ctx, id) }); err != nil {
			t.Fatal(err)
		}
		if j := s.get(id); j.State != Pending || !j.EndedAt.IsZero() || j.Note != "" || len(j.Progress) != 0 || len(j.Failures) != 0 || j.Output != nil {
			t.Errorf("it is %+v", j)
		}
		if err := update(func(ctx context.Context, tx Tx) error { return tx.End(ctx, id, Completed([]byte("yes"))) }); err != nil {
			t.Fatal(err)
		}
		if j := s.get(id); j.State != Done || string(j.Output) != "yes" {
			t.Errorf("it is %+v", j)
		}
	})
}

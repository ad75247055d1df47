package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// maxAttemptedBy is how many names of workers River keeps with a job.
const maxAttemptedBy = 20

// Lease gives jobs to a worker outside this process, until their leases end. It
// does not wait, and gives none of a queue that is paused. Leases outlive the
// agent.
func (s *Store) Lease(ctx context.Context, r LeaseRequest) ([]Job, error) {
	var jobs []Job
	o := &op{other: func(ctx context.Context, tx *txn) error {
		jobs = nil
		for _, queue := range r.Queues {
			if len(jobs) >= r.Max {
				break
			}
			paused, err := s.paused(ctx, tx.tx, queue)
			if err != nil {
				return err
			}
			if paused {
				continue
			}
			found, err := s.leaseFrom(ctx, tx, queue, r.Max-len(jobs), r.Worker, r.For[queue])
			if err != nil {
				return err
			}
			jobs = append(jobs, found...)
		}
		return nil
	}}
	err := s.writer.do(ctx, o)
	if err == nil {
		return jobs, nil
	}
	if ctx.Err() != nil && o.done != nil {
		s.goroutine.Go(func() { // who asked went away in mid-commit
			select {
			case <-o.done:
			case <-s.stopped.Done():
				return
			}
			for _, j := range jobs {
				if o.err == nil {
					s.give(Held{j.ID, j.Attempt}, Snooze(time.Now(), "the worker went away as it got it"))
				}
			}
		})
	}
	return nil, err
}

func (s *Store) leaseFrom(ctx context.Context, tx *txn, queue string, n int, worker string, length time.Duration) ([]Job, error) {
	p := &riverdriver.JobGetAvailableParams{ClientID: worker, MaxAttemptedBy: maxAttemptedBy, MaxToLock: n, Queue: queue}
	result, err := s.lock(ctx, tx.tx, p)
	if err != nil {
		return nil, err
	}
	if len(result.Jobs) == 0 {
		return nil, nil
	}
	jobs := make([]Job, len(result.Jobs))
	leases := make([][3]int64, len(result.Jobs))
	for i, row := range result.Jobs {
		if jobs[i], err = jobOf(row); err != nil {
			return nil, err
		}
		leases[i] = [3]int64{jobs[i].ID, int64(jobs[i].Attempt), length.Milliseconds()}
		tx.wait(queue, -1)
		tx.moved = append(tx.moved, movedOf(jobs[i]))
	}
	list, err := json.Marshal(leases)
	if err != nil {
		return nil, err
	}
	return jobs, tx.tx.Exec(ctx, `INSERT INTO outrigger_lease (job_id, attempt, until) SELECT a, b, `+s.dialect.nowMS()+` + c FROM `+s.dialect.triples("$1")+` AS leased WHERE true
		ON CONFLICT (job_id) DO UPDATE SET attempt = excluded.attempt, until = excluded.until`, string(list))
}

// Renew makes leases last until the times that stand at the same place. Those that
// are over stay over.
func (s *Store) Renew(ctx context.Context, held []Held, until []time.Time) ([]Renewal, error) {
	if len(held) == 0 {
		return nil, nil
	}
	now := time.Now()
	lengths := make([][3]int64, len(held)) // the database has a clock of its own
	ids := make([]int64, len(held))
	for i, h := range held {
		lengths[i] = [3]int64{h.ID, int64(h.Attempt), until[i].Sub(now).Milliseconds()}
		ids[i] = h.ID
	}
	list, err := json.Marshal(lengths)
	if err != nil {
		return nil, err
	}
	return change(ctx, s.writer, func(ctx context.Context, tx *txn) ([]Renewal, error) {
		if err := tx.tx.Exec(ctx, `UPDATE outrigger_lease SET until = `+s.dialect.nowMS()+` + renewed.c FROM `+s.dialect.triples("$1")+` AS renewed
			WHERE job_id = renewed.a AND attempt = renewed.b`, string(list)); err != nil {
			return nil, err
		}
		standing, err := s.standing(ctx, tx, ids)
		if err != nil {
			return nil, err
		}
		renewed := make([]Renewal, len(held))
		for i, h := range held {
			if l, ok := standing[h.ID]; ok && l.attempt == h.Attempt {
				renewed[i] = Renewal{Until: until[i], CancelRequested: l.cancel}
			}
		}
		return renewed, nil
	})
}

type standing struct {
	attempt int
	cancel  bool
}

// standing returns the leases of those jobs that are leased and run.
func (s *Store) standing(ctx context.Context, tx *txn, ids []int64) (map[int64]standing, error) {
	var text string
	d := s.dialect
	if err := tx.tx.QueryRow(ctx, d.gather("id, attempt, cancelled", `SELECT id, outrigger_lease.attempt AS attempt, CASE WHEN `+d.cancelRequested()+` THEN 1 ELSE 0 END AS cancelled
		FROM river_job JOIN outrigger_lease ON job_id = id WHERE state = 'running' AND `+d.among("id", "$1")), jsonIDs(ids)).Scan(&text); err != nil {
		return nil, err
	}
	var rows [][3]int64
	if err := json.Unmarshal([]byte(text), &rows); err != nil {
		return nil, err
	}
	found := make(map[int64]standing, len(rows))
	for _, r := range rows {
		found[r[0]] = standing{int(r[1]), r[2] == 1}
	}
	return found, nil
}

// dropLeases forgets the leases of jobs whose attempts have ended.
func (t *txn) dropLeases(ctx context.Context, ids []int64) error {
	return t.tx.Exec(ctx, `DELETE FROM outrigger_lease WHERE `+t.store.dialect.among("job_id", "$1"), jsonIDs(ids))
}

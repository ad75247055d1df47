package store

import (
	"context"
	"encoding/json"
	"errors"
	"time"
)

// Pace of what the store does by itself.
const (
	careEvery   = 500 * time.Millisecond // look at lapsed leases, at the database when it failed
	countEvery  = 5 * time.Second        // count PostgreSQL's queues anew
	keepEvery   = time.Minute            // delete what was to be kept for shorter than the rest
	queuesEvery = time.Hour
	reapBatch   = 500
)

// care gives back what nobody holds any more, deletes what has been kept for long
// enough, and counts.
func (s *Store) care() {
	tick := time.NewTicker(careEvery)
	defer tick.Stop()
	var orphaned, counted, kept, queues time.Time
	for {
		select {
		case <-s.stopped.Done():
			return
		case <-tick.C:
		}
		if !s.health.opened.Load() || !s.health.usable() {
			continue
		}
		now := time.Now()
		due := func(last *time.Time, every time.Duration) bool {
			if now.Sub(*last) < every {
				return false
			}
			*last = now
			return true
		}
		s.reap()
		if due(&orphaned, s.options.Lease/3) {
			s.background(s.reapOwn)
		}
		if s.options.Postgres != nil && due(&counted, countEvery) {
			s.background(s.count)
		}
		if due(&kept, keepEvery) {
			s.background(s.forget)
		}
		if due(&queues, queuesEvery) {
			s.background(s.keepQueues)
		}
	}
}

// background does something whose failure the next round makes good.
func (s *Store) background(do func(context.Context) error) {
	ctx, cancel := context.WithTimeout(s.stopped, commitTimeout)
	defer cancel()
	if err := do(ctx); err != nil && s.stopped.Err() == nil {
		err = s.health.note(explained(err))
		if !isUnavailable(err) && !s.health.saidLately(err.Error(), time.Minute) {
			s.logger.Warn("the task store's upkeep failed; it is tried again", "error", err)
		}
	}
}

// giveBackAtStart gives back what ran when the only agent of a SQLite file ended,
// leases of apps aside: those last until they lapse.
func (s *Store) giveBackAtStart(ctx context.Context) error {
	if s.options.SQLite == nil {
		return nil // other agents may hold them: reap finds out
	}
	for {
		n, err := s.giveBack(ctx, `SELECT id, attempt FROM river_job WHERE state = 'running' AND id NOT IN (SELECT job_id FROM outrigger_lease) LIMIT $1`,
			"the agent ended while it ran", reapBatch)
		if err != nil || n < reapBatch {
			return err
		}
	}
}

// reap gives back jobs whose holders are gone: leases that lapsed, and what agents
// held that gave no sign of life for as long as a lease.
func (s *Store) reap() {
	s.background(func(ctx context.Context) error {
		_, err := s.giveBack(ctx, `SELECT id, river_job.attempt AS attempt FROM outrigger_lease JOIN river_job ON id = job_id
			WHERE until < `+s.dialect.nowMS()+` AND state = 'running' LIMIT $1`, "the worker's lease ended before it said how it went", reapBatch)
		if err != nil {
			return err
		}
		if s.options.Postgres == nil {
			return nil
		}
		dead := s.dialect.nowMS() + " - $2"
		_, err = s.giveBack(ctx, `SELECT id, attempt FROM river_job WHERE state = 'running' AND NOT EXISTS (SELECT 1 FROM outrigger_lease WHERE job_id = id)
			AND NOT EXISTS (SELECT 1 FROM outrigger_agent WHERE outrigger_agent.id = attempted_by[array_upper(attempted_by, 1)] AND seen >= `+dead+`)
			AND attempted_at < now() - ($2::bigint * interval '1 millisecond') LIMIT $1`,
			"the agent that ran it gave no sign of life", reapBatch, s.options.Lease.Milliseconds())
		if err != nil {
			return err
		}
		return s.exec.Exec(ctx, `DELETE FROM outrigger_agent WHERE seen < `+s.dialect.nowMS()+` - $1`, 10*s.options.Lease.Milliseconds())
	})
}

// reapOwn gives back jobs that run here by the database, and don't: the end of
// their attempts could not be kept while the database was away, or they were fetched
// and the answer was lost.
func (s *Store) reapOwn(ctx context.Context) error {
	s.mu.Lock()
	here := make([]int64, 0, len(s.running))
	for id := range s.running {
		here = append(here, id)
	}
	s.mu.Unlock()
	d := s.dialect
	_, err := s.giveBack(ctx, `SELECT id, attempt FROM river_job WHERE state = 'running' AND id NOT IN (SELECT job_id FROM outrigger_lease) AND `+d.worker()+` = $2
		AND `+d.sinceBegun()+` > $3 AND NOT (`+d.among("id", "$4")+`) LIMIT $1`,
		"how its attempt ended could not be kept", reapBatch, s.self, s.options.Lease.Seconds(), jsonIDs(here))
	return err
}

// giveBack ends the attempts of running jobs that a query finds: they run again, or
// are given up after their last attempt.
func (s *Store) giveBack(ctx context.Context, query, why string, args ...any) (int, error) {
	var text string
	if err := s.exec.QueryRow(ctx, s.dialect.gather("id, attempt", query), args...).Scan(&text); err != nil {
		return 0, err
	}
	var found [][2]int64
	if err := json.Unmarshal([]byte(text), &found); err != nil || len(found) == 0 {
		return 0, err
	}
	batch := []*op{{other: func(ctx context.Context, tx *txn) error { return s.giveBackNow(ctx, tx, found, why) }}}
	batch[0].done = make(chan struct{})
	if !s.health.opened.Load() { // the writer does not run yet
		if err := s.writer.try(batch); err != nil {
			return 0, err
		}
		s.writer.answer(batch[0])
		return len(found), batch[0].err
	}
	return len(found), s.writer.do(ctx, batch[0])
}

func (s *Store) giveBackNow(ctx context.Context, tx *txn, found [][2]int64, why string) error {
	ids := make([]int64, len(found))
	for i, f := range found {
		ids[i] = f[0]
	}
	held, err := tx.holders(ctx, ids)
	if err != nil {
		return err
	}
	now := time.Now()
	var endings []ending
	for _, f := range found {
		h, runs := held[f[0]]
		if !runs || h.Attempt != int(f[1]) {
			continue // it moved on meanwhile
		}
		outcome := Retry(now, why)
		if h.Attempt >= h.Max {
			outcome = GiveUp(why)
		}
		e := endingOf(outcome, h, now)
		endings = append(endings, e)
		tx.began(e.job(h), &tx.moved, &tx.rings)
	}
	return tx.end(ctx, endings)
}

// forget deletes jobs that were to be kept for a shorter time than the rest.
func (s *Store) forget(ctx context.Context) error {
	query := `SELECT id FROM river_job WHERE finalized_at IS NOT NULL AND ` + s.dialect.retention() + ` IS NOT NULL AND ` + s.dialect.age() + ` > ` + s.dialect.retention() + ` LIMIT $1`
	for {
		n, err := s.deleteSome(ctx, query, []any{purgeBatch})
		if err != nil || n < purgeBatch {
			return err
		}
		if ctx.Err() != nil {
			return errors.Join(ctx.Err())
		}
	}
}

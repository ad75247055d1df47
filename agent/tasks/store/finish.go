package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// finishing is the end of an attempt.
type finishing struct {
	held    Held
	outcome Outcome
}

// Insert keeps jobs, all or none. When it returns without an error they are on
// disk. An error that is an *Unavailable, or the context's, may have come after they
// were: a unique key makes a second try safe.
func (s *Store) Insert(ctx context.Context, jobs []New) ([]Inserted, error) {
	if len(jobs) == 0 {
		return nil, nil
	}
	o := &op{insert: jobs}
	for i := range jobs {
		o.bytes += len(jobs[i].Body)
	}
	if err := s.writer.do(ctx, o); err != nil {
		return nil, err
	}
	return o.inserted, nil
}

// Finish ends an attempt. also runs in the same transaction, after the end; if it
// fails, nothing happened. It must not block, or use the store but by its Tx: other
// writes wait for it. It may run more than once, and still when Finish has returned
// since ctx ended. ErrLost: the attempt is over already.
func (s *Store) Finish(ctx context.Context, h Held, o Outcome, also func(ctx context.Context, tx Tx) error) error {
	f := &finishing{held: h, outcome: o}
	end := &op{finish: f, bytes: len(o.output)}
	if also != nil {
		end = &op{bytes: len(o.output), other: func(ctx context.Context, tx *txn) error {
			alone := op{finish: f}
			if err := tx.finishAll(ctx, []*op{&alone}); err != nil || alone.err != nil {
				return errors.Join(err, alone.err)
			}
			tx.moved, tx.rings = append(tx.moved, alone.moved...), append(tx.rings, alone.rings...)
			return also(ctx, tx)
		}}
	}
	s.mu.Lock()
	r := s.running[h.ID]
	s.mu.Unlock()
	err := s.writer.do(ctx, end)
	if err == nil && r != nil && r.held == h {
		r.finished.Store(true)
	}
	return err
}

// Update runs a function in a transaction, under the terms of Finish's also.
func (s *Store) Update(ctx context.Context, do func(ctx context.Context, tx Tx) error) error {
	return s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error { return do(ctx, tx) }})
}

// finishAll ends the attempts of a batch that have nothing else to do in their
// transaction: those that hold, in one statement.
func (t *txn) finishAll(ctx context.Context, batch []*op) error {
	byID := make(map[int64]*op)
	var ids []int64
	for _, o := range batch {
		if o.finish == nil {
			continue
		}
		if _, twice := byID[o.finish.held.ID]; twice {
			o.err = ErrLost // two endings of one job: the first one counts
			continue
		}
		byID[o.finish.held.ID] = o
		ids = append(ids, o.finish.held.ID)
	}
	if len(ids) == 0 {
		return nil
	}
	held, err := t.holders(ctx, ids)
	if err != nil {
		return err
	}
	now := time.Now()
	var endings []ending
	for _, id := range ids {
		o := byID[id]
		h, runs := held[id]
		if !runs || h.fence() != o.finish.held.Attempt {
			o.err = ErrLost
			t.store.stats.lost.Add(1)
			continue
		}
		e := endingOf(o.finish.outcome, h, now)
		endings = append(endings, e)
		t.began(e.job(h), &o.moved, &o.rings)
	}
	return t.end(ctx, endings)
}

// holder is a running job's row, as far as its end needs it.
type holder struct {
	ID        int64  `json:"id"`
	Attempt   int    `json:"attempt"` // as River counts
	Max       int    `json:"max_attempts"`
	Snoozes   int    `json:"snoozes"`
	Kind      string `json:"kind"`
	Queue     string `json:"queue"`
	Parent    int64  `json:"parent"`
	Tenant    string `json:"tenant"`
	Cancelled int    `json:"cancelled"` // 1: somebody asked that it stop
}

// fence is the attempt's number as Job.Attempt tells it: River counts an attempt
// that was put off no more, and its number would be another's.
func (h holder) fence() int { return h.Attempt + h.Snoozes }

// holders returns those of the jobs that run, and keeps others from changing them.
func (t *txn) holders(ctx context.Context, ids []int64) (map[int64]holder, error) {
	d := t.store.dialect
	var text string
	query := d.records([]string{"id", "attempt", "max_attempts", "snoozes", "kind", "queue", "parent", "tenant", "cancelled"},
		"SELECT id, attempt, max_attempts, "+d.snoozes()+" AS snoozes, kind, queue, "+d.parent()+" AS parent, "+d.tenant()+" AS tenant, CASE WHEN "+d.cancelRequested()+" THEN 1 ELSE 0 END AS cancelled"+
			" FROM river_job WHERE state = 'running' AND "+d.among("id", "$1")+" ORDER BY id"+d.lock())
	if err := t.tx.QueryRow(ctx, query, jsonIDs(ids)).Scan(&text); err != nil {
		return nil, err
	}
	var found []holder
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return nil, err
	}
	held := make(map[int64]holder, len(found))
	for _, h := range found {
		held[h.ID] = h
	}
	return held, nil
}

// ending is what the end of an attempt changes in its row: dialect.end applies it.
type ending struct {
	ID          int64           `json:"id"`
	Attempt     *int            `json:"attempt,omitempty"`
	Failure     json.RawMessage `json:"failure,omitempty"`
	FinalizedAt any             `json:"finalized_at,omitempty"`
	ScheduledAt any             `json:"scheduled_at,omitempty"`
	Metadata    map[string]any  `json:"metadata"`
	State       State           `json:"state"`

	at time.Time // when it is over, or to run
}

// endingOf says what an outcome makes of a running job. One that is to stop does not
// run again.
func endingOf(o Outcome, h holder, now time.Time) ending {
	e := ending{ID: h.ID, State: o.state, Metadata: outcomeMetadata(o), at: now}
	switch {
	case o.state == Discarded:
		e.Failure = failureData(now, h.fence(), o.err)
	case o.state.ended():
	case h.Cancelled == 1:
		e.State = Cancelled
	case o.snooze:
		before := h.Attempt - 1
		e.Attempt, e.at = &before, o.runAt
		e.Metadata["snoozes"] = h.Snoozes + 1
	default:
		e.Failure, e.at = failureData(now, h.fence(), o.err), o.runAt
	}
	if !e.State.ended() && e.at.Sub(now) <= soon {
		e.State = Available
	}
	return e
}

// job is what others are told of the job.
func (e *ending) job(h holder) Job {
	return Job{ID: h.ID, Kind: h.Kind, Queue: h.Queue, State: e.State, RunAt: e.at, Facts: Facts{Parent: h.Parent, Tenant: h.Tenant}}
}

// end applies endings of running jobs, which holders locked, in one statement.
func (t *txn) end(ctx context.Context, all []ending) error {
	if len(all) == 0 {
		return nil
	}
	d := t.store.dialect
	ids := make([]int64, len(all))
	for i := range all {
		e := &all[i]
		ids[i] = e.ID
		if e.State.ended() {
			e.FinalizedAt = d.time(e.at)
		} else {
			e.ScheduledAt = d.time(e.at)
		}
	}
	text, err := json.Marshal(all)
	if err != nil {
		return err
	}
	if err := t.tx.Exec(ctx, d.end("$1"), string(text)); err != nil {
		return err
	}
	return t.dropLeases(ctx, ids)
}

// Cancel ends a job that has not ended; of one that runs it asks that it stop.
func (s *Store) Cancel(ctx context.Context, id int64) (Job, error) {
	return change(ctx, s.writer, func(ctx context.Context, tx *txn) (Job, error) { return tx.cancel(ctx, id) })
}

// Retry has a job run again: one that was given up or cancelled begins anew, one
// that waits for its next attempt gets it now. ErrState: it runs or is done.
func (s *Store) Retry(ctx context.Context, id int64) (Job, error) {
	return change(ctx, s.writer, func(ctx context.Context, tx *txn) (Job, error) { return tx.retry(ctx, id) })
}

func (t *txn) retry(ctx context.Context, id int64) (Job, error) {
	before, err := t.Get(ctx, id)
	if err != nil {
		return before, err
	}
	switch before.State {
	case Running, Done, Pending:
		return before, ErrState
	}
	if err := t.tx.Exec(ctx, "UPDATE river_job SET metadata = "+t.store.dialect.forgetCancel()+" WHERE id = $1", id); err != nil {
		return before, err
	}
	now := time.Now()
	row, err := t.tx.JobRetry(ctx, &riverdriver.JobRetryParams{ID: id, Now: &now})
	if isTaken(err) {
		return before, fmt.Errorf("%w: another one that has not ended has its unique key", ErrState)
	}
	if err != nil {
		return before, notFound(err)
	}
	j, err := jobOf(row)
	if err != nil {
		return before, err
	}
	if before.State.waits() {
		t.wait(j.Queue, -1) // began counts it again
	}
	t.began(j, &t.moved, &t.rings)
	return j, nil
}

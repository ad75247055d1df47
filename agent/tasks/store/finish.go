package store

import (
	"context"
	"encoding/json"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// finishing is the end of an attempt.
type finishing struct {
	held    Held
	outcome Outcome
	also    func(ctx context.Context, tx *txn) error
	job     Job // as it is afterwards
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
// fails, nothing happened. ErrLost: the attempt is over already.
func (s *Store) Finish(ctx context.Context, h Held, o Outcome, also func(ctx context.Context, tx Tx) error) error {
	f := &finishing{held: h, outcome: o}
	if also != nil {
		f.also = func(ctx context.Context, tx *txn) error { return also(ctx, tx) }
	}
	s.mu.Lock()
	r := s.running[h.ID]
	s.mu.Unlock()
	err := s.writer.do(ctx, &op{finish: f, bytes: len(o.output)})
	if err == nil && r != nil && r.held == h {
		r.finished.Store(true)
	}
	return err
}

// Update runs a function in a transaction of its own.
func (s *Store) Update(ctx context.Context, do func(ctx context.Context, tx Tx) error) error {
	return s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error { return do(ctx, tx) }})
}

// finishAll ends the attempts of a batch: those that hold, in one statement.
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
	p := &riverdriver.JobSetStateIfRunningManyParams{Now: &now}
	for _, id := range ids {
		o := byID[id]
		if held[id].fence() != o.finish.held.Attempt {
			o.err = ErrLost
			t.store.stats.lost.Add(1)
			continue
		}
		if err := addEnding(p, o.finish, held[id], now); err != nil {
			return err
		}
	}
	if len(p.ID) == 0 {
		return nil
	}
	rows, err := t.tx.JobSetStateIfRunningMany(ctx, p)
	if err != nil {
		return err
	}
	if err := t.dropLeases(ctx, p.ID); err != nil {
		return err
	}
	for _, row := range rows {
		j, err := jobOf(row)
		if err != nil {
			return err
		}
		o := byID[row.ID]
		o.finish.job = j
		t.began(j, &o.moved, &o.rings)
	}
	return nil
}

// holder is who holds a job: which attempt, and how often it was put off before.
type holder struct{ attempt, snoozes int }

// fence is the attempt's number as Job.Attempt tells it: River counts an attempt
// that was put off no more, and its number would be another's.
func (h holder) fence() int { return h.attempt + h.snoozes }

// holders returns those of the jobs that run, and keeps others from changing them.
func (t *txn) holders(ctx context.Context, ids []int64) (map[int64]holder, error) {
	d := t.store.dialect
	list, err := json.Marshal(ids)
	if err != nil {
		return nil, err
	}
	var text string
	query := d.gather("id, attempt, snoozes", "SELECT id, attempt, "+d.snoozes()+" AS snoozes FROM river_job WHERE state = 'running' AND id IN "+d.idList("$1")+" ORDER BY id"+d.lock())
	if err := t.tx.QueryRow(ctx, query, string(list)).Scan(&text); err != nil {
		return nil, err
	}
	var found [][3]int64
	if err := json.Unmarshal([]byte(text), &found); err != nil {
		return nil, err
	}
	held := make(map[int64]holder, len(found))
	for _, f := range found {
		held[f[0]] = holder{int(f[1]), int(f[2])}
	}
	return held, nil
}

// addEnding adds the end of an attempt to a statement.
func addEnding(p *riverdriver.JobSetStateIfRunningManyParams, f *finishing, h holder, now time.Time) error {
	o := f.outcome
	state := rivertype.JobState(o.state)
	metadata := outcomeMetadata(o)
	var attempt *int
	var failure []byte
	var finalized, scheduled *time.Time
	switch {
	case o.state.ended():
		finalized = &now
		if o.state == Discarded {
			failure = failureData(now, f.held.Attempt, o.err)
		}
	case o.snooze:
		before := h.attempt - 1
		attempt, scheduled = &before, &o.runAt
		metadata["snoozes"] = h.snoozes + 1
	default:
		scheduled, failure = &o.runAt, failureData(now, f.held.Attempt, o.err)
	}
	if scheduled != nil && scheduled.Sub(now) <= soon {
		state = rivertype.JobStateAvailable
	}
	data, err := json.Marshal(metadata)
	if err != nil {
		return err
	}
	p.ID = append(p.ID, f.held.ID)
	p.Attempt = append(p.Attempt, attempt)
	p.ErrData = append(p.ErrData, failure)
	p.FinalizedAt = append(p.FinalizedAt, finalized)
	p.MetadataDoMerge = append(p.MetadataDoMerge, true)
	p.MetadataUpdates = append(p.MetadataUpdates, data)
	p.ScheduledAt = append(p.ScheduledAt, scheduled)
	p.State = append(p.State, state)
	return nil
}

// Cancel ends a job that has not ended; of one that runs it asks that it stop.
func (s *Store) Cancel(ctx context.Context, id int64) (Job, error) {
	var j Job
	err := s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) (err error) {
		j, err = tx.cancel(ctx, id)
		return err
	}})
	return j, err
}

// Retry has a job run again: one that was given up or cancelled begins anew, one
// that waits for its next attempt gets it now. ErrState: it runs or is done.
func (s *Store) Retry(ctx context.Context, id int64) (Job, error) {
	var j Job
	err := s.writer.do(ctx, &op{other: func(ctx context.Context, tx *txn) error {
		before, err := tx.Get(ctx, id)
		if err != nil {
			return err
		}
		switch before.State {
		case Running, Done, Pending:
			j = before
			return ErrState
		}
		if err := tx.tx.Exec(ctx, "UPDATE river_job SET metadata = "+s.dialect.forgetCancel()+" WHERE id = $1", id); err != nil {
			return err
		}
		now := time.Now()
		row, err := tx.tx.JobRetry(ctx, &riverdriver.JobRetryParams{ID: id, Now: &now})
		if err != nil {
			return notFound(err)
		}
		if j, err = jobOf(row); err != nil {
			return err
		}
		if before.State.waits() {
			tx.wait(j.Queue, -1) // began counts it again
		}
		tx.began(j, &tx.moved, &tx.rings)
		return nil
	}})
	return j, err
}

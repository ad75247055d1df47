package store

import (
	"context"
	"time"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// wrapped is one of River's drivers, with the few operations that go another way
// here: fetching is fair between tenants and keeps to the store's slots, attempts
// are ended by Finish, what is due is found by an index, and notifications are
// heard in the process without the database.
type wrapped[TTx any] struct {
	riverdriver.Driver[TTx]
	store *Store
}

// GetExecutor implements riverdriver.Driver.
func (w *wrapped[TTx]) GetExecutor() riverdriver.Executor {
	return &executor{w.Driver.GetExecutor(), w.store}
}

// GetListener implements riverdriver.Driver.
func (w *wrapped[TTx]) GetListener(p *riverdriver.GetListenenerParams) riverdriver.Listener {
	return w.store.hub.listener(p.Schema)
}

// SupportsListener implements riverdriver.Driver.
func (w *wrapped[TTx]) SupportsListener() bool { return true }

// SupportsListenNotify implements riverdriver.Driver.
func (w *wrapped[TTx]) SupportsListenNotify() bool { return true }

// UnwrapTx implements riverdriver.Driver.
func (w *wrapped[TTx]) UnwrapTx(tx riverdriver.ExecutorTx) TTx {
	if own, ok := tx.(*executorTx); ok {
		tx = own.ExecutorTx
	}
	return w.Driver.UnwrapTx(tx)
}

// executor is what River's client does its work by.
type executor struct {
	riverdriver.Executor
	store *Store
}

// Begin implements riverdriver.Executor.
func (e *executor) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.Executor.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &executorTx{ExecutorTx: tx, store: e.store}, nil
}

// JobGetAvailable implements riverdriver.Executor.
func (e *executor) JobGetAvailable(ctx context.Context, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	return e.store.fetch(ctx, p)
}

// JobDeleteBefore implements riverdriver.Executor. River's own statement puts all
// that may be deleted in the order of ids for each batch that it deletes.
func (e *executor) JobDeleteBefore(ctx context.Context, p *riverdriver.JobDeleteBeforeParams) (int, error) {
	d := e.store.dialect
	total := 0
	for _, old := range []struct {
		state  State
		delete bool
		before time.Time
	}{
		{Cancelled, p.CancelledDoDelete, p.CancelledFinalizedAtHorizon},
		{Done, p.CompletedDoDelete, p.CompletedFinalizedAtHorizon},
		{Discarded, p.DiscardedDoDelete, p.DiscardedFinalizedAtHorizon},
	} {
		if !old.delete {
			continue
		}
		ids, err := e.store.idsOf(ctx, e, "SELECT id FROM river_job WHERE state = '"+string(old.state)+"' AND finalized_at < $1 ORDER BY finalized_at LIMIT $2", d.time(old.before), p.Max)
		if err != nil {
			return total, err
		}
		if len(ids) == 0 {
			continue
		}
		if err := e.Exec(ctx, "DELETE FROM river_job WHERE state = '"+string(old.state)+"' AND "+d.among("id", "$1"), jsonIDs(ids)); err != nil {
			return total, err
		}
		total += len(ids)
	}
	return total, nil
}

// JobSetStateIfRunningMany implements riverdriver.Executor.
func (e *executor) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	return setState(ctx, e.Executor, p)
}

// NotifyMany implements riverdriver.Executor.
func (e *executor) NotifyMany(ctx context.Context, p *riverdriver.NotifyManyParams) error {
	if e.store.options.Postgres != nil {
		return e.Executor.NotifyMany(ctx, p) // it comes back by ear
	}
	e.store.hub.publish(p.Topic, p.Payload...)
	return nil
}

// executorTx is a transaction of River's client.
type executorTx struct {
	riverdriver.ExecutorTx
	store *Store
	told  []riverdriver.NotifyManyParams // once it is committed
	rings []ring
}

// Begin implements riverdriver.Executor.
func (e *executorTx) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.ExecutorTx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &executorTx{ExecutorTx: tx, store: e.store}, nil
}

// Commit implements riverdriver.ExecutorTx.
func (e *executorTx) Commit(ctx context.Context) error {
	if err := e.ExecutorTx.Commit(ctx); err != nil {
		return err
	}
	for _, p := range e.told {
		e.store.hub.publish(p.Topic, p.Payload...)
	}
	for _, r := range e.rings {
		e.store.alarms.at(r.queue, r.at)
	}
	return nil
}

// JobSetStateIfRunningMany implements riverdriver.Executor.
func (e *executorTx) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	return setState(ctx, e.ExecutorTx, p)
}

// NotifyMany implements riverdriver.Executor.
func (e *executorTx) NotifyMany(ctx context.Context, p *riverdriver.NotifyManyParams) error {
	if e.store.options.Postgres != nil {
		return e.ExecutorTx.NotifyMany(ctx, p)
	}
	e.told = append(e.told, *p)
	return nil
}

// JobSchedule implements riverdriver.Executor. River's own statement looks at all
// that is scheduled, however far ahead. Two of the same unique key can't be among
// what waits: the key holds in each of these states. What becomes available ahead
// of its time gets an alarm.
func (e *executorTx) JobSchedule(ctx context.Context, p *riverdriver.JobScheduleParams) ([]*riverdriver.JobScheduleResult, error) {
	d := e.store.dialect
	ids, err := e.store.idsOf(ctx, e.ExecutorTx, "SELECT id FROM river_job WHERE state IN ('retryable', 'scheduled') AND scheduled_at <= $1 ORDER BY scheduled_at LIMIT $2"+d.skip(), d.time(*p.Now), p.Max)
	if err != nil || len(ids) == 0 {
		return nil, err
	}
	if err := e.Exec(ctx, "UPDATE river_job SET state = 'available' WHERE state IN ('retryable', 'scheduled') AND "+d.among("id", "$1"), jsonIDs(ids)); err != nil {
		return nil, err
	}
	rows, err := e.JobGetByIDMany(ctx, &riverdriver.JobGetByIDManyParams{ID: ids})
	if err != nil {
		return nil, err
	}
	results := make([]*riverdriver.JobScheduleResult, len(rows))
	for i, row := range rows {
		results[i] = &riverdriver.JobScheduleResult{Job: *row}
		e.rings = append(e.rings, ring{row.Queue, row.ScheduledAt})
	}
	return results, nil
}

// setState ends attempts for River's client. Those that it takes for completed were
// ended by Finish; what is left is what it could not even begin, such as a row that
// can't be read.
func setState(ctx context.Context, e riverdriver.Executor, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	left := &riverdriver.JobSetStateIfRunningManyParams{Now: p.Now, Schema: p.Schema}
	for i, state := range p.State {
		if state == rivertype.JobStateCompleted {
			continue
		}
		left.ID = append(left.ID, p.ID[i])
		left.Attempt = append(left.Attempt, p.Attempt[i])
		left.ErrData = append(left.ErrData, p.ErrData[i])
		left.FinalizedAt = append(left.FinalizedAt, p.FinalizedAt[i])
		left.MetadataDoMerge = append(left.MetadataDoMerge, p.MetadataDoMerge[i])
		left.MetadataUpdates = append(left.MetadataUpdates, p.MetadataUpdates[i])
		left.ScheduledAt = append(left.ScheduledAt, p.ScheduledAt[i])
		left.State = append(left.State, state)
	}
	if len(left.ID) == 0 {
		return nil, nil
	}
	return e.JobSetStateIfRunningMany(ctx, left)
}

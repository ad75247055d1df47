package store

import (
	"context"

	"github.com/riverqueue/river/riverdriver"
	"github.com/riverqueue/river/rivertype"
)

// wrapped is one of River's drivers, with the few operations that go another way
// here: fetching is fair between tenants, attempts are ended by Finish, and
// notifications stay in the process where the database is.
type wrapped[TTx any] struct {
	riverdriver.Driver[TTx]
	store *Store
	// inside: nobody else uses the database, so that notifications need not leave.
	inside bool
}

// GetExecutor implements riverdriver.Driver.
func (w *wrapped[TTx]) GetExecutor() riverdriver.Executor {
	return &executor{w.Driver.GetExecutor(), w.store, w.inside}
}

// GetListener implements riverdriver.Driver.
func (w *wrapped[TTx]) GetListener(p *riverdriver.GetListenenerParams) riverdriver.Listener {
	if w.inside {
		return w.store.hub.listener(p.Schema)
	}
	return w.Driver.GetListener(p)
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
	store  *Store
	inside bool
}

// Begin implements riverdriver.Executor.
func (e *executor) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.Executor.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &executorTx{ExecutorTx: tx, store: e.store, inside: e.inside}, nil
}

// JobGetAvailable implements riverdriver.Executor.
func (e *executor) JobGetAvailable(ctx context.Context, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	return e.store.fetch(ctx, e.Executor, p)
}

// JobSetStateIfRunningMany implements riverdriver.Executor.
func (e *executor) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	return setState(ctx, e.Executor, p)
}

// NotifyMany implements riverdriver.Executor.
func (e *executor) NotifyMany(ctx context.Context, p *riverdriver.NotifyManyParams) error {
	if e.inside {
		e.store.hub.publish(p.Topic, p.Payload...)
		return nil
	}
	return e.Executor.NotifyMany(ctx, p)
}

// executorTx is a transaction of River's client.
type executorTx struct {
	riverdriver.ExecutorTx
	store  *Store
	inside bool
	told   []riverdriver.NotifyManyParams // once it is committed
	rings  []func()
}

// Begin implements riverdriver.Executor.
func (e *executorTx) Begin(ctx context.Context) (riverdriver.ExecutorTx, error) {
	tx, err := e.ExecutorTx.Begin(ctx)
	if err != nil {
		return nil, err
	}
	return &executorTx{ExecutorTx: tx, store: e.store, inside: e.inside}, nil
}

// Commit implements riverdriver.ExecutorTx.
func (e *executorTx) Commit(ctx context.Context) error {
	if err := e.ExecutorTx.Commit(ctx); err != nil {
		return err
	}
	for _, p := range e.told {
		e.store.hub.publish(p.Topic, p.Payload...)
	}
	for _, ring := range e.rings {
		ring()
	}
	return nil
}

// JobGetAvailable implements riverdriver.Executor.
func (e *executorTx) JobGetAvailable(ctx context.Context, p *riverdriver.JobGetAvailableParams) (*riverdriver.JobGetAvailableResult, error) {
	return e.store.fetch(ctx, e.ExecutorTx, p)
}

// JobSetStateIfRunningMany implements riverdriver.Executor.
func (e *executorTx) JobSetStateIfRunningMany(ctx context.Context, p *riverdriver.JobSetStateIfRunningManyParams) ([]*rivertype.JobRow, error) {
	return setState(ctx, e.ExecutorTx, p)
}

// NotifyMany implements riverdriver.Executor.
func (e *executorTx) NotifyMany(ctx context.Context, p *riverdriver.NotifyManyParams) error {
	if e.inside {
		e.told = append(e.told, *p)
		return nil
	}
	return e.ExecutorTx.NotifyMany(ctx, p)
}

// JobSchedule implements riverdriver.Executor: what it made available ahead of its
// time gets an alarm.
func (e *executorTx) JobSchedule(ctx context.Context, p *riverdriver.JobScheduleParams) ([]*riverdriver.JobScheduleResult, error) {
	results, err := e.ExecutorTx.JobSchedule(ctx, p)
	for _, r := range results {
		if !r.ConflictDiscarded {
			queue, at := r.Job.Queue, r.Job.ScheduledAt
			e.rings = append(e.rings, func() { e.store.alarms.at(queue, at) })
		}
	}
	return results, err
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

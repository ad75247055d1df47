package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// CancelTask ends a task that has not ended.
func (e *Executor) CancelTask(ctx context.Context, r *outriggerv1.CancelTaskRequest) (*outriggerv1.CancelTaskResponse, error) {
	j, kept, err := e.named(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	switch {
	case hasEnded(j.State):
	case j.Kind == KindChain:
		err = e.cancelChain(ctx, kept, j.ID)
	case j.Facts.Step != "":
		err = e.cancelStep(ctx, kept, j.ID)
	default:
		_, err = kept.Cancel(ctx, j.ID)
	}
	if err != nil && !errors.Is(err, store.ErrState) { // it has ended meanwhile
		return nil, asStatus(err)
	}
	e.sessions.cancelled(j.ID)
	now, err := kept.Get(ctx, j.ID)
	if err != nil {
		return nil, asStatus(err)
	}
	if hasEnded(now.State) && !hasEnded(j.State) && now.State == store.Cancelled {
		e.recordEnd(e.kinds.of(now.Kind), &now, Cancelled, e.now())
	}
	return &outriggerv1.CancelTaskResponse{Task: e.show(&now)}, nil
}

// cancelStep ends a step's task, and its chain learns of it at once.
func (e *Executor) cancelStep(ctx context.Context, kept Store, id int64) error {
	var end *chainEnd
	err := kept.Update(ctx, func(ctx context.Context, tx store.Tx) error {
		if err := tx.Cancel(ctx, id); err != nil {
			return err
		}
		j, err := tx.Get(ctx, id)
		if err != nil || !hasEnded(j.State) {
			return err // one that runs ends when it has stopped
		}
		end, err = e.stepEnded(ctx, tx, &j, stopped(cancelledWhy), nil)
		return err
	})
	if err == nil {
		e.chainEnded(end)
	}
	return err
}

// RetryTask runs a task again.
func (e *Executor) RetryTask(ctx context.Context, r *outriggerv1.RetryTaskRequest) (*outriggerv1.RetryTaskResponse, error) {
	j, kept, err := e.named(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	refused := func(why string) error {
		return status.Errorf(codes.FailedPrecondition, "task %s can't be run again: %s", r.GetId(), why)
	}
	switch {
	case j.State == store.Done:
		return nil, refused("it COMPLETED")
	case j.State == store.Running || j.State == store.Pending:
		return nil, refused("it runs")
	case j.Facts.Step != "" && hasEnded(j.State):
		return nil, refused("it is a step that has ended, and its chain goes by that; retry the chain, " + FormatID(j.Facts.Parent))
	case !j.Facts.Deadline.IsZero() && !e.now().Before(j.Facts.Deadline):
		return nil, refused("its deadline has passed; submit it anew")
	case j.Kind == KindChain:
		err = e.retryChain(ctx, kept, &j)
	default:
		_, err = kept.Retry(ctx, j.ID)
	}
	if errors.Is(err, store.ErrState) {
		return nil, refused("it runs or has completed by now")
	}
	if err != nil {
		return nil, asStatus(err)
	}
	now, err := kept.Get(ctx, j.ID)
	if err != nil {
		return nil, asStatus(err)
	}
	return &outriggerv1.RetryTaskResponse{Task: e.show(&now)}, nil
}

// named returns the task that a request names.
func (e *Executor) named(ctx context.Context, text string) (store.Job, Store, error) {
	kept, err := e.kept()
	if err != nil {
		return store.Job{}, nil, err
	}
	id, err := ParseID(text)
	if err != nil {
		return store.Job{}, nil, badID("id", text)
	}
	j, err := kept.Get(ctx, id)
	return j, kept, asStatus(err)
}

// endedStates are the states of what may be deleted.
var endedStates = []store.State{store.Done, store.Discarded, store.Cancelled}

// PurgeTasks deletes tasks that have ended.
func (e *Executor) PurgeTasks(ctx context.Context, r *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error) {
	if r.GetId() != "" {
		return e.purgeOne(ctx, r)
	}
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	f := store.PurgeFilter{Kind: r.GetKind(), Queue: r.GetQueue()}
	for _, s := range endedStates {
		if len(r.GetStates()) == 0 || slices.Contains(r.GetStates(), states[s]) {
			f.States = append(f.States, s)
		}
	}
	if t := r.GetEndedBefore(); t != nil {
		if err := t.CheckValid(); err != nil {
			return nil, invalid(&FieldError{"ended_before", "is no time"})
		}
		f.EndedBefore = t.AsTime()
	}
	n, err := kept.Purge(ctx, f)
	if err != nil {
		return nil, asStatus(err)
	}
	return &outriggerv1.PurgeTasksResponse{Purged: uint64(n)}, nil
}

func (e *Executor) purgeOne(ctx context.Context, r *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error) {
	if len(r.GetStates()) > 0 || r.GetKind() != "" || r.GetQueue() != "" || r.GetEndedBefore() != nil {
		return nil, invalid(&FieldError{"id", "is given together with states, kind, queue or ended_before; want it alone"})
	}
	j, kept, err := e.named(ctx, r.GetId())
	if err != nil {
		return nil, err
	}
	if !hasEnded(j.State) {
		return nil, status.Errorf(codes.FailedPrecondition, "task %s has not ended: it is %s; cancel it first", r.GetId(), states[j.State])
	}
	n, err := kept.Purge(ctx, store.PurgeFilter{ID: j.ID, States: endedStates})
	if err != nil {
		return nil, asStatus(err)
	}
	return &outriggerv1.PurgeTasksResponse{Purged: uint64(n)}, nil
}

// overdueMost is how many tasks past their deadline are given up in a round.
const overdueMost = 500

// giveUpOverdue gives up tasks that waited past their deadline: nobody may ever
// lease or run them.
func (e *Executor) giveUpOverdue(ctx context.Context, kept Store) error {
	now := e.now()
	jobs, err := kept.Overdue(ctx, now, overdueMost)
	if err != nil {
		return fmt.Errorf("tasks past their deadline can't be looked for: %w", err)
	}
	for i := range jobs {
		j := &jobs[i]
		if j.Kind == KindSchedule { // it ends when it is due
			continue
		}
		p := overdue(j.Facts.Deadline)
		var end *chainEnd
		err := kept.Update(ctx, func(ctx context.Context, tx store.Tx) (err error) {
			if j.Kind == KindChain {
				end, err = e.chainOverdue(ctx, tx, j.ID, p.why)
				return err
			}
			if err := tx.End(ctx, j.ID, p.outcome); err != nil {
				return err
			}
			if j.Facts.Step != "" {
				end, err = e.stepEnded(ctx, tx, j, p, nil)
			}
			return err
		})
		switch {
		case errors.Is(err, store.ErrState), errors.Is(err, store.ErrNotFound): // somebody was faster
		case err != nil:
			return fmt.Errorf("task %s, which is past its deadline, can't be given up: %w", FormatID(j.ID), err)
		default:
			e.chainEnded(end)
			if j.Kind != KindChain {
				e.record(j, p, 0, 0)
			}
		}
	}
	return nil
}

package tasks

import (
	"context"
	"fmt"
	"slices"

	"github.com/outrigger-rpc/outrigger/agent/tasks/chain"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// stepOf returns whether a step of a chain has ended, and what it gave if it is
// done.
func (e *Executor) stepOf(j *store.Job, step string) (ended bool, output *outriggerv1.Payload, err error) {
	if j.Kind != KindChain {
		return false, nil, invalid(&FieldError{"step", fmt.Sprintf("task %s is of kind %q and has no steps", FormatID(j.ID), j.Kind)})
	}
	at, err := e.progressOf(j)
	if err != nil {
		return false, nil, asStatus(err)
	}
	if !slices.Contains(at.Names, step) {
		return false, nil, invalid(&FieldError{"step", fmt.Sprintf("the chain has no step %q; %s", step, known(at.Names))})
	}
	s := at.State.Steps[step]
	switch s.Status {
	case chain.StatusWaiting, chain.StatusStarted:
		return false, nil, nil
	case chain.StatusDone:
		output = payloadOf(s.Output)
	}
	return true, output, nil
}

// showSteps returns a chain's steps as the API shows them; what can't be read shows
// none.
func (e *Executor) showSteps(j *store.Job) (all []*outriggerv1.TaskStep) {
	at, err := e.progressOf(j)
	if err != nil {
		return nil
	}
	for _, name := range at.Names {
		s := at.State.Steps[name]
		if s == nil {
			continue
		}
		step := &outriggerv1.TaskStep{Name: name, State: string(s.Status), Error: short(s.Error)}
		if id := at.Tasks[name]; id != 0 {
			step.Task = FormatID(id)
		}
		if id := at.Undo[name]; id != 0 {
			step.Compensation = FormatID(id)
		}
		all = append(all, step)
	}
	return all
}

// cancelChain lets no more steps begin, stops those that run, and undoes what is
// done.
func (e *Executor) cancelChain(ctx context.Context, kept Store, id int64) error {
	var running []int64
	var end *chainEnd
	err := kept.Update(ctx, func(ctx context.Context, tx store.Tx) error {
		parent, err := tx.Get(ctx, id)
		if err != nil || parent.State != store.Pending {
			return err
		}
		running = nil
		if at, err := e.progressOf(&parent); err == nil {
			for _, task := range at.Tasks {
				running = append(running, task)
			}
		}
		end, err = e.tell(ctx, tx, &parent, chain.Event{Kind: chain.Cancel, Error: cancelledWhy})
		return err
	})
	if err == nil {
		e.chainEnded(end)
	}
	for _, task := range running {
		e.sessions.cancelled(task)
	}
	return err
}

// retryChain has a chain that failed or was cancelled go on: what is done stays
// done, everything else is done again.
func (e *Executor) retryChain(ctx context.Context, kept Store, j *store.Job) error {
	var end *chainEnd
	err := kept.Update(ctx, func(ctx context.Context, tx store.Tx) error {
		parent, err := tx.Get(ctx, j.ID)
		if err != nil {
			return err
		}
		if !hasEnded(parent.State) || parent.State == store.Done {
			return store.ErrState
		}
		u, err := e.resume(&parent)
		if err != nil {
			return err
		}
		state, d, err := u.program.Retry(u.at.State)
		if err != nil {
			return err
		}
		u.at.State = state
		if err := tx.Reopen(ctx, parent.ID); err != nil {
			return err
		}
		if err := u.follow(ctx, tx, d); err != nil {
			return err
		}
		end, err = u.keep(ctx, tx, &parent)
		return err
	})
	if err == nil {
		e.chainEnded(end)
	}
	return err
}

// chainOverdue ends a chain whose deadline has passed.
func (e *Executor) chainOverdue(ctx context.Context, tx store.Tx, id int64, why string) (*chainEnd, error) {
	parent, err := tx.Get(ctx, id)
	if err != nil || parent.State != store.Pending {
		return nil, err
	}
	at, err := e.progressOf(&parent)
	if err == nil && at.State.Phase != chain.Running {
		return nil, nil // it ends already, and undoes what it did
	}
	return e.tell(ctx, tx, &parent, chain.Event{Kind: chain.Fail, Error: why})
}

package tasks

import (
	"context"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// follow calls look with the task, at once and whenever it may have changed, until
// look says that it has seen enough.
func (e *Executor) follow(ctx context.Context, text string, look func(*store.Job) (enough bool, err error)) error {
	kept, err := e.kept()
	if err != nil {
		return err
	}
	id, err := ParseID(text)
	if err != nil {
		return badID("id", text)
	}
	wake, done, ok := e.waiters.add(id)
	if !ok {
		return status.Errorf(codes.ResourceExhausted, "%d requests wait for tasks already, and no more may; end one of them", maxWaiters)
	}
	defer done()
	for {
		j, err := kept.Get(ctx, id)
		if err != nil {
			return asStatus(err)
		}
		if enough, err := look(&j); enough || err != nil {
			return err
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return status.FromContextError(ctx.Err()).Err()
		case <-e.stopping:
			_, err := e.kept()
			return err
		}
	}
}

func badID(field, text string) error {
	return invalid(&FieldError{field, fmt.Sprintf("%q is no task: %v", text, errID)})
}

// WaitTask waits until a task, or a step of it, has ended.
func (e *Executor) WaitTask(ctx context.Context, r *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	out := &outriggerv1.WaitTaskResponse{}
	err := e.follow(ctx, r.GetId(), func(j *store.Job) (bool, error) {
		if r.GetStep() != "" {
			ended, output, err := e.stepOf(j, r.GetStep())
			if err != nil {
				return false, err
			}
			if !ended && !hasEnded(j.State) {
				return false, nil
			}
			out.StepOutput = output
		} else if !hasEnded(j.State) {
			return false, nil
		}
		var err error
		out.Task, err = e.showWhole(j, true)
		return true, asStatus(err)
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// WatchTask sends a task whenever it changed, until it has ended.
func (e *Executor) WatchTask(ctx context.Context, r *outriggerv1.WatchTaskRequest, send func(*outriggerv1.WatchTaskResponse) error) error {
	var last *outriggerv1.Task
	return e.follow(ctx, r.GetId(), func(j *store.Job) (bool, error) {
		now, err := e.showWhole(j, false)
		if err != nil {
			return false, asStatus(err)
		}
		if !proto.Equal(now, last) {
			last = now
			if err := send(&outriggerv1.WatchTaskResponse{Task: now}); err != nil {
				return false, err
			}
		}
		return hasEnded(j.State), nil
	})
}

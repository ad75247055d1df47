package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// ErrNotCompleted is a task that ended without being done; Error says which.
var ErrNotCompleted = errors.New("the task was not completed")

// Error is a task that FAILED or was CANCELLED. It wraps ErrNotCompleted.
type Error struct{ Task *outriggerv1.Task }

// Error says which task, and why.
func (e *Error) Error() string {
	text := fmt.Sprintf("task %s (%s) %s", e.Task.GetId(), e.Task.GetKind(), e.Task.GetState())
	if why := e.Task.GetError(); why != "" {
		text += ": " + why
	}
	return text
}

// Unwrap returns ErrNotCompleted.
func (e *Error) Unwrap() error { return ErrNotCompleted }

// Submit hands a task over. When it returns without an error the task is on disk.
// An error that can be tried again (UNAVAILABLE, RESOURCE_EXHAUSTED) says so by its
// status; with a Key it is safe to.
func (c *Client) Submit(ctx context.Context, work *outriggerv1.TaskSpec, o Options) (*outriggerv1.Task, error) {
	if err := errors.Join(o.check(), writable("the task", work)); err != nil {
		return nil, err
	}
	answer, err := c.api.SubmitTask(ctx, &outriggerv1.SubmitTaskRequest{Task: o.spec(proto.CloneOf(work)), IdempotencyKey: o.Key}, largeAnswers)
	return answer.GetTask(), err
}

// writable tells of payloads that JSON could not write, steps' included.
func writable(what string, work *outriggerv1.TaskSpec) error {
	if p := work.GetApp().GetPayload(); p.GetContentType() == unwritable {
		return fmt.Errorf("%s: the payload can't be written as JSON: %s", what, p.GetData())
	}
	chain := work.GetChain()
	if p := chain.GetInput(); p.GetContentType() == unwritable {
		return fmt.Errorf("%s: the chain's input can't be written as JSON: %s", what, p.GetData())
	}
	for _, s := range chain.GetSteps() {
		err := errors.Join(writable("step "+s.GetName(), s.GetTask()), writable("the compensation of step "+s.GetName(), s.GetCompensation().GetTask()))
		if err != nil {
			return err
		}
	}
	return nil
}

// Wait returns a task once it has ended, with its result. One that was not done is
// an *Error, and is returned too. An agent that restarts meanwhile is waited for,
// until ctx ends.
func (c *Client) Wait(ctx context.Context, id string) (*outriggerv1.Task, error) {
	answer, err := c.wait(ctx, &outriggerv1.WaitTaskRequest{Id: id})
	if err != nil {
		return nil, err
	}
	t := answer.GetTask()
	if t.GetState() != outriggerv1.TaskState_COMPLETED {
		return t, &Error{t}
	}
	return t, nil
}

// WaitStep returns what a step of a chain gave, once it is done: the chain may go
// on. A chain that ends before it is an *Error.
func (c *Client) WaitStep(ctx context.Context, id, step string) (*outriggerv1.Payload, error) {
	answer, err := c.wait(ctx, &outriggerv1.WaitTaskRequest{Id: id, Step: step})
	if err != nil {
		return nil, err
	}
	for _, s := range answer.GetTask().GetSteps() {
		if s.GetName() == step && (s.GetState() == "DONE" || s.GetState() == "SKIPPED") {
			return answer.GetStepOutput(), nil
		}
	}
	return nil, &Error{answer.GetTask()}
}

// largestAnswer is what an answer may have, in bytes: a task's content may have 16
// MiB, and a chain has many; grpc alone would take 4 MiB.
const largestAnswer = 256 << 20

var largeAnswers = grpc.MaxCallRecvMsgSize(largestAnswer)

// wait asks again where the agent went away, until ctx ends.
func (c *Client) wait(ctx context.Context, request *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	for {
		answer, err := c.api.WaitTask(ctx, request, largeAnswers)
		if err == nil {
			return answer, nil
		}
		ended := ctx.Err()
		switch status.Code(err) {
		case codes.DeadlineExceeded: // the agent's clock may be ahead of ctx
			ended = context.DeadlineExceeded
		case codes.Unavailable:
			select {
			case <-ctx.Done():
				ended = ctx.Err()
			case <-time.After(reconnectAfter):
				continue
			}
		}
		if ended != nil {
			return nil, fmt.Errorf("waiting for task %s: %w (%w)", request.GetId(), ended, err)
		}
		return nil, err
	}
}

// Result reads what came of a task that Wait returned, or a step's output, as JSON
// into v.
func Result(p *outriggerv1.Payload, v any) error {
	if err := json.Unmarshal(p.GetData(), v); err != nil {
		return fmt.Errorf("the result (%d bytes, %q) is no JSON for a %T: %w", len(p.GetData()), p.GetContentType(), v, err)
	}
	return nil
}

package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// maxOnStream is the largest end of a task that is told by a stream, in bytes: one
// that is too large for the agent would end the stream, and every lease with it. A
// larger one is told by a call, which it costs alone.
const maxOnStream = 1 << 20

// lease names one attempt.
type lease struct {
	id      string
	attempt uint32
}

func leaseOf(m *outriggerv1.TaskLease) lease { return lease{m.GetId(), m.GetAttempt()} }

func (l lease) message() *outriggerv1.TaskLease {
	return &outriggerv1.TaskLease{Id: l.id, Attempt: l.attempt}
}

// work is a task under way.
type work struct {
	ctx    context.Context
	cancel context.CancelCauseFunc
	from   *stream // who it came by renews it and hears of its end, as long as that is open
}

// start does a task that came.
func (r *running) start(from *stream, t *outriggerv1.LeasedTask) {
	w := &work{from: from}
	w.ctx, w.cancel = context.WithCancelCause(context.Background())
	l := lease{t.GetId(), t.GetAttempt()}
	r.mu.Lock()
	r.free--
	r.held[l] = w
	r.mu.Unlock()
	r.tasks.Go(func() {
		result, err := r.do(w, t)
		if errors.Is(context.Cause(w.ctx), ErrLost) {
			r.logger.Warn("a task's lease was over before it was done: it may be done again", "kind", t.GetKind(), "id", l.id, "attempt", l.attempt)
		} else {
			r.end(w, l, result, err)
		}
		w.cancel(nil)
		r.release(l)
	})
}

// release makes room for another task.
func (r *running) release(l lease) {
	r.mu.Lock()
	delete(r.held, l)
	r.free++
	s, stopping := r.stream, r.stopping
	r.idled()
	r.mu.Unlock()
	if s != nil && !stopping {
		s.more(1)
	}
}

// do runs the handler.
func (r *running) do(w *work, t *outriggerv1.LeasedTask) (result *outriggerv1.Payload, err error) {
	ctx := w.ctx
	if d := t.GetDeadline(); d != nil {
		var release context.CancelFunc
		ctx, release = context.WithDeadline(ctx, d.AsTime())
		defer release()
	}
	defer func() {
		if p := recover(); p != nil {
			result, err = nil, fmt.Errorf("the handler panicked: %v", p)
			r.logger.Error("a task's handler panicked", "kind", t.GetKind(), "id", t.GetId(), "panic", p, "stack", string(debug.Stack()))
		}
		var said *failure
		if err != nil && errors.Is(context.Cause(w.ctx), ErrStopped) && !errors.As(err, &said) {
			err = Snooze(0, "the worker stopped before it was done: "+err.Error())
		}
	}()
	handler := r.worker.Kinds[t.GetKind()]
	if handler == nil {
		return nil, Snooze(time.Minute, "worker "+r.name+" does not know the kind "+t.GetKind())
	}
	result, err = handler(ctx, t)
	if problem := unfit(result); err == nil && problem != nil {
		err = Permanent(problem)
	}
	return result, err
}

// end tells the agent how a task ended, again until it has an answer.
func (r *running) end(w *work, l lease, result *outriggerv1.Payload, err error) {
	complete := &outriggerv1.CompleteTaskRequest{Lease: l.message(), Result: result}
	fail := failed(l, err)
	for {
		refused := r.tell(w, l, complete, fail)
		switch status.Code(refused) {
		case codes.OK:
			return
		case codes.InvalidArgument, codes.ResourceExhausted:
			if fail == nil { // another attempt would give the same
				fail = failed(l, Permanent(fmt.Errorf("the agent does not take its result: %s", status.Convert(refused).Message())))
				continue
			}
		case codes.Unavailable, codes.DeadlineExceeded:
			select {
			case <-time.After(reconnectAfter):
				continue
			case <-r.telling.Done():
			}
		}
		r.logger.Warn("the agent does not take how a task ended: it may be done again", "id", l.id, "attempt", l.attempt, "error", refused)
		return
	}
}

// tell does so once: by the stream that the task came by, or by a call where that is
// gone.
func (r *running) tell(w *work, l lease, complete *outriggerv1.CompleteTaskRequest, fail *outriggerv1.FailTaskRequest) error {
	request := &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Complete{Complete: complete}}
	if fail != nil {
		request.Say = &outriggerv1.WorkRequest_Fail{Fail: fail}
	}
	if w.from.isOpen() && proto.Size(request) <= maxOnStream {
		if answered, refused := w.from.tell(l, request); answered {
			return refused
		}
	}
	ctx, cancel := context.WithTimeout(r.telling, endTimeout)
	defer cancel()
	var err error
	if fail != nil {
		_, err = r.api.FailTask(ctx, fail)
	} else {
		_, err = r.api.CompleteTask(ctx, complete)
	}
	return err
}

// cancel ends a handler's context.
func (r *running) cancel(l lease, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.held[l]; w != nil {
		w.cancel(why)
	}
}

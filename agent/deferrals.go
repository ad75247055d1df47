package agent

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/agent/tasks"
	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// maxDeferring is how many deferred calls may wait for the store at once;
	// those that come together commit together.
	maxDeferring = 1024
	// deferTimeout bounds what one waits, a moment longer than the relay does.
	deferTimeout = 11 * time.Second
	// deferRetryAfter is the advice where the store does not give its own.
	deferRetryAfter = time.Second
)

// deferrals hands the calls that the relay keeps for later to the task executor.
// It implements relay.Deferrer.
type deferrals struct {
	executor atomic.Pointer[tasks.Executor] // nil: it has not started
	ctx      context.Context                // of all that wait for the store
	cancel   context.CancelFunc

	mu      sync.Mutex
	n       int // that wait
	closed  bool
	waiting sync.WaitGroup // Add under mu unless closed
}

func newDeferrals() *deferrals {
	d := &deferrals{}
	d.ctx, d.cancel = context.WithCancel(context.Background())
	return d
}

// Defer implements relay.Deferrer: a call waits for the store on a goroutine of
// its own.
func (d *deferrals) Defer(call relay.DeferredCall, done func(id string, refused *policy.Refusal)) {
	executor := d.executor.Load()
	if executor == nil {
		done("", &policy.Refusal{Reason: policy.TaskStore, Message: "the task executor starts", RetryAfter: deferRetryAfter})
		return
	}
	if !d.enter() {
		done("", &policy.Refusal{Reason: policy.TaskQueueFull, Message: fmt.Sprintf("%d calls wait for the task store already", maxDeferring), RetryAfter: deferRetryAfter})
		return
	}
	go func() {
		defer d.leave()
		ctx, cancel := context.WithTimeout(d.ctx, deferTimeout)
		defer cancel()
		id, err := executor.Defer(ctx, tasks.Deferred{
			Service: call.Service, Method: call.Method, Metadata: call.Metadata, Message: call.Message, IdempotencyKey: call.IdempotencyKey, Traceparent: call.Traceparent})
		if err != nil {
			done("", notKept(err))
			return
		}
		done(id, nil)
	}()
}

func (d *deferrals) enter() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || d.n >= maxDeferring {
		return false
	}
	d.n++
	d.waiting.Add(1)
	return true
}

func (d *deferrals) leave() {
	d.mu.Lock()
	d.n--
	d.mu.Unlock()
	d.waiting.Done()
}

// close gives up what still waits. nil is fine.
func (d *deferrals) close() {
	if d == nil {
		return
	}
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	d.cancel()
	d.waiting.Wait()
}

// notKept is what the caller of a call is told that the executor does not keep.
func notKept(err error) *policy.Refusal {
	s := status.Convert(err)
	r := &policy.Refusal{Message: s.Message()}
	var reason string
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			reason = detail.GetReason()
		case *errdetails.RetryInfo:
			r.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	switch {
	case reason == tasks.ReasonQueueFull:
		r.Reason = policy.TaskQueueFull
	case reason == policy.Draining.String():
		r.Reason = policy.Draining
	case reason == tasks.ReasonStore || s.Code() == codes.Unavailable || s.Code() == codes.Canceled || s.Code() == codes.DeadlineExceeded:
		r.Reason = policy.TaskStore
	default:
		r.Reason, r.Status = policy.NotDeferrable, policy.Code(s.Code())
	}
	if r.RetryAfter == 0 && r.Reason != policy.NotDeferrable {
		r.RetryAfter = deferRetryAfter
	}
	return r
}

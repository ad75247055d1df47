package agent

import (
	"context"
	"sync"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/agent/tasks"
	"github.com/outrigger-rpc/outrigger/policy"
)

// deferrer gives the data plane's calls that are kept for later to the task
// executor. It implements relay.Deferrer.
type deferrer struct {
	agent   *Agent
	storing sync.WaitGroup
}

// Defer implements relay.Deferrer. Calls that come together are committed together,
// so that a goroutine a call is all that it takes; the relay bounds how many there
// are.
func (d *deferrer) Defer(call relay.DeferredCall, done func(id string, refused *policy.Refusal)) {
	d.storing.Go(func() {
		id, err := d.agent.tasks.executor.Defer(context.Background(), tasks.Deferred{
			Service: call.Service, Method: call.Method, Metadata: call.Metadata, Message: call.Message,
			IdempotencyKey: call.IdempotencyKey, Traceparent: call.Traceparent,
		})
		if err != nil {
			done("", notKept(call.Service, err))
			return
		}
		done(id, nil)
	})
}

// notKept makes a refusal of the executor's.
func notKept(service string, err error) *policy.Refusal {
	s := status.Convert(err)
	r := &policy.Refusal{Reason: policy.NotDeferrable, Service: service, Policy: "defer", Message: s.Message(), Status: policy.Code(s.Code())}
	for _, detail := range s.Details() {
		switch detail := detail.(type) {
		case *errdetails.ErrorInfo:
			switch detail.GetReason() {
			case policy.TaskQueueFull.String():
				r.Reason, r.Status = policy.TaskQueueFull, policy.OK
			case policy.TaskStore.String():
				r.Reason, r.Status = policy.TaskStore, policy.OK
			}
		case *errdetails.RetryInfo:
			r.RetryAfter = detail.GetRetryDelay().AsDuration()
		}
	}
	return r
}

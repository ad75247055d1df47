package tasks

import (
	"cmp"
	"context"
	"slices"

	"google.golang.org/grpc/metadata"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Deferred is a unary call that is kept for later.
type Deferred struct {
	// Service, Method and Message are the call's; see Call.
	Service, Method string
	Message         []byte
	// Metadata goes with it, values of "-bin" keys in base64.
	Metadata []policy.Field
	// IdempotencyKey makes a second one with the same content the same task; empty:
	// each is a task of its own.
	IdempotencyKey string
	// Traceparent is the caller's; empty: it told none.
	Traceparent string
}

// Defer keeps a unary call as a grpc task of the queue "default". When it returns
// the task's id, the task is on disk. An error is a gRPC status. Metadata that the
// transport or the agent sets is left out.
func (e *Executor) Defer(ctx context.Context, d Deferred) (id string, err error) {
	w := &outriggerv1.GrpcWork{Service: d.Service, Method: d.Method, Message: d.Message}
	fields := slices.Clone(d.Metadata)
	slices.SortStableFunc(fields, func(a, b policy.Field) int { return cmp.Compare(a.Name, b.Name) }) // the same call has the same content
	for _, f := range fields {
		if !reservedKey(f.Name) && f.Name != "traceparent" && f.Name != "tracestate" {
			w.Metadata = append(w.Metadata, &outriggerv1.TaskHeader{Name: f.Name, Value: f.Value})
		}
	}
	if d.Traceparent != "" {
		ctx = metadata.NewIncomingContext(ctx, metadata.Pairs("traceparent", d.Traceparent))
	}
	// A queue that is full is told to the caller, who runs nothing: it asked for later.
	out, err := e.SubmitTask(ctx, &outriggerv1.SubmitTaskRequest{
		Task: &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: w}}, IdempotencyKey: d.IdempotencyKey, WhenFull: outriggerv1.SubmitTaskRequest_REJECT,
	})
	if err != nil {
		return "", err
	}
	return out.GetTask().GetId(), nil
}

package tasks

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"

	"google.golang.org/grpc/metadata"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Deferred is a unary call that is kept for later.
type Deferred struct {
	// Service, Method, Metadata and Message are the call's; see Call.
	Service, Method string
	Metadata        metadata.MD
	Message         []byte
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
	keys := make([]string, 0, len(d.Metadata))
	for key := range d.Metadata {
		keys = append(keys, key)
	}
	slices.Sort(keys) // so that the same call has the same content
	for _, key := range keys {
		if reservedKey(key) || key == "traceparent" || key == "tracestate" {
			continue
		}
		for _, value := range d.Metadata[key] {
			if strings.HasSuffix(key, "-bin") {
				value = base64.StdEncoding.EncodeToString([]byte(value))
			}
			w.Metadata = append(w.Metadata, &outriggerv1.TaskHeader{Name: key, Value: value})
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

package tasks

import (
	"context"
	"strconv"
	"strings"

	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// doGRPC makes a unary call.
func (e *Executor) doGRPC(ctx context.Context, j *store.Job, w *outriggerv1.GrpcWork) (*outriggerv1.TaskResult, *failure) {
	md := make(metadata.MD, len(w.GetMetadata())+3)
	if trace, _ := ctx.Value(traceKey{}).(string); trace != "" {
		md.Set("traceparent", trace)
	}
	given := make(metadata.MD, len(w.GetMetadata()))
	for _, h := range w.GetMetadata() {
		value := h.GetValue()
		if strings.HasSuffix(h.GetName(), "-bin") {
			b, err := decodeBinary(value)
			if err != nil {
				return nil, &failure{why: "the value of " + h.GetName() + " is not base64", permanent: true}
			}
			value = string(b)
		}
		given.Append(h.GetName(), value)
	}
	for key, values := range given {
		md[key] = values
	}
	md.Set(TaskIDKey, FormatID(j.ID))
	md.Set(AttemptKey, strconv.Itoa(j.Attempt))
	reply, err := e.options.Calls.Call(ctx, Call{
		Service: w.GetService(), Method: w.GetMethod(), Metadata: md, Message: w.GetMessage(), MaxReply: e.settings.Load().MaxPayload,
	})
	if err != nil {
		f := callFailure(err)
		return nil, &f
	}
	return &outriggerv1.TaskResult{Payload: &outriggerv1.Payload{Data: reply, ContentType: "application/grpc"}}, nil
}

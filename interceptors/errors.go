package interceptors

import (
	"context"
	"errors"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Error returns a refusal as a gRPC status error with its details. errors.As
// finds the *policy.Refusal in it.
func Error(r *policy.Refusal) error { return &refusalError{refusal: r} }

// refusalError is a refusal as a gRPC status. The status is made where somebody
// asks for it: a storm of refusals must stay cheap.
type refusalError struct{ refusal *policy.Refusal }

// Error words it as grpc-go words a status.
func (e *refusalError) Error() string {
	return "rpc error: code = " + codes.Code(e.refusal.Code()).String() + " desc = " + e.refusal.Message
}

// GRPCStatus is how package status finds the status.
func (e *refusalError) GRPCStatus() *status.Status {
	s := &spb.Status{}
	if err := proto.Unmarshal(e.refusal.AppendDetails(nil), s); err != nil {
		// AppendDetails writes that very message: never, but the code stands.
		return status.New(codes.Code(e.refusal.Code()), e.refusal.Message)
	}
	return status.FromProto(s)
}

// Unwrap lets errors.As find the refusal.
func (e *refusalError) Unwrap() error { return e.refusal }

// grpcError turns a context's error into a status, as grpc-go does.
func grpcError(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return err
}

// pushback returns what an answer says of trying again, as policy.Ending wants
// it.
func pushback(trailer metadata.MD, s *status.Status) time.Duration {
	switch v := trailer.Get("grpc-retry-pushback-ms"); len(v) {
	case 0:
	case 1:
		return policy.ParsePushback(v[0])
	default:
		return policy.NoMore // it says two things
	}
	for _, d := range s.Details() {
		if info, ok := d.(*errdetails.RetryInfo); ok && info.GetRetryDelay().IsValid() {
			return max(info.GetRetryDelay().AsDuration(), 0)
		}
	}
	return 0
}

// lost sorts an UNAVAILABLE that no server sent: what a server sends has
// trailers, "content-type" at least, where no answer had begun. grpc-go says no
// more than its message does; where that changes, the call counts as lost in
// mid-call, which is the careful reading.
func lost(e *policy.Ending, message string) {
	switch {
	case strings.HasSuffix(message, "REFUSED_STREAM"), strings.HasSuffix(message, "the connection is draining"):
		e.Reason, e.Unprocessed = policy.Draining, true
	case strings.HasPrefix(message, "connection error: "), strings.HasPrefix(message, "last connection error: "):
		e.Reason, e.Unreached = policy.ConnectFailed, true
	default:
		e.Reason = policy.ConnectionLost
	}
}

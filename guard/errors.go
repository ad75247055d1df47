package guard

import (
	"errors"
	"fmt"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// domain is the ErrorInfo domain of what the agent refuses.
const domain = "outrigger"

// Error is what the agent refused, or why it could not be asked.
type Error struct {
	// Code is the gRPC status code.
	Code codes.Code
	// Reason is the agent's, such as "BREAKER_OPEN". Empty: a mistake in the
	// request, or the agent could not be asked.
	Reason string
	// Message says what happened, and what to do.
	Message string
	// RetryAfter is how long waiting helps. Zero: not known.
	RetryAfter time.Duration
	// Service, Endpoint and Policy say where it happened. Empty where there is
	// none.
	Service, Endpoint, Policy string
	// Cause is the error of the last attempt, where the agent refused another
	// one after it. nil: there was none.
	Cause error
}

// Error returns the message with the reason, or else the code, in front.
func (e *Error) Error() string {
	head := e.Reason
	if head == "" {
		head = e.Code.String()
	}
	if e.Cause != nil {
		return fmt.Sprintf("%s: %s (last attempt: %v)", head, e.Message, e.Cause)
	}
	return head + ": " + e.Message
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// GRPCStatus returns the error as a server may answer it, with ErrorInfo and,
// where waiting helps, RetryInfo.
func (e *Error) GRPCStatus() *status.Status {
	s := status.New(e.Code, e.Message)
	if e.Reason == "" {
		return s
	}
	where := map[string]string{}
	for name, value := range map[string]string{"service": e.Service, "endpoint": e.Endpoint, "policy": e.Policy} {
		if value != "" {
			where[name] = value
		}
	}
	detailed, err := s.WithDetails(&errdetails.ErrorInfo{Reason: e.Reason, Domain: domain, Metadata: where})
	if err == nil && e.RetryAfter > 0 {
		detailed, err = detailed.WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)})
	}
	if err != nil {
		return s
	}
	return detailed
}

// Reason returns the agent's reason of an error, or "" where it has none.
func Reason(err error) string {
	var e *Error
	if errors.As(err, &e) {
		return e.Reason
	}
	return ""
}

func fromRefusal(r *outriggerv1.Refusal) *Error {
	return &Error{
		Code: codes.Code(r.GetCode()), Reason: r.GetReason(), Message: r.GetMessage(), RetryAfter: r.GetRetryDelay().AsDuration(),
		Service: r.GetService(), Endpoint: r.GetEndpoint(), Policy: r.GetPolicy(),
	}
}

// fromStatus says why the stream ended.
func fromStatus(err error) *Error {
	s := status.Convert(err)
	e := &Error{Code: s.Code(), Message: "the stream to the agent ended, and with it every permit that was out: " + s.Message()}
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == domain {
				e.Reason = d.GetReason()
			}
		case *errdetails.RetryInfo:
			e.RetryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return e
}

func fromContext(err error) *Error {
	s := status.FromContextError(err)
	return &Error{Code: s.Code(), Message: "the caller gave up before its permit came", Cause: err}
}

// codeOf returns the status code that an attempt's error is reported with.
func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	if s, ok := status.FromError(err); ok {
		return s.Code()
	}
	return status.FromContextError(err).Code() // UNKNOWN for what is neither
}

package tasks

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// storeRetry is what a caller is told to wait when the store can't be used, and
// fullRetry when a queue is full.
const (
	storeRetry = time.Second
	fullRetry  = time.Second
)

func refuse(code codes.Code, message string, details ...protoadapt.MessageV1) error {
	s := status.New(code, message)
	if with, err := s.WithDetails(details...); err == nil { // fails for an OK status alone
		s = with
	}
	return s.Err()
}

// invalid answers a request with a field that is wrong.
func invalid(e *FieldError) error {
	return refuse(codes.InvalidArgument, e.Error(), &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: e.Field, Description: e.Problem}}})
}

// asStatus returns err as a gRPC status: a field's error, one of the store's, or
// one that is a status already.
func asStatus(err error) error {
	var field *FieldError
	var is interface{ GRPCStatus() *status.Status }
	var down *store.Unavailable // whose cause may be a deadline, and not the caller's
	switch {
	case err == nil:
		return nil
	case errors.As(err, &down):
		if down.Unknown {
			return refuse(codes.Unavailable, "the task store was lost while it wrote, and what was asked may be done: ask again, submits under the same idempotency_key: "+down.Why,
				&errdetails.ErrorInfo{Domain: Domain, Reason: ReasonStore}, &errdetails.RetryInfo{RetryDelay: durationpb.New(storeRetry)})
		}
		return storeDown(down.Why)
	case errors.As(err, &field):
		return invalid(field)
	case errors.As(err, &is):
		return is.GRPCStatus().Err()
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return status.FromContextError(err).Err()
	case errors.Is(err, store.ErrNotFound):
		return status.Error(codes.NotFound, "there is no such task: it never was, or was deleted after its retention")
	case errors.Is(err, store.ErrLost):
		return status.Error(codes.Aborted, "the lease is over: another attempt counts, or the task has ended; drop what was done")
	case errors.Is(err, store.ErrState):
		return status.Error(codes.FailedPrecondition, "the task's state does not allow it")
	}
	return storeDown(err.Error())
}

// storeDown answers while the store can't be used.
func storeDown(why string) error {
	return refuse(codes.Unavailable, "the task store can't be used now, and nothing was accepted: "+why,
		&errdetails.ErrorInfo{Domain: Domain, Reason: ReasonStore}, &errdetails.RetryInfo{RetryDelay: durationpb.New(storeRetry)})
}

// queueFull answers a submit to a queue that has all it may hold.
func queueFull(queue string, capacity int, more string) error {
	return refuse(codes.ResourceExhausted, fmt.Sprintf("queue %q has the %d waiting tasks that it may have%s", queue, capacity, more),
		&errdetails.ErrorInfo{Domain: Domain, Reason: ReasonQueueFull, Metadata: map[string]string{"queue": queue, "capacity": strconv.Itoa(capacity)}},
		&errdetails.RetryInfo{RetryDelay: durationpb.New(fullRetry)})
}

// refusalOf returns a status as the answer within a stream.
func refusalOf(err error) *outriggerv1.TaskRefusal {
	s := status.Convert(err)
	r := &outriggerv1.TaskRefusal{Code: uint32(s.Code()), Message: s.Message()}
	for _, d := range s.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			r.Reason = d.GetReason()
		case *errdetails.RetryInfo:
			r.RetryAfter = d.GetRetryDelay()
		}
	}
	return r
}

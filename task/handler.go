package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Causes of a Handler's context that ended.
var (
	// ErrLost: the lease is over, and another attempt counts.
	ErrLost = errors.New("the task's lease is over")
	// ErrCancelled: somebody cancelled the task.
	ErrCancelled = errors.New("somebody cancelled the task")
	// ErrStopped: the worker stops, and its drain is over.
	ErrStopped = errors.New("the worker stops")
)

// Handler does a task and returns what came of it; nil is nothing. Its context ends
// when the lease is lost, when the task is cancelled, at the task's deadline, and when
// the worker has stopped and Drain is over: context.Cause says which. An error is a
// failed attempt: the next one comes by the kind's backoff, or as Permanent,
// RetryAfter and Snooze say. A panic is a failed attempt too. An error after
// ErrStopped is none: the task is given back, for another worker to do.
type Handler func(ctx context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error)

// JSON makes a handler of a function from and to values that JSON reads and
// writes. A payload that is no In fails the task for good; an empty one is In's zero
// value.
func JSON[In, Out any](do func(context.Context, In) (Out, error)) Handler {
	return func(ctx context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
		var in In
		if data := t.GetPayload().GetData(); len(data) > 0 {
			if err := json.Unmarshal(data, &in); err != nil {
				return nil, Permanent(fmt.Errorf("the payload is no JSON for a %T: %w", in, err))
			}
		}
		out, err := do(ctx, in)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(out)
		if err != nil {
			return nil, Permanent(fmt.Errorf("the result can't be written as JSON: %w", err))
		}
		return &outriggerv1.Payload{Data: data, ContentType: jsonType}, nil
	}
}

// maxRetryAfter is the longest wait that the API takes.
const maxRetryAfter = 7 * 24 * time.Hour

// failure is how an attempt failed.
type failure struct {
	error
	permanent, snooze, timed bool
	after                    time.Duration // where it is timed
}

func (f *failure) Unwrap() error { return f.error }

// Permanent marks an error that no other attempt would mend: the task FAILED.
func Permanent(err error) error { return &failure{error: err, permanent: true} }

// RetryAfter marks an error whose next attempt comes after d, seven days at most;
// zero is at once.
func RetryAfter(d time.Duration, err error) error {
	return &failure{error: err, timed: true, after: d}
}

// Snooze puts a task off by d, seven days at most, without counting the attempt.
func Snooze(d time.Duration, why string) error {
	return &failure{error: errors.New(why), snooze: true, timed: true, after: d}
}

// failed makes a message of an error; nil of nil.
func failed(l lease, err error) *outriggerv1.FailTaskRequest {
	if err == nil {
		return nil
	}
	request := &outriggerv1.FailTaskRequest{Lease: l.message(), Error: clipped(err.Error())}
	var f *failure
	if errors.As(err, &f) {
		request.Permanent, request.Snooze = f.permanent, f.snooze
		if f.timed {
			request.RetryAfter = durationpb.New(min(max(f.after, 0), maxRetryAfter))
		}
	}
	return request
}

// maxErrorLength is how many characters of an error's text the API takes.
const maxErrorLength = 4096

// clipped bounds an error's text as the API does.
func clipped(text string) string {
	text = strings.ToValidUTF8(text, "\uFFFD")
	if text == "" {
		return "it failed and did not say why"
	}
	if utf8.RuneCountInString(text) <= maxErrorLength {
		return text
	}
	return string([]rune(text)[:maxErrorLength-1]) + "…"
}

// maxContentType is how long a content type may be.
const maxContentType = 128

// unfit says what is wrong with a result in itself; nil: nothing.
func unfit(p *outriggerv1.Payload) error {
	if t := p.GetContentType(); utf8.RuneCountInString(t) > maxContentType || !utf8.ValidString(t) {
		return fmt.Errorf("the result's content type is %q; want at most %d characters of UTF-8", t, maxContentType)
	}
	return nil
}

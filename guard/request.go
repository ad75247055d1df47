package guard

import (
	"context"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// NoWait as Request.Wait: a call that can't go at once is refused.
const NoWait time.Duration = -1

// Criticality says how much a call matters: under overload the least is shed
// first.
type Criticality uint8

// The criticalities.
const (
	// Critical, the zero value: what a user waits for.
	Critical Criticality = iota
	// CriticalPlus is shed last.
	CriticalPlus
	// SheddablePlus may be missing for minutes.
	SheddablePlus
	// Sheddable may be missing for hours: shed first.
	Sheddable
)

var criticalities = [...]outriggerv1.Criticality{
	Critical:      outriggerv1.Criticality_CRITICALITY_UNSPECIFIED,
	CriticalPlus:  outriggerv1.Criticality_CRITICAL_PLUS,
	SheddablePlus: outriggerv1.Criticality_SHEDDABLE_PLUS,
	Sheddable:     outriggerv1.Criticality_SHEDDABLE,
}

// Request describes a call that wants a permit.
type Request struct {
	// Service as the agent's configuration names it. It must not be empty.
	Service string
	// Method or resource, beginning with "/": it chooses the policy's method
	// overrides, and breakers and rate limits by method. Empty: "/".
	Method string
	// Timeout bounds the call, all its attempts and the wait for the permit
	// together. Zero: the deadline of ctx, and the policy's timeout; they bound
	// it in any case.
	Timeout time.Duration
	// Wait bounds the wait for a free slot. Zero: as the policy says. NoWait:
	// not at all.
	Wait time.Duration
	// Lease is how long a permit may be out, at most 1 h. Zero: until the call's
	// time is over, or 30 s where it has none.
	Lease time.Duration
	// Criticality says how much the call matters. Zero: Critical.
	Criticality Criticality
	// Metadata is what policies ask for by name, in lower case, such as the key
	// of a rate limit. nil: there is none. It is only read.
	Metadata map[string]string
	// Idempotent says that the work may be done twice, beside what the policy
	// says.
	Idempotent bool
	// NoRetry says that no attempt follows the first.
	NoRetry bool
}

// fill writes the request as the agent reads it. Nothing of what stood there
// before is left.
func (r *Request) fill(ctx context.Context, q *outriggerv1.AcquireRequest) {
	q.Service, q.Method, q.Metadata, q.Idempotent, q.NoRetry = r.Service, r.Method, r.Metadata, r.Idempotent, r.NoRetry
	q.Criticality = criticalities[min(int(r.Criticality), len(criticalities)-1)]
	q.Timeout, q.Wait, q.Lease = nil, nil, nil
	timeout := r.Timeout
	if deadline, ok := ctx.Deadline(); ok {
		if left := max(time.Until(deadline), 1); timeout == 0 || left < timeout {
			timeout = left
		}
	}
	if timeout != 0 {
		q.Timeout = durationpb.New(timeout)
	}
	switch {
	case r.Wait < 0:
		q.Wait = &durationpb.Duration{}
	case r.Wait > 0:
		q.Wait = durationpb.New(r.Wait)
	}
	if r.Lease != 0 {
		q.Lease = durationpb.New(r.Lease)
	}
}

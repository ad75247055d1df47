package guard

import (
	"context"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Permit is the right to make one attempt. Its fields are for reading. Its
// methods are safe for concurrent use.
type Permit struct {
	// Service and Method are those of the Request.
	Service, Method string
	// Endpoint is where the attempt goes. Empty: the service has none.
	Endpoint string
	// Lease is when the permit ends by itself: what isn't reported then counts
	// as failed, and what it holds is free for others. Renew moves it on, not
	// this field.
	Lease time.Time
	// Deadline is when the whole call is over, and TryDeadline when this attempt
	// is. Zero: never.
	Deadline, TryDeadline time.Time
	// Attempt is the attempt's number, from 1.
	Attempt int
	// AttemptsLeft is how many attempts may follow at most.
	AttemptsLeft int
	// PreviousAttempts is how many attempts before this one an endpoint may have
	// processed.
	PreviousAttempts int

	stream   *stream
	id       []byte
	reported atomic.Bool
}

// Progress says how far an attempt came that failed otherwise than by an
// answer.
type Progress uint8

// How far an attempt came.
const (
	// Answered, the zero value: the code is what the endpoint answered.
	Answered Progress = iota
	// Unreached: the endpoint never got the request.
	Unreached
	// Unprocessed: the endpoint provably did nothing with the request.
	Unprocessed
	// Lost: the connection broke in mid-work, and what was done is not known.
	Lost
)

var progresses = [...]outriggerv1.Progress{
	Answered:    outriggerv1.Progress_PROGRESS_UNSPECIFIED,
	Unreached:   outriggerv1.Progress_UNREACHED,
	Unprocessed: outriggerv1.Progress_UNPROCESSED,
	Lost:        outriggerv1.Progress_LOST,
}

// Outcome is how an attempt ended. The zero value: it went well.
type Outcome struct {
	// Code says it best. Canceled: the caller gave up, which is nobody's
	// failure.
	Code codes.Code
	// Progress says how far the attempt came. Anything but Answered wants a Code
	// other than OK.
	Progress Progress
	// Pushback is what the endpoint said of trying again: so much later; less
	// than 0: not at all. Zero: nothing.
	Pushback time.Duration
	// Latency is how long the work took, where the report is later than its
	// end. Zero: until the report, as the agent measures it.
	Latency time.Duration
	// Final says that nothing follows, whatever the policy says.
	Final bool
	// Load is what the endpoint reported of its load with its answer, of use
	// where the service is balanced by load reports. The zero value: nothing.
	Load LoadReport
}

// LoadReport is what an endpoint says of its load, all its callers' together
// (ORCA). No number is negative.
type LoadReport struct {
	// ApplicationUtilization is the part of its capacity that is used, as the
	// application sees it. Zero: CPUUtilization, the part of its CPU, stands for
	// it. Both may be above 1.
	ApplicationUtilization, CPUUtilization float64
	// RPS and EPS are the requests and the errors a second that it serves.
	RPS, EPS float64
}

// OutcomeOf returns the outcome of work that ended with err: its gRPC status
// code, CANCELLED or DEADLINE_EXCEEDED for a context's error, UNKNOWN for any
// other.
func OutcomeOf(err error) Outcome { return Outcome{Code: codeOf(err)} }

// Done reports that the work ended with err, nil for well, and that nothing
// follows it. It does not wait, and hears of no mistake. A permit that was
// reported already is left alone.
func (p *Permit) Done(err error) {
	if p.reported.Swap(true) {
		return
	}
	p.stream.tell(p.report(OutcomeOf(err)))
}

// report returns the operation that reports an outcome.
func (p *Permit) report(o Outcome) *operation {
	op := newOperation(report)
	q := &op.outcome
	q.PermitId, q.Code, q.Final = p.id, int32(o.Code), o.Final
	q.Progress = progresses[min(int(o.Progress), len(progresses)-1)]
	q.Pushback, q.Latency, q.LoadReport = nil, nil, nil
	if l := o.Load; l != (LoadReport{}) {
		q.LoadReport = &outriggerv1.LoadReport{ApplicationUtilization: l.ApplicationUtilization, CpuUtilization: l.CPUUtilization, RpsFractional: l.RPS, Eps: l.EPS}
	}
	if o.Pushback != 0 {
		q.Pushback = durationpb.New(max(o.Pushback, noMore))
	}
	if o.Latency > 0 {
		q.Latency = durationpb.New(o.Latency)
	}
	return op
}

// noMore is the pushback that asks for no further attempt.
const noMore = -time.Second

// Report reports how the work ended. Where the policy allows another attempt it
// waits until that may begin and returns its permit; nil: nothing follows, and
// the outcome is the call's. An error says why there is no other attempt, or
// what is wrong with the report: a lease that is over is FailedPrecondition.
func (p *Permit) Report(ctx context.Context, o Outcome) (*Permit, error) {
	p.reported.Store(true)
	return p.stream.ask(ctx, p.report(o), &Request{Service: p.Service, Method: p.Method})
}

// Renew begins the lease anew: the caller is still at it. It lasts d, zero for
// as long as before, and never longer than the call may take.
func (p *Permit) Renew(ctx context.Context, d time.Duration) error {
	op := newOperation(renewal)
	op.renewal.PermitId, op.renewal.Lease = p.id, nil
	if d > 0 {
		op.renewal.Lease = durationpb.New(d)
	}
	_, err := p.stream.ask(ctx, op, &Request{})
	return err
}

// newPermit reads the permit that the agent gave.
func newPermit(s *stream, r *Request, v *outriggerv1.Permit) *Permit {
	now := time.Now()
	after := func(d *durationpb.Duration) time.Time {
		if d == nil {
			return time.Time{}
		}
		return now.Add(d.AsDuration())
	}
	method := r.Method
	if method == "" {
		method = "/"
	}
	return &Permit{
		Service: r.Service, Method: method, Endpoint: v.GetEndpoint(), Lease: after(v.GetLease()), Deadline: after(v.GetTimeout()), TryDeadline: after(v.GetTryTimeout()),
		Attempt: int(v.GetAttempt()), AttemptsLeft: int(v.GetAttemptsLeft()), PreviousAttempts: int(v.GetPreviousAttempts()),
		stream: s, id: v.GetId(),
	}
}

package policy

import (
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/sla"
)

// Result is how a call or an attempt ended.
type Result struct {
	// Code is the gRPC status that the caller sees.
	Code Code
	// Reason is why the agent ended it, or ReasonNone where Code is the
	// upstream's answer.
	Reason Reason
}

// Refused returns the result of a refusal.
func Refused(r *Refusal) Result { return Result{Code: r.Code(), Reason: r.Reason} }

// Failed reports whether the endpoints could not answer, or asked for less:
// what an older answer may stand in for.
func (r Result) Failed() bool {
	return r.breakerOutcome() == breaker.Failure || r.Reason == ReasonNone && r.Code == ResourceExhausted
}

// breakerOutcome says whose fault the result is. Caller's cancels, callers' own
// short deadlines and codes such as NOT_FOUND are not the server's failures;
// RESOURCE_EXHAUSTED is pushback, which a breaker must not turn into an outage.
func (r Result) breakerOutcome() breaker.Outcome {
	switch r.Reason {
	case ReasonNone:
		switch r.Code {
		case Unavailable, Internal, Unknown, DataLoss, DeadlineExceeded:
			return breaker.Failure
		case Canceled, ResourceExhausted:
			return breaker.Ignored
		}
		return breaker.Success
	case ConnectFailed, ConnectionLost, Timeout, Protocol, TLS:
		return breaker.Failure
	}
	return breaker.Ignored
}

// slaOutcome sorts the result as an SLA sees it: an answer of any kind is
// availability, an answer without a failure code is success.
func (r Result) slaOutcome() sla.Outcome {
	switch r.Reason {
	case ReasonNone:
		switch r.Code {
		case Unavailable, DeadlineExceeded:
			return sla.Unavailable
		case Internal, Unknown, DataLoss:
			return sla.Failure
		}
		return sla.Success
	case CallerCanceled, RequestTooLarge, NotCached, DeferOff, NotDeferrable, TaskQueueFull, TaskStore:
		return sla.Excluded
	case Protocol:
		return sla.Failure
	}
	return sla.Unavailable
}

// overload reports whether the result says that there is too much load: what
// limits that measure it back off from.
func (r Result) overload() bool {
	switch r.Reason {
	case ReasonNone:
		return r.Code == ResourceExhausted || r.Code == Unavailable || r.Code == DeadlineExceeded
	case ConnectFailed, ConnectionLost, Timeout:
		return true
	}
	return false
}

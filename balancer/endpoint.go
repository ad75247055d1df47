package balancer

import (
	"sync/atomic"
	"time"
)

// Instant is a monotonic time since an origin of the caller's choice; all
// instants given to one endpoint share that origin.
type Instant = time.Duration

// Spec says which endpoint is meant and what is known of it in advance.
type Spec struct {
	// Address is "host:port" or "unix:PATH".
	Address string
	// Weight is the endpoint's share relative to its peers. Zero means 1.
	Weight uint32
	// Zone is the failure domain that the endpoint is in. Empty: unknown.
	Zone string
}

// Condition is what is known of an endpoint's fitness to take calls. It is set
// by whoever connects to or checks the endpoint; picks prefer ready endpoints.
type Condition uint32

// The conditions, from fit to unfit.
const (
	// Ready is the zero value: an endpoint is trusted until it disappoints.
	Ready Condition = iota
	// Connecting: no connection stands now; one is being made or waits for
	// its backoff.
	Connecting
	// Unhealthy: an active health check says no.
	Unhealthy
	// Ejected: its calls failed too often.
	Ejected
	// Draining: an operator or the discovery source asked for no new calls.
	Draining
)

// String returns the condition's public name.
func (c Condition) String() string {
	switch c {
	case Ready:
		return "READY"
	case Connecting:
		return "CONNECTING"
	case Unhealthy:
		return "UNHEALTHY"
	case Ejected:
		return "EJECTED"
	case Draining:
		return "DRAINING"
	}
	return "UNKNOWN"
}

// status is what SetCondition publishes as one value.
type status struct {
	condition Condition
	reason    string
	since     Instant
}

// Endpoint is one address of a service with the live counters that picks are
// made from. Safe for concurrent use. Make it with NewEndpoint and keep it
// across snapshots: it is the endpoint's memory.
type Endpoint struct {
	spec Spec

	// The counters are written by every call to this endpoint; the padding
	// keeps them off the cache line of the fields above, which every pick
	// reads.
	_        [64]byte
	inFlight atomic.Int64
	calls    atomic.Uint64
	failures atomic.Uint64
	_        [40]byte

	condition atomic.Uint32 // a Condition; what a pick looks at, with draining
	draining  atomic.Bool
	retired   atomic.Bool
	status    atomic.Pointer[status]
}

// NewEndpoint returns a ready endpoint without calls.
func NewEndpoint(spec Spec) *Endpoint {
	if spec.Weight == 0 {
		spec.Weight = 1
	}
	e := &Endpoint{spec: spec}
	e.status.Store(&status{})
	return e
}

// Spec returns what the endpoint was made from.
func (e *Endpoint) Spec() Spec { return e.spec }

// Address returns "host:port" or "unix:PATH".
func (e *Endpoint) Address() string { return e.spec.Address }

// Begin counts an attempt that was sent to the endpoint. Each Begin wants one
// End.
func (e *Endpoint) Begin() {
	e.inFlight.Add(1)
	e.calls.Add(1)
}

// End counts an attempt that is over; failed says that the endpoint is to
// blame.
func (e *Endpoint) End(failed bool) {
	e.inFlight.Add(-1)
	if failed {
		e.failures.Add(1)
	}
}

// Abandon takes a Begin back: the attempt never reached the endpoint.
func (e *Endpoint) Abandon() {
	e.inFlight.Add(-1)
	e.calls.Add(^uint64(0))
}

// InFlight returns how many attempts are on the way.
func (e *Endpoint) InFlight() int64 { return e.inFlight.Load() }

// Calls returns how many attempts were sent, those in flight included.
func (e *Endpoint) Calls() uint64 { return e.calls.Load() }

// Failures returns how many attempts the endpoint failed.
func (e *Endpoint) Failures() uint64 { return e.failures.Load() }

// SetCondition says how fit the endpoint is and why, in a few plain words.
// Draining is kept apart (see SetDraining) and outlives it.
func (e *Endpoint) SetCondition(c Condition, reason string, now Instant) {
	if old := e.status.Load(); old.condition == c && old.reason == reason {
		return
	}
	e.status.Store(&status{condition: c, reason: reason, since: now})
	e.condition.Store(uint32(c))
}

// SetDraining stops new calls to the endpoint, or lets them come again. Calls
// in flight are not touched.
func (e *Endpoint) SetDraining(on bool) { e.draining.Store(on) }

// Condition returns the endpoint's condition, the reason in plain words (empty
// when ready) and since when.
func (e *Endpoint) Condition() (c Condition, reason string, since Instant) {
	s := e.status.Load()
	if e.draining.Load() {
		return Draining, "drained by an operator", s.since
	}
	return s.condition, s.reason, s.since
}

// Fit reports whether the endpoint takes new calls gladly: ready, not
// draining.
func (e *Endpoint) Fit() bool {
	return e.condition.Load() == uint32(Ready) && !e.draining.Load()
}

// Barred reports whether the endpoint must not get new calls even where no
// other is left: an operator drained it.
func (e *Endpoint) Barred() bool { return e.draining.Load() }

// Retire says that the endpoint left its service for good. Whoever still holds
// an old snapshot can tell.
func (e *Endpoint) Retire() { e.retired.Store(true) }

// Retired reports whether the endpoint left its service.
func (e *Endpoint) Retired() bool { return e.retired.Load() }

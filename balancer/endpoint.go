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
	// Priority orders groups of endpoints: those of the lowest number take the
	// calls, the next group as far as they are not fit. Zero is the first.
	Priority uint32
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

	word    word
	retired atomic.Bool
}

// NewEndpoint returns a ready endpoint without calls.
func NewEndpoint(spec Spec) *Endpoint {
	if spec.Weight == 0 {
		spec.Weight = 1
	}
	e := &Endpoint{spec: spec}
	e.word.fitness.Store(&fitness{})
	return e
}

// Spec returns what the endpoint was made from.
func (e *Endpoint) Spec() Spec { return e.spec }

// Address returns "host:port" or "unix:PATH".
func (e *Endpoint) Address() string { return e.spec.Address }

// Begin counts an attempt that was sent to the endpoint. Each Begin wants one
// End, Cancel or Abandon.
func (e *Endpoint) Begin() {
	e.inFlight.Add(1)
	e.calls.Add(1)
}

// End counts an attempt that was answered or failed; failed says that the
// endpoint is to blame. took is from the request's sending to the end of the
// answer; zero where that says nothing, as of a stream.
func (e *Endpoint) End(now Instant, took time.Duration, failed bool) {
	e.inFlight.Add(-1)
	if failed {
		e.failures.Add(1)
	}
}

// Cancel counts an attempt that was given up before it was answered, after it
// took so long; zero where that says nothing.
func (e *Endpoint) Cancel(now Instant, took time.Duration) { e.inFlight.Add(-1) }

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

// Retire says that the endpoint left its service for good. Whoever still holds
// an old snapshot can tell.
func (e *Endpoint) Retire() { e.retired.Store(true) }

// Retired reports whether the endpoint left its service.
func (e *Endpoint) Retired() bool { return e.retired.Load() }

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

func (s Spec) withDefaults() Spec {
	if s.Weight == 0 {
		s.Weight = 1
	}
	return s
}

// Endpoint is one address of a service with the live counters that picks are
// made from. Safe for concurrent use. Make it with NewEndpoint and keep it
// across snapshots: it is the endpoint's memory.
type Endpoint struct {
	address string
	hash    uint64 // of the address
	spec    atomic.Pointer[Spec]
	word    word
	retired atomic.Bool

	// The counters are written by every call to this endpoint; the padding
	// keeps them off the cache lines of the fields above, which every pick
	// reads, and of the next endpoint.
	_        [64]byte
	inFlight atomic.Int64
	calls    atomic.Uint64
	failures atomic.Uint64
	latency  ewma
	reported reported
	_        [8]byte

	record record // of outlier detection
}

// NewEndpoint returns a ready endpoint without calls.
func NewEndpoint(spec Spec) *Endpoint {
	spec = spec.withDefaults()
	e := &Endpoint{address: spec.Address, hash: HashKey(spec.Address)}
	e.spec.Store(&spec)
	e.word.fitness.Store(&fitness{})
	return e
}

// Spec returns what is known of the endpoint in advance, as Set.With said it
// last.
func (e *Endpoint) Spec() Spec { return *e.spec.Load() }

// Address returns "host:port" or "unix:PATH".
func (e *Endpoint) Address() string { return e.address }

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
		e.latency.failed(now, took)
		return
	}
	e.latency.observe(now, took)
}

// Cancel counts an attempt that was given up before it was answered, after it
// took so long; zero where that says nothing.
func (e *Endpoint) Cancel(now Instant, took time.Duration) {
	e.inFlight.Add(-1)
	e.latency.outlasted(now, took)
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

// Retire says that the endpoint left its service for good. Whoever still holds
// an old snapshot can tell.
func (e *Endpoint) Retire() { e.retired.Store(true) }

// Retired reports whether the endpoint left its service.
func (e *Endpoint) Retired() bool { return e.retired.Load() }

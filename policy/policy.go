// Package policy is one call's life: how long it may take, whether it is let
// in, which endpoint it goes to, and what its end means for those after it.
//
// A Service holds the live state that its calls share: endpoints, breakers,
// the SLA windows. A Call is one call under one method's Policy. The shell
// that moves the bytes asks and reports, always in this order:
//
//	m := service.Method("/helloworld.Greeter/SayHello")
//	var c policy.Call
//	if refusal := c.Begin(m, now, callerTimeout, rnd); refusal != nil { … }   // admit
//	if refusal := c.Pick(now, rnd, &attempt); refusal != nil { … }            // pick
//	…send to attempt.Endpoint…
//	c.Finish(&attempt, now, result, rnd)                                      // observe
//	c.End(now, result, rnd)                                                   // record
//
// The package starts no goroutine, arms no timer and reads no clock. Time is
// an Instant argument; when something falls due is a value (Call.Expiry) that
// the shell waits for as it likes.
package policy

import (
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/sla"
)

// Instant is a monotonic time since an origin of the caller's choice; all
// instants given to one service share that origin. It must be greater than
// zero: zero means "never" where an Instant comes out.
type Instant = time.Duration

// Policy says what a service, or one of its methods, asks for. The zero value
// enforces nothing but the caller's own deadline.
type Policy struct {
	// Timeout bounds a unary call from its arrival on. Zero: none. A stream is
	// bounded by Stream instead.
	Timeout time.Duration
	// PerTryTimeout bounds one attempt of a unary call. Zero: none.
	PerTryTimeout time.Duration
	// Stream bounds calls that turned out to be streams.
	Stream StreamLimits
	// Breaker stops calls to what keeps failing.
	Breaker BreakerPolicy
	// LoadBalancing chooses among the endpoints. Zero: LEAST_REQUEST.
	LoadBalancing balancer.Policy
	// HTTP says which statuses of plain HTTP answers are failures.
	HTTP HTTPStatuses
	// SLA is what was promised; it is compared, never enforced.
	SLA sla.Targets
}

// StreamLimits bounds a stream. Zero values: no limit.
type StreamLimits struct {
	// IdleTimeout is how long neither side may send a byte of the stream.
	IdleTimeout time.Duration
	// MaxDuration bounds the stream from its arrival on.
	MaxDuration time.Duration
}

// BreakerPolicy says what one breaker guards and how.
type BreakerPolicy struct {
	// Scope says which calls share a breaker. Zero: those of the service.
	Scope Scope
	// Options are the breaker's thresholds.
	Options breaker.Options
}

// Scope says which calls share a breaker.
type Scope uint8

// The scopes.
const (
	// ScopeService: one breaker for all calls under the policy.
	ScopeService Scope = iota
	// ScopeMethod: one breaker a method.
	ScopeMethod
	// ScopeEndpoint: one breaker an endpoint. An open one steers calls to the
	// other endpoints; a call is refused only when all are open.
	ScopeEndpoint
)

// String returns the scope's public name.
func (s Scope) String() string {
	switch s {
	case ScopeService:
		return "SERVICE"
	case ScopeMethod:
		return "METHOD"
	case ScopeEndpoint:
		return "ENDPOINT"
	}
	return "UNKNOWN"
}

// Default returns what a service gets that says nothing: nothing that could
// fail a healthy call is enforced. The breaker has the reference figures and
// only observes; the SLA is recorded against the default targets.
func Default() Policy {
	options := breaker.Reference()
	options.Mode = breaker.Observe
	return Policy{
		Breaker: BreakerPolicy{Options: options},
		SLA:     sla.DefaultTargets(),
	}
}

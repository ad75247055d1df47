// Package policy is one call's life: how long it may take, whether it is let
// in, which endpoint it goes to, and what its end means for those after it.
//
// A Service holds the live state that its calls share: endpoints, breakers,
// limits, budgets, the SLA windows. A Call is one call under one method's
// Policy. The shell that moves the bytes asks and reports, always in this
// order:
//
//	var c policy.Call
//	c.Begin(service.Method("/helloworld.Greeter/SayHello"), now, policy.Arrival{Timeout: callerTimeout})
//	switch admission := c.Admit(now, rnd); {                                  // admit
//	case admission.Refusal != nil: …answer it, then c.End
//	case admission.Wait: …until c.Expiry, or until an End returns the call among those it woke; then c.Admit again
//	}
//	if refusal := c.Pick(now, rnd, &attempt); refusal != nil { … }            // pick
//	…send to attempt.Endpoint…
//	switch c.Finish(&attempt, now, ending, rnd).Action {                      // observe, decide
//	case policy.Return: …the attempt's answer is the call's
//	case policy.Again:  …another attempt at verdict.At: when c.Due says so
//	case policy.Await:  …another attempt is under way: its answer counts
//	}
//	woken := c.End(now, result, rnd)                                          // record
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

// Mode says whether a policy acts on what it decides.
type Mode = breaker.Mode

// The modes.
const (
	// Enforce, the zero value: it acts.
	Enforce = breaker.Enforce
	// Observe decides and records the same, and does not act.
	Observe = breaker.Observe
	// Off decides nothing.
	Off = breaker.Off
)

// Policy says what a service, or one of its methods, asks for. The zero value
// enforces nothing but the caller's own deadline.
type Policy struct {
	// Timeout bounds a unary call from its arrival on, all its attempts
	// together. Zero: none. A stream is bounded by Stream instead.
	Timeout time.Duration
	// PerTryTimeout bounds one attempt of a unary call. Zero: none.
	PerTryTimeout time.Duration
	// Stream bounds calls that turned out to be streams.
	Stream StreamLimits
	// Idempotent says that a call may be processed twice. A hedge, a cache and
	// a retry of what the endpoint may have processed need it.
	Idempotent bool
	// Retry sends failed calls again.
	Retry RetryPolicy
	// Hedge sends a second attempt when the first is slow.
	Hedge HedgePolicy
	// Breaker stops calls to what keeps failing.
	Breaker BreakerPolicy
	// Outlier takes endpoints out of rotation that do worse than they should.
	// It is the service's: that of a method override is not used.
	Outlier balancer.OutlierOptions
	// Concurrency bounds the calls in flight.
	Concurrency ConcurrencyPolicy
	// RateLimit bounds the calls a second.
	RateLimit RateLimitPolicy
	// Throttle drops calls here that the endpoints would refuse.
	Throttle ThrottlePolicy
	// Fallback answers in place of endpoints that can't.
	Fallback FallbackPolicy
	// Cache answers from earlier answers.
	Cache CachePolicy
	// Fault makes calls slow or fail on purpose.
	Fault FaultPolicy
	// Defer hands calls to a task executor.
	Defer DeferPolicy
	// LoadBalancing chooses among the endpoints. Zero: LEAST_REQUEST.
	LoadBalancing balancer.Options
	// HashOn says what RING_HASH and MAGLEV hash.
	HashOn HashPolicy
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

// RetryPolicy sends failed unary calls again, as gRFC A6 says. The zero value
// sends none again.
type RetryPolicy struct {
	// MaxAttempts bounds the attempts, the first included. 0 and 1: no retry.
	MaxAttempts int
	// Codes are tried again. Zero: UNAVAILABLE.
	Codes CodeSet
	// BackoffBase and BackoffMax shape the pause before retry n: uniform in
	// [0, min(base × 2^(n-1), max)] (full jitter; Brooker, "Exponential Backoff
	// And Jitter", 2015). Zero: DefaultBackoffBase, DefaultBackoffMax.
	BackoffBase, BackoffMax time.Duration
	// Budget bounds retries and hedges of the whole service. That of a method
	// override is not used.
	Budget BudgetPolicy
	// Mode says whether it acts. Off: no retry.
	Mode Mode
}

// BudgetPolicy bounds what retries and hedges add to a service's load, over a
// sliding window of BudgetWindow.
type BudgetPolicy struct {
	// Ratio of the calls in the window, 0 to 1.
	Ratio float64
	// MinPerSecond is allowed on top, whatever the calls.
	MinPerSecond float64
}

// Defaults that zero values stand for, and the reference figures.
const (
	DefaultBackoffBase  = 25 * time.Millisecond
	DefaultBackoffMax   = time.Second
	DefaultBudgetRatio  = 0.2
	DefaultBudgetFloor  = 10 // a second
	DefaultQueueTimeout = 100 * time.Millisecond
	DefaultCacheBytes   = 16 << 20
	DefaultCacheEntry   = 256 << 10
	DefaultRateKeys     = 10_000
	// DefaultThrottleRatio is K of Google's SRE book (chapter 21, "Handling
	// Overload"): calls beyond K times those accepted are dropped.
	DefaultThrottleRatio  = 2.0
	DefaultThrottleWindow = 2 * time.Minute
)

// DefaultBudget returns the reference budget: a fifth of the calls, and 10 a
// second whatever the calls.
func DefaultBudget() BudgetPolicy {
	return BudgetPolicy{Ratio: DefaultBudgetRatio, MinPerSecond: DefaultBudgetFloor}
}

// HedgePolicy sends further attempts of a unary, idempotent call while the
// first is still under way, as gRFC A6 says. The zero value sends none.
type HedgePolicy struct {
	// Delay is how long after an attempt the next one is sent. With
	// DelayQuantile it is what holds until enough calls were seen.
	Delay time.Duration
	// DelayQuantile takes the delay from the latencies of the last minute: 0.95
	// sends a second attempt of the slowest twentieth. Zero: Delay always.
	DelayQuantile float64
	// MaxAttempts bounds the attempts, the first included. 0 and 1: no hedge.
	MaxAttempts int
	// NonFatal codes leave the other attempts running; any other answer is the
	// call's. Zero: UNAVAILABLE.
	NonFatal CodeSet
	// Mode says whether it acts. Off: no hedge.
	Mode Mode
}

// ConcurrencyPolicy bounds the calls in flight. The zero value does not.
type ConcurrencyPolicy struct {
	// MaxInFlight is the bound, or with Adaptive the most that it may grow to.
	// Zero: none; with Adaptive 1000.
	MaxInFlight int
	// MaxQueue is how many calls may wait for a slot. Zero: none waits.
	MaxQueue int
	// QueueTimeout bounds the wait. Zero: DefaultQueueTimeout.
	QueueTimeout time.Duration
	// Adaptive finds the bound by measuring latency.
	Adaptive bool
	// Mode says whether it acts. Off: no bound.
	Mode Mode
}

// On reports whether the policy asks for anything.
func (p ConcurrencyPolicy) On() bool { return p.Mode != Off && (p.MaxInFlight > 0 || p.Adaptive) }

// RateLimitPolicy is a token bucket. The zero value does not limit.
type RateLimitPolicy struct {
	// PerSecond fills the bucket. Zero: no limit.
	PerSecond float64
	// Burst is what the bucket holds. Zero: a second's worth, at least 1.
	Burst int
	// PerMethod gives each method a bucket of its own.
	PerMethod bool
	// KeyHeader names request metadata whose every value gets a bucket of its
	// own, in lower case. Empty: all callers share one.
	KeyHeader string
	// MaxKeys bounds the buckets; the one least recently used goes. Zero:
	// DefaultRateKeys.
	MaxKeys int
	// Mode says whether it acts. Off: no limit.
	Mode Mode
}

// On reports whether the policy asks for anything.
func (p RateLimitPolicy) On() bool { return p.Mode != Off && p.PerSecond > 0 }

// ThrottlePolicy drops calls with the chance max(0, (calls - Ratio × accepted)
// / (calls + 1)) over Window (Google SRE book, chapter 21). The zero value
// drops none.
type ThrottlePolicy struct {
	// Ratio is K; from 1 on. Zero: off.
	Ratio float64
	// Window is how far back calls count. Zero: DefaultThrottleWindow.
	Window time.Duration
	// Mode says whether it acts. Off: none is dropped.
	Mode Mode
}

// On reports whether the policy asks for anything.
func (p ThrottlePolicy) On() bool { return p.Mode != Off && p.Ratio > 0 }

// FallbackPolicy answers gRPC calls in place of endpoints that can't. The zero
// value answers none.
type FallbackPolicy struct {
	// Enabled says that there is one.
	Enabled bool
	// Code is the status that the caller gets; with OK it gets Body too.
	Code Code
	// Message is the status message.
	Message string
	// Body is the encoded response message, without gRPC's length prefix. A
	// string, so that policies can be compared.
	Body string
	// Mode says whether it acts. Off: there is none.
	Mode Mode
}

// CachePolicy keeps answers of idempotent unary calls. The zero value keeps
// none.
type CachePolicy struct {
	// TTL is how long an answer is fresh. Zero: nothing is kept.
	TTL time.Duration
	// MaxBytes bounds all that is kept. Zero: DefaultCacheBytes.
	MaxBytes int64
	// MaxEntryBytes bounds one request and its answer. Zero:
	// DefaultCacheEntry.
	MaxEntryBytes int
	// Metadata names request metadata that answers depend on, sorted, joined
	// by commas, in lower case. "authorization" always counts.
	Metadata string
	// StaleWhileRevalidate is how long after TTL an answer is still given while
	// a call refreshes it.
	StaleWhileRevalidate time.Duration
	// StaleIfError is how long after TTL an answer is given where a fresh one
	// can't be had.
	StaleIfError time.Duration
	// Mode says whether it acts. Off: nothing is kept.
	Mode Mode
}

// On reports whether the policy asks for anything.
func (p CachePolicy) On() bool { return p.Mode != Off && p.TTL > 0 }

// FaultPolicy injects faults for game days. The zero value injects none.
type FaultPolicy struct {
	// Delay is added to DelayPercent of the calls, 0 to 100.
	Delay        time.Duration
	DelayPercent float64
	// Abort is the status that AbortPercent of the calls get, 0 to 100.
	Abort        Code
	AbortPercent float64
	// Header and Value narrow it to calls with that metadata; an empty Value
	// stands for any. Empty: all calls.
	Header, Value string
	// Mode says whether it acts. Off: no fault.
	Mode Mode
}

// On reports whether the policy asks for anything.
func (p FaultPolicy) On() bool {
	return p.Mode != Off && (p.AbortPercent > 0 || p.DelayPercent > 0 && p.Delay > 0)
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
// fail a healthy call is enforced. The breaker and outlier detection have the
// reference figures and only observe; should few endpoints be fit, the others are
// tried too; the SLA is recorded against the default targets.
func Default() Policy {
	options := breaker.Reference()
	options.Mode = breaker.Observe
	outliers := balancer.ReferenceOutliers()
	outliers.ObserveOnly = true
	return Policy{
		Breaker:       BreakerPolicy{Options: options},
		Outlier:       outliers,
		LoadBalancing: balancer.Options{PanicThreshold: balancer.DefaultPanicThreshold},
		SLA:           sla.DefaultTargets(),
	}
}

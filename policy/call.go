package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
)

// Call is one call's life. The zero value is ready for Begin. It is not safe
// for concurrent use; the shell guards it.
type Call struct {
	method   *Method
	start    Instant
	deadline Instant // the caller's own; 0: none
	touched  Instant // when a byte of it last moved
	permit   breaker.Permit
	stream   bool
	attempts uint32
	tried    [4]*balancer.Endpoint // the first few; past them a repeat does no harm
}

// Attempt is one try at one endpoint. The zero value is ready for Call.Pick.
type Attempt struct {
	// Endpoint is where the attempt goes.
	Endpoint *balancer.Endpoint
	start    Instant
	permit   breaker.Permit
}

// Method returns the method that the call is to.
func (c *Call) Method() *Method { return c.method }

// Start returns when the call arrived.
func (c *Call) Start() Instant { return c.start }

// Attempts returns how many attempts were picked so far.
func (c *Call) Attempts() int { return int(c.attempts) }

// Begin admits the call or says why not. callerTimeout is what the caller
// allows, negative when it says nothing. A refused call wants End, nothing else.
func (c *Call) Begin(m *Method, now Instant, callerTimeout time.Duration, rnd uint64) *Refusal {
	*c = Call{method: m, start: now, touched: now, stream: m.stream.Load()}
	if callerTimeout >= 0 {
		c.deadline = now + callerTimeout
		if callerTimeout == 0 {
			return c.refuse(Deadline, "", "the caller's deadline was over when the call arrived")
		}
	}
	if m.breaker == nil {
		return nil
	}
	permit, refused, ok := m.breaker.Acquire(now, rnd)
	if !ok {
		return c.breakerRefusal(refused, "")
	}
	c.permit = permit
	return nil
}

// Pick chooses the endpoint of the next attempt, one that the call has not
// tried where there is another. Each attempt picked wants one Finish or
// Abandon.
func (c *Call) Pick(now Instant, rnd uint64, a *Attempt) *Refusal {
	m := c.method
	set := m.service.set.Load()
	byEndpoint := m.rule.breakers != nil && m.rule.policy.Breaker.Scope == ScopeEndpoint
	var excluded balancer.Excluded
	if byEndpoint || c.attempts > 0 {
		excluded = func(e *balancer.Endpoint) bool {
			return c.hasTried(e) || byEndpoint && m.endpointBreaker(e).Blocks(now)
		}
	}
	e := m.rule.picker.Pick(set, rnd, excluded)
	if e == nil && c.attempts > 0 {
		// Every other one is out of the question: a repeat is better than none.
		excluded = nil
		if byEndpoint {
			excluded = func(e *balancer.Endpoint) bool { return m.endpointBreaker(e).Blocks(now) }
		}
		e = m.rule.picker.Pick(set, rnd, excluded)
	}
	if e == nil {
		return c.noEndpoint(set, byEndpoint, now)
	}
	*a = Attempt{Endpoint: e, start: now}
	if byEndpoint {
		permit, refused, ok := m.endpointBreaker(e).Acquire(now, rnd)
		if !ok {
			// Another call took the last probe between the two questions.
			return c.breakerRefusal(refused, e.Address())
		}
		a.permit = permit
	}
	if int(c.attempts) < len(c.tried) {
		c.tried[c.attempts] = e
	}
	if c.attempts > 0 {
		m.service.counts.retries.Add(1)
	}
	c.attempts++
	e.Begin()
	return nil
}

func (c *Call) hasTried(e *balancer.Endpoint) bool {
	for _, t := range c.tried {
		if t == e {
			return true
		}
	}
	return false
}

// Sent counts an attempt whose endpoint the shell's own transport chooses: it
// stands for Pick and Finish where there is none to pick.
func (c *Call) Sent() { c.attempts++ }

// Untried reports whether the service has an endpoint that the call has not
// tried and that may get calls.
func (c *Call) Untried() bool {
	for _, e := range c.method.service.set.Load().All() {
		if !e.Barred() && !c.hasTried(e) {
			return true
		}
	}
	return false
}

func (m *Method) endpointBreaker(e *balancer.Endpoint) *breaker.Breaker {
	return m.rule.breakers.Get(breaker.Key{Service: m.service.name, Endpoint: e.Address()})
}

// Finish reports how an attempt ended.
func (c *Call) Finish(a *Attempt, now Instant, r Result, rnd uint64) {
	outcome := c.blame(now, r)
	a.Endpoint.End(outcome == breaker.Failure)
	if m := c.method; m.rule.breakers != nil && m.rule.policy.Breaker.Scope == ScopeEndpoint {
		m.endpointBreaker(a.Endpoint).Report(a.permit, now, outcome, now-a.start, rnd)
	}
	*a = Attempt{}
}

// early is how much before the caller's deadline a server may say that it is
// over: its clock and ours don't tick together.
const early = 10 * time.Millisecond

// blame says what the result means for breakers. A server that answers
// DEADLINE_EXCEEDED when the caller's own deadline is over only says so first.
func (c *Call) blame(now Instant, r Result) breaker.Outcome {
	if r.Code == DeadlineExceeded && r.Reason == ReasonNone && c.deadline != 0 && now >= c.deadline-early {
		return breaker.Ignored
	}
	return r.breakerOutcome()
}

// End records the call. Nothing may be asked of it afterwards.
func (c *Call) End(now Instant, r Result, rnd uint64) {
	m := c.method
	latency := now - c.start
	if m.breaker != nil {
		outcome := c.blame(now, r)
		if c.attempts == 0 {
			outcome = breaker.Ignored // it never went out: nothing was learnt
		}
		m.breaker.Report(c.permit, now, outcome, latency, rnd)
	}
	if c.stream && r.Reason == ReasonNone {
		// How long a stream lived says nothing of how fast it answers.
		m.service.recorder.RecordUntimed(now, r.slaOutcome())
	} else {
		m.service.recorder.Record(now, r.slaOutcome(), latency)
	}
	m.service.count(r)
}

// Touch says that a byte of the call moved: the idle timeout of a stream
// begins again.
func (c *Call) Touch(now Instant) { c.touched = now }

// MarkStream says that the call turned out to be a stream: unary timeouts hold
// no longer, those of streams do. The method is remembered as a stream's.
func (c *Call) MarkStream() {
	if c.stream {
		return
	}
	c.stream = true
	if !c.method.stream.Load() {
		c.method.stream.Store(true)
	}
}

// IsStream reports whether the call is known to be a stream.
func (c *Call) IsStream() bool { return c.stream }

// Expiry returns when something falls due: the shell calls Expire at or after
// it. Zero: never. a is the attempt under way, or nil.
func (c *Call) Expiry(a *Attempt) Instant {
	due := c.deadline
	p := &c.method.rule.policy
	if c.stream {
		if d := p.Stream.MaxDuration; d > 0 {
			due = earlier(due, c.start+d)
		}
		if d := p.Stream.IdleTimeout; d > 0 {
			due = earlier(due, c.touched+d)
		}
		return due
	}
	if p.Timeout > 0 {
		due = earlier(due, c.start+p.Timeout)
	}
	if p.PerTryTimeout > 0 && a != nil && a.Endpoint != nil {
		due = earlier(due, a.start+p.PerTryTimeout)
	}
	return due
}

func earlier(a, b Instant) Instant {
	if a == 0 || b < a {
		return b
	}
	return a
}

// Expire returns the refusal that ends the call at now, or nil when nothing is
// due yet.
func (c *Call) Expire(now Instant, a *Attempt) *Refusal {
	p := &c.method.rule.policy
	endpoint := ""
	if a != nil && a.Endpoint != nil {
		endpoint = a.Endpoint.Address()
	}
	over := func(since Instant, d time.Duration) bool { return d > 0 && now >= since+d }
	end := func(reason Reason, policy, format string, args ...any) *Refusal {
		r := c.refuse(reason, policy, fmt.Sprintf(format, args...))
		r.Endpoint = endpoint
		return r
	}
	switch {
	case !c.stream && over(c.start, p.Timeout):
		return end(Timeout, "timeout", "no answer from %s within the timeout of %v%s", c.method.service.name, p.Timeout, at(endpoint))
	case c.deadline != 0 && now >= c.deadline:
		return end(Deadline, "", "the caller's deadline of %v passed without an answer from %s%s", c.deadline-c.start, c.method.service.name, at(endpoint))
	case !c.stream && endpoint != "" && over(a.start, p.PerTryTimeout):
		return end(Timeout, "per_try_timeout", "no answer from %s within per_try_timeout of %v%s", c.method.service.name, p.PerTryTimeout, at(endpoint))
	case c.stream && over(c.start, p.Stream.MaxDuration):
		return end(Timeout, "stream.max_duration", "the stream reached its max_duration of %v", p.Stream.MaxDuration)
	case c.stream && over(c.touched, p.Stream.IdleTimeout):
		return end(Timeout, "stream.idle_timeout", "neither side sent anything for the stream's idle_timeout of %v", p.Stream.IdleTimeout)
	}
	return nil
}

func at(endpoint string) string {
	if endpoint == "" {
		return ""
	}
	return " (endpoint " + endpoint + ")"
}

// Remaining returns how much of the caller's own deadline is left at now, for
// the grpc-timeout that the upstream gets; ok is false when the caller set
// none. The agent's own timeouts are not passed on: the agent can't know that a
// call is not a stream, and a stream must not die of them upstream.
func (c *Call) Remaining(now Instant) (left time.Duration, ok bool) {
	if c.deadline == 0 {
		return 0, false
	}
	return max(c.deadline-now, 0), true
}

// Refuse returns a refusal of the call for a reason that the shell found.
func (c *Call) Refuse(reason Reason, endpoint, message string) *Refusal {
	r := c.refuse(reason, "", message)
	r.Endpoint = endpoint
	return r
}

func (c *Call) refuse(reason Reason, policy, message string) *Refusal {
	return &Refusal{Reason: reason, Service: c.method.service.name, Policy: policy, Message: message}
}

func (c *Call) breakerRefusal(refused breaker.Refusal, endpoint string) *Refusal {
	name := c.method.service.name
	if endpoint != "" {
		name += " at " + endpoint
	} else if c.method.rule.policy.Breaker.Scope == ScopeMethod {
		name = strings.TrimPrefix(c.method.name, "/")
	}
	message := fmt.Sprintf("the circuit breaker of %s is %s: %s", name, refused.State, refused.Reason)
	if refused.RetryAfter > 0 {
		message += fmt.Sprintf("; next probe in %v", refused.RetryAfter.Round(time.Millisecond))
	}
	r := c.refuse(BreakerOpen, "circuit_breaker", message)
	r.Endpoint, r.RetryAfter = endpoint, refused.RetryAfter
	return r
}

// retryWithoutEndpoints is the advice to a caller when no endpoint is left:
// about as long as a restart or a discovery refresh takes.
const retryWithoutEndpoints = time.Second

func (c *Call) noEndpoint(set *balancer.Set, byEndpoint bool, now Instant) *Refusal {
	name := c.method.service.name
	if set.Len() == 0 {
		r := c.refuse(NoEndpoints, "", fmt.Sprintf("service %s has no endpoints", name))
		r.RetryAfter = retryWithoutEndpoints
		return r
	}
	if byEndpoint {
		// Name the one that is back first: that is when to try again.
		var first *Refusal
		for _, e := range set.All() {
			if e.Barred() {
				continue
			}
			s := c.method.endpointBreaker(e).Snapshot(now)
			wait := max(s.OpenUntil-now, 0)
			if first == nil || wait < first.RetryAfter {
				first = c.breakerRefusal(breaker.Refusal{State: s.State, Reason: s.Reason, RetryAfter: wait}, e.Address())
			}
		}
		if first != nil {
			return first
		}
	}
	r := c.refuse(AllUnhealthy, "", fmt.Sprintf("service %s has %d endpoints and all are drained", name, set.Len()))
	r.RetryAfter = retryWithoutEndpoints
	return r
}

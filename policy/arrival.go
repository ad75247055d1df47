package policy

import "time"

// NoTimeout is what Arrival.Timeout is where the caller says nothing.
const NoTimeout time.Duration = -1

// Metadata is a request's metadata, or the headers of a plain HTTP request.
type Metadata interface {
	// Get returns the first value of a name in lower case, or "".
	Get(name string) string
}

// Arrival is what is known of a call when it comes.
type Arrival struct {
	// Timeout is what the caller allows. Negative: it says nothing.
	Timeout time.Duration
	// Criticality says how much the call matters. Zero: CRITICAL.
	Criticality Criticality
	// Metadata is asked for keys that policies name. nil: there is none. It is
	// used during Begin and Admit only.
	Metadata Metadata
	// NoRetry is the caller's wish that nothing is sent twice.
	NoRetry bool
	// Idempotent says that the call may be processed twice, beside what the
	// policy says: a GET may.
	Idempotent bool
	// Once says that the call must not be processed twice, whatever the policy's
	// codes say, unless the policy calls it idempotent: a POST of plain HTTP. What
	// no endpoint processed is still sent elsewhere.
	Once bool
	// Hash is what a balancer that hashes chooses the endpoint by, where Hashed
	// says that there is one: see HashPolicy.Hash.
	Hash   uint64
	Hashed bool
	// Owner hears when a call that waits may go on. nil where Admit is never
	// answered with Wait.
	Owner Waker
}

// Waker is a call's shell, as other shells of the same service know it.
type Waker interface {
	// Wake says that Admit may have an answer now. It may come too often. The
	// caller holds no lock; it must not block.
	Wake()
}

// Wake tells the owners of waiters that they may go on. No lock may be held.
func Wake(waiters []*Waiter) {
	for _, w := range waiters {
		if owner, ok := w.Owner.(Waker); ok {
			owner.Wake()
		}
	}
}

// Admission is what Admit says of a call: it goes on, it waits, or it is
// refused.
type Admission struct {
	// Refusal is the answer to a call that is not let in. nil: it is, or waits.
	Refusal *Refusal
	// Wait says that Admit has to be asked again: at Expiry, or when another
	// call's End returns this one's Waiter.
	Wait bool
}

// phase is how far a call's admission is.
type phase uint8

const (
	arrived phase = iota
	delayed       // an injected delay runs
	waiting       // in the queue of the concurrency limit
	admitted
)

// hashKey is the metadata by which a caller says what it is hashed to.
const hashKey = "outrigger-hash-key"

// Begin takes a call's arrival. It decides nothing yet.
func (c *Call) Begin(m *Method, now Instant, a Arrival) {
	*c = Call{method: m, start: now, touched: now, stream: m.stream.Load(), metadata: a.Metadata,
		criticality: a.Criticality, noRetry: a.NoRetry, idempotent: a.Idempotent || m.rule.policy.Idempotent, once: a.Once,
		hash: a.Hash, hashed: a.Hashed}
	if !a.Hashed && a.Metadata != nil && m.rule.policy.LoadBalancing.Policy.Hashes() {
		c.hash, c.hashed = m.Hash("", a.Metadata, a.Metadata.Get(hashKey))
	}
	c.waiter.Owner = a.Owner
	if a.Timeout >= 0 {
		c.deadline = now + a.Timeout
	}
}

// Admit lets the call in, or says why not, or that it has to wait. Policies are
// asked in this order: deadline, fault, rate limit, throttle, breaker,
// concurrency.
func (c *Call) Admit(now Instant, rnd uint64) Admission {
	if c.deadline != 0 && now >= c.deadline && c.phase != admitted {
		if now == c.start {
			return refused(c.refuse(Deadline, "", "the caller's deadline was over when the call arrived"))
		}
		return refused(c.Expire(now, nil))
	}
	rule := c.method.rule
	if c.phase == arrived {
		if c.inject(now, rnd) {
			return Admission{Wait: true}
		}
	}
	if c.phase == delayed && now < c.resumeAt {
		return Admission{Wait: true}
	}
	if c.phase < waiting {
		if r := c.gate(now, rnd); r != nil {
			return refused(r)
		}
	}
	if l := rule.limiter; l != nil && c.phase != admitted {
		place, turn := c.enter(l, now)
		switch place {
		case Waiting:
			c.phase = waiting
			return Admission{Wait: true}
		case Turned:
			r := c.refuse(turn.Reason, "concurrency", turn.Message)
			r.RetryAfter = turn.RetryAfter
			return refused(r)
		}
	}
	if c.phase == admitted {
		return Admission{}
	}
	if r := c.acquire(now, rnd, &c.first); r != nil {
		return refused(r)
	}
	c.phase, c.holdsFirst, c.entered = admitted, true, now
	c.metadata = nil
	if rule.spends() {
		c.method.service.budget.deposit(now, rnd)
	}
	return Admission{}
}

func refused(r *Refusal) Admission { return Admission{Refusal: r} }

// inject decides on the call's fault and reports whether it has to wait for
// one.
func (c *Call) inject(now Instant, rnd uint64) (wait bool) {
	p := &c.method.rule.policy.Fault
	if !p.On() {
		return false
	}
	fault := p.decide(rnd, c.get(p.Header))
	if !fault.Abort && fault.Delay == 0 {
		return false
	}
	counts := &c.method.service.counts
	if p.Mode == Observe {
		counts.wouldInject.Add(1)
		return false
	}
	counts.faults.Add(1)
	c.fault = fault
	if fault.Delay > 0 {
		c.phase, c.resumeAt = delayed, now+fault.Delay
		return true
	}
	return false
}

// Fault returns what was injected into the call: the zero Fault where nothing
// was.
func (c *Call) Fault() Fault { return c.fault }

func (c *Call) get(name string) string {
	if name == "" || c.metadata == nil {
		return ""
	}
	return c.metadata.Get(name)
}

// gate asks the policies that never make a call wait.
func (c *Call) gate(now Instant, rnd uint64) *Refusal {
	m, p := c.method, &c.method.rule.policy
	if c.fault.Abort {
		r := c.refuse(FaultInjected, "fault", "an injected fault: "+m.service.name+" has fault.abort in its policy")
		r.Status = c.fault.Code
		return r
	}
	if l := m.rule.rate; l != nil {
		if wait, ok := l.take(now, m.name, c.get(p.RateLimit.KeyHeader)); !ok && c.act(p.RateLimit.Mode, RateLimit) {
			return c.rateRefusal(wait)
		}
	}
	if t := m.rule.throttle; t != nil {
		chance, ok := t.admit(now, rnd)
		if !ok && c.act(p.Throttle.Mode, Throttled) {
			return c.throttleRefusal(chance)
		}
		c.throttled = !ok
	}
	if b := m.breaker; b != nil && m.rule.limiter != nil && b.Blocks(now) {
		// No use in waiting for a slot to be refused then.
		return c.acquire(now, rnd, &c.first)
	}
	return nil
}

// act reports whether a policy that says no is to be obeyed. In OBSERVE it is
// noted instead.
func (c *Call) act(mode Mode, reason Reason) bool {
	if mode == Observe {
		c.note(reason)
		return false
	}
	return true
}

// note counts that a policy in OBSERVE would have refused the call.
func (c *Call) note(reason Reason) {
	counts := &c.method.service.counts
	counts.observed[reason].Add(1)
	if !c.observed {
		c.observed = true
		counts.wouldRefuse.Add(1)
	}
}

// enter asks the concurrency limit for a slot, or how the wait for one stands.
func (c *Call) enter(l *Limiter, now Instant) (Place, Turn) {
	if c.phase == waiting {
		return l.Look(&c.waiter, now)
	}
	place, turn, woken := l.Enter(&c.waiter, now, c.criticality, c.limit())
	c.woken = woken
	return place, turn
}

// Woken returns the waiters of other calls that this one's arrival moved: the
// shell asks Admit of each again. Ask after Admit.
func (c *Call) Woken() []*Waiter {
	woken := c.woken
	c.woken = nil
	return woken
}

// acquire takes the permit of the service's or the method's breaker.
func (c *Call) acquire(now Instant, rnd uint64, into *breakerPermit) *Refusal {
	b := c.method.breaker
	if b == nil {
		return nil
	}
	permit, refusal, ok := b.Acquire(now, rnd)
	if !ok {
		return c.breakerRefusal(refusal, "")
	}
	if permit.WouldRefuse() {
		c.note(BreakerOpen)
	}
	*into = permit
	return nil
}

// limit is when the call is over, all told: the one value that everything
// about its time is reckoned from. Zero: never.
func (c *Call) limit() Instant {
	if c.stream {
		return c.deadline
	}
	if t := c.method.rule.policy.Timeout; t > 0 {
		return earlier(c.deadline, c.start+t)
	}
	return c.deadline
}

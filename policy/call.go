package policy

import (
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
)

type breakerPermit = breaker.Permit

// Call is one call's life. The zero value is ready for Begin. It must not be
// copied after that, and is not safe for concurrent use; the shell guards it.
type Call struct {
	method      *Method
	start       Instant
	deadline    Instant // the caller's own; 0: none
	touched     Instant // when a byte of it last moved
	metadata    Metadata
	criticality Criticality
	phase       phase
	stream      bool
	noRetry     bool
	idempotent  bool
	once        bool // see Arrival.Once
	observed    bool // a policy in OBSERVE would have refused it
	throttled   bool // the throttle in OBSERVE would have dropped it
	postponed   bool // see Postpone
	doubt       bool // an endpoint may have done it
	hashed      bool
	hash        uint64 // where hashed, what a balancer that hashes chooses by
	holdsFirst  bool   // first holds the permit of the first attempt
	first       breakerPermit
	fault       Fault
	resumeAt    Instant // when an injected delay is over
	entered     Instant // when it was let in
	waiter      Waiter
	woken       []*Waiter

	sent    uint32 // attempts picked so far
	counted uint32 // of those, the ones that an endpoint may have processed
	retries uint8
	hedges  uint8
	flying  uint8                 // attempts under way
	again   Instant               // when the next attempt is due; 0: none is
	hedgeAt Instant               // when the next hedge is due; 0: none is
	tried   [4]*balancer.Endpoint // the first few; past them a repeat does no harm
}

// Attempt is one try at one endpoint. The zero value is ready for Call.Pick.
type Attempt struct {
	// Endpoint is where the attempt goes. nil: the shell's own transport
	// chooses.
	Endpoint *balancer.Endpoint
	start    Instant
	permit   breakerPermit // of the service's or method's breaker
	own      breakerPermit // of the endpoint's breaker
	live     bool
	hedge    bool
	spared   bool // see spare
}

// Live reports whether the attempt was picked and not finished yet.
func (a *Attempt) Live() bool { return a.live }

// Start returns when the attempt was picked.
func (a *Attempt) Start() Instant { return a.start }

// Hedge reports whether the attempt was sent beside another one.
func (a *Attempt) Hedge() bool { return a.hedge }

// Method returns the method that the call is to.
func (c *Call) Method() *Method { return c.method }

// Start returns when the call arrived.
func (c *Call) Start() Instant { return c.start }

// Attempts returns how many attempts were picked so far.
func (c *Call) Attempts() int { return int(c.sent) }

// Previous returns how many attempts before the present one an endpoint may
// have processed: what grpc-previous-rpc-attempts tells (gRFC A6).
func (c *Call) Previous() int { return max(int(c.counted)-1, 0) }

// InFlight returns how many attempts are under way.
func (c *Call) InFlight() int { return int(c.flying) }

// Pick chooses the endpoint of the next attempt, one that the call has not
// tried where there is another. Each attempt picked wants one Finish or
// Abandon.
func (c *Call) Pick(now Instant, rnd uint64, a *Attempt) *Refusal {
	m := c.method
	set := m.service.set.Load()
	byEndpoint := m.byEndpoint()
	var excluded balancer.Excluded
	if byEndpoint || c.sent > 0 {
		excluded = func(e *balancer.Endpoint) bool {
			return c.hasTried(e) || byEndpoint && m.endpointBreaker(e).Blocks(now)
		}
	}
	ask := balancer.Ask{Now: now, Rnd: rnd, Hash: c.hash, Hashed: c.hashed, Excluded: excluded}
	e := m.rule.picker.Pick(set, ask)
	if e == nil && c.sent > 0 {
		// Every other one is out of the question: a repeat is better than none.
		ask.Excluded = nil
		if byEndpoint {
			ask.Excluded = func(e *balancer.Endpoint) bool { return m.endpointBreaker(e).Blocks(now) }
		}
		e = m.rule.picker.Pick(set, ask)
	}
	if e == nil {
		return c.noEndpoint(set, byEndpoint, now)
	}
	var own breakerPermit
	if byEndpoint {
		permit, refused, ok := m.endpointBreaker(e).Acquire(now, rnd)
		if !ok {
			// Another call took the last probe between the two questions.
			return c.breakerRefusal(refused, e.Address())
		}
		if permit.WouldRefuse() && m.allBlocked(set, now) {
			c.note(BreakerOpen) // else it would have been sent elsewhere
		}
		own = permit
	}
	if refusal := c.Send(now, rnd, a); refusal != nil {
		if byEndpoint {
			m.endpointBreaker(e).Report(own, now, breaker.Ignored, 0, rnd)
		}
		return refusal
	}
	a.Endpoint, a.own = e, own
	if n := int(c.sent) - 1; n < len(c.tried) {
		c.tried[n] = e
	}
	e.Begin()
	return nil
}

// Send begins an attempt whose endpoint the shell's own transport chooses: it
// stands for Pick where there is none to pick.
func (c *Call) Send(now Instant, rnd uint64, a *Attempt) *Refusal {
	permit := c.first
	if c.holdsFirst {
		c.holdsFirst, c.first = false, breakerPermit{}
	} else if refusal := c.acquire(now, rnd, &permit); refusal != nil {
		return refusal
	}
	*a = Attempt{start: now, permit: permit, live: true, hedge: c.flying > 0}
	if c.sent > 0 {
		c.method.service.counts.retries.Add(1)
	}
	c.sent++
	c.counted++
	c.flying++
	c.again = 0
	c.planHedge(now)
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

func (m *Method) byEndpoint() bool {
	return m.rule.breakers != nil && m.rule.policy.Breaker.Scope == ScopeEndpoint
}

// allBlocked reports whether no endpoint would get a call if the breakers by
// endpoint enforced.
func (m *Method) allBlocked(set *balancer.Set, now Instant) bool {
	for _, e := range set.All() {
		if !e.Barred() && !m.endpointBreaker(e).WouldBlock(now) {
			return false
		}
	}
	return true
}

func (m *Method) endpointBreaker(e *balancer.Endpoint) *breaker.Breaker {
	return m.rule.breakers.Get(breaker.Key{Service: m.service.name, Endpoint: e.Address()})
}

// Finish reports how an attempt ended and says what follows.
func (c *Call) Finish(a *Attempt, now Instant, e Ending, rnd uint64) Verdict {
	if c.flying == 1 && c.elsewhere(now, e) && (c.method.breaker == nil || c.method.breaker.Stands(a.permit)) {
		// The service's breaker has nothing to learn yet: that one endpoint of
		// several can't be reached is its own breaker's. The next attempt goes
		// by the same permit, unless that is of a state that is over.
		c.first, c.holdsFirst, a.permit = a.permit, true, breakerPermit{}
	}
	a.spare(e)
	c.Settle(a, now, e.Result, rnd)
	return c.decide(now, e, rnd)
}

// Judge says what would follow an attempt that ended so, for an answer whose
// head is here and whose rest is not: with Return the attempt goes on, and wants
// Settle at its end; with anything else it is over, and wants Settle now.
// Breakers hear of a failure at once, since no retry follows one that opens
// them; Settle does not tell them again.
func (c *Call) Judge(a *Attempt, now Instant, e Ending, rnd uint64) Verdict {
	a.spare(e)
	if outcome := c.blame(now, e.Result); outcome == breaker.Failure {
		c.teach(a, now, outcome, now-a.start, rnd)
	}
	c.flying--
	v := c.decide(now, e, rnd)
	c.flying++
	return v
}

// Settle reports how an attempt ended where nothing is left to decide: its
// answer went out, or the whole call is over.
func (c *Call) Settle(a *Attempt, now Instant, r Result, rnd uint64) {
	took, outcome := now-a.start, c.blame(now, r)
	c.leave(a, now, outcome, took, rnd)
	c.watch(a, now, r, outcome, took, rnd)
	if r == (Result{}) && !c.stream && c.method.rule.spends() {
		c.method.answeredIn(now, took)
	}
	*a = Attempt{}
}

// Answered says that an attempt's answer is the call's and goes out: no other
// attempt will be sent. Finish says so itself.
func (c *Call) Answered() { c.hedgeAt, c.again = 0, 0 }

// Abandon ends an attempt that nobody waits for any more: another one
// answered, or the call is over. Nothing is learnt of the endpoint.
func (c *Call) Abandon(a *Attempt, now Instant, rnd uint64) {
	c.leave(a, now, breaker.Ignored, now-a.start, rnd)
	if c.method.rule.spends() {
		c.method.outlasted(now, now-a.start)
	}
	*a = Attempt{}
}

// leave gives back what the attempt holds.
func (c *Call) leave(a *Attempt, now Instant, outcome breaker.Outcome, took time.Duration, rnd uint64) {
	c.flying--
	c.teach(a, now, outcome, took, rnd)
	if a.Endpoint == nil {
		return
	}
	timed := took
	if c.stream {
		timed = 0 // how long a stream lived says nothing of how fast it answers
	}
	if outcome == breaker.Ignored {
		a.Endpoint.Cancel(now, timed)
	} else {
		a.Endpoint.End(now, timed, outcome == breaker.Failure)
	}
}

// teach tells the breakers how the attempt ended, once.
func (c *Call) teach(a *Attempt, now Instant, outcome breaker.Outcome, took time.Duration, rnd uint64) {
	m := c.method
	if m.breaker != nil {
		m.breaker.Report(a.permit, now, outcome, took, rnd)
	}
	if a.Endpoint != nil && m.byEndpoint() {
		m.endpointBreaker(a.Endpoint).Report(a.own, now, outcome, took, rnd)
	}
	a.permit, a.own = breakerPermit{}, breakerPermit{}
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

// End records the call and returns the waiters of other calls that may go on
// now: the shell asks Admit of each again. Nothing may be asked of the call
// afterwards.
func (c *Call) End(now Instant, r Result, rnd uint64) (woken []*Waiter) {
	if !c.postponed {
		woken = c.close(now, r, rnd)
	}
	c.method.service.count(r)
	return woken
}

// close tells everything that learns from calls how this one ended, but for the
// count of statuses.
func (c *Call) close(now Instant, r Result, rnd uint64) (woken []*Waiter) {
	m := c.method
	latency := now - c.start
	if c.holdsFirst {
		// It never went out: nothing was learnt.
		c.holdsFirst = false
		if m.breaker != nil {
			m.breaker.Report(c.first, now, breaker.Ignored, 0, rnd)
		}
	}
	if l := m.rule.limiter; l != nil {
		sample := now - c.entered // how long it waited here says nothing of the server
		if c.sent == 0 || c.stream {
			sample = 0
		}
		woken = l.Leave(&c.waiter, now, sample, r.overload())
		if c.waiter.WouldRefuse() {
			c.note(ConcurrencyLimit)
		}
	}
	if t := m.rule.throttle; t != nil && c.sent > 0 && !c.throttled {
		t.report(now, rnd, r != Result{Code: ResourceExhausted}) // pushback; an outage is the breaker's
	}
	if c.stream && r.Reason == ReasonNone {
		// How long a stream lived says nothing of how fast it answers.
		m.service.recorder.RecordUntimed(now, r.slaOutcome())
	} else {
		m.service.recorder.Record(now, r.slaOutcome(), latency)
	}
	return woken
}

// Touch says that a byte of the call moved: the idle timeout of a stream
// begins again.
func (c *Call) Touch(now Instant) { c.touched = now }

// MarkStream says that the call turned out to be a stream: unary timeouts hold
// no longer, those of streams do, and nothing is sent twice. The method is
// remembered as a stream's.
func (c *Call) MarkStream() {
	if c.stream {
		return
	}
	c.stream = true
	c.hedgeAt = 0
	if !c.method.stream.Load() {
		c.method.stream.Store(true)
	}
}

// IsStream reports whether the call is known to be a stream.
func (c *Call) IsStream() bool { return c.stream }

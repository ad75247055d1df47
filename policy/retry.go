package policy

import "time"

// Ending is how an attempt ended, with what decides whether there is another.
type Ending struct {
	Result
	// Pushback is what the endpoint said of trying again
	// (grpc-retry-pushback-ms, RetryInfo): so much later; negative: not at all.
	// Zero: nothing.
	Pushback time.Duration
	// Unreached says that the request never got to the endpoint: no connection
	// could be made.
	Unreached bool
	// Unprocessed says that the endpoint provably did nothing with the request:
	// REFUSED_STREAM, or above the last stream of a GOAWAY.
	Unprocessed bool
	// Committed says that the call can't be sent again: part of the answer went
	// out, or the request is not kept whole any more.
	Committed bool
}

// Action is what follows an attempt's end.
type Action uint8

// The actions.
const (
	// Return: the attempt's answer is the call's.
	Return Action = iota
	// Again: another attempt begins at Verdict.At.
	Again
	// Await: another attempt is under way, and its answer counts.
	Await
)

// Verdict is what follows an attempt's end.
type Verdict struct {
	Action Action
	// At is when the next attempt begins; Call.Due says so then. Only of Again.
	At Instant
}

// maxTransparent bounds how many endpoints see a call that none of them
// processed.
const maxTransparent = 4

// decide says what follows an attempt that ended so. Its order is that of gRFC
// A6: what was provably not processed goes elsewhere at once and costs nothing;
// then attempts under way; then retries, then hedges.
func (c *Call) decide(now Instant, e Ending, rnd uint64) Verdict {
	c.doubt = c.doubt || e.leavesDoubt()
	if e.Committed || e.Reason == ReasonNone && e.Code == OK || c.over(now) {
		c.Answered()
		return Verdict{}
	}
	if e.Unreached || e.Unprocessed {
		c.counted--
		if c.flying > 0 {
			return Verdict{Action: Await}
		}
		if c.elsewhere(now, e) && (c.holdsFirst || !c.blocked(now)) {
			c.method.service.counts.transparent.Add(1)
			return c.plan(now)
		}
	}
	if c.flying > 0 {
		return c.awaitOthers(now, e)
	}
	if at, ok := c.retryAt(now, e, rnd); ok {
		return c.plan(at)
	}
	if c.hedgeAt != 0 && c.nonFatal(e) && e.Pushback >= 0 && c.hedgeDue(now) == Another {
		// The next hedge does not wait for its delay once the one before it
		// failed (gRFC A6).
		return c.plan(now + e.Pushback)
	}
	c.hedgeAt = 0
	return Verdict{}
}

// MayRepeat reports whether a failed answer may yet be followed by another
// attempt: then it is worth a moment to see how an answer goes on.
func (c *Call) MayRepeat() bool { return !c.stream && !c.noRetry && c.method.rule.spends() }

// over reports whether the call's time is up.
func (c *Call) over(now Instant) bool {
	limit := c.limit()
	return limit != 0 && now >= limit
}

// plan makes the next attempt due at an instant. Nothing is under way until
// then, so that there is nothing to hedge either.
func (c *Call) plan(at Instant) Verdict {
	c.again, c.hedgeAt = at, 0
	return Verdict{Action: Again, At: at}
}

// elsewhere reports whether an attempt that no endpoint processed is sent to
// another one at once, where no other attempt is under way.
func (c *Call) elsewhere(now Instant, e Ending) bool {
	return (e.Unprocessed || e.Unreached && c.Untried()) && !e.Committed && !c.over(now) && !c.noRetry && int(c.sent) < maxTransparent
}

// blocked reports whether the service's or the method's breaker lets nothing
// through now.
func (c *Call) blocked(now Instant) bool {
	b := c.method.breaker
	return b != nil && b.Blocks(now)
}

// retryAt says when a failed attempt is made again, if it is.
func (c *Call) retryAt(now Instant, e Ending, rnd uint64) (Instant, bool) {
	p := &c.method.rule.policy.Retry
	if p.MaxAttempts <= 1 || p.Mode == Off || c.stream || c.noRetry {
		return 0, false
	}
	counts := &c.method.service.counts
	if int(c.retries)+1 >= p.MaxAttempts || !c.worthIt(p.Codes.or(Codes(Unavailable)), e) {
		return 0, false
	}
	if e.Pushback < 0 {
		counts.pushedBack.Add(1)
		return 0, false
	}
	at := now + p.backoff(int(c.retries), rnd)
	if e.Pushback > 0 {
		at = now + e.Pushback
	}
	if limit := c.limit(); limit != 0 && at+c.method.typical() >= limit {
		counts.tooLate.Add(1)
		return 0, false // it could not finish before the call's end
	}
	if c.blocked(now) {
		return 0, false
	}
	if !c.method.service.budget.withdraw(now) {
		counts.overBudget.Add(1)
		return 0, false
	}
	c.retries++
	if p.Mode == Observe {
		counts.wouldRetry.Add(1)
		return 0, false
	}
	return at, true
}

// worthIt reports whether an ending is one that is tried again. What the
// endpoint may have processed is, only where the call may be processed twice.
func (c *Call) worthIt(codes CodeSet, e Ending) bool {
	if c.once && !c.idempotent && !e.Unreached && !e.Unprocessed {
		return false
	}
	switch e.Reason {
	case ReasonNone:
		return codes.Has(e.Code)
	case ConnectFailed, TLS:
		return codes.Has(Unavailable)
	case ConnectionLost:
		return codes.Has(Unavailable) && (c.idempotent || e.Unprocessed)
	case Draining: // the endpoint's own: a GOAWAY, a refused stream
		return codes.Has(Unavailable) && e.Unprocessed
	case Protocol:
		return codes.Has(Internal) && c.idempotent
	case Timeout: // of the attempt: that is what per_try_timeout is for
		return c.idempotent
	}
	return false
}

// backoff returns the pause before the retry after n others: full jitter.
func (p *RetryPolicy) backoff(n int, rnd uint64) time.Duration {
	d, most := p.BackoffBase, p.BackoffMax
	if d == 0 {
		d = DefaultBackoffBase
	}
	if most == 0 {
		most = max(DefaultBackoffMax, d)
	}
	for ; n > 0 && d < most; n-- {
		d *= 2
	}
	d = min(d, most)
	return time.Duration(float64(d) * float64(rnd>>11) / (1 << 53))
}

// Due is what the shell has to do for a call whose Expiry came.
type Due uint8

// What may be due.
const (
	// Nothing is due yet.
	Nothing Due = iota
	// Resume: Admit is to be asked again.
	Resume
	// Another: an attempt is to be sent, by Pick or Send.
	Another
)

// Due says what is to be done at now. ready says that the request is there
// whole, so that it can be sent beside an attempt under way; a hedge waits for
// that.
func (c *Call) Due(now Instant, ready bool) Due {
	switch c.phase {
	case delayed:
		if now >= c.resumeAt {
			return Resume
		}
		return Nothing
	case waiting:
		if now >= c.method.rule.limiter.Due(&c.waiter) {
			return Resume
		}
		return Nothing
	}
	if c.again != 0 {
		if now < c.again {
			return Nothing
		}
		c.again = 0
		return Another
	}
	if c.hedgeAt == 0 || now < c.hedgeAt {
		return Nothing
	}
	if !ready {
		c.hedgeAt = now + notReady
		return Nothing
	}
	return c.hedgeDue(now)
}

// notReady is when a hedge is looked at again whose request is not there yet.
const notReady = 5 * time.Millisecond

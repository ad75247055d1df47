package relay

import (
	"math/rand/v2"
	"slices"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// attempt is one try of a call: a leg to an endpoint, and what policy knows of
// it. The first is part of its call; retries and hedges are made as they come.
type attempt struct {
	leg
	policy    policy.Attempt
	endpoint  *balancer.Endpoint // where it went, once it was picked
	queuedAt  *upstream          // where it waits for a connection
	parent    string             // traceparent that the endpoint gets
	number    int                // for traces
	head      *head              // final headers that are held; nil: none are
	heldUntil policy.Instant
}

// address returns where the attempt went; empty: nowhere yet.
func (a *attempt) address() string {
	if a.endpoint == nil {
		return ""
	}
	return a.endpoint.Address()
}

// pristine reports whether nothing of the request went out by this attempt.
func (a *attempt) pristine() bool { return a.conn == nil }

// attemptOn returns the attempt under way on a leg, or nil. c.mu is held.
func (c *call) attemptOn(l *leg) *attempt {
	for _, a := range c.live {
		if &a.leg == l {
			return a
		}
	}
	return nil
}

// dispatch picks an endpoint for the attempt and hands it over: at once, or as
// soon as a connection has room. c.mu is held.
func (c *call) dispatch(b *batch, a *attempt) {
	for {
		if refusal := c.policy.Pick(b.now, rand.Uint64(), &a.policy); refusal != nil {
			if c.policy.InFlight() == 0 { // else it was a hedge, and the others go on
				c.refuse(b, refusal)
			}
			return
		}
		a.endpoint, a.number = a.policy.Endpoint, c.policy.Attempts()
		c.live = append(c.live, a)
		a.parent = c.req.traceparent
		if c.trace != nil {
			a.parent = c.trace.StartAttempt(b.now, a.address(), a.number)
		}
		refusal := c.relay.upstreamOf(a.endpoint, c.transport).take(b, a)
		if refusal == nil {
			return
		}
		if next := c.unreached(b, a, refusal); next == nil {
			return
		}
		// The same attempt, to another endpoint: nothing of it went out.
	}
}

// unreached ends an attempt that never got to its endpoint. It returns the
// attempt where that is to be dispatched again at once.
func (c *call) unreached(b *batch, a *attempt, refusal *policy.Refusal) *attempt {
	verdict := c.judge(b, a, policy.Ending{Result: policy.Refused(refusal), Unreached: true}, refusal.Message)
	switch {
	case verdict.Action == policy.Return:
		c.refuse(b, refusal)
	case verdict.Action == policy.Again && verdict.At <= b.now:
		return c.successor(a)
	case verdict.Action == policy.Again:
		c.successor(a)
	}
	return nil
}

// failed ends an attempt whose answer may not be the call's. It reports whether
// the call goes on without it: there is another attempt, now or later.
func (c *call) failed(b *batch, a *attempt, e policy.Ending, message string) bool {
	verdict := c.judge(b, a, e, message)
	a.cut(b)
	if verdict.Action == policy.Return {
		return false
	}
	c.goOn(b, a, verdict)
	return true
}

// cut resets the attempt's stream, where it has one that is not over.
func (a *attempt) cut(b *batch) {
	if a.conn != nil {
		a.reset(b, codeCancel)
	}
}

// goOn leaves an attempt behind, whose books are closed, and does what follows.
func (c *call) goOn(b *batch, a *attempt, verdict policy.Verdict) {
	if verdict.Action == policy.Again {
		if next := c.successor(a); verdict.At <= b.now {
			c.dispatch(b, next)
		}
	}
	if a != c.main {
		a.discard()
	}
	c.rearm(b)
}

// discard forgets what the attempt would have sent.
func (a *attempt) discard() {
	if a.conn != nil {
		a.conn.mu.Lock()
		defer a.conn.mu.Unlock()
	}
	a.dropQueue()
}

// judge ends the attempt's books and asks what follows.
func (c *call) judge(b *batch, a *attempt, e policy.Ending, message string) policy.Verdict {
	e.Committed = e.Committed || c.answered || !c.main.keep && !c.main.pristine()
	verdict := c.policy.Finish(&a.policy, b.now, e, rand.Uint64())
	c.forget(b, a, e.Result, message)
	return verdict
}

// forget takes an attempt whose books are closed off the list.
func (c *call) forget(b *batch, a *attempt, r policy.Result, message string) {
	if i := slices.Index(c.live, a); i >= 0 {
		c.live = slices.Delete(c.live, i, i+1)
	}
	if u := a.queuedAt; u != nil {
		a.queuedAt = nil
		u.leave(a)
	}
	a.dropHead()
	if c.trace != nil {
		c.trace.EndAttempt(b.now, a.number, r, message)
	}
}

// abandon ends an attempt that nobody waits for any more.
func (c *call) abandon(b *batch, a *attempt) {
	c.policy.Abandon(&a.policy, b.now, rand.Uint64())
	a.reset(b, codeCancel)
	c.forget(b, a, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "another attempt answered first")
}

// successor returns the attempt that carries the request next, after a. What
// was sent of it is sent again; credit that went back for it does not go again.
func (c *call) successor(a *attempt) *attempt {
	old := c.main
	if a == old && old.pristine() {
		return old
	}
	if slices.Contains(c.live, old) || old.pristine() {
		return c.copyOf(old) // it still needs its own
	}
	next := &attempt{leg: leg{call: c, source: &c.down, keep: true}}
	old.conn.mu.Lock()
	next.queue, next.repaid = old.queue, max(old.sent, old.repaid)
	next.fin, next.trailers = old.fin, old.trailers
	old.queue, old.trailers = nil, nil
	old.conn.mu.Unlock()
	c.main = next
	return next
}

// copyOf returns an attempt with a copy of the request that main holds. The
// request is whole: nothing will be added to it.
func (c *call) copyOf(main *attempt) *attempt {
	next := &attempt{leg: leg{call: c, source: &c.down}}
	if main.conn != nil {
		main.conn.mu.Lock()
		defer main.conn.mu.Unlock()
	}
	if main.queue != nil {
		next.enqueue(main.queue.b)
		next.repaid = len(main.queue.b)
	}
	next.fin, next.trailers = main.fin, main.trailers
	return next
}

// whole reports whether the request is here to its end and kept, so that a copy
// of it can be sent. c.mu is held.
func (c *call) whole() bool {
	main := c.main
	if main.conn == nil {
		return main.fin
	}
	main.conn.mu.Lock()
	defer main.conn.mu.Unlock()
	return main.fin && main.keep
}

// connectFailed tells an attempt that waited for a connection that there is
// none.
func (a *attempt) connectFailed(b *batch, u *upstream, refuse func(c *call) *policy.Refusal) {
	c := a.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || a.queuedAt != u {
		return
	}
	a.queuedAt = nil
	if next := c.unreached(b, a, refuse(c)); next != nil {
		c.dispatch(b, next)
	}
	c.rearm(b)
}

package policy

import (
	"fmt"
	"time"
)

// Expiry returns when something falls due: the shell calls Expire, then
// ExpireAttempt of each attempt, then Due at or after it. Zero: never. a is an
// attempt under way, or nil; of several, the earliest Expiry counts.
func (c *Call) Expiry(a *Attempt) Instant {
	due := c.deadline
	if c.postponed {
		return due
	}
	p := &c.method.rule.policy
	switch c.phase {
	case delayed:
		due = earlier(due, c.resumeAt)
	case waiting:
		due = earlier(due, c.method.rule.limiter.Due(&c.waiter))
	}
	if c.again != 0 {
		due = earlier(due, c.again)
	}
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
	if c.hedgeAt != 0 {
		due = earlier(due, c.hedgeAt)
	}
	if p.PerTryTimeout > 0 && a != nil && a.live {
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
// due yet. a is the attempt that the message names, or nil.
func (c *Call) Expire(now Instant, a *Attempt) *Refusal {
	if c.postponed {
		if c.deadline == 0 || now < c.deadline {
			return nil
		}
		return c.refuse(Deadline, "", fmt.Sprintf("the caller's deadline of %v passed before the call was kept for later", c.deadline-c.start))
	}
	p := &c.method.rule.policy
	over := func(since Instant, d time.Duration) bool { return d > 0 && now >= since+d }
	switch {
	case !c.stream && over(c.start, p.Timeout):
		return c.expired(Timeout, "timeout", a, "no answer from %s within the timeout of %v%s", c.method.service.name, p.Timeout, at(a))
	case c.deadline != 0 && now >= c.deadline:
		return c.expired(Deadline, "", a, "the caller's deadline of %v passed without an answer from %s%s", c.deadline-c.start, c.method.service.name, at(a))
	case c.stream && over(c.start, p.Stream.MaxDuration):
		return c.expired(Timeout, "stream.max_duration", a, "the stream reached its max_duration of %v", p.Stream.MaxDuration)
	case c.stream && over(c.touched, p.Stream.IdleTimeout):
		return c.expired(Timeout, "stream.idle_timeout", a, "neither side sent anything for the stream's idle_timeout of %v", p.Stream.IdleTimeout)
	}
	return nil
}

// ExpireAttempt returns the refusal that ends an attempt at now, or nil when
// it may go on. What follows is Finish's to say.
func (c *Call) ExpireAttempt(now Instant, a *Attempt) *Refusal {
	d := c.method.rule.policy.PerTryTimeout
	if c.stream || d == 0 || !a.live || now < a.start+d {
		return nil
	}
	return c.expired(Timeout, "per_try_timeout", a, "no answer from %s within per_try_timeout of %v%s", c.method.service.name, d, at(a))
}

func (c *Call) expired(reason Reason, policy string, a *Attempt, format string, args ...any) *Refusal {
	r := c.refuse(reason, policy, fmt.Sprintf(format, args...))
	r.Endpoint = a.address()
	return r
}

// address returns where the attempt went; empty: it is not known.
func (a *Attempt) address() string {
	if a == nil || a.Endpoint == nil {
		return ""
	}
	return a.Endpoint.Address()
}

func at(a *Attempt) string {
	if address := a.address(); address != "" {
		return " (endpoint " + address + ")"
	}
	return ""
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

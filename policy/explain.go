package policy

import (
	"fmt"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
)

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
	r := c.refuse(BreakerOpen, "circuit_breaker", c.sofar(message))
	r.Endpoint, r.RetryAfter = endpoint, refused.RetryAfter
	return r
}

// sofar says of a call that was refused in its middle how far it had come.
func (c *Call) sofar(message string) string {
	if c.sent == 0 {
		return message
	}
	attempts := "attempts"
	if c.sent == 1 {
		attempts = "attempt"
	}
	return fmt.Sprintf("%s (after %d failed %s)", message, c.sent, attempts)
}

func (c *Call) rateRefusal(wait time.Duration) *Refusal {
	p := &c.method.rule.policy.RateLimit
	what := c.method.service.name
	if p.PerMethod {
		what = strings.TrimPrefix(c.method.name, "/")
	}
	if p.KeyHeader != "" {
		what += " for one " + p.KeyHeader
	}
	r := c.refuse(RateLimit, "rate_limit", fmt.Sprintf("%s takes %v calls a second; try again in %v", what, p.PerSecond, wait.Round(time.Millisecond)))
	r.RetryAfter = wait
	return r
}

func (c *Call) throttleRefusal(chance float64) *Refusal {
	r := c.refuse(Throttled, "client_throttle", fmt.Sprintf(
		"%s turns too many calls away, so %.0f %% of them are dropped before they are sent", c.method.service.name, 100*chance))
	r.RetryAfter = retryThrottled
	return r
}

// Advice to callers where no better is known: about as long as a restart or a
// discovery refresh takes.
const (
	retryWithoutEndpoints = time.Second
	retryThrottled        = time.Second
)

func (c *Call) noEndpoint(set *balancer.Set, byEndpoint bool, now Instant) *Refusal {
	name := c.method.service.name
	if set.Len() == 0 {
		message := fmt.Sprintf("service %s has no endpoints", name)
		if why := c.method.service.without.Load(); why != nil {
			if text := (*why)(); text != "" {
				message += ": " + text
			}
		}
		r := c.refuse(NoEndpoints, "", message)
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
	r := c.refuse(AllUnhealthy, "", fmt.Sprintf("service %s has %d endpoints and all are drained or terminating", name, set.Len()))
	r.RetryAfter = retryWithoutEndpoints
	return r
}

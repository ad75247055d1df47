package policy

// DeferPolicy hands unary gRPC calls to a task executor. The zero value hands
// it none.
type DeferPolicy struct {
	// Mode says which calls.
	Mode DeferMode
}

// DeferMode says which calls are kept for later.
type DeferMode uint8

// The modes.
const (
	// DeferNever, the zero value: none; a caller that asks is refused.
	DeferNever DeferMode = iota
	// DeferOnRequest: those whose caller asks for it; they are not tried now.
	DeferOnRequest
	// DeferOnFailure: those too that were tried now and failed, see
	// Call.Deferrable.
	DeferOnFailure
)

// String returns the mode's public name.
func (m DeferMode) String() string {
	switch m {
	case DeferNever:
		return "OFF"
	case DeferOnRequest:
		return "ON_REQUEST"
	case DeferOnFailure:
		return "ON_FAILURE"
	}
	return "UNKNOWN"
}

// Postpone takes a call that was not admitted out of its service's hands: its
// caller asked for it to be kept for later. It is no call to the endpoints, so
// from here on only its caller's deadline bounds it, and End counts its status
// and nothing else.
func (c *Call) Postpone() { c.postponed = true }

// PostponeFailed does the same with a call that failed with r and is kept for
// later: the service's books (SLA, limits) close with the failure, whatever the
// caller is told in the end. Each of its attempts must have been finished. It
// returns the waiters that may go on, as End does.
func (c *Call) PostponeFailed(now Instant, r Result, rnd uint64) (woken []*Waiter) {
	woken = c.close(now, r, rnd)
	c.postponed = true
	return woken
}

// Doubt says that an attempt ended in a way that leaves open whether its
// endpoint did what the call asks for, where its Ending does not tell.
func (c *Call) Doubt() { c.doubt = true }

// MayDefer reports whether the call may be kept for later should it fail.
func (c *Call) MayDefer() bool {
	return c.method.rule.policy.Defer.Mode == DeferOnFailure && !c.stream && !c.noRetry
}

// Deferrable reports whether a call whose end is r is to be kept for later, so
// that its caller need not know of the failure. The policy must say
// DeferOnFailure, the caller must not have forbidden a second try, and the call
// must not be a stream.
//
// Failures of the service or of the way to it count: UNAVAILABLE and
// RESOURCE_EXHAUSTED as answered, which say that the call was not done,
// BREAKER_OPEN, NO_ENDPOINTS, ALL_UNHEALTHY, CONNECT_FAILED, TLS, the limits
// (CONCURRENCY_LIMIT, QUEUE_TIMEOUT, RATE_LIMIT, THROTTLED) and injected faults
// with such a status. A call that an endpoint may have done (CONNECTION_LOST,
// TIMEOUT, DEADLINE_EXCEEDED as answered, or an earlier attempt that ended so)
// counts only where it may be done twice. Other answers are about the call
// itself: doing it again would not help. The caller's own deadline and cancel
// never count.
func (c *Call) Deferrable(now Instant, r Result) bool {
	if !c.MayDefer() || c.deadline != 0 && now >= c.deadline-early {
		return false
	}
	twice := c.idempotent
	switch r.Reason {
	case ReasonNone, FaultInjected:
		if r.Code == DeadlineExceeded {
			return twice
		}
		// The answer's own attempt may still be under way.
		return saysNotDone(r.Code) && (twice || !c.doubt && c.flying <= 1)
	case BreakerOpen, NoEndpoints, AllUnhealthy, ConnectFailed, TLS, ConcurrencyLimit, QueueTimeout, RateLimit, Throttled, ConnectionLost, Timeout:
		return twice || !c.doubt && c.flying == 0
	}
	return false
}

// saysNotDone reports whether a status that an endpoint answers says that the
// call was turned away.
func saysNotDone(code Code) bool { return code == Unavailable || code == ResourceExhausted }

// leavesDoubt reports whether an endpoint may have done what the call asks for
// although its attempt ended so.
func (e Ending) leavesDoubt() bool {
	return !e.Unreached && !e.Unprocessed && (e.Reason != ReasonNone || e.Code != OK && !saysNotDone(e.Code))
}

// Deferral is what became of a call that was to be kept for later.
type Deferral uint8

// The kinds of deferral.
const (
	// DeferredOnRequest: kept, as its caller asked.
	DeferredOnRequest Deferral = iota
	// DeferredOnFailure: kept, since it failed.
	DeferredOnFailure
	// DeferRefused: it was not kept.
	DeferRefused
	numDeferrals
)

// CountDeferral counts one.
func (s *Service) CountDeferral(d Deferral) { s.counts.deferrals[d].Add(1) }

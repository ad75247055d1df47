package policy

import "sync/atomic"

// counters are a service's running totals. They only grow.
type counters struct {
	codes   [NumCodes]atomic.Uint64
	reasons [numReasons]atomic.Uint64
	// What policies in OBSERVE would have done: by reason, and the calls that
	// at least one of them would have refused.
	observed      [numReasons]atomic.Uint64
	wouldRefuse   atomic.Uint64
	wouldRetry    atomic.Uint64
	wouldHedge    atomic.Uint64
	wouldFallBack atomic.Uint64
	wouldInject   atomic.Uint64

	retries     atomic.Uint64 // attempts after a call's first, all kinds
	transparent atomic.Uint64
	hedges      atomic.Uint64
	overBudget  atomic.Uint64
	pushedBack  atomic.Uint64
	tooLate     atomic.Uint64
	overflowed  atomic.Uint64
	fallbacks   atomic.Uint64
	faults      atomic.Uint64
	deferrals   [numDeferrals]atomic.Uint64
}

// Count is one running total by its label.
type Count struct {
	Label string
	Total uint64
}

// Codes returns how many calls ended with each gRPC status; those that never
// occurred are left out.
func (s *Service) Codes() []Count {
	var out []Count
	for c := range s.counts.codes {
		if n := s.counts.codes[c].Load(); n > 0 {
			out = append(out, Count{Code(c).String(), n})
		}
	}
	return out
}

// Refusals returns how many calls the agent refused or ended for each reason;
// those that never occurred are left out.
func (s *Service) Refusals() []Count { return byReason(&s.counts.reasons) }

// Observed returns how many calls policies in OBSERVE would have refused, by
// reason; those that never occurred are left out. One call may be in several.
func (s *Service) Observed() []Count { return byReason(&s.counts.observed) }

func byReason(counts *[numReasons]atomic.Uint64) []Count {
	var out []Count
	for r := range counts {
		if n := counts[r].Load(); n > 0 {
			out = append(out, Count{Reason(r).String(), n})
		}
	}
	return out
}

// WouldRefuse returns how many calls at least one policy in OBSERVE would have
// refused.
func (s *Service) WouldRefuse() uint64 { return s.counts.wouldRefuse.Load() }

// Retries returns how many attempts were made again, hedges included.
func (s *Service) Retries() uint64 { return s.counts.retries.Load() }

// Actions returns what the policies did beside refusing, in a fixed order,
// those that never occurred included.
func (s *Service) Actions() []Count {
	c := &s.counts
	ejected, wouldEject := s.ejections()
	retries, transparent, hedges := c.retries.Load(), c.transparent.Load(), c.hedges.Load()
	return []Count{
		{"retry", max(retries, transparent+hedges) - transparent - hedges},
		{"transparent_retry", transparent},
		{"hedge", hedges},
		{"over_budget", c.overBudget.Load()},
		{"pushed_back", c.pushedBack.Load()},
		{"too_late", c.tooLate.Load()},
		{"replay_overflow", c.overflowed.Load()},
		{"fallback", c.fallbacks.Load()},
		{"fault", c.faults.Load()},
		{"deferred", c.deferrals[DeferredOnRequest].Load()},
		{"deferred_on_failure", c.deferrals[DeferredOnFailure].Load()},
		{"defer_refused", c.deferrals[DeferRefused].Load()},
		{"ejected", ejected},
		{"would_retry", c.wouldRetry.Load()},
		{"would_hedge", c.wouldHedge.Load()},
		{"would_fall_back", c.wouldFallBack.Load()},
		{"would_inject", c.wouldInject.Load()},
		{"would_eject", wouldEject},
	}
}

func (s *Service) count(r Result) {
	code := r.Code
	if code >= NumCodes {
		code = Unknown
	}
	s.counts.codes[code].Add(1)
	if r.Reason != ReasonNone {
		s.counts.reasons[r.Reason].Add(1)
	}
}

// Overflowed counts a call whose request outgrew what is kept to send it
// again: it can't be retried any more.
func (c *Call) Overflowed() { c.method.service.counts.overflowed.Add(1) }

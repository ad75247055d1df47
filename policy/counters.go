package policy

import "sync/atomic"

// counters are a service's running totals. They only grow.
type counters struct {
	codes   [NumCodes]atomic.Uint64
	reasons [numReasons]atomic.Uint64
	retries atomic.Uint64
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
func (s *Service) Refusals() []Count {
	var out []Count
	for r := range s.counts.reasons {
		if n := s.counts.reasons[r].Load(); n > 0 {
			out = append(out, Count{Reason(r).String(), n})
		}
	}
	return out
}

// Retries returns how many attempts were made again.
func (s *Service) Retries() uint64 { return s.counts.retries.Load() }

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

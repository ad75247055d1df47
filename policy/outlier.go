package policy

import (
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
)

// Sweep does what time asks of the service's endpoints: outlier detection
// judges them once an interval and lets those back whose time is over. The
// shell calls it again at the instant that it returns; zero: not before the
// settings change. Called early, or more often, it costs next to nothing. rnd is
// a fresh uniform random number.
func (s *Service) Sweep(now Instant, rnd uint64) (next Instant) {
	return s.outliers.Sweep(s.set.Load(), now, rnd)
}

// Outliers returns what outlier detection has done so far, and which endpoints
// are out, or would be.
func (s *Service) Outliers() balancer.OutlierSnapshot { return s.outliers.Snapshot() }

// OnEjection names who hears of each endpoint that goes out of rotation, or
// would, and of each that is back. It must not block, and not ask the service
// of its outliers.
func (s *Service) OnEjection(told func(e balancer.Ejection, out bool)) { s.onEjection.Store(&told) }

func (s *Service) ejectionHeard(e balancer.Ejection, out bool) {
	if told := s.onEjection.Load(); told != nil {
		(*told)(e, out)
	}
}

// ejections returns how many there were, and how many there would have been.
func (s *Service) ejections() (ejected, would uint64) {
	o := s.outliers.Snapshot()
	for cause := range balancer.NumCauses {
		ejected += o.Ejected[cause]
		would += o.WouldEject[cause]
	}
	return ejected, would
}

// spare marks an attempt whose failure says nothing bad of the endpoint's
// health: it asked for less, or goes in good order and left the request alone.
func (a *Attempt) spare(e Ending) {
	a.spared = e.Unprocessed || e.Pushback != 0 && e.Result == Result{Code: Unavailable}
}

// watch tells outlier detection how an attempt ended.
func (c *Call) watch(a *Attempt, now Instant, r Result, blame breaker.Outcome, took time.Duration, rnd uint64) {
	if a.Endpoint == nil {
		return
	}
	outcome := r.endpointOutcome(blame, a.spared)
	if c.stream && r.Reason == Timeout {
		outcome = balancer.Ignored // it lived as long as it may, or both sides had nothing to say
	}
	s := c.method.service
	s.outliers.Observe(s.set.Load(), a.Endpoint, now, balancer.Attempt{Outcome: outcome, Took: took, Stream: c.stream}, rnd)
}

// endpointOutcome says what the result means for the endpoint's health, given
// whose fault it is.
func (r Result) endpointOutcome(blame breaker.Outcome, spared bool) balancer.Outcome {
	switch {
	case blame == breaker.Success:
		return balancer.Success
	case blame == breaker.Ignored && r != Result{Code: ResourceExhausted}:
		return balancer.Ignored
	case blame == breaker.Ignored || spared:
		return balancer.Overloaded
	}
	switch r.Reason {
	case ConnectFailed, ConnectionLost, Timeout, TLS:
		return balancer.LocalFailure
	}
	return balancer.Failure
}

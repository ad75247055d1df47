package balancer

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"time"
)

// sample is an endpoint's interval, with calls enough to be judged.
type sample struct {
	endpoint *Endpoint
	counts
}

// verdict is an endpoint that crossed a threshold.
type verdict struct {
	endpoint *Endpoint
	cause    Cause
	badness  float64 // among those of one cause
	reason   string
}

// judge ends an interval: it ejects those that crossed a threshold, the worst
// of each cause first, since the bound may not leave room for all. o.mu is
// held.
func (o *Outliers) judge(p *OutlierOptions, now Instant, rnd uint64) {
	o.samples = o.samples[:0]
	for _, e := range o.set.Load().All() {
		c := e.record.take()
		if e.record.from.Load() != never && !e.Barred() && c.calls() >= uint64(p.MinimumCalls) {
			o.samples = append(o.samples, sample{e, c})
		}
	}
	all := p.failing(o.samples)
	all = append(all, p.deviating(o.samples)...)
	all = append(all, p.slow(o.samples)...)
	for _, v := range all {
		if v.endpoint.record.from.Load() == never {
			continue // it is out for another cause
		}
		o.eject(p, v.endpoint, now, v.cause, v.reason, rnd)
		rnd = scramble(rnd)
	}
	clear(o.samples) // it must not keep endpoints that leave
}

func worstFirst(all []verdict) []verdict {
	slices.SortStableFunc(all, func(a, b verdict) int { return cmp.Compare(b.badness, a.badness) })
	return all
}

// failing finds those whose share of failures is too large.
func (o *OutlierOptions) failing(samples []sample) (found []verdict) {
	if o.FailureRate == 0 {
		return nil
	}
	for _, s := range samples {
		if rate := float64(s.failures) / float64(s.calls()); rate >= o.FailureRate {
			found = append(found, verdict{s.endpoint, CauseFailureRate, rate, fmt.Sprintf("%d of %d attempts failed", s.failures, s.calls())})
		}
	}
	return worstFirst(found)
}

// deviating finds those whose success rate is far below the others'. The
// standard deviation is the population's, as Envoy's.
func (o *OutlierOptions) deviating(samples []sample) (found []verdict) {
	n := len(samples)
	if o.SuccessRateDeviation == 0 || n < max(o.MinimumHosts, 1) {
		return nil
	}
	var mean, variance float64
	for _, s := range samples {
		mean += s.successRate() / float64(n)
	}
	for _, s := range samples {
		variance += (s.successRate() - mean) * (s.successRate() - mean) / float64(n)
	}
	least := mean - o.SuccessRateDeviation*math.Sqrt(variance)
	for _, s := range samples {
		// Equal rates must not fall below their own mean by a rounding error.
		if rate := s.successRate(); rate < least-1e-9 {
			found = append(found, verdict{s.endpoint, CauseSuccessRate, least - rate,
				fmt.Sprintf("%.1f %% of %d attempts succeeded, %.1f %% is the least among %d endpoints", 100*rate, s.calls(), 100*least, n)})
		}
	}
	return worstFirst(found)
}

// slow finds those whose typical latency is far above the median endpoint's.
func (o *OutlierOptions) slow(samples []sample) (found []verdict) {
	if o.LatencyFactor == 0 {
		return nil
	}
	var typical []float64
	for _, s := range samples {
		if s.timed >= uint64(o.MinimumCalls) {
			typical = append(typical, s.typical())
		}
	}
	n := len(typical)
	if n < max(o.MinimumHosts, 1) {
		return nil
	}
	slices.Sort(typical)
	// Of an even number the lower one: with two endpoints the slow one must not
	// be measured by itself.
	median := exp2(typical[(n-1)/2])
	for _, s := range samples {
		if s.timed < uint64(o.MinimumCalls) {
			continue
		}
		mine := exp2(s.typical())
		if factor := float64(mine) / float64(median); factor > o.LatencyFactor {
			found = append(found, verdict{s.endpoint, CauseLatency, factor, fmt.Sprintf(
				"typical latency %v, %.1f times that of the median of %d endpoints", short(mine), factor, n)})
		}
	}
	return worstFirst(found)
}

// short rounds a latency to what a reader wants to see.
func short(d time.Duration) time.Duration {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second)
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond)
	}
	return d.Round(10 * time.Microsecond)
}

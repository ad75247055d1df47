package balancer

import "math"

// holdsBack reports whether slow start keeps a call from the endpoint: so long
// as it is new or just recovered it takes a growing part of what is its share,
// and the rest goes elsewhere. rnd is a uniform random number.
func (p *Picker) holdsBack(e *Endpoint, now Instant, rnd uint64) bool {
	if p.options.SlowStart <= 0 || now <= 0 {
		return false
	}
	since := e.word.ramp.Load()
	if since == 0 {
		// Nobody said when it came: now, as far as calls go.
		e.word.ramp.CompareAndSwap(0, int64(now))
		since = int64(now)
	}
	passed := now - Instant(since)
	if passed >= p.options.SlowStart {
		return false
	}
	// The caller goes on with rnd: what it is used for must not hang together.
	return float64(scramble(rnd^saltSlowStart)>>11)/(1<<53) >= p.options.ramp(passed)
}

// ramp is the part of its share that an endpoint gets after so long (Envoy,
// "Slow start mode").
func (o *Options) ramp(passed Instant) float64 {
	part := float64(max(passed, 0)) / float64(o.SlowStart)
	if o.SlowStartAggression != 1 {
		part = math.Pow(part, 1/o.SlowStartAggression)
	}
	return math.Min(math.Max(part, o.SlowStartMinimum), 1)
}

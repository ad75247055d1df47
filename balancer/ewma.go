package balancer

import (
	"math"
	"sync/atomic"
	"time"
)

// ewma is an endpoint's latency of late, sensitive to peaks (Finagle's
// PeakEwma): a slower answer than the average counts in full at once, a faster
// one by the time that passed since the last, with weight 1 - e^(-time/decay).
// It decays while nothing is observed, so that an endpoint which was slow is
// tried again. The zero value has observed nothing. Safe for concurrent use.
type ewma struct {
	// decay is the time constant; zero: nobody asks for the average, and none
	// is kept.
	decay atomic.Int64
	// state is one word, so that value and time go together: the average in
	// nanoseconds as a float32 above, the tick of the last observation below.
	// Zero: none was.
	state atomic.Uint64
}

// tick is the grain of time, 2^18 ns or 0.26 ms: the ticks' 32 bits come round
// after 13 days.
const tick = 18

// failedCost is what the first failure counts as where no average is known.
const failedCost = time.Second

func packEWMA(cost float64, now Instant) uint64 {
	return uint64(math.Float32bits(float32(cost)))<<32 | uint64(uint32(uint64(now)>>tick))
}

// read takes a state apart: the average, and how much of it time has left.
func (e *ewma) read(state uint64, now Instant, decay float64) (cost, left float64) {
	cost = float64(math.Float32frombits(uint32(state >> 32)))
	// Calls are told the time at slightly different moments: a little before
	// the last observation is no time after it, not 13 days.
	passed := int32(uint32(uint64(now)>>tick) - uint32(state))
	if passed <= 0 {
		return cost, 1
	}
	return cost, fade(float64(int64(passed)<<tick) / decay)
}

// fade returns e^-x of x ≥ 0, off by less than 0.0002: a pick asks twice, and
// math.Exp would be half its time. It takes the whole powers of two from the
// exponent and the rest from a polynomial.
func fade(x float64) float64 {
	x *= math.Log2E
	if x >= 64 {
		return 0
	}
	whole := int(x)
	rest := x - float64(whole)
	return math.Float64frombits(uint64(1023-whole)<<52) *
		(1 - rest*(0.69314718-rest*(0.24022651-rest*(0.05550411-rest*(0.00961813-rest*0.00133336)))))
}

// observe takes an answer's latency.
func (e *ewma) observe(now Instant, took time.Duration) {
	decay := e.decay.Load()
	if decay == 0 || took <= 0 {
		return
	}
	for {
		state := e.state.Load()
		next := float64(took)
		if state != 0 {
			cost, left := e.read(state, now, float64(decay))
			if next < cost {
				if left == 1 {
					return // no time has passed: nothing to weigh it by
				}
				next = cost*left + next*(1-left)
			}
		}
		if e.state.CompareAndSwap(state, packEWMA(next, now)) {
			return
		}
	}
}

// failed takes a failure: an endpoint that fails fast must not look fast, so it
// counts as no faster than the average.
func (e *ewma) failed(now Instant, took time.Duration) {
	decay := e.decay.Load()
	if decay == 0 {
		return
	}
	least := failedCost
	if state := e.state.Load(); state != 0 {
		cost, _ := e.read(state, now, float64(decay))
		least = time.Duration(cost)
	}
	e.observe(now, max(took, least))
}

// outlasted takes an attempt that was given up: it would have taken longer.
func (e *ewma) outlasted(now Instant, took time.Duration) {
	decay := e.decay.Load()
	if decay == 0 {
		return
	}
	cost, left := e.read(e.state.Load(), now, float64(decay))
	if float64(took) > cost*left {
		e.observe(now, took)
	}
}

// estimate is about how long one more call would take, in nanoseconds: the
// average times the calls in flight, this one with them. Of what was never
// observed the first call is free and the others wait for its answer.
func (e *ewma) estimate(now Instant, decay float64, inFlight int64) float64 {
	state := e.state.Load()
	if state == 0 {
		if inFlight <= 0 {
			return 0
		}
		return math.MaxFloat32 * float64(inFlight)
	}
	cost, left := e.read(state, now, decay)
	return cost * left * float64(inFlight+1)
}

// Latency returns the endpoint's average latency of late as PEAK_EWMA sees it.
// Zero: none is known, or nobody asked for it.
func (e *Endpoint) Latency(now Instant) time.Duration {
	decay := e.latency.decay.Load()
	if decay == 0 {
		return 0
	}
	cost, left := e.latency.read(e.latency.state.Load(), now, float64(decay))
	return time.Duration(cost * left)
}

package policy

import (
	"math"
	"sync/atomic"
	"time"
)

// The bound that adapts.
const (
	defaultAdaptiveMax = 1000
	firstBound         = 64
	lowestBound        = 4

	// A window is over after twice the long-term latency, within these bounds,
	// once it has enough samples; or, however short it was, once it is full.
	shortestWindow = 50 * time.Millisecond
	longestWindow  = time.Second
	windowSamples  = 10
	fullWindow     = 1 << 16
	// beingSettled stands for the end of a window that somebody found to be over
	// and did not settle yet.
	beingSettled = math.MaxInt64

	// tolerance is how much slower than with little in flight calls may get. It
	// is 1.5 in Gradient2, whose long-term average includes some queueing.
	tolerance = 1.3
	steepest  = 0.5
	smoothing = 0.2

	// firstRise is by how much a window may be slower than the one before it to be
	// believed: what ends in the first moments after a start are the fastest calls.
	firstRise = 1.2

	// A dip comes dipSoonest windows after a start, then after twice as many each
	// time up to dipSeldom; and when no more than dipFall is left of the bound.
	dipSoonest = 5
	dipSeldom  = 40
	dipFall    = 0.7
	dipDepth   = 0.5

	// How far the long-term average moves towards a window that was a dip, that
	// had little in flight, or that was faster than the average.
	dipWeight    = 0.5
	quietWeight  = 0.1
	fasterWeight = 0.2
)

// gradient finds how many calls in flight a service takes before they begin to
// queue there, by what latency does. It is Netflix's concurrency-limits
// Gradient2 (2018), which compares the latency of a short window with a
// long-term average of it:
//
//	gradient = clamp(tolerance × long / short, 0.5, 1)
//	bound    = bound × gradient + √bound, smoothed
//
// and grows only while more than half of the bound is in use. It differs in
// three points.
//
// Gradient2 averages over all windows, so that a service that is full for long
// teaches it the latency of its queue, and the bound drifts up. Here the
// long-term average takes only windows with little in flight. Where the load is
// such that there are none, it makes one: every 40 windows the bound dips to
// half for about two, like PROBE_RTT of BBR (Cardwell et al., 2016). If halving
// makes calls faster, they had been queueing; if not, that is how fast the
// service is now. So a service that becomes slower or faster is measured anew,
// and a bound beyond twice the knee always shrinks.
//
// Calls that failed of too much load cut the bound by half of their share, as
// DCTCP does (Alizadeh et al., 2010), and their latency does not count.
//
// Until latency rises for the first time the bound doubles each window, so that
// a fast service is not held back for long after a start.
type gradient struct {
	// samples is the window's count and, below, the sum of its latencies in
	// microseconds.
	samples   atomic.Uint64
	overloads atomic.Uint64
	ends      atomic.Int64 // the Instant from which on the window may be over
	_         [40]byte

	// What follows is guarded by the limiter's lock.
	most     float64
	estimate float64
	starting bool
	long     float64 // latency with little in flight, in microseconds; 0: not known
	first    float64 // what the last window said while long was not known

	dip     dip
	settled Instant // when who came before the dip is gone
	nextDip Instant
	pause   time.Duration // from a dip to the next, in windows
	atDip   float64       // estimate at the last dip
}

// dip is how far a dip of the bound is.
type dip uint8

const (
	noDip    dip = iota
	settling     // those who came before it are still under way
	measuring
)

// sumBits of samples hold the sum: 65536 samples of at most longestSample.
const (
	sumBits       = 44
	sumMask       = 1<<sumBits - 1
	longestSample = time.Minute
)

func newGradient(most int) *gradient {
	g := &gradient{estimate: firstBound, starting: true}
	g.resize(most)
	return g
}

// resize changes the most that the bound may be and returns the bound.
func (g *gradient) resize(most int) int {
	if most <= 0 {
		most = defaultAdaptiveMax
	}
	g.most = float64(most)
	g.clamp()
	return g.bound()
}

func (g *gradient) clamp() {
	g.estimate = min(max(g.estimate, lowestBound), g.most)
}

// bound is the bound of now, that of a dip in a dip.
func (g *gradient) bound() int {
	if g.dip != noDip {
		return max(int(g.estimate*dipDepth), 1)
	}
	return int(g.estimate)
}

// sample notes a call's end. True: the window is over, and the caller, alone,
// must settle it. Safe for concurrent use.
func (g *gradient) sample(now Instant, latency time.Duration, overload bool) bool { // budget: 12 ns, 0 allocs
	var count uint64
	switch {
	case overload:
		count = g.overloads.Add(1) + g.samples.Load()>>sumBits
	case latency > 0:
		us := uint64(min(latency, longestSample)+time.Microsecond-1) / uint64(time.Microsecond)
		count = g.samples.Add(1<<sumBits|us) >> sumBits
		if count < windowSamples {
			count += g.overloads.Load()
		}
	default:
		return false
	}
	ends := Instant(g.ends.Load())
	if ends == 0 { // the first of all
		g.ends.CompareAndSwap(0, int64(now+shortestWindow))
		return false
	}
	if count < windowSamples || now < ends && count < fullWindow || ends == beingSettled {
		return false
	}
	return g.ends.CompareAndSwap(int64(ends), beingSettled)
}

// settle takes a window that is over and returns the bound that follows from
// it. inFlight is how many are in flight now.
func (g *gradient) settle(now Instant, inFlight int) int {
	packed, failed := g.samples.Swap(0), float64(g.overloads.Swap(0))
	count := float64(packed >> sumBits)
	short := 0.0
	if count > 0 {
		short = float64(packed&sumMask) / count
	}
	g.learn(inFlight, count, failed, short)
	g.clamp()
	typical := g.long
	if typical == 0 {
		typical = short
	}
	window := min(max(2*micros(typical), shortestWindow), longestWindow)
	g.plan(now, window, micros(short), g.quiet(inFlight))
	g.ends.Store(int64(now + window))
	return g.bound()
}

func micros(us float64) time.Duration { return time.Duration(us * float64(time.Microsecond)) }

// learn moves the estimate by what a window showed.
func (g *gradient) learn(inFlight int, count, failed, short float64) {
	if failed > 0 {
		g.starting = false
		g.estimate *= 1 - failed/(count+failed)/2
	}
	if count < windowSamples {
		return
	}
	switch {
	case g.dip == settling:
		return
	case g.dip == measuring && g.long > 0:
		g.approach(short, dipWeight)
		return
	case g.long == 0:
		if before := g.first; before == 0 || short > before*firstRise {
			g.first = short
			return
		}
		g.long = short
	case short < g.long:
		g.approach(short, fasterWeight)
	}
	if g.quiet(inFlight) {
		g.approach(short, quietWeight)
		return
	}
	steepness := min(max(tolerance*g.long/short, steepest), 1)
	switch {
	case steepness < 1:
		g.starting = false
	case g.starting:
		g.estimate *= 2
		return
	}
	target := g.estimate*steepness + math.Sqrt(g.estimate)
	g.estimate += smoothing * (target - g.estimate)
}

// approach moves the long-term average.
func (g *gradient) approach(short, weight float64) {
	g.long += weight * (short - g.long)
}

// quiet reports whether so little is in flight that nothing queues.
func (g *gradient) quiet(inFlight int) bool { return float64(inFlight) <= g.estimate/2 }

// plan begins and ends dips. A quiet window says what a dip would.
func (g *gradient) plan(now Instant, window, short time.Duration, quiet bool) {
	switch {
	case g.dip == measuring:
		g.pause = min(2*g.pause, dipSeldom)
		g.dip, g.nextDip, g.atDip = noDip, now+g.pause*window, g.estimate
	case g.dip == settling && now >= g.settled:
		g.dip = measuring
	case g.dip == settling:
	case g.nextDip == 0 || quiet:
		g.pause = max(g.pause, dipSoonest)
		g.nextDip, g.atDip = now+g.pause*window, g.estimate
	case g.estimate < g.atDip*dipFall:
		g.pause = dipSoonest
		fallthrough
	case now >= g.nextDip:
		g.dip, g.settled = settling, now+min(2*short, longestWindow)
	}
}

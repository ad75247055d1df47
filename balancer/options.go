package balancer

import (
	"math"
	"time"
)

// Policy names an algorithm.
type Policy uint8

// The algorithms. Every one skips endpoints that are not fit as long as it
// finds a fit one.
const (
	// LeastRequest, the zero value, draws two endpoints by weight and takes
	// the one with fewer calls in flight per weight: the power of two choices
	// (Mitzenmacher, 2001). It needs no coordination and steers away from a
	// slow endpoint by itself.
	LeastRequest Policy = iota
	// RoundRobin takes the endpoints in turn, whatever their weights.
	RoundRobin
	// Random takes any endpoint, with chances as their weights.
	Random
	// WeightedRoundRobin takes the endpoints in turn, each as often as its
	// weight says and its turns spread over the cycle. With LoadReports the
	// weights are what the endpoints report.
	WeightedRoundRobin
	// PeakEWMA draws two endpoints by weight and takes the one that would
	// answer first: its latency of late, which rises with every peak at once
	// and falls slowly, times its calls in flight (Finagle's PeakEwma;
	// linkerd2-proxy's, after it).
	PeakEWMA
	// RingHash gives the same endpoint to calls of one hash: the next on a
	// ring of points (Karger et al., 1997; ketama).
	RingHash
	// Maglev gives the same endpoint to calls of one hash, by a table that
	// spreads hashes more evenly than a ring (Eisenbud et al., 2016).
	Maglev
)

// String returns the policy's public name.
func (p Policy) String() string {
	switch p {
	case LeastRequest:
		return "LEAST_REQUEST"
	case RoundRobin:
		return "ROUND_ROBIN"
	case Random:
		return "RANDOM"
	case WeightedRoundRobin:
		return "WEIGHTED_ROUND_ROBIN"
	case PeakEWMA:
		return "PEAK_EWMA"
	case RingHash:
		return "RING_HASH"
	case Maglev:
		return "MAGLEV"
	}
	return "UNKNOWN"
}

// Hashes reports whether the policy chooses by the call's hash.
func (p Policy) Hashes() bool { return p == RingHash || p == Maglev }

// Defaults that zero values of Options stand for.
const (
	DefaultChoices          = 2
	DefaultDecay            = 10 * time.Second
	DefaultSlowStartMinimum = 0.1
	// DefaultPanicThreshold is Envoy's. It is not what zero stands for, but what
	// policies have where nothing is written: calls that go to endpoints of which
	// most are called sick fare no worse than those that crowd the few others.
	DefaultPanicThreshold = 0.5
	// DefaultRingPoints is how many points an endpoint of mean weight has.
	DefaultRingPoints = 160
	// MaxRingSize bounds the points of a ring, 8 bytes each and as many again
	// for finding them.
	MaxRingSize = 1 << 18
	// MaxTableSize bounds the slots of a Maglev table, 4 bytes each.
	MaxTableSize = 65537
)

// Options say how a Picker chooses. The zero value is LEAST_REQUEST over all
// endpoints. Options compare with ==.
type Options struct {
	Policy Policy
	// Choices is how many endpoints LEAST_REQUEST and PEAK_EWMA draw. Zero: 2.
	Choices int
	// Zone is the failure domain that the caller is in. Empty: unknown.
	Zone string
	// ZoneAware prefers endpoints of the caller's zone as far as they can bear
	// it; see Zone routing in zone.go.
	ZoneAware bool
	// MinZonePercent: a zone of which fewer percent are fit is not preferred,
	// and calls are spread over all zones. Zero: any is.
	MinZonePercent float64
	// SlowStart is how long the share of a new or recovered endpoint grows to
	// its full size. Zero: it has that at once. Hashes are not held back: that
	// would cost them their endpoint.
	SlowStart time.Duration
	// SlowStartAggression shapes the growth: share = (time / SlowStart) ^
	// (1 / aggression), as Envoy's. Zero: 1, a straight line.
	SlowStartAggression float64
	// SlowStartMinimum is the share at the start. Zero: 0.1.
	SlowStartMinimum float64
	// PanicThreshold is the share of a priority's endpoints, 0 to 1, below
	// which what health checks and outlier detection say is not believed, and
	// calls are spread over all that are connected. Zero: it always is.
	PanicThreshold float64
	// Subset is how many endpoints of each priority are used, the same ones as
	// long as they are there and fit. For each that is not another one stands
	// in, the next in this process's order, until it is back; twice Subset are
	// used at most. Of hashes, an endpoint that stands in takes its part from
	// all, as one that was added would. Zero: all.
	Subset int
	// Identity tells this process from others: it decides which endpoints are
	// in the subset, and where turns begin.
	Identity uint64
	// Decay is the time constant of PEAK_EWMA: after it, an observation counts
	// 1/e. Zero: 10 s.
	Decay time.Duration
	// RingSize is how many points RING_HASH's ring has; each endpoint gets one
	// at least. Zero: 160 an endpoint. It is never more than MaxRingSize, or
	// one an endpoint.
	RingSize int
	// TableSize is how many slots MAGLEV's table has at least; a prime above it
	// is taken. Zero: 100 an endpoint. It is never more than MaxTableSize, but
	// for the endpoints' sake.
	TableSize int
	// BoundedLoad lets no endpoint of RING_HASH have more than so many times
	// its share of the calls in flight: what is beyond goes to the next on the
	// ring (Mirrokni et al., "Consistent Hashing with Bounded Loads", 2016).
	// 1.25 is usual. Zero: no bound. Less than 1 counts as 1.
	BoundedLoad float64
	// LoadReports let WEIGHTED_ROUND_ROBIN weigh endpoints by what they report.
	// They are nothing to other policies.
	LoadReports LoadReports
}

// withDefaults returns the options with what their zero values stand for.
func (o Options) withDefaults() Options {
	if o.Choices <= 0 {
		o.Choices = DefaultChoices
	}
	if o.Decay <= 0 {
		o.Decay = DefaultDecay
	}
	if !(o.SlowStartAggression > 0) {
		o.SlowStartAggression = 1
	}
	if !(o.SlowStartMinimum > 0) {
		o.SlowStartMinimum = DefaultSlowStartMinimum
	}
	if !(o.BoundedLoad > 0) {
		o.BoundedLoad = 0
	} else {
		o.BoundedLoad = math.Max(o.BoundedLoad, 1)
	}
	if o.LoadReports.On && o.Policy == WeightedRoundRobin {
		o.LoadReports = o.LoadReports.withDefaults()
	} else {
		o.LoadReports = LoadReports{}
	}
	return o
}

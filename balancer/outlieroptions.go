package balancer

import (
	"fmt"
	"math"
	"time"
)

// Defaults that zero values of OutlierOptions stand for.
const (
	DefaultOutlierInterval = 10 * time.Second
	DefaultEjectFor        = 30 * time.Second
	DefaultMaxEjected      = 0.5
	DefaultMinimumCalls    = 20
	DefaultMinimumHosts    = 3
	// EjectGrowth is MaxEjectFor in multiples of EjectFor, as Envoy's 300 s are
	// to its 30 s.
	EjectGrowth = 10
)

// OutlierOptions say when an endpoint is an outlier and for how long it goes
// out of rotation. The thresholds are those of Envoy and gRFC A50, and one for
// latency; any that is reached ejects. Those left zero are off: the zero value
// detects nothing.
type OutlierOptions struct {
	// ConsecutiveFailures ejects after so many failed attempts in a row, at
	// once. Zero: off.
	ConsecutiveFailures int
	// ConsecutiveLocal ejects after so many attempts in a row that got no
	// answer: connect failed, connection lost, timeout. Those count here only
	// then. Zero: they count as ConsecutiveFailures.
	ConsecutiveLocal int
	// FailureRate ejects when this share of the endpoint's attempts in an
	// interval failed, 0 to 1. Zero: off.
	FailureRate float64
	// SuccessRateDeviation ejects an endpoint whose share of successes is more
	// than so many standard deviations below the mean of all (Envoy's
	// success_rate_stdev_factor; its default is 1.9). One of n endpoints can be
	// at most √(n-1) deviations away, so 1.9 needs 5 of them. Where all others
	// are alike, little is far: 99 % among 100 %. Zero: off.
	SuccessRateDeviation float64
	// LatencyFactor ejects an endpoint whose typical latency in an interval is
	// more than so many times the median of all; above 1. Typical is the
	// geometric mean of its successes: a few stragglers don't move it. Streams
	// don't count. Zero: off.
	LatencyFactor float64
	// MinimumCalls is how many attempts an endpoint must have in an interval
	// for its rates and latency to count. Zero: DefaultMinimumCalls.
	MinimumCalls int
	// MinimumHosts is how many endpoints must have MinimumCalls for one to be
	// compared with the others. Zero: DefaultMinimumHosts.
	MinimumHosts int
	// Interval is how often rates and latency are judged. Zero:
	// DefaultOutlierInterval.
	Interval time.Duration
	// EjectFor is how long an endpoint stays out the first time, and each time
	// by so much longer, up to MaxEjectFor; every Interval that it stays in
	// takes one repeat back. Up to a tenth is added by chance, so that endpoints
	// that went together don't come back together. Zero: DefaultEjectFor.
	EjectFor time.Duration
	// MaxEjectFor bounds the growth. Zero: 10 times EjectFor. Less than
	// EjectFor: no growth.
	MaxEjectFor time.Duration
	// MaxEjected is the largest share of the endpoints, drained ones left
	// aside, that may be out at a time, 0 to 1. Whatever the share, one may go
	// and one stays. Zero: DefaultMaxEjected. Negative: none may go.
	MaxEjected float64
	// ObserveOnly decides and records the same, and ejects nothing.
	ObserveOnly bool
}

// ReferenceOutliers returns the reference figures: 5 failures in a row take an
// endpoint out for 30 seconds, growing to 5 minutes; half of the endpoints may
// be out.
func ReferenceOutliers() OutlierOptions {
	return OutlierOptions{
		ConsecutiveFailures: 5,
		Interval:            DefaultOutlierInterval,
		EjectFor:            DefaultEjectFor,
		MaxEjectFor:         EjectGrowth * DefaultEjectFor,
		MaxEjected:          DefaultMaxEjected,
	}
}

// On reports whether the options ask for anything.
func (o OutlierOptions) On() bool {
	return o.ConsecutiveFailures > 0 || o.ConsecutiveLocal > 0 || o.judges()
}

// judges reports whether anything is judged by the interval.
func (o *OutlierOptions) judges() bool {
	return o.FailureRate > 0 || o.SuccessRateDeviation > 0 || o.LatencyFactor > 0
}

// Validate says what is wrong with the options, or nil.
func (o OutlierOptions) Validate() error {
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"ConsecutiveFailures", int64(o.ConsecutiveFailures)}, {"ConsecutiveLocal", int64(o.ConsecutiveLocal)},
		{"MinimumCalls", int64(o.MinimumCalls)}, {"MinimumHosts", int64(o.MinimumHosts)},
		{"Interval", int64(o.Interval)}, {"EjectFor", int64(o.EjectFor)}, {"MaxEjectFor", int64(o.MaxEjectFor)},
	} {
		if n.value < 0 {
			return fmt.Errorf("balancer: %s is %d: want 0 or more", n.name, n.value)
		}
	}
	if math.IsNaN(o.FailureRate) || o.FailureRate < 0 || o.FailureRate > 1 {
		return fmt.Errorf("balancer: FailureRate is %v: want a share from 0 to 1", o.FailureRate)
	}
	if math.IsNaN(o.MaxEjected) || o.MaxEjected > 1 {
		return fmt.Errorf("balancer: MaxEjected is %v: want a share up to 1", o.MaxEjected)
	}
	if math.IsNaN(o.SuccessRateDeviation) || o.SuccessRateDeviation < 0 {
		return fmt.Errorf("balancer: SuccessRateDeviation is %v: want 0 or more", o.SuccessRateDeviation)
	}
	if math.IsNaN(o.LatencyFactor) || o.LatencyFactor != 0 && o.LatencyFactor <= 1 {
		return fmt.Errorf("balancer: LatencyFactor is %v: want more than 1, or 0 for none", o.LatencyFactor)
	}
	return nil
}

func (o OutlierOptions) withDefaults() OutlierOptions {
	if o.MinimumCalls == 0 {
		o.MinimumCalls = DefaultMinimumCalls
	}
	if o.MinimumHosts == 0 {
		o.MinimumHosts = DefaultMinimumHosts
	}
	if o.Interval == 0 {
		o.Interval = DefaultOutlierInterval
	}
	if o.EjectFor == 0 {
		o.EjectFor = DefaultEjectFor
	}
	if o.MaxEjectFor == 0 {
		o.MaxEjectFor = EjectGrowth * o.EjectFor
	}
	o.MaxEjectFor = max(o.MaxEjectFor, o.EjectFor)
	if o.MaxEjected == 0 {
		o.MaxEjected = DefaultMaxEjected
	}
	return o
}

// allowed is how many of so many endpoints may be out at a time.
func (o *OutlierOptions) allowed(of int) int {
	if o.MaxEjected < 0 || of < 2 {
		return 0
	}
	// The sum is a product's rounding error: 0.29 × 100 is 28.999999999999996.
	n := int(o.MaxEjected*float64(of) + 1e-9)
	return min(max(n, 1), of-1)
}

// lasts is how long the ejection with that many repeats lasts, itself
// included.
func (o *OutlierOptions) lasts(repeats int) time.Duration {
	return min(o.EjectFor*time.Duration(repeats), o.MaxEjectFor)
}

// Cause is the threshold that ejected an endpoint.
type Cause uint8

// The causes.
const (
	// CauseFailures: OutlierOptions.ConsecutiveFailures.
	CauseFailures Cause = iota
	// CauseLocal: OutlierOptions.ConsecutiveLocal.
	CauseLocal
	// CauseFailureRate: OutlierOptions.FailureRate.
	CauseFailureRate
	// CauseSuccessRate: OutlierOptions.SuccessRateDeviation.
	CauseSuccessRate
	// CauseLatency: OutlierOptions.LatencyFactor.
	CauseLatency
	// NumCauses is how many there are.
	NumCauses
)

// String returns the cause's public name.
func (c Cause) String() string {
	switch c {
	case CauseFailures:
		return "CONSECUTIVE_FAILURES"
	case CauseLocal:
		return "CONSECUTIVE_LOCAL_FAILURES"
	case CauseFailureRate:
		return "FAILURE_RATE"
	case CauseSuccessRate:
		return "SUCCESS_RATE"
	case CauseLatency:
		return "LATENCY"
	}
	return "UNKNOWN"
}

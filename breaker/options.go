package breaker

import (
	"fmt"
	"math"
	"time"
)

// Mode says whether a breaker acts on what it decides.
type Mode uint8

// The modes.
const (
	// Enforce, the zero value: an open breaker refuses calls.
	Enforce Mode = iota
	// Observe decides and records the same, and refuses nothing.
	Observe
	// Off decides nothing.
	Off
)

// String returns the mode's public name.
func (m Mode) String() string {
	switch m {
	case Enforce:
		return "ENFORCE"
	case Observe:
		return "OBSERVE"
	case Off:
		return "OFF"
	}
	return "UNKNOWN"
}

// Defaults that zero values stand for.
const (
	DefaultWindow       = 10 * time.Second
	DefaultOpenFor      = 30 * time.Second
	DefaultProbeTimeout = time.Minute
)

// Options are a breaker's thresholds. Any threshold that is reached opens it;
// those left zero are off.
type Options struct {
	// ConsecutiveFailures opens the breaker after so many failures in a row.
	// Zero: off.
	ConsecutiveFailures int
	// FailureRate opens it when this share of the calls in Window failed,
	// 0 to 1. Zero: off.
	FailureRate float64
	// SlowRate opens it when this share of the calls in Window took SlowerThan
	// or longer, 0 to 1. Zero: off.
	SlowRate   float64
	SlowerThan time.Duration
	// MinimumCalls is how many calls Window must hold before a rate counts.
	// Zero: 1.
	MinimumCalls int
	// Window is how far back the rates look; it slides in tenths. Zero:
	// DefaultWindow.
	Window time.Duration
	// OpenFor is how long the breaker stays open the first time; each repeat
	// doubles it up to MaxOpenFor. Zero: DefaultOpenFor.
	OpenFor time.Duration
	// MaxOpenFor bounds the growth. Less than OpenFor: no growth.
	MaxOpenFor time.Duration
	// Jitter spreads the open time by up to this share either way, so that
	// many callers don't probe at once. 0.1 is ±10 %.
	Jitter float64
	// HalfOpenProbes is how many probes may be in flight while half-open, and
	// how many have to succeed for it to close. Zero: 1.
	HalfOpenProbes int
	// ProbeTimeout is when a probe that was not reported counts as failed and
	// frees its slot. Zero: DefaultProbeTimeout.
	ProbeTimeout time.Duration
	// Mode says whether the breaker acts.
	Mode Mode
}

// Reference returns the reference figures: 5 failures in a row open it for 30
// seconds, growing to 5 minutes, ±10 %; one probe closes it again.
func Reference() Options {
	return Options{
		ConsecutiveFailures: 5,
		OpenFor:             30 * time.Second,
		MaxOpenFor:          5 * time.Minute,
		Jitter:              0.1,
		HalfOpenProbes:      1,
	}
}

// Validate says what is wrong with the options, or nil.
func (o Options) Validate() error {
	share := func(name string, v float64) error {
		if math.IsNaN(v) || v < 0 || v > 1 {
			return fmt.Errorf("breaker: %s is %v: want a share from 0 to 1", name, v)
		}
		return nil
	}
	for _, err := range []error{share("FailureRate", o.FailureRate), share("SlowRate", o.SlowRate), share("Jitter", o.Jitter)} {
		if err != nil {
			return err
		}
	}
	for _, n := range []struct {
		name  string
		value int64
	}{
		{"ConsecutiveFailures", int64(o.ConsecutiveFailures)}, {"MinimumCalls", int64(o.MinimumCalls)},
		{"HalfOpenProbes", int64(o.HalfOpenProbes)}, {"SlowerThan", int64(o.SlowerThan)}, {"Window", int64(o.Window)},
		{"OpenFor", int64(o.OpenFor)}, {"MaxOpenFor", int64(o.MaxOpenFor)}, {"ProbeTimeout", int64(o.ProbeTimeout)},
	} {
		if n.value < 0 {
			return fmt.Errorf("breaker: %s is %d: want 0 or more", n.name, n.value)
		}
	}
	if o.SlowRate > 0 && o.SlowerThan == 0 {
		return fmt.Errorf("breaker: SlowRate is %v but SlowerThan is not set: say from when on a call is slow", o.SlowRate)
	}
	if o.Mode > Off {
		return fmt.Errorf("breaker: Mode is %d: want Enforce, Observe or Off", o.Mode)
	}
	return nil
}

func (o Options) withDefaults() Options {
	if o.MinimumCalls == 0 {
		o.MinimumCalls = 1
	}
	if o.Window == 0 {
		o.Window = DefaultWindow
	}
	if o.OpenFor == 0 {
		o.OpenFor = DefaultOpenFor
	}
	o.MaxOpenFor = max(o.MaxOpenFor, o.OpenFor)
	if o.HalfOpenProbes == 0 {
		o.HalfOpenProbes = 1
	}
	if o.ProbeTimeout == 0 {
		o.ProbeTimeout = DefaultProbeTimeout
	}
	return o
}

// rates reports whether the sliding window is needed.
func (o *Options) rates() bool { return o.FailureRate > 0 || o.SlowRate > 0 }

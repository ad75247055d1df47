package sla

import (
	"errors"
	"fmt"
	"time"
)

// The bounds of an error budget's window.
const (
	MinWindow = time.Hour
	MaxWindow = 90 * 24 * time.Hour
)

// Targets are what a service promises. Get the documented defaults from
// DefaultTargets; the zero value is not valid.
type Targets struct {
	// Availability is the least percentage of calls to be answered, above 0 up
	// to 100.
	Availability float64
	// SuccessRate is the least percentage of calls to be answered without a
	// failure code, above 0 up to 100.
	SuccessRate float64
	// Latency are the quantiles to be kept. It may be empty.
	Latency []LatencyTarget
	// Window is what the error budget is reckoned over, from 1 h to 90 days.
	// Zero: 30 days.
	Window time.Duration
}

// LatencyTarget promises that the share Quantile of calls is answered within
// Target.
type LatencyTarget struct {
	// Quantile is above 0 up to 1; 0.95 is p95.
	Quantile float64
	// Target is from 1 µs to 1 h.
	Target time.Duration
}

const defaultWindow = 30 * 24 * time.Hour

// DefaultTargets returns an availability of 99.9 %, a success rate of 99.5 %, a
// p95 of 200 ms and a budget over 30 days.
func DefaultTargets() Targets {
	return Targets{
		Availability: 99.9,
		SuccessRate:  99.5,
		Latency:      []LatencyTarget{{Quantile: 0.95, Target: 200 * time.Millisecond}},
		Window:       defaultWindow,
	}
}

// Validate returns all that is wrong with the targets, or nil.
func (t Targets) Validate() error {
	var errs []error
	refuse := func(format string, args ...any) { errs = append(errs, fmt.Errorf("sla: "+format, args...)) }
	if !percentage(t.Availability) {
		refuse("availability is %v; give a percentage above 0 up to 100, such as 99.9", t.Availability)
	}
	if !percentage(t.SuccessRate) {
		refuse("success rate is %v; give a percentage above 0 up to 100, such as 99.5", t.SuccessRate)
	}
	seen := make(map[float64]bool)
	for i, l := range t.Latency {
		if !(l.Quantile > 0 && l.Quantile <= 1) {
			refuse("latency[%d]: quantile is %v; give a share above 0 up to 1, such as 0.95", i, l.Quantile)
		} else if seen[l.Quantile] {
			refuse("latency[%d]: quantile %v has a target already; keep one of them", i, l.Quantile)
		}
		seen[l.Quantile] = true
		if l.Target < Shortest || l.Target > Longest {
			refuse("latency[%d]: target is %v; give a duration from %v to %v", i, l.Target, Shortest, Longest)
		}
	}
	if t.Window != 0 && (t.Window < MinWindow || t.Window > MaxWindow) {
		refuse("window is %v; give a duration from %v to %v", t.Window, MinWindow, MaxWindow)
	}
	return errors.Join(errs...)
}

// percentage is false of NaN too.
func percentage(p float64) bool { return p > 0 && p <= 100 }

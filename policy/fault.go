package policy

import (
	"strings"
	"time"
)

// Fault is what is injected into one call. The zero value is nothing. A call
// that gets both waits first and is aborted then.
type Fault struct {
	// Delay is how long the call is held back before anything else happens to
	// it. Zero: it is not.
	Delay time.Duration
	// Abort says that the call ends with Code, without an attempt.
	Abort bool
	// Code is the status of an aborted call.
	Code Code
}

// String says what was injected, for spans: "delay 200ms, abort UNAVAILABLE".
func (f Fault) String() string {
	var parts []string
	if f.Delay > 0 {
		parts = append(parts, "delay "+f.Delay.String())
	}
	if f.Abort {
		parts = append(parts, "abort "+f.Code.String())
	}
	return strings.Join(parts, ", ")
}

// decide says what is injected into one call. header is the value that p.Header
// has in the call's metadata, empty where it has none. rnd is a fresh uniform
// random number; the delay and the abort are drawn from it independently of
// each other. In OBSERVE it says the same; the caller does not act on it.
func (p FaultPolicy) decide(rnd uint64, header string) (f Fault) { // budget: 15 ns, 0 allocs
	if !p.On() || p.Header != "" && (header == "" || p.Value != "" && header != p.Value) {
		return Fault{}
	}
	drawn := scramble(rnd) // rnd itself chooses elsewhere too
	if hit(uint32(drawn>>32), p.DelayPercent) {
		f.Delay = p.Delay
	}
	if hit(uint32(drawn), p.AbortPercent) {
		f.Abort, f.Code = true, p.Abort
	}
	return f
}

// hit is true for the percentage of all draws.
func hit(drawn uint32, percent float64) bool { return float64(drawn) < percent/100*(1<<32) }

// Package sla measures how well a service keeps its promises: how often it
// answers, how often it answers well, and how fast.
//
// A [Recorder] takes one line per call and gives, at any moment, what happened
// in the last 10 s, 1 min, 5 min or 1 h, and since it was made:
//
//	r := sla.NewRecorder(sla.Options{})
//	r.Record(now, sla.Success, 12*time.Millisecond) // at each call's end
//
//	report := r.Report(now, time.Minute, sla.DefaultTargets())
//	fmt.Println(report.Availability.Value, report.Availability.Verdict)
//
// # What is counted
//
//   - Availability is the share of calls that were answered at all:
//     (successes + failures) / (calls − excluded).
//   - Success rate is the share that was answered without a failure code:
//     successes / (calls − excluded).
//   - Latency is the time until the answer. A call that got none is slower than
//     every call that got one, so that it can't vanish from a percentile: when
//     6 % of calls time out or are refused, p95 is missed, however fast the
//     others were. See [Histogram.Quantile].
//
// Calls that callers cancelled themselves count in nothing but Excluded. A
// window without counted calls has the verdict NO_DATA: silence is no success.
//
// # How it is built
//
// The package starts no goroutine and reads no clock: each method takes now.
// Calls are counted in cumulative counters that nothing ever resets, striped
// over cores. A slice of a window is the difference between two readings of
// them, and so no call can be lost or counted twice when one slice ends and the
// next begins; see [Recorder.Record] for the one thing that may happen then.
package sla

import "time"

// Instant is a monotonic time since an origin of the caller's choice; all
// instants given to one Recorder share that origin. An instant before the
// origin is taken for the origin.
type Instant = time.Duration

// Outcome is how a call ended, as an SLA sees it.
type Outcome uint8

// The outcomes.
const (
	// Success: answered, and without a failure code.
	Success Outcome = iota
	// Failure: answered with a failure code.
	Failure
	// Unavailable: not answered. The service could not be reached or said
	// UNAVAILABLE, the call timed out, or a policy refused it.
	Unavailable
	// Excluded: ended by its own caller. It says nothing of the service and
	// counts in nothing but the number of excluded calls.
	Excluded

	numOutcomes = int(Excluded) + 1
	numTimed    = int(Excluded) // the outcomes whose latency matters
)

// String returns the outcome's name in lower case.
func (o Outcome) String() string {
	switch o {
	case Success:
		return "success"
	case Failure:
		return "failure"
	case Unavailable:
		return "unavailable"
	}
	return "excluded"
}

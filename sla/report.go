package sla

import "time"

// Verdict says whether a promise was kept.
type Verdict uint8

// The verdicts.
const (
	// NoData: there was no call to go by.
	NoData Verdict = iota
	// Met: the figure is at its target or better.
	Met
	// Missed: it is worse.
	Missed
)

// String returns NO_DATA, MET or MISSED.
func (v Verdict) String() string {
	switch v {
	case Met:
		return "MET"
	case Missed:
		return "MISSED"
	}
	return "NO_DATA"
}

func verdict(met bool) Verdict {
	if met {
		return Met
	}
	return Missed
}

// Report sets what a service did against what it promises.
type Report struct {
	// Span is the time that the figures really cover; see Totals.
	Span time.Duration
	// Calls is how many calls the figures go by: all but those excluded.
	Calls uint64
	// Mean is how long a call was waited for on average, answered or not.
	Mean time.Duration
	// Availability and SuccessRate are percentages.
	Availability Figure
	SuccessRate  Figure
	// Latency has a figure for each of Targets.Latency, in that order.
	Latency []LatencyFigure

	// BudgetLeft is the part of the availability's error budget that is left: 1
	// is untouched, 0 is spent, less is overspent. The budget is what the target
	// lets go unanswered of all calls in the window so far; without calls it is
	// 1. It covers BudgetSpan.
	BudgetLeft float64
	// BudgetSpan is the time that BudgetLeft really covers: Targets.Window to
	// the hour, or the Recorder's age if that is less.
	BudgetSpan time.Duration
	// BurnRate is how fast Span spends the budget: at 1, calls go unanswered at
	// just the rate that the target lets them; at 10, ten times as often. 0
	// without calls.
	//
	// A target of 100 % leaves no budget to divide by. It is taken for a budget
	// of one call, so that BurnRate is the number of unanswered calls.
	BurnRate float64
}

// Figure is a percentage and its target.
type Figure struct {
	// Value is 0 if the verdict is NoData.
	Value, Target float64
	Verdict       Verdict
}

// LatencyFigure is a quantile of latency and its target.
type LatencyFigure struct {
	Quantile float64
	// Value is Histogram.Quantile's, and 0 if the verdict is NoData. Where it
	// can't be told apart from a target just below it (both lie in a bucket, at
	// most 1.6 % wide), it is given as the target, and that as met.
	Value, Target time.Duration
	Verdict       Verdict
	// Unanswered says that the quantile falls on a call that got no answer: the
	// target is missed, and Value is a lower bound.
	Unanswered bool
}

// Report sets the window of that span before now against the targets. A span
// that isn't one of Spans is taken for the next longer one, or the longest.
func (r *Recorder) Report(now Instant, span time.Duration, t Targets) Report {
	window := t.Window
	if window == 0 {
		window = defaultWindow
	}
	window = min(max(window, MinWindow), MaxWindow)

	r.mu.Lock()
	totals, now, open := r.read(now, span)
	counted, unanswered, since := r.hours.within(now, window)
	r.mu.Unlock()

	counted += open.counted()
	unanswered += open.calls[Unavailable]
	report := totals.report(t)
	report.BudgetLeft = 1 - burnRate(counted, unanswered, t.Availability)
	report.BudgetSpan = max(now-max(since, r.start), 0)
	return report
}

// report sets the totals against the targets, but for the budget that is left.
func (t *Totals) report(targets Targets) Report {
	counted := t.Counted()
	out := Report{
		Span:         t.Span,
		Calls:        counted,
		Mean:         t.Latency.Mean(),
		Availability: figure(t.Answered(), counted, targets.Availability),
		SuccessRate:  figure(t.Successes, counted, targets.SuccessRate),
		BurnRate:     burnRate(counted, t.Unavailable, targets.Availability),
	}
	for _, target := range targets.Latency {
		out.Latency = append(out.Latency, latencyFigure(&t.Latency, target))
	}
	return out
}

func figure(good, counted uint64, target float64) Figure {
	f := Figure{Target: target}
	if counted > 0 {
		f.Value = 100 * float64(good) / float64(counted)
		f.Verdict = verdict(atLeast(good, counted, target))
	}
	return f
}

// atLeast reports whether good is at least target percent of counted. 99.9 %
// has no exact binary form; the slack, less than a call in 10^11, forgives that.
func atLeast(good, counted uint64, target float64) bool {
	return 100*float64(good) >= target*float64(counted)*(1-1e-13)
}

func latencyFigure(h *Histogram, target LatencyTarget) LatencyFigure {
	f := LatencyFigure{Quantile: target.Quantile, Target: target.Target}
	bucket, unanswered := h.quantile(target.Quantile)
	if bucket < 0 {
		return f
	}
	f.Value, f.Unanswered = middle(bucket), unanswered
	if !unanswered && bucket == bucketOf(target.Target) {
		f.Value = min(f.Value, target.Target)
	}
	f.Verdict = verdict(!unanswered && f.Value <= target.Target)
	return f
}

// burnRate returns how many times the budget was spent that the target leaves
// for that many calls.
func burnRate(counted, unanswered uint64, target float64) float64 {
	if unanswered == 0 {
		return 0
	}
	budget := 1.0
	if target < 100 {
		budget = float64(counted) * (1 - target/100)
	}
	return float64(unanswered) / budget
}

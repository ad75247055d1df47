package sla

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// recorded returns a Recorder that counted the numbers of calls at 5 s.
func recorded(successes, failures, unavailable int) *Recorder {
	r := NewRecorder(Options{})
	for o, n := range []int{successes, failures, unavailable} {
		for range n {
			r.Record(5*time.Second, Outcome(o), 10*ms)
		}
	}
	return r
}

func TestSilenceIsNoData(t *testing.T) {
	for name, r := range map[string]*Recorder{
		"never a call":      NewRecorder(Options{}),
		"long ago":          recorded(10, 10, 10),
		"only cancelled":    NewRecorder(Options{}),
		"never, but looked": NewRecorder(Options{}),
	} {
		t.Run(name, func(t *testing.T) {
			// Given a window without counted calls.
			now := 3 * time.Hour
			switch name {
			case "only cancelled":
				r.Record(now, Excluded, ms)
			case "never, but looked":
				r.Read(time.Second, time.Minute)
			}
			// When it is reported.
			got := r.Report(now, time.Hour, DefaultTargets())
			// Then nothing is met or missed, and every number is defined.
			if got.Availability != (Figure{Target: 99.9}) || got.SuccessRate != (Figure{Target: 99.5}) {
				t.Errorf("%+v, %+v", got.Availability, got.SuccessRate)
			}
			if want := (LatencyFigure{Quantile: 0.95, Target: 200 * ms}); len(got.Latency) != 1 || got.Latency[0] != want {
				t.Errorf("%+v", got.Latency)
			}
			if got.Calls != 0 || got.Mean != 0 || got.BurnRate != 0 {
				t.Errorf("%+v", got)
			}
			if got.Span != 55*time.Minute || got.BudgetSpan != 3*time.Hour {
				t.Errorf("covers %v, budget %v", got.Span, got.BudgetSpan)
			}
		})
	}
}

func TestVerdictBoundaries(t *testing.T) {
	for _, c := range []struct {
		name                             string
		successes, failures, unavailable int
		availability, successRate        Verdict
	}{
		{"all well", 1, 0, 0, Met, Met},
		{"availability at its target", 999, 0, 1, Met, Met},
		{"availability below", 998, 0, 2, Missed, Met},
		{"success rate at its target", 995, 5, 0, Met, Met},
		{"success rate below", 994, 6, 0, Met, Missed},
		{"an unanswered call is no success", 994, 5, 1, Met, Missed},
		{"nothing answered", 0, 0, 1, Missed, Missed},
		{"answers that are all failures", 0, 7, 0, Met, Missed},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := recorded(c.successes, c.failures, c.unavailable)
			r.Record(5*time.Second, Excluded, ms)
			got := r.Report(5*time.Second, time.Minute, DefaultTargets())
			if got.Availability.Verdict != c.availability || got.SuccessRate.Verdict != c.successRate {
				t.Errorf("availability %+v, success rate %+v", got.Availability, got.SuccessRate)
			}
		})
	}
}

func TestPercentagesAreJudgedExactly(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Given a target in thousandths of a percent, which binary can't hold.
		thousandths := rapid.Uint64Range(1, 100_000).Draw(t, "target")
		target := float64(thousandths) / 1000
		// When exactly that share of calls is good, and when one call less is.
		scale := rapid.Uint64Range(1, 50_000).Draw(t, "scale")
		counted, good := 100_000*scale, thousandths*scale
		// Then the first meets it and the second misses it.
		if !atLeast(good, counted, target) {
			t.Fatalf("%d of %d isn't %v %%", good, counted, target)
		}
		if atLeast(good-1, counted, target) {
			t.Fatalf("%d of %d is %v %%", good-1, counted, target)
		}
	})
}

func TestLatencyBoundaries(t *testing.T) {
	for _, c := range []struct {
		name    string
		slow    int // of 100 calls, the rest take 1 ms
		latency time.Duration
		verdict Verdict
	}{
		{"5 of 100 may be slow", 5, time.Second, Met},
		{"6 may not", 6, time.Second, Missed},
		{"exactly the target is met", 100, 200 * ms, Met},
		{"a little over is missed", 100, 203 * ms, Missed},
		{"a little under is met", 100, 197 * ms, Met},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRecorder(Options{})
			for i := range 100 {
				latency := ms
				if i < c.slow {
					latency = c.latency
				}
				r.Record(0, Success, latency)
			}
			got := r.Report(0, time.Minute, DefaultTargets()).Latency[0]
			if got.Verdict != c.verdict || got.Unanswered {
				t.Errorf("%+v", got)
			}
			if got.Verdict == Met != (got.Value <= got.Target) {
				t.Errorf("the verdict contradicts the figure: %+v", got)
			}
		})
	}
}

func TestCallsWithoutAnAnswerMissTheLatencyTarget(t *testing.T) {
	for _, c := range []struct {
		unavailable int
		verdict     Verdict
	}{{5, Met}, {6, Missed}, {100, Missed}} {
		// Given calls refused within a microsecond, the others answered in 10 ms.
		r := NewRecorder(Options{})
		for i := range 100 {
			if i < c.unavailable {
				r.Record(0, Unavailable, time.Microsecond)
			} else {
				r.Record(0, Success, 10*ms)
			}
		}
		// Then being refused quickly doesn't count as being quick.
		got := r.Report(0, time.Minute, DefaultTargets()).Latency[0]
		if got.Verdict != c.verdict || got.Unanswered != (c.verdict == Missed) {
			t.Errorf("%d unavailable: %+v", c.unavailable, got)
		}
	}
}

func TestErrorBudget(t *testing.T) {
	targets := DefaultTargets() // lets 1 of 1000 go unanswered
	for _, c := range []struct {
		name                   string
		answered, unavailable  int
		target                 float64
		wantLeft, wantBurnRate float64
	}{
		{"untouched", 1000, 0, 99.9, 1, 0},
		{"half spent", 1999, 1, 99.9, 0.5, 0.5},
		{"just spent", 999, 1, 99.9, 0, 1},
		{"overspent", 990, 10, 99.9, -9, 10},
		{"no budget, none needed", 10, 0, 100, 1, 0},
		{"no budget, one lost", 10, 1, 100, 0, 1},
		{"no budget, three lost", 10, 3, 100, -2, 3},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets.Availability = c.target
			got := recorded(c.answered, 0, c.unavailable).Report(5*time.Second, time.Minute, targets)
			if math.Abs(got.BudgetLeft-c.wantLeft) > 1e-9 || math.Abs(got.BurnRate-c.wantBurnRate) > 1e-9 {
				t.Errorf("left %v, burn rate %v", got.BudgetLeft, got.BurnRate)
			}
		})
	}
}

func TestTheBudgetRemembersWhatWindowsForgot(t *testing.T) {
	// Given an outage within the first hour and good days since.
	r := recorded(0, 0, 1)
	for day := range 40 {
		for range 50 {
			r.Record(time.Duration(day+1)*24*time.Hour, Success, ms)
		}
	}
	targets := DefaultTargets()
	for _, c := range []struct {
		name               string
		window             time.Duration
		wantLeft           float64
		wantSpan           time.Duration
		now                Instant
		availabilityInHour Verdict
	}{
		{"a window that reaches back to it", 60 * 24 * time.Hour, 1 - 1/2.001, 40 * 24 * time.Hour, 40 * 24 * time.Hour, Met},
		{"one that doesn't", 30 * 24 * time.Hour, 1, 30*24*time.Hour - time.Hour, 40 * 24 * time.Hour, Met},
		{"none given is 30 days", 0, 1, 30*24*time.Hour - time.Hour, 40 * 24 * time.Hour, Met},
		{"beyond all calls", time.Hour, 1, 0, 50 * 24 * time.Hour, NoData},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets.Window = c.window
			got := r.Report(c.now, time.Hour, targets)
			if math.Abs(got.BudgetLeft-c.wantLeft) > 1e-9 || got.BudgetSpan != c.wantSpan || got.BurnRate != 0 {
				t.Errorf("left %v over %v, burn rate %v", got.BudgetLeft, got.BudgetSpan, got.BurnRate)
			}
			if got.Availability.Verdict != c.availabilityInHour {
				t.Errorf("%+v", got.Availability)
			}
		})
	}
}

func TestHoursAreBounded(t *testing.T) {
	r := NewRecorder(Options{})
	for h := range 3 * maxHours {
		r.Record(time.Duration(h)*time.Hour, Success, ms)
	}
	if n := int64(len(r.hours)); n != maxHours {
		t.Errorf("%d hours are kept, want %d", n, maxHours)
	}
}

func TestNames(t *testing.T) {
	for got, want := range map[string]string{
		NoData.String(): "NO_DATA", Met.String(): "MET", Missed.String(): "MISSED",
		Success.String(): "success", Failure.String(): "failure",
		Unavailable.String(): "unavailable", Excluded.String(): "excluded",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

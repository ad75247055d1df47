package balancer

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// start is when the tests begin; zero is no instant.
const start = time.Hour

// noJitter is the random number that adds nothing to an ejection.
const noJitter = 0

var fiveInARow = OutlierOptions{ConsecutiveFailures: 5, Interval: 10 * time.Second, EjectFor: 30 * time.Second}

// observe reports the same outcome so many times.
func observe(o *Outliers, set *Set, i int, now Instant, outcome Outcome, times int) {
	for range times {
		o.Observe(set, set.All()[i], now, Attempt{Outcome: outcome, Took: 10 * time.Millisecond}, noJitter)
	}
}

// outOf returns which endpoints are out, by their place in the set.
func outOf(o *Outliers, set *Set) (out []int) {
	for _, g := range o.Snapshot().Out {
		out = append(out, slices.Index(set.All(), g.Endpoint))
	}
	slices.Sort(out)
	return out
}

func wantOut(t *testing.T, o *Outliers, set *Set, want ...int) {
	t.Helper()
	if out := outOf(o, set); !slices.Equal(out, want) {
		t.Fatalf("out are %v, want %v", out, want)
	}
}

func TestFiveFailuresInARowEjectAtOnceForThirtySeconds(t *testing.T) {
	set, o := newTestSet(1, 1, 1), NewOutliers(fiveInARow, nil)
	o.Sweep(set, start, 1)
	observe(o, set, 1, start, Failure, 4)
	wantOut(t, o, set)
	observe(o, set, 1, start+time.Second, Failure, 1)
	wantOut(t, o, set, 1)
	e := set.All()[1]
	if c, reason, since := e.Condition(); c != Ejected || !strings.HasPrefix(reason, "5 failures in a row") || since != start+time.Second {
		t.Errorf("the condition is %v %q since %v", c, reason, since)
	}
	o.Sweep(set, start+31*time.Second-1, 1)
	wantOut(t, o, set, 1)
	o.Sweep(set, start+31*time.Second, 1)
	wantOut(t, o, set)
	if c, reason, since := e.Condition(); c != Ready || reason != "" || since != start+31*time.Second {
		t.Errorf("back, the condition is %v %q since %v", c, reason, since)
	}
	if s := o.Snapshot(); s.Ejected[CauseFailures] != 1 || s.WouldEject[CauseFailures] != 0 {
		t.Errorf("counted %+v", s)
	}
}

func TestWhatCountsAsARow(t *testing.T) {
	type step struct {
		outcome Outcome
		times   int
	}
	for name, test := range map[string]struct {
		options OutlierOptions
		steps   []step
		out     bool
		cause   Cause
	}{
		"a success ends a row":                      {fiveInARow, []step{{Failure, 4}, {Success, 1}, {Failure, 4}}, false, 0},
		"local failures count with the others":      {fiveInARow, []step{{Failure, 2}, {LocalFailure, 3}}, true, CauseFailures},
		"what is ignored neither counts nor ends":   {fiveInARow, []step{{Failure, 4}, {Ignored, 9}, {Failure, 1}}, true, CauseFailures},
		"load is no sickness":                       {fiveInARow, []step{{Overloaded, 100}}, false, 0},
		"load does not end a row of failures":       {fiveInARow, []step{{Failure, 4}, {Overloaded, 1}, {Failure, 1}}, true, CauseFailures},
		"told apart, local failures have their row": {OutlierOptions{ConsecutiveFailures: 5, ConsecutiveLocal: 3}, []step{{LocalFailure, 3}}, true, CauseLocal},
		"told apart, they are not in the other":     {OutlierOptions{ConsecutiveFailures: 3, ConsecutiveLocal: 5}, []step{{Failure, 2}, {LocalFailure, 4}}, false, 0},
		"told apart, an answer ends the local row":  {OutlierOptions{ConsecutiveLocal: 3}, []step{{LocalFailure, 2}, {Failure, 1}, {LocalFailure, 2}}, false, 0},
		"told apart, so does pushback":              {OutlierOptions{ConsecutiveLocal: 3}, []step{{LocalFailure, 2}, {Overloaded, 1}, {LocalFailure, 2}}, false, 0},
		"only local failures, and an answer fails":  {OutlierOptions{ConsecutiveLocal: 3}, []step{{Failure, 50}}, false, 0},
		"no options, no ejection":                   {OutlierOptions{}, []step{{Failure, 50}, {LocalFailure, 50}}, false, 0},
	} {
		set, o := newTestSet(1, 1), NewOutliers(test.options, nil)
		for _, s := range test.steps {
			observe(o, set, 0, start, s.outcome, s.times)
		}
		out := o.Snapshot().Out
		if (len(out) == 1) != test.out || test.out && out[0].Cause != test.cause {
			t.Errorf("%s: out are %+v", name, out)
		}
	}
}

func TestEjectionsGrowWithRepeatsAndShrinkInCalm(t *testing.T) {
	options := fiveInARow
	options.MaxEjectFor = 70 * time.Second
	set, o := newTestSet(1, 1), NewOutliers(options, nil)
	now := start
	for i, test := range []struct {
		calm  time.Duration // before it
		lasts time.Duration
	}{
		{0, 30 * time.Second},
		{0, time.Minute},
		{9 * time.Second, 70 * time.Second}, // less than an interval; and not past the bound
		{0, 70 * time.Second},
		{10 * time.Second, 70 * time.Second}, // one repeat back, and one more
		{20 * time.Second, time.Minute},
		{time.Hour, 30 * time.Second},
	} {
		now += test.calm
		observe(o, set, 0, now, Success, 1)
		observe(o, set, 0, now, Failure, 5)
		out := o.Snapshot().Out
		if len(out) != 1 {
			t.Fatalf("step %d: %d are out", i, len(out))
		}
		if lasts := out[0].Until - now; lasts != test.lasts {
			t.Errorf("step %d: out for %v, want %v", i, lasts, test.lasts)
		}
		now = out[0].Until
		o.Sweep(set, now, 1)
		now += 10 * time.Millisecond // an attempt's length: it has to begin after the return
	}
}

func TestThoseThatGoTogetherComeBackApart(t *testing.T) {
	set, o := newTestSet(1, 1, 1, 1), NewOutliers(fiveInARow, nil)
	for i, rnd := range []uint64{0, 1 << 63} {
		for range 5 {
			o.Observe(set, set.All()[i], start, Attempt{Outcome: Failure}, rnd)
		}
	}
	out := o.Snapshot().Out
	if first, second := out[0].Until-start, out[1].Until-start; first != 30*time.Second || second != 31500*time.Millisecond {
		t.Errorf("back after %v and %v, want 30s and 31.5s", first, second)
	}
}

func TestAShareAtMostGoesButOneMayAndOneStays(t *testing.T) {
	for _, test := range []struct {
		endpoints int
		share     float64
		out       int
	}{
		{1, 1, 0}, {2, 0.5, 1}, {2, 0.01, 1}, {2, 1, 1}, {3, 0, 1}, {3, 1, 2}, {5, 0.5, 2}, {10, 0.5, 5}, {10, 0.09, 1}, {10, -1, 0}, {100, 0.29, 29},
	} {
		options := fiveInARow
		options.MaxEjected = test.share
		set, o := newTestSet(make([]uint32, test.endpoints)...), NewOutliers(options, nil)
		for i := range test.endpoints {
			observe(o, set, i, start, Failure, 50)
		}
		s := o.Snapshot()
		if len(s.Out) != test.out {
			t.Errorf("%v of %d: %d are out, want %d", test.share, test.endpoints, len(s.Out), test.out)
		}
		if s.Bounded == 0 {
			t.Errorf("%v of %d: the bound kept none in", test.share, test.endpoints)
		}
	}
}

func TestARoomThatIsFreeAgainIsTaken(t *testing.T) {
	set, o := newTestSet(1, 1), NewOutliers(fiveInARow, nil)
	observe(o, set, 0, start, Failure, 5)
	observe(o, set, 1, start+time.Second, Failure, 9)
	wantOut(t, o, set, 0)
	o.Sweep(set, start+30*time.Second, 1)
	observe(o, set, 1, start+31*time.Second, Failure, 1) // the row goes on
	wantOut(t, o, set, 1)
}

func TestWhenOthersLeaveTheBoundIsKeptByThoseBackFirst(t *testing.T) {
	set, o := newTestSet(1, 1, 1, 1, 1, 1), NewOutliers(fiveInARow, nil)
	for i := range 3 {
		observe(o, set, i, start+time.Duration(i)*time.Second, Failure, 5)
	}
	wantOut(t, o, set, 0, 1, 2)
	// The healthy ones leave but for one: 4 endpoints, 2 may be out.
	next, _ := set.With([]Spec{set.All()[0].Spec(), set.All()[1].Spec(), set.All()[2].Spec(), set.All()[3].Spec()})
	observe(o, next, 3, start+4*time.Second, Success, 1)
	wantOut(t, o, next, 1, 2)
	if !next.All()[0].Fit() {
		t.Error("the one that came back early is not fit")
	}
}

func TestNewMembersMakeRoomAtOnce(t *testing.T) {
	set, o := newTestSet(1, 1), NewOutliers(fiveInARow, nil)
	observe(o, set, 0, start, Failure, 5)
	observe(o, set, 1, start, Failure, 5)
	wantOut(t, o, set, 0)
	next, _ := set.With([]Spec{set.All()[0].Spec(), set.All()[1].Spec(), {Address: "10.0.0.3:1"}, {Address: "10.0.0.4:1"}})
	observe(o, next, 1, start+time.Second, Failure, 1)
	wantOut(t, o, next, 0, 1)
}

func TestAnEjectionOfWhatLeftIsForgotten(t *testing.T) {
	set, o := newTestSet(1, 1, 1, 1), NewOutliers(fiveInARow, nil)
	observe(o, set, 0, start, Failure, 5)
	next, _ := set.With([]Spec{set.All()[1].Spec(), set.All()[2].Spec()})
	o.Sweep(next, start+time.Second, 1)
	wantOut(t, o, next)
	observe(o, next, 0, start+2*time.Second, Failure, 5)
	wantOut(t, o, next, 0) // there is room
	// A late result of a call to one that left changes nothing.
	observe(o, next, 1, start+2*time.Second, Success, 1)
	for range 9 {
		o.Observe(next, set.All()[3], start+2*time.Second, Attempt{Outcome: Failure}, 1)
	}
	wantOut(t, o, next, 0)
}

func TestAResultThatLooksAtAnOldSnapshotForgetsNothing(t *testing.T) {
	set, o := newTestSet(1, 1), NewOutliers(fiveInARow, nil)
	next, _ := set.With([]Spec{set.All()[0].Spec(), set.All()[1].Spec(), {Address: "10.0.0.3:1"}})
	observe(o, next, 2, start, Failure, 5)
	observe(o, set, 0, start+time.Second, Success, 1)
	wantOut(t, o, next, 2)
}

func TestDrainedEndpointsAreNotJudgedAndDontCount(t *testing.T) {
	set, o := newTestSet(1, 1, 1, 1), NewOutliers(fiveInARow, nil)
	set.All()[0].SetDraining(true)
	observe(o, set, 0, start, Failure, 50)
	wantOut(t, o, set)
	observe(o, set, 1, start, Failure, 5)
	observe(o, set, 2, start, Failure, 5)
	wantOut(t, o, set, 1) // three take calls, one may go
	// The one that is out is drained: its place is free.
	set.All()[1].SetDraining(true)
	o.Sweep(set, start+time.Second, 1)
	wantOut(t, o, set)
	// Draining of one that is in shrinks the bound at the next sweep.
	set.All()[0].SetDraining(false)
	set.All()[1].SetDraining(false)
	o.Sweep(set, start+10*time.Second, 1)
	observe(o, set, 0, start+20*time.Second, Failure, 5)
	observe(o, set, 1, start+21*time.Second, Failure, 5)
	wantOut(t, o, set, 0, 1)
	set.All()[2].SetDraining(true)
	o.Sweep(set, start+30*time.Second, 1)
	wantOut(t, o, set, 1)
}

func TestAttemptsFromBeforeTheReturnAreOldNews(t *testing.T) {
	set, o := newTestSet(1, 1), NewOutliers(fiveInARow, nil)
	observe(o, set, 0, start, Failure, 5)
	observe(o, set, 0, start+20*time.Second, Failure, 5) // while it is out
	o.Sweep(set, start+30*time.Second, 1)
	for range 5 {
		o.Observe(set, set.All()[0], start+35*time.Second, Attempt{Outcome: LocalFailure, Took: 10 * time.Second}, 1)
	}
	wantOut(t, o, set)
	for range 5 {
		o.Observe(set, set.All()[0], start+45*time.Second, Attempt{Outcome: LocalFailure, Took: 10 * time.Second}, 1)
	}
	wantOut(t, o, set, 0)
}

func TestObserveOnlyRemembersAndTouchesNothing(t *testing.T) {
	options := fiveInARow
	options.ObserveOnly = true
	set, o := newTestSet(1, 1), NewOutliers(options, nil)
	observe(o, set, 0, start, Failure, 5)
	s := o.Snapshot()
	if len(s.Out) != 1 || s.Out[0].Until != start+30*time.Second || s.Out[0].Reason != "5 failures in a row" || s.WouldEject[CauseFailures] != 1 || s.Ejected[CauseFailures] != 0 {
		t.Errorf("remembered %+v", s)
	}
	if !set.All()[0].Fit() {
		t.Error("it is not fit")
	}
	// Told to act, it does: with what it remembers.
	o.Update(fiveInARow)
	o.Sweep(set, start+time.Second, 1)
	if c, _, _ := set.All()[0].Condition(); c != Ejected {
		t.Errorf("under ENFORCE its condition is %v", c)
	}
	o.Update(options)
	o.Sweep(set, start+2*time.Second, 1)
	if !set.All()[0].Fit() {
		t.Error("under OBSERVE again it is not fit")
	}
	o.Update(fiveInARow)
	o.Sweep(set, start+3*time.Second, 1)
	o.Update(OutlierOptions{})
	if next := o.Sweep(set, start+4*time.Second, 1); next != 0 || !set.All()[0].Fit() {
		t.Errorf("switched off, the next sweep is at %v and it is fit: %v", next, set.All()[0].Fit())
	}
}

func TestWhoGoesAndComesIsTold(t *testing.T) {
	var heard []string
	set := newTestSet(1, 1)
	o := NewOutliers(fiveInARow, func(e Ejection, out bool) {
		heard = append(heard, fmt.Sprintf("%s out=%v observed=%v: %s", e.Endpoint.Address(), out, e.Observed, e.Reason))
	})
	observe(o, set, 0, start, Failure, 5)
	observing := fiveInARow
	observing.ObserveOnly = true
	o.Update(observing)
	o.Sweep(set, start+time.Second, 1)
	o.Sweep(set, start+30*time.Second, 1)
	if want := []string{
		"10.0.0.1:1 out=true observed=false: 5 failures in a row",
		"10.0.0.1:1 out=true observed=true: 5 failures in a row",
		"10.0.0.1:1 out=false observed=true: 5 failures in a row",
	}; !slices.Equal(heard, want) {
		t.Errorf("heard %q", heard)
	}
}

func TestSweepSaysWhenToCallItAgain(t *testing.T) {
	set, o := newTestSet(1, 1, 1, 1), NewOutliers(fiveInARow, nil)
	for _, step := range []struct{ at, next time.Duration }{
		{0, 10 * time.Second}, {time.Second, 10 * time.Second}, {10 * time.Second, 20 * time.Second}, {33 * time.Second, 43 * time.Second},
	} {
		if next := o.Sweep(set, start+step.at, 1); next != start+step.next {
			t.Errorf("at %v: again at %v, want %v", step.at, next-start, step.next)
		}
	}
	observe(o, set, 0, start+34*time.Second, Failure, 5)
	o.Sweep(set, start+43*time.Second, 1)
	o.Sweep(set, start+53*time.Second, 1)
	if next := o.Sweep(set, start+63*time.Second, 1); next != start+64*time.Second {
		t.Errorf("again at %v, want 1m4s, when it comes back", next-start)
	}
}

func TestSweepIsCalledInTimeForWhoGoesMeanwhile(t *testing.T) {
	options := OutlierOptions{ConsecutiveFailures: 5, Interval: time.Minute, EjectFor: 3 * time.Second}
	set, o := newTestSet(1, 1), NewOutliers(options, nil)
	next := o.Sweep(set, start, 1)
	observe(o, set, 0, start, Failure, 5)
	if until := o.Snapshot().Out[0].Until; until != start+3*time.Second || next > until {
		t.Errorf("back at %v, the sweep is at %v", until-start, next-start)
	}
}

func TestManyGoroutinesKeepTheBound(t *testing.T) {
	options := OutlierOptions{ConsecutiveFailures: 2, FailureRate: 0.5, LatencyFactor: 2, MinimumCalls: 1, Interval: time.Millisecond, EjectFor: time.Millisecond}
	set, o := newTestSet(1, 1, 1, 1, 1, 1), NewOutliers(options, nil)
	var running sync.WaitGroup
	for g := range 4 {
		running.Go(func() {
			for i := range 5000 {
				now := start + time.Duration(i)*10*time.Microsecond
				outcome := Outcome(1 + (i+g)%4)
				o.Observe(set, set.All()[(i/3+g)%6], now, Attempt{Outcome: outcome, Took: time.Duration(i)}, uint64(i)<<40)
				if i%50 == g {
					o.Sweep(set, now, uint64(i))
				}
				if i%20 == 0 {
					if n := len(o.Snapshot().Out); n > 3 {
						t.Errorf("%d of 6 are out", n)
						return
					}
				}
			}
		})
	}
	running.Wait()
	if s := o.Snapshot(); s.Ejected == [NumCauses]uint64{} {
		t.Error("none was ejected")
	}
	o.Sweep(set, start+time.Hour, 1) // judges the last interval
	o.Sweep(set, start+2*time.Hour, 1)
	wantOut(t, o, set)
	for i, e := range set.All() {
		if !e.Fit() {
			t.Errorf("endpoint %d is not fit although none is out", i)
		}
	}
}

func TestObserveAllocatesNothing(t *testing.T) {
	options := OutlierOptions{ConsecutiveFailures: 5, ConsecutiveLocal: 5, FailureRate: 0.5, SuccessRateDeviation: 1.9, LatencyFactor: 3}
	set, o := newTestSet(1, 1), NewOutliers(options, nil)
	e := set.All()[0]
	if n := testing.AllocsPerRun(1000, func() {
		o.Observe(set, e, start, Attempt{Outcome: Failure, Took: time.Millisecond}, 1)
		o.Observe(set, e, start, Attempt{Outcome: LocalFailure, Took: time.Millisecond}, 1)
		o.Observe(set, e, start, Attempt{Outcome: Success, Took: time.Millisecond}, 1)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestOutlierOptionsSayWhatIsWrong(t *testing.T) {
	for _, test := range []struct {
		options OutlierOptions
		problem string
	}{
		{fiveInARow, ""},
		{OutlierOptions{}, ""},
		{OutlierOptions{ConsecutiveFailures: -1}, "ConsecutiveFailures is -1: want 0 or more"},
		{OutlierOptions{FailureRate: 1.5}, "FailureRate is 1.5: want a share from 0 to 1"},
		{OutlierOptions{LatencyFactor: 0.5}, "LatencyFactor is 0.5: want more than 1"},
		{OutlierOptions{MaxEjected: 2}, "MaxEjected is 2: want a share up to 1"},
		{OutlierOptions{SuccessRateDeviation: -1}, "SuccessRateDeviation is -1: want 0 or more"},
		{OutlierOptions{EjectFor: -time.Second}, "EjectFor is -1000000000: want 0 or more"},
	} {
		err := test.options.Validate()
		if (err == nil) != (test.problem == "") || err != nil && !strings.Contains(err.Error(), test.problem) {
			t.Errorf("%+v: %v, want %q", test.options, err, test.problem)
		}
	}
}

// budget: 8 ns, 0 allocs: failures in a row alone, the default.
func BenchmarkObserveInARow(b *testing.B) { benchmarkObserve(b, fiveInARow) }

// budget: 15 ns, 0 allocs: every threshold on.
func BenchmarkObserveAll(b *testing.B) {
	benchmarkObserve(b, OutlierOptions{ConsecutiveFailures: 5, ConsecutiveLocal: 5, FailureRate: 0.5, SuccessRateDeviation: 1.9, LatencyFactor: 3})
}

func benchmarkObserve(b *testing.B, options OutlierOptions) {
	set, o := newTestSet(1, 1), NewOutliers(options, nil)
	o.Sweep(set, start, 1)
	e := set.All()[0]
	b.ReportAllocs()
	for b.Loop() {
		o.Observe(set, e, start, Attempt{Outcome: Success, Took: 3 * time.Millisecond}, 1)
	}
}

// budget: 10 ns, 0 allocs.
func BenchmarkSweepWithNothingDue(b *testing.B) {
	set, o := newTestSet(make([]uint32, 10_000)...), NewOutliers(fiveInARow, nil)
	o.Sweep(set, start, 1)
	b.ReportAllocs()
	for b.Loop() {
		o.Sweep(set, start+time.Second, 1)
	}
}

// budget: 1 ms, 0 allocs: an interval of 10,000 endpoints.
func BenchmarkSweepJudges(b *testing.B) {
	set := newTestSet(make([]uint32, 10_000)...)
	o := NewOutliers(OutlierOptions{FailureRate: 0.5, MinimumCalls: 1}, nil)
	now := start
	o.Sweep(set, now, 1)
	b.ReportAllocs()
	for b.Loop() {
		now += 10 * time.Second
		o.Sweep(set, now, 1)
	}
}

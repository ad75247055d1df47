package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// byReports is gRFC A58's defaults.
var byReports = LoadReports{
	On: true, BlackoutPeriod: DefaultBlackoutPeriod, WeightExpirationPeriod: DefaultWeightExpirationPeriod,
	WeightUpdatePeriod: DefaultWeightUpdatePeriod, ErrorUtilizationPenalty: DefaultErrorUtilizationPenalty,
}

// atOnce is the same without a blackout.
var atOnce = LoadReports{On: true, ErrorUtilizationPenalty: 1}

func newReportsPicker(o LoadReports) *Picker {
	return NewPicker(Options{Policy: WeightedRoundRobin, LoadReports: o})
}

// turns counts where so many picks at one moment go, by the set's order.
func turns(p *Picker, set *Set, picks int, now Instant) []int {
	counts := make([]int, set.Len())
	for range picks {
		e := p.Pick(set, Ask{Now: now, Rnd: 7})
		for i, other := range set.All() {
			if e == other {
				counts[i]++
			}
		}
	}
	return counts
}

func wantTurns(t *testing.T, p *Picker, set *Set, now Instant, want ...int) {
	t.Helper()
	sum := 0
	for _, n := range want {
		sum += n
	}
	got := turns(p, set, 1000*sum, now)
	for i, n := range want {
		if off := got[i] - 1000*n; off < -2 || off > 2 {
			t.Errorf("at %v: turns %v of %d; want them as %v", now, got, 1000*sum, want)
			return
		}
	}
}

func TestAWeightIsWhatTheEndpointWouldServeAtFullUse(t *testing.T) {
	for name, test := range map[string]struct {
		report  LoadReport
		penalty float64
		want    float64
	}{
		"half used":                       {LoadReport{QPS: 100, CPUUtilization: 0.5}, 1, 200},
		"the application's word first":    {LoadReport{QPS: 100, CPUUtilization: 0.5, ApplicationUtilization: 0.25}, 1, 400},
		"more than full":                  {LoadReport{QPS: 100, CPUUtilization: 2}, 1, 50},
		"a tenth are errors":              {LoadReport{QPS: 100, EPS: 10, CPUUtilization: 0.4}, 1, 200},
		"errors count twice":              {LoadReport{QPS: 100, EPS: 10, CPUUtilization: 0.3}, 2, 200},
		"errors do not count":             {LoadReport{QPS: 100, EPS: 10, CPUUtilization: 0.5}, 0, 200},
		"fewer errors than none":          {LoadReport{QPS: 100, EPS: -10, CPUUtilization: 0.5}, 1, 200},
		"an application of less than 0":   {LoadReport{QPS: 100, CPUUtilization: 0.5, ApplicationUtilization: -1}, 1, 200},
		"no requests":                     {LoadReport{CPUUtilization: 0.5}, 1, 0},
		"not used":                        {LoadReport{QPS: 100}, 1, 0},
		"requests that are no number":     {LoadReport{QPS: math.NaN(), CPUUtilization: 0.5}, 1, 0},
		"endless requests":                {LoadReport{QPS: math.Inf(1), CPUUtilization: 0.5}, 1, 0},
		"endless use":                     {LoadReport{QPS: 100, CPUUtilization: math.Inf(1)}, 1, 0},
		"use that is no number":           {LoadReport{QPS: 100, CPUUtilization: math.NaN()}, 1, 0},
		"errors that are no number":       {LoadReport{QPS: 100, EPS: math.NaN(), CPUUtilization: 0.5}, 1, 0},
		"fewer requests than none":        {LoadReport{QPS: -100, CPUUtilization: 0.5}, 1, 0},
		"an endpoint of a million a core": {LoadReport{QPS: 1e6, CPUUtilization: 1e-6}, 1, 1e12},
	} {
		p := newReportsPicker(LoadReports{On: true, ErrorUtilizationPenalty: test.penalty})
		e := newTestSet(1).All()[0]

		p.Report(e, time.Second, test.report)

		if got := p.ReportedWeight(e, time.Second); math.Abs(got-test.want) > test.want/1e9 {
			t.Errorf("%s: %v; want %v", name, got, test.want)
		}
	}
}

func TestReportsThatCanNotBeUsedChangeNothing(t *testing.T) {
	p, e := newReportsPicker(atOnce), newTestSet(1).All()[0]
	p.Report(e, 1*time.Second, LoadReport{QPS: 100, CPUUtilization: 0.5})
	// When an idle endpoint reports 3 minutes less a second later,
	p.Report(e, 180*time.Second, LoadReport{QPS: 0, CPUUtilization: 0})
	// then the weight stays, and expires by the report that made it.
	if w := p.ReportedWeight(e, 180*time.Second); w != 200 {
		t.Errorf("%v", w)
	}
	if w := p.ReportedWeight(e, 181*time.Second); w != 0 {
		t.Errorf("%v, and 3 minutes are over", w)
	}
}

func TestTurnsFollowReports(t *testing.T) {
	// Given two endpoints of which one bears three times as much, whatever their
	// specs say,
	set, p := newTestSet(5, 1), newReportsPicker(atOnce)
	p.Report(set.All()[0], 1*time.Second, LoadReport{QPS: 100, CPUUtilization: 0.75})
	p.Report(set.All()[1], 1*time.Second, LoadReport{QPS: 100, CPUUtilization: 0.25})
	// then they get calls 1 to 3.
	wantTurns(t, p, set, 1*time.Second, 1, 3)
}

func TestAnEndpointWithoutAReportHasTheMeanOfTheOthers(t *testing.T) {
	set, p := newTestSet(9, 1, 1), newReportsPicker(atOnce)
	p.Report(set.All()[1], 1*time.Second, LoadReport{QPS: 10, CPUUtilization: 0.1})
	p.Report(set.All()[2], 1*time.Second, LoadReport{QPS: 30, CPUUtilization: 0.1})

	wantTurns(t, p, set, 1*time.Second, 2, 1, 3)
}

func TestOneReportAloneLeavesTheWeightsOfTheSpecs(t *testing.T) {
	set, p := newTestSet(2, 1), newReportsPicker(atOnce)
	p.Report(set.All()[1], 1*time.Second, LoadReport{QPS: 100, CPUUtilization: 0.1})

	wantTurns(t, p, set, 1*time.Second, 2, 1)
}

func TestReportsOfUnfitEndpointsDoNotCount(t *testing.T) {
	// Given three that report, one of them away,
	set, p := newTestSet(1, 1, 1), newReportsPicker(atOnce)
	for i, e := range set.All() {
		p.Report(e, 1*time.Second, LoadReport{QPS: float64(10 + 20*i), CPUUtilization: 1})
	}
	set.All()[2].SetHealthy(false, "status 500", 1*time.Second)
	// then the others share the calls,
	wantTurns(t, p, set, 1*time.Second, 1, 3, 0)
	// and when only one is left of two, that has all.
	set.All()[1].SetHealthy(false, "status 500", 2*time.Second)
	wantTurns(t, p, set, 2*time.Second, 1, 0, 0)
}

func TestAWeightCountsOnceTheBlackoutIsOver(t *testing.T) {
	// Given a blackout of 10 s and endpoints that report from 5 s on,
	set, p := newTestSet(1, 1), newReportsPicker(byReports)
	report := func(now Instant) {
		p.Report(set.All()[0], now, LoadReport{QPS: 100, CPUUtilization: 0.2})
		p.Report(set.All()[1], now, LoadReport{QPS: 100, CPUUtilization: 0.1})
	}
	report(5 * time.Second)
	report(14 * time.Second)
	// then calls are spread evenly until 15 s,
	wantTurns(t, p, set, 14999*time.Millisecond, 1, 1)
	// and by the reports once the weights are looked up again.
	wantTurns(t, p, set, 16*time.Second, 1, 2)
}

func TestAReportThatIsOldExpiresAndTheBlackoutBeginsAnew(t *testing.T) {
	// Given endpoints whose reports count,
	set, p := newTestSet(1, 1), newReportsPicker(byReports)
	report := func(now Instant) {
		p.Report(set.All()[0], now, LoadReport{QPS: 100, CPUUtilization: 0.2})
		p.Report(set.All()[1], now, LoadReport{QPS: 100, CPUUtilization: 0.1})
	}
	report(1 * time.Second)
	report(12 * time.Second)
	wantTurns(t, p, set, 12*time.Second, 1, 2)
	// when they say nothing for 3 minutes, then calls are spread evenly,
	wantTurns(t, p, set, 191*time.Second, 1, 2)
	wantTurns(t, p, set, 192*time.Second, 1, 1)
	// and stay so for 10 s after they begin again.
	report(200 * time.Second)
	wantTurns(t, p, set, 209*time.Second, 1, 1)
	wantTurns(t, p, set, 210*time.Second, 1, 2)
}

func TestASilenceThatNoPickSawIsOneToo(t *testing.T) {
	// Given a silence of 3 minutes in which nobody looked,
	p, e := newReportsPicker(byReports), newTestSet(1).All()[0]
	r := LoadReport{QPS: 100, CPUUtilization: 0.5}
	p.Report(e, 1*time.Second, r)
	p.Report(e, 181*time.Second, r)
	// then the blackout begins with the next report,
	if w := p.ReportedWeight(e, 190*time.Second); w != 0 {
		t.Errorf("%v in the blackout", w)
	}
	// and of a silence that is shorter by a moment it does not.
	p.Report(e, 361*time.Second-1, r)
	if w := p.ReportedWeight(e, 361*time.Second); w != 200 {
		t.Errorf("%v", w)
	}
}

func TestANewConnectionBeginsTheBlackout(t *testing.T) {
	p, e := newReportsPicker(byReports), newTestSet(1).All()[0]
	r := LoadReport{QPS: 100, CPUUtilization: 0.5}
	p.Report(e, 1*time.Second, r)
	if w := p.ReportedWeight(e, 20*time.Second); w != 200 {
		t.Fatalf("%v", w)
	}
	// When the endpoint is gone and back, perhaps another process,
	e.SetConnected(false, "connection refused", 21*time.Second)
	e.SetConnected(true, "", 22*time.Second)
	// then what it reported before does not count,
	if w := p.ReportedWeight(e, 22*time.Second); w != 0 {
		t.Errorf("%v", w)
	}
	// until it has reported anew for 10 s.
	p.Report(e, 23*time.Second, r)
	if w := p.ReportedWeight(e, 33*time.Second-1); w != 0 {
		t.Errorf("%v in the blackout", w)
	}
	if w := p.ReportedWeight(e, 33*time.Second); w != 200 {
		t.Errorf("%v after it", w)
	}
}

func TestWeightsAreLookedUpOnceAPeriod(t *testing.T) {
	set, p := newTestSet(1, 1), newReportsPicker(atOnce)
	report := func(now Instant, use float64) {
		p.Report(set.All()[0], now, LoadReport{QPS: 100, CPUUtilization: use})
		p.Report(set.All()[1], now, LoadReport{QPS: 100, CPUUtilization: 0.1})
	}
	report(1*time.Second, 0.2)
	wantTurns(t, p, set, 1*time.Second, 1, 2)
	before := p.view.Load()
	// When weights change, then nothing is made anew for a second,
	report(1500*time.Millisecond, 0.4)
	wantTurns(t, p, set, 2*time.Second-1, 1, 2)
	if p.view.Load() != before {
		t.Error("a new view within the period")
	}
	// then they are seen,
	wantTurns(t, p, set, 2*time.Second, 1, 4)
	// and where they are the same, what was made of them stays.
	group := p.view.Load().shares[0].group
	wantTurns(t, p, set, 3*time.Second, 1, 4)
	if p.view.Load().shares[0].group != group {
		t.Error("a new schedule of the same weights")
	}
}

func TestReportsOutliveAChangeOfMembership(t *testing.T) {
	set, p := newTestSet(1, 1), newReportsPicker(byReports)
	for i, e := range set.All() {
		p.Report(e, 1*time.Second, LoadReport{QPS: float64(10 + 20*i), CPUUtilization: 1})
	}
	wantTurns(t, p, set, 11*time.Second, 1, 3)
	// When an endpoint comes, then the others keep their weights, and it has
	// their mean: at once where the set is prepared as the agent does.
	next, _ := set.With(specs(1, 1, 1))
	p.Prepare(next)
	if got := p.view.Load().shares[0].group.weights; fmt.Sprint(got) != "[21845 65535 43690]" {
		t.Errorf("weights %v", got)
	}
	wantTurns(t, p, next, 11*time.Second, 1, 3, 2)
}

func TestPoliciesThatPayDifferentlyShareTheReports(t *testing.T) {
	// Given a report of an endpoint that fails half its calls,
	lenient, strict := newReportsPicker(LoadReports{On: true}), newReportsPicker(LoadReports{On: true, ErrorUtilizationPenalty: 1})
	e := newTestSet(1).All()[0]
	lenient.Report(e, time.Second, LoadReport{QPS: 100, EPS: 50, CPUUtilization: 0.5})
	// then each policy makes its own weight of it.
	if a, b := lenient.ReportedWeight(e, time.Second), strict.ReportedWeight(e, time.Second); a != 200 || b != 100 {
		t.Errorf("%v and %v; want 200 and 100", a, b)
	}
}

func TestOtherPoliciesHearNoReports(t *testing.T) {
	for _, policy := range everyPolicy {
		p, e := NewPicker(Options{Policy: policy, LoadReports: atOnce}), newTestSet(1).All()[0]
		p.Report(e, time.Second, LoadReport{QPS: 100, CPUUtilization: 0.5})
		if on := p.Reports(); on != (policy == WeightedRoundRobin) || (p.ReportedWeight(e, time.Second) > 0) != on {
			t.Errorf("%v: on: %v, weight %v", policy, on, p.ReportedWeight(e, time.Second))
		}
	}
	p, e := newReportsPicker(LoadReports{}), newTestSet(1).All()[0]
	if p.Report(e, time.Second, LoadReport{QPS: 100, CPUUtilization: 0.5}); e.reported.used.Load() != 0 {
		t.Error("kept though nobody asks for it")
	}
}

func TestWhoKnowsNoTimeLooksNothingUp(t *testing.T) {
	set, p := newTestSet(1, 2), newReportsPicker(atOnce)
	p.Prepare(set)
	before := p.view.Load()
	p.Pick(set, Ask{Rnd: 7})
	if p.view.Load() != before {
		t.Error("a new view for a pick without a time")
	}
}

// grfc is gRFC A58's pseudocode, with the expiry looked up at each report too.
type grfc struct {
	weight          float64
	nonEmpty, last  Instant // negative: never
	blackout, valid time.Duration
	penalty         float64
}

func (m *grfc) update(now Instant, r LoadReport) {
	u := r.CPUUtilization
	if r.ApplicationUtilization > 0 {
		u = r.ApplicationUtilization
	}
	if u <= 0 || r.QPS <= 0 {
		return
	}
	m.get(now)
	m.weight = r.QPS / (u + r.EPS/r.QPS*m.penalty)
	if m.nonEmpty < 0 {
		m.nonEmpty = now
	}
	m.last = now
}

func (m *grfc) get(now Instant) float64 {
	if m.last < 0 || now-m.last >= m.valid {
		m.nonEmpty = -1
		return 0
	}
	if m.blackout > 0 && (m.nonEmpty < 0 || now-m.nonEmpty < m.blackout) {
		return 0
	}
	return m.weight
}

func TestWeightsAreThoseOfTheGRFC(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := LoadReports{
			On: true, BlackoutPeriod: rapid.SampledFrom([]time.Duration{0, 10 * time.Second}).Draw(t, "blackout"),
			WeightExpirationPeriod:  rapid.SampledFrom([]time.Duration{time.Second, time.Minute}).Draw(t, "expiration"),
			ErrorUtilizationPenalty: rapid.SampledFrom([]float64{0, 1, 2.5}).Draw(t, "penalty"),
		}
		p, e := newReportsPicker(o), newTestSet(1).All()[0]
		model := &grfc{nonEmpty: -1, last: -1, blackout: o.BlackoutPeriod, valid: o.WeightExpirationPeriod, penalty: o.ErrorUtilizationPenalty}
		now := Instant(1)
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += Instant(rapid.Int64Range(0, 15e9).Draw(t, "passes"))
			switch step := rapid.IntRange(0, 9).Draw(t, "step"); {
			case step == 0:
				e.SetConnected(false, "lost", now)
				e.SetConnected(true, "", now)
				model.nonEmpty = -1
			case step > 3:
				number := rapid.OneOf(rapid.Just(0.0), rapid.Float64Range(1e-3, 1e5))
				r := LoadReport{QPS: number.Draw(t, "qps"), EPS: number.Draw(t, "eps"), CPUUtilization: number.Draw(t, "cpu"), ApplicationUtilization: number.Draw(t, "application")}
				p.Report(e, now, r)
				model.update(now, r)
			}
			got, want := p.ReportedWeight(e, now), model.get(now)
			if math.Abs(got-want) > want/1e9 {
				t.Fatalf("at %v: %v; want %v", now, got, want)
			}
		}
	})
}

func TestReportedWeightsKeepTheirProportions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 20).Draw(t, "endpoints")
		set, p, o := newTestSet(make([]uint32, n)...), newReportsPicker(atOnce), atOnce.withDefaults()
		exact, most, sum, reporting := make([]float64, n), 0.0, 0.0, 0
		for i, e := range set.All() {
			if rapid.IntRange(0, 3).Draw(t, "reports") > 0 {
				exact[i] = rapid.Float64Range(1e-3, 1e6).Draw(t, "qps")
				p.Report(e, 1, LoadReport{QPS: exact[i], CPUUtilization: 1})
				most, sum, reporting = max(most, exact[i]), sum+exact[i], reporting+1
			}
		}
		weights := reportedWeights(set.All(), 1, &o)
		if (weights == nil) != (reporting < 2) {
			t.Fatalf("%d report, and the weights are %v", reporting, weights)
		}
		for i, w := range weights {
			want := exact[i]
			if want == 0 {
				want = sum / float64(reporting)
			}
			if w == 0 || math.Abs(float64(w)-want/most*heaviest) > 1.1 {
				t.Fatalf("endpoint %d weighs %d; want %v of %v", i, w, want, most)
			}
		}
	})
}

func TestReportsAndPicksAllocateNothing(t *testing.T) {
	set, p := newTestSet(1, 1, 1), newReportsPicker(atOnce)
	p.Prepare(set)
	p.Pick(set, Ask{Now: time.Second, Rnd: 1})
	if n := testing.AllocsPerRun(1000, func() {
		e := p.Pick(set, Ask{Now: time.Second, Rnd: 1})
		e.Begin()
		p.Report(e, time.Second, LoadReport{QPS: 100, CPUUtilization: 0.5})
		e.End(time.Second, time.Millisecond, false)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// BenchmarkPickByReports picks while virtual time passes, so that what looks up
// the weights once a second is in it, as are the reports.
//
// budget: 40 ns of 100 endpoints, 100 ns of 10,000, 0 allocs
func BenchmarkPickByReports(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		for _, kind := range []string{"pick", "pick and report"} {
			b.Run(fmt.Sprintf("%d/%s", n, kind), func(b *testing.B) {
				set, p := newTestSet(make([]uint32, n)...), newReportsPicker(atOnce)
				for i, e := range set.All() {
					p.Report(e, 1, LoadReport{QPS: float64(100 + i%7), CPUUtilization: 0.5})
				}
				p.Prepare(set)
				b.ReportAllocs()
				b.SetParallelism(64 / 2)
				b.RunParallel(func(pb *testing.PB) {
					rnd, now := rand.Uint64(), time.Second
					for pb.Next() {
						now += 5 * time.Microsecond // 200,000 calls a second
						e := p.Pick(set, Ask{Now: now, Rnd: rnd})
						if kind != "pick" {
							rnd = scramble(rnd)
							p.Report(e, now, LoadReport{QPS: float64(100 + rnd&7), CPUUtilization: 0.5})
						}
					}
				})
			})
		}
	}
}

// BenchmarkSchedule is what the pick pays that looks the weights up.
func BenchmarkSchedule(b *testing.B) { // budget: 200 µs of 10,000 endpoints
	for _, n := range []int{100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			set, p := newTestSet(make([]uint32, n)...), newReportsPicker(atOnce)
			now := time.Second
			for b.Loop() {
				now += time.Second
				for i, e := range set.All()[:2] {
					p.Report(e, now, LoadReport{QPS: 100 + float64(i), CPUUtilization: 0.5 + float64(now%7)/10})
				}
				p.Pick(set, Ask{Now: now, Rnd: 1})
			}
		})
	}
}

package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// everyPolicy is all algorithms there are.
var everyPolicy = []Policy{LeastRequest, RoundRobin, Random, WeightedRoundRobin, PeakEWMA, RingHash, Maglev}

func specs(weights ...uint32) []Spec {
	var all []Spec
	for i, w := range weights {
		all = append(all, Spec{Address: fmt.Sprintf("10.0.%d.%d:1", (i+1)>>8, (i+1)&255), Weight: w})
	}
	return all
}

func newTestSet(weights ...uint32) *Set {
	set, _ := (&Set{}).With(specs(weights...))
	return set
}

// shares counts where so many picks go, by the set's order.
func shares(p *Picker, set *Set, picks int, excluded Excluded) []int {
	rnd := rand.New(rand.NewPCG(1, 2))
	index := make(map[*Endpoint]int)
	for i, e := range set.All() {
		index[e] = i
	}
	counts := make([]int, set.Len())
	for range picks {
		if e := p.Pick(set, Ask{Now: time.Second, Rnd: rnd.Uint64(), Excluded: excluded}); e != nil {
			counts[index[e]]++
		}
	}
	return counts
}

func TestAMillionPicksAreFair(t *testing.T) {
	const picks = 1_000_000
	for p, tolerance := range map[Policy]float64{RoundRobin: 0, WeightedRoundRobin: 0, Random: 0.01, LeastRequest: 0.01, PeakEWMA: 0.01} {
		for i, n := range shares(NewPicker(Options{Policy: p}), newTestSet(1, 1, 1, 1), picks, nil) {
			if off := math.Abs(float64(n)/(picks/4) - 1); off > tolerance {
				t.Errorf("%v: endpoint %d got %d of %d picks, %.2f %% off", p, i, n, picks, 100*off)
			}
		}
	}
}

func TestAMillionPicksFollowTheWeights(t *testing.T) {
	const picks = 1_000_000
	for _, p := range []Policy{Random, LeastRequest, PeakEWMA, RingHash, Maglev} {
		for i, n := range shares(NewPicker(Options{Policy: p}), newTestSet(1, 2, 3, 4), picks, nil) {
			want := float64(picks/10) * float64(i+1)
			if off := math.Abs(float64(n)/want - 1); off > 0.3 || off > 0.01 && !p.Hashes() {
				t.Errorf("%v: endpoint %d got %d picks; want %.0f", p, i, n, want)
			}
		}
	}
}

func TestTheShareOfAnUnfitEndpointIsSpreadEvenly(t *testing.T) {
	const picks = 300_000
	for p, tolerance := range map[Policy]float64{RoundRobin: 0, WeightedRoundRobin: 0, Random: 0.02, LeastRequest: 0.02, PeakEWMA: 0.02, RingHash: 0.4, Maglev: 0.02} {
		set := newTestSet(1, 1, 1, 1)
		set.All()[1].SetConnected(false, "connection refused", 1)
		counts := shares(NewPicker(Options{Policy: p}), set, picks, nil)
		if counts[1] != 0 {
			t.Errorf("%v: the unfit endpoint got %d picks", p, counts[1])
		}
		for _, i := range []int{0, 2, 3} {
			if off := math.Abs(float64(counts[i])/(picks/3) - 1); off > tolerance {
				t.Errorf("%v: endpoint %d got %d of %d, %.1f %% off", p, i, counts[i], picks, 100*off)
			}
		}
	}
}

func TestUnfitIsBetterThanNothingBarredIsNot(t *testing.T) {
	for _, p := range everyPolicy {
		for _, n := range []int{1, 3} {
			set, picker := newTestSet(make([]uint32, n)...), NewPicker(Options{Policy: p})
			for _, e := range set.All() {
				e.SetConnected(false, "connection refused", 1)
			}
			if e := picker.Pick(set, Ask{Now: 1, Rnd: 7}); e == nil {
				t.Errorf("%v of %d: all unfit, and none is tried", p, n)
			}
			for i, e := range set.All() {
				e.SetDraining(i%2 == 0)
				e.SetTerminating(i%2 == 1)
			}
			if e := picker.Pick(set, Ask{Now: 1, Rnd: 7}); e != nil {
				t.Errorf("%v of %d: a barred endpoint was picked", p, n)
			}
		}
		if e := NewPicker(Options{Policy: p}).Pick(newTestSet(), Ask{Now: 1, Rnd: 7}); e != nil {
			t.Errorf("%v: picked from nothing", p)
		}
		if e := NewPicker(Options{Policy: p}).Pick(&Set{}, Ask{Now: 1, Rnd: 7}); e != nil {
			t.Errorf("%v: picked from the zero set", p)
		}
	}
}

func TestExcludedIsNeverPicked(t *testing.T) {
	for _, p := range everyPolicy {
		set := newTestSet(1, 1, 1)
		out := set.All()[2]
		if n := shares(NewPicker(Options{Policy: p}), set, 10_000, func(e *Endpoint) bool { return e == out }); n[2] != 0 || n[0]+n[1] != 10_000 {
			t.Errorf("%v: %v", p, n)
		}
		if e := NewPicker(Options{Policy: p}).Pick(set, Ask{Now: 1, Rnd: 7, Excluded: func(*Endpoint) bool { return true }}); e != nil {
			t.Errorf("%v: picked although all are excluded", p)
		}
	}
}

func TestWildlyDifferentWeights(t *testing.T) {
	// Given one endpoint that weighs a million times another,
	for _, p := range everyPolicy {
		set := newTestSet(1, 1_000_000)
		n := shares(NewPicker(Options{Policy: p}), set, 100_000, nil)
		// then the small one gets next to nothing, but where weights don't count,
		if p == RoundRobin {
			if n[0] != 50_000 {
				t.Errorf("%v: %v", p, n)
			}
		} else if n[0] > 500 || n[0]+n[1] != 100_000 {
			t.Errorf("%v: %v", p, n)
		}
		// and takes all when the big one is away.
		set.All()[1].SetHealthy(false, "status 500", 1)
		if n := shares(NewPicker(Options{Policy: p}), set, 1000, nil); n[0] != 1000 {
			t.Errorf("%v, the big one unhealthy: %v", p, n)
		}
	}
}

func TestRetriesGoThroughAllEndpoints(t *testing.T) {
	// Given a call that is never answered, then each of its attempts goes to
	// another endpoint as long as there is one.
	for _, p := range everyPolicy {
		set, picker := newTestSet(1, 2, 3, 4, 5), NewPicker(Options{Policy: p})
		tried := make(map[*Endpoint]bool)
		for i := range set.Len() {
			e := picker.Pick(set, Ask{Now: 1, Rnd: scramble(uint64(i)), Hash: 99, Hashed: true, Excluded: func(e *Endpoint) bool { return tried[e] }})
			if e == nil || tried[e] {
				t.Fatalf("%v: attempt %d went to %v", p, i, e)
			}
			tried[e] = true
		}
	}
}

func TestPicksKeepTheirWord(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			Policy: rapid.SampledFrom(everyPolicy).Draw(t, "policy"), Choices: rapid.IntRange(0, 4).Draw(t, "choices"),
			ZoneAware: rapid.Bool().Draw(t, "zones"), Zone: rapid.SampledFrom([]string{"", "a", "b"}).Draw(t, "zone"),
			MinZonePercent: rapid.SampledFrom([]float64{0, 50}).Draw(t, "min zone"), PanicThreshold: rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "panic"),
			SlowStart: rapid.SampledFrom([]time.Duration{0, 10}).Draw(t, "slow start"), Subset: rapid.IntRange(0, 3).Draw(t, "subset"),
			Identity: rapid.Uint64().Draw(t, "identity"), BoundedLoad: rapid.SampledFrom([]float64{0, 1.25}).Draw(t, "bound"),
			LoadReports: LoadReports{On: rapid.Bool().Draw(t, "reports"), WeightExpirationPeriod: 20, BlackoutPeriod: 3, WeightUpdatePeriod: 1},
		}
		picker, set := NewPicker(o), &Set{}
		now := Instant(1)
		change := func() {
			n := rapid.IntRange(0, 6).Draw(t, "endpoints")
			var specs []Spec
			for i := range n {
				specs = append(specs, Spec{Address: fmt.Sprint(rapid.IntRange(0, 8).Draw(t, "address")), Weight: rapid.SampledFrom([]uint32{0, 1, 7, 1 << 31}).Draw(t, "weight"),
					Zone: rapid.SampledFrom([]string{"a", "b", "c"}).Draw(t, "zone"), Priority: uint32(i % 3)})
			}
			set, _ = set.With(specs)
		}
		change()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += Instant(rapid.IntRange(0, 5).Draw(t, "passes"))
			step := rapid.IntRange(0, 9).Draw(t, "step")
			if step == 0 || set.Len() == 0 {
				change()
				continue
			}
			e := set.All()[rapid.IntRange(0, set.Len()-1).Draw(t, "which")]
			ok := rapid.Bool().Draw(t, "ok")
			switch step {
			case 1:
				e.SetConnected(ok, "lost", now)
			case 2:
				e.SetHealthy(ok, "sick", now)
			case 3:
				if e.Eject("failing", now, now+5); ok {
					e.Restore(now)
				}
			case 4:
				e.SetDraining(!ok)
			case 5:
				e.SetTerminating(!ok)
			default:
				out := make(map[*Endpoint]bool)
				for _, e := range set.All() {
					out[e] = rapid.IntRange(0, 3).Draw(t, "excluded") == 0
				}
				a := Ask{Now: now, Rnd: rapid.Uint64().Draw(t, "rnd"), Hash: rapid.Uint64().Draw(t, "hash"), Hashed: ok}
				if rapid.Bool().Draw(t, "exclude") {
					a.Excluded = func(e *Endpoint) bool { return out[e] }
				} else {
					out = nil
				}
				picked := picker.Pick(set, a)
				may, fit := false, false
				for _, e := range set.All() {
					may = may || !out[e] && !e.Barred()
					// Of a subset that is not fit itself, others are as good as they
					// can be told apart: TestSubsetsReachByTheirRule.
					fit = fit || !out[e] && e.Fit() && o.Subset == 0
				}
				for _, e := range picker.Members(set) {
					fit = fit || !out[e] && e.Fit()
				}
				switch {
				case picked == nil && may:
					t.Fatal("none picked, though one may be")
				case picked == nil:
				case out[picked]:
					t.Fatal("an excluded endpoint was picked")
				case picked.Barred():
					t.Fatal("a barred endpoint was picked")
				case set.Find(picked.Address()) != picked:
					t.Fatal("what was picked is not in the set")
				case fit && !picked.Fit() && o.PanicThreshold == 0:
					t.Fatal("an unfit endpoint was picked, and there was no panic")
				}
				if picked != nil && ok {
					picked.Begin()
					picker.Report(picked, now, LoadReport{QPS: float64(rapid.IntRange(0, 1000).Draw(t, "qps")), CPUUtilization: 0.5})
				}
			}
		}
	})
}

func TestAnUnhealthyEndpointComesBack(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := newTestSet(1, 1, 1), NewPicker(Options{Policy: p})
		set.All()[1].SetHealthy(false, "status 500", 1)
		if n := shares(picker, set, 3000, nil); n[1] != 0 {
			t.Errorf("%v: %v", p, n)
		}
		set.All()[1].SetHealthy(true, "", 2)
		if n := shares(picker, set, 3000, nil); n[1] < 600 {
			t.Errorf("%v: back, and got %v", p, n)
		}
	}
}

func TestSetsAndWordsChangeWhilePicksAreUnderWay(t *testing.T) {
	// Given endpoints that come, go and fall ill while others pick,
	for _, p := range everyPolicy {
		picker := NewPicker(Options{Policy: p, PanicThreshold: 0.3, ZoneAware: true, Zone: "a", SlowStart: time.Second, BoundedLoad: 1.25, LoadReports: LoadReports{On: true}})
		var mu sync.Mutex
		current := newTestSet(1, 2, 3, 4, 5, 6)
		snapshot := func() *Set { mu.Lock(); defer mu.Unlock(); return current }
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(3, uint64(g)))
				for i := range 3000 {
					set := snapshot()
					e := picker.Pick(set, Ask{Now: Instant(i+1) * time.Millisecond, Rnd: rnd.Uint64(), Hash: rnd.Uint64(), Hashed: true})
					// then there is always one,
					if e == nil {
						t.Errorf("%v: none was picked", p)
						return
					}
					e.Begin()
					picker.Report(e, Instant(i)*time.Millisecond, LoadReport{QPS: float64(i), CPUUtilization: 0.5})
					e.End(Instant(i+2), time.Millisecond, i%7 == 0)
				}
			})
		}
		for i := range 300 {
			mu.Lock()
			weights := make([]uint32, 3+i%5)
			for j := range weights {
				weights[j] = uint32(1 + (i+j)%4)
			}
			next, _ := current.With(specs(weights...))
			current = next
			mu.Unlock()
			next.All()[i%3].SetHealthy(i%2 == 0, "sick", Instant(i+1))
		}
		wg.Wait()
		// and none is left in flight.
		for _, e := range snapshot().All() {
			if n := e.InFlight(); n != 0 {
				t.Errorf("%v: %d in flight", p, n)
			}
		}
	}
}

func TestAPickAfterAChangeSeesIt(t *testing.T) {
	// Given a picker that knows a later set, then a pick from the old one doesn't
	// bring the old one back.
	old, picker := newTestSet(1, 1), NewPicker(Options{Policy: RoundRobin})
	next, gone := old.With(specs(1))
	picker.Prepare(next)
	for range 10 {
		if e := picker.Pick(old, Ask{Now: 1, Rnd: 1}); e == gone[0] {
			t.Fatal("an endpoint that left was picked")
		}
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, p := range everyPolicy {
		for _, weights := range [][]uint32{{1, 1, 1, 1}, {1, 2, 3, 4}} {
			set, picker := newTestSet(weights...), NewPicker(Options{Policy: p, BoundedLoad: 1.25, SlowStart: time.Second, ZoneAware: true, Zone: "a"})
			tried := set.All()[0]
			rnd := uint64(1)
			if n := testing.AllocsPerRun(1000, func() {
				rnd = scramble(rnd)
				e := picker.Pick(set, Ask{Now: 1, Rnd: rnd, Hash: rnd, Hashed: true, Excluded: func(e *Endpoint) bool { return e == tried }})
				e.Begin()
				e.End(2, time.Millisecond, false)
			}); n != 0 {
				t.Errorf("%v: %v allocations", p, n)
			}
		}
	}
}

// budget: 40 ns of 100 endpoints, 100 ns of 10,000, 0 allocs
func BenchmarkPick(b *testing.B) {
	for _, n := range []int{100, 10_000} {
		for _, kind := range []string{"alike", "weighted"} {
			weights := make([]uint32, n)
			if kind == "weighted" {
				for i := range weights {
					weights[i] = uint32(1 + i%7)
				}
			}
			set := newTestSet(weights...)
			for _, p := range everyPolicy {
				b.Run(fmt.Sprintf("%v/%d/%s", p, n, kind), func(b *testing.B) {
					picker := NewPicker(Options{Policy: p})
					picker.Prepare(set)
					for i, e := range set.All() {
						e.latency.observe(time.Second, time.Duration(1+i%13)*time.Millisecond)
					}
					b.ReportAllocs()
					b.SetParallelism(64 / 2)
					b.RunParallel(func(pb *testing.PB) {
						rnd := rand.Uint64()
						for pb.Next() {
							rnd = scramble(rnd)
							picker.Pick(set, Ask{Now: 2 * time.Second, Rnd: rnd, Hash: rnd, Hashed: true})
						}
					})
				})
			}
		}
	}
}

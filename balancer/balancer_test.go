package balancer

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
)

func newTestSet(weights ...uint32) *Set {
	var specs []Spec
	for i, w := range weights {
		specs = append(specs, Spec{Address: fmt.Sprintf("10.0.0.%d:1", i+1), Weight: w})
	}
	set, _ := (&Set{}).With(specs)
	return set
}

// shares counts where so many picks go, by address order.
func shares(p Policy, set *Set, picks int, excluded Excluded) []int {
	picker, rnd := NewPicker(p), rand.New(rand.NewPCG(1, 2))
	index := make(map[*Endpoint]int)
	for i, e := range set.All() {
		index[e] = i
	}
	counts := make([]int, set.Len())
	for range picks {
		if e := picker.Pick(set, rnd.Uint64(), excluded); e != nil {
			counts[index[e]]++
		}
	}
	return counts
}

func TestAMillionPicksAreFair(t *testing.T) {
	const picks = 1_000_000
	for p, tolerance := range map[Policy]float64{RoundRobin: 0, Random: 0.01, LeastRequest: 0.01} {
		for i, n := range shares(p, newTestSet(1, 1, 1, 1), picks, nil) {
			if off := math.Abs(float64(n)/(picks/4) - 1); off > tolerance {
				t.Errorf("%v: endpoint %d got %d of %d picks, %.2f %% off", p, i, n, picks, 100*off)
			}
		}
	}
}

func TestTheShareOfAnUnfitEndpointIsSpreadEvenly(t *testing.T) {
	const picks = 300_000
	for _, p := range []Policy{RoundRobin, Random, LeastRequest} {
		set := newTestSet(1, 1, 1, 1)
		set.All()[1].SetConnected(false, "connection refused", 1)
		counts := shares(p, set, picks, nil)
		if counts[1] != 0 {
			t.Errorf("%v: the unfit endpoint got %d picks", p, counts[1])
		}
		for _, i := range []int{0, 2, 3} {
			if off := math.Abs(float64(counts[i])/(picks/3) - 1); off > 0.02 {
				t.Errorf("%v: endpoint %d got %d of %d, %.1f %% off", p, i, counts[i], picks, 100*off)
			}
		}
	}
}

func TestLeastRequestSteersByLoadAndWeight(t *testing.T) {
	set := newTestSet(1, 1)
	for range 5 {
		set.All()[0].Begin()
	}
	if n := shares(LeastRequest, set, 1000, nil); n[0] > 150 {
		t.Errorf("the busy endpoint got %d of 1000", n[0])
	}
	heavy := newTestSet(1, 3)
	for _, e := range heavy.All() {
		e.Begin()
	}
	if n := shares(LeastRequest, heavy, 1000, nil); n[1] < n[0] {
		t.Errorf("weight 3 got %d, weight 1 %d", n[1], n[0])
	}
}

func TestUnfitIsBetterThanNothingDrainedIsNot(t *testing.T) {
	for _, p := range []Policy{RoundRobin, Random, LeastRequest} {
		for _, n := range []int{1, 3} {
			set := newTestSet(make([]uint32, n)...)
			for _, e := range set.All() {
				e.SetConnected(false, "connection refused", 1)
			}
			if e := NewPicker(p).Pick(set, 7, nil); e == nil {
				t.Errorf("%v of %d: all unfit, and none is tried", p, n)
			}
			for _, e := range set.All() {
				e.SetDraining(true)
			}
			if e := NewPicker(p).Pick(set, 7, nil); e != nil {
				t.Errorf("%v of %d: a drained endpoint was picked", p, n)
			}
		}
		if e := NewPicker(p).Pick(newTestSet(), 7, nil); e != nil {
			t.Errorf("%v: picked from nothing", p)
		}
	}
}

func TestExcludedIsNeverPicked(t *testing.T) {
	for _, p := range []Policy{RoundRobin, Random, LeastRequest} {
		set := newTestSet(1, 1, 1)
		out := set.All()[2]
		if n := shares(p, set, 10_000, func(e *Endpoint) bool { return e == out }); n[2] != 0 || n[0]+n[1] != 10_000 {
			t.Errorf("%v: %v", p, n)
		}
		if e := NewPicker(p).Pick(set, 7, func(*Endpoint) bool { return true }); e != nil {
			t.Errorf("%v: picked although all are excluded", p)
		}
	}
}

func TestASetThatChangesKeepsTheCounters(t *testing.T) {
	old := newTestSet(1, 1)
	kept := old.All()[0]
	kept.Begin()

	next, gone := old.With([]Spec{{Address: "10.0.0.1:1"}, {Address: "10.0.0.9:1"}, {Address: "10.0.0.2:1", Weight: 5}})

	if next.All()[0] != kept || next.Find("10.0.0.1:1").InFlight() != 1 {
		t.Error("an endpoint that stayed lost its memory")
	}
	if len(gone) != 1 || gone[0] != old.All()[1] {
		t.Errorf("gone: %v; want the one whose weight changed", gone)
	}
	if next.Find("10.0.0.9:1") == nil || next.Find("nowhere") != nil {
		t.Error("Find")
	}
}

func TestADrainOutlivesAChangeOfWeight(t *testing.T) {
	old := newTestSet(1, 1)
	old.All()[0].SetDraining(true)

	next, _ := old.With([]Spec{{Address: "10.0.0.1:1", Weight: 7}, {Address: "10.0.0.2:1"}})

	if !next.All()[0].Barred() || next.All()[1].Barred() {
		t.Fatal("the drain was lost, or spread")
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	set := newTestSet(1, 1, 1, 1)
	tried := set.All()[0]
	for _, p := range []Policy{RoundRobin, Random, LeastRequest} {
		picker := NewPicker(p)
		if n := testing.AllocsPerRun(1000, func() {
			picker.Pick(set, 12345, func(e *Endpoint) bool { return e == tried })
		}); n != 0 {
			t.Errorf("%v: %v allocations", p, n)
		}
	}
}

func BenchmarkPick100(b *testing.B) { // budget: 40 ns, 0 allocs
	for _, p := range []Policy{RoundRobin, Random, LeastRequest} {
		b.Run(p.String(), func(b *testing.B) {
			set, picker, rnd := newTestSet(make([]uint32, 100)...), NewPicker(p), uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				rnd = scramble(rnd)
				picker.Pick(set, rnd, nil)
			}
		})
	}
}

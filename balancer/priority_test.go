package balancer

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"
)

func TestLoadsOfPriorities(t *testing.T) {
	of := func(fit, all int) headcount { return headcount{all: all, notBarred: all, connected: all, fit: fit} }
	for _, c := range []struct {
		about     string
		counts    []headcount
		threshold float64
		want      []load
	}{
		{"all fit", []headcount{of(10, 10), of(10, 10)}, 0, []load{{1, false}, {0, false}}},
		{"8 of 10 bear all of it", []headcount{of(8, 10), of(10, 10)}, 0, []load{{1, false}, {0, false}}},
		{"5 of 10 bear 70 %", []headcount{of(5, 10), of(10, 10)}, 0, []load{{0.7, false}, {0.3, false}}},
		{"none bear nothing", []headcount{of(0, 10), of(1, 1)}, 0.5, []load{{0, false}, {1, false}}},
		{"three levels", []headcount{of(5, 10), of(1, 10), of(10, 10)}, 0, []load{{0.7, false}, {0.14, false}, {0.16, false}}},
		{"together too few: more by the same factor", []headcount{of(2, 10), of(2, 10)}, 0, []load{{0.5, false}, {0.5, false}}},
		{"and panic", []headcount{of(2, 10), of(2, 10)}, 0.5, []load{{0.5, true}, {0.5, true}}},
		{"no panic where the next can bear it", []headcount{of(2, 10), of(10, 10)}, 0.5, []load{{0.28, false}, {0.72, false}}},
		{"one priority, few fit", []headcount{of(4, 10)}, 0.5, []load{{1, true}}},
		{"one priority, enough fit", []headcount{of(5, 10)}, 0.5, []load{{1, false}}},
		{"one priority, a high threshold", []headcount{of(8, 10)}, 0.9, []load{{1, true}}},
		{"none at all fit, no panic: the first", []headcount{of(0, 3), of(0, 1)}, 0, []load{{1, false}, {0, false}}},
		{"none at all fit, panic: by numbers", []headcount{of(0, 3), of(0, 1)}, 0.5, []load{{0.75, true}, {0.25, true}}},
		{"the first has no connection", []headcount{{all: 3, notBarred: 3}, of(0, 1)}, 0, []load{{0, false}, {1, false}}},
		{"a drain takes capacity", []headcount{{all: 2, notBarred: 1, connected: 1, fit: 1}, of(2, 2)}, 0.9, []load{{0.7, false}, {0.3, false}}},
		{"a drain is no panic", []headcount{{all: 4, notBarred: 1, connected: 1, fit: 1}}, 0.9, []load{{1, false}}},
		{"a lost connection is no panic", []headcount{{all: 4, notBarred: 4, connected: 1, fit: 1}}, 0.9, []load{{1, false}}},
		{"nobody may be tried", []headcount{{all: 4}}, 0.5, []load{{0, false}}},
	} {
		got := loads(c.counts, c.threshold)
		for i, want := range c.want {
			if math.Abs(got[i].share-want.share) > 1e-9 || got[i].panicked != want.panicked {
				t.Errorf("%s: priority %d: %+v; want %+v", c.about, i, got[i], want)
			}
		}
	}
}

func TestLoadsAreAWhole(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var counts []headcount
		may := false
		for range rapid.IntRange(1, 5).Draw(t, "priorities") {
			n := headcount{all: rapid.IntRange(1, 10).Draw(t, "all")}
			n.notBarred = rapid.IntRange(0, n.all).Draw(t, "not barred")
			n.connected = rapid.IntRange(0, n.notBarred).Draw(t, "connected")
			n.fit = rapid.IntRange(0, n.connected).Draw(t, "fit")
			may = may || n.notBarred > 0
			counts = append(counts, n)
		}
		sum := 0.0
		for i, l := range loads(counts, rapid.SampledFrom([]float64{0, 0.5, 1}).Draw(t, "threshold")) {
			if sum += l.share; l.share < 0 || l.share > 1e-9 && counts[i].notBarred == 0 {
				t.Fatalf("priority %d gets %v", i, l.share)
			}
		}
		if may && math.Abs(sum-1) > 1e-9 || !may && sum != 0 {
			t.Fatalf("%v in all", sum)
		}
	})
}

// tiers returns a set with so many endpoints in each priority.
func tiers(sizes ...int) *Set {
	var all []Spec
	for p, n := range sizes {
		for i := range n {
			all = append(all, Spec{Address: fmt.Sprintf("10.%d.0.%d:1", p, i), Priority: uint32(p)})
		}
	}
	set, _ := (&Set{}).With(all)
	return set
}

func TestTheNextPriorityTakesOver(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := tiers(10, 5), NewPicker(Options{Policy: p})
		second := func() (n int) {
			for _, c := range shares(picker, set, 10_000, nil)[10:] {
				n += c
			}
			return n
		}
		if n := second(); n != 0 {
			t.Errorf("%v: all fit, and the second priority got %d of 10,000", p, n)
		}
		// When half of the first fall ill, then the second gets 30 %;
		for _, e := range set.All()[:5] {
			e.SetHealthy(false, "status 500", 1)
		}
		if n := second(); n < 2800 || n > 3200 {
			t.Errorf("%v: half ill, and the second priority got %d of 10,000", p, n)
		}
		// when all do, all;
		for _, e := range set.All()[:10] {
			e.SetHealthy(false, "status 500", 1)
		}
		if n := second(); n != 10_000 {
			t.Errorf("%v: all ill, and the second priority got %d of 10,000", p, n)
		}
		// and when they are well, none again.
		for _, e := range set.All()[:10] {
			e.SetHealthy(true, "", 2)
		}
		if n := second(); n != 0 {
			t.Errorf("%v: all well, and the second priority got %d of 10,000", p, n)
		}
	}
}

func TestARetryGoesToTheNextPriorityWhereTheFirstIsTried(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := tiers(1, 2, 2), NewPicker(Options{Policy: p})
		first := set.All()[0]
		e := picker.Pick(set, Ask{Now: 1, Rnd: 5, Excluded: func(e *Endpoint) bool { return e == first }})
		if e == nil || e.Spec().Priority != 1 {
			t.Errorf("%v: %v", p, e)
		}
	}
}

func TestPanicSpreadsOverAllThatAreConnectedAndSaysSo(t *testing.T) {
	for _, p := range everyPolicy {
		// Given ten endpoints, one of them drained and one without a connection,
		set, picker := newTestSet(make([]uint32, 10)...), NewPicker(Options{Policy: p, PanicThreshold: 0.5})
		set.All()[0].SetDraining(true)
		set.All()[1].SetConnected(false, "connection refused", 1)
		if picker.Snapshot(set).Panicking {
			t.Errorf("%v: panics though 8 are fit", p)
		}
		// when 5 of the other 8 are ill,
		for _, e := range set.All()[2:7] {
			e.SetHealthy(false, "status 500", 1)
		}
		// then it says so, and the 8 get calls, the two don't.
		if s := picker.Snapshot(set); !s.Panicking || s.Priorities[0] != (PriorityShare{Priority: 0, Endpoints: 10, Fit: 3, Share: 1, Panicking: true}) {
			t.Errorf("%v: %+v", p, s)
		}
		for i, n := range shares(picker, set, 10_000, nil) {
			if i < 2 && n != 0 || i >= 2 && (n < 700 || n > 1900) {
				t.Errorf("%v: endpoint %d got %d of 10,000", p, i, n)
			}
		}
	}
}

package balancer

import (
	"fmt"
	"math"
	"slices"
	"testing"
)

// byHash returns where the first so many keys go.
func byHash(p *Picker, set *Set, keys int) []*Endpoint {
	out := make([]*Endpoint, keys)
	for i := range out {
		out[i] = p.Pick(set, Ask{Now: 1, Rnd: scramble(uint64(i)), Hash: HashKey(fmt.Sprint("user-", i)), Hashed: true})
	}
	return out
}

// moved returns the share of keys that go elsewhere.
func moved(before, after []*Endpoint) float64 {
	n := 0
	for i := range before {
		if before[i] != after[i] {
			n++
		}
	}
	return float64(n) / float64(len(before))
}

// busiest returns the most that an endpoint has of keys, against the mean.
func busiest(where []*Endpoint, endpoints int) float64 {
	counts := make(map[*Endpoint]int)
	most := 0
	for _, e := range where {
		counts[e]++
		most = max(most, counts[e])
	}
	return float64(most) / (float64(len(where)) / float64(endpoints))
}

func TestAMillionKeysSpread(t *testing.T) {
	// Karger et al. give a ring of O(log n) points each no bound better than a
	// constant factor; k points make about 1 + √(2 ln n / k). Maglev's table is
	// even to 1 + n/M, here one part in a hundred (Eisenbud et al., 3.4).
	for _, c := range []struct {
		policy Policy
		n      int
		most   float64
	}{{RingHash, 10, 1.35}, {RingHash, 100, 1.5}, {Maglev, 10, 1.03}, {Maglev, 100, 1.06}} {
		set := newTestSet(make([]uint32, c.n)...)
		got := busiest(byHash(NewPicker(Options{Policy: c.policy}), set, 1_000_000), c.n)
		t.Logf("%v of %d endpoints: max/mean %.3f", c.policy, c.n, got)
		if got > c.most {
			t.Errorf("%v of %d endpoints: max/mean %.3f", c.policy, c.n, got)
		}
	}
}

func TestFewKeysMoveWhenOneOfTenLeaves(t *testing.T) {
	const keys = 30_000
	for _, weights := range [][]uint32{make([]uint32, 10), {1, 2, 3, 4, 5, 6, 7, 8, 9, 10}} {
		for _, p := range []Policy{RingHash, Maglev} {
			set, picker := newTestSet(weights...), NewPicker(Options{Policy: p})
			before := byHash(picker, set, keys)
			for i, left := range set.All() {
				next, _ := (&Set{}).With(slices.Delete(specs(weights...), i, i+1))
				after := byHash(NewPicker(Options{Policy: p}), next, keys)
				n, its := 0, 0
				for k := range before {
					if before[k] == left {
						its++
					}
					if before[k].Address() != after[k].Address() {
						n++
					}
				}
				got, own := float64(n)/keys, float64(its)/keys
				if i == 0 || i == 9 {
					t.Logf("%v, weights %v: without endpoint %d %.1f %% of keys move; %.1f %% were its own", p, weights[:2], i, 100*got, 100*own)
				}
				if got > own+0.1 || weights[0] == 0 && got > 0.1+0.1 {
					t.Errorf("%v: without endpoint %d %.1f %% of keys move", p, i, 100*got)
				}
			}
		}
	}
}

func TestOnlyTheKeysOfAnUnfitEndpointMove(t *testing.T) {
	for _, p := range []Policy{RingHash, Maglev} {
		set, picker := newTestSet(make([]uint32, 10)...), NewPicker(Options{Policy: p})
		before := byHash(picker, set, 20_000)
		// When an endpoint falls ill, then its keys move and no others,
		ill := set.All()[4]
		ill.SetHealthy(false, "status 500", 1)
		during := byHash(picker, set, 20_000)
		for i := range before {
			if (before[i] != during[i]) != (before[i] == ill) {
				t.Fatalf("%v: key %d went from %s to %s", p, i, before[i].Address(), during[i].Address())
			}
		}
		// to all the others,
		heirs := make(map[*Endpoint]bool)
		for i := range before {
			if before[i] == ill {
				heirs[during[i]] = true
			}
		}
		if len(heirs) != 9 {
			t.Errorf("%v: %d heirs", p, len(heirs))
		}
		// and when it is well they come back.
		ill.SetHealthy(true, "", 2)
		if m := moved(before, byHash(picker, set, 20_000)); m != 0 {
			t.Errorf("%v: %.2f %% stay away", p, 100*m)
		}
	}
}

func TestAgentsWithOtherListsAgree(t *testing.T) {
	for _, p := range []Policy{RingHash, Maglev} {
		forward := specs(1, 2, 3, 4, 5, 6)
		backward := slices.Clone(forward)
		slices.Reverse(backward)
		a, _ := (&Set{}).With(forward)
		b, _ := (&Set{}).With(backward)
		here, there := byHash(NewPicker(Options{Policy: p}), a, 5000), byHash(NewPicker(Options{Policy: p}), b, 5000)
		for i := range here {
			if here[i].Address() != there[i].Address() {
				t.Fatalf("%v: key %d goes to %s here and %s there", p, i, here[i].Address(), there[i].Address())
			}
		}
	}
}

func TestACallWithoutAHashGoesAnywhere(t *testing.T) {
	for _, p := range []Policy{RingHash, Maglev} {
		for i, n := range shares(NewPicker(Options{Policy: p}), newTestSet(1, 1, 1), 3000, nil) {
			if n < 500 {
				t.Errorf("%v: endpoint %d got %d of 3000", p, i, n)
			}
		}
	}
}

func TestABoundedRingSendsAHotKeyOn(t *testing.T) {
	// Given a ring with a bound of 1.25 and one key that all calls have,
	set, picker := newTestSet(make([]uint32, 10)...), NewPicker(Options{Policy: RingHash, BoundedLoad: 1.25})
	for range 1000 {
		picker.Pick(set, Ask{Rnd: 1, Hash: 42, Hashed: true}).Begin()
	}
	// then none has more than 1.25 times the mean of 100, and what the mean may
	// have moved since it was summed up.
	for i, e := range set.All() {
		if n := e.InFlight(); n > 125+2 {
			t.Errorf("endpoint %d has %d calls", i, n)
		}
	}
	// And as they end, the key goes home.
	home := NewPicker(Options{Policy: RingHash}).Pick(set, Ask{Rnd: 1, Hash: 42, Hashed: true})
	for _, e := range set.All() {
		for e.InFlight() > 0 {
			e.End(1, 0, false)
		}
	}
	for range set.Len() { // until it is summed up anew
		picker.Pick(set, Ask{Rnd: 1, Hash: 42, Hashed: true})
	}
	if e := picker.Pick(set, Ask{Rnd: 1, Hash: 42, Hashed: true}); e != home {
		t.Errorf("%s; want %s", e.Address(), home.Address())
	}
}

func TestRingAndTableHaveTheirSizes(t *testing.T) {
	members := newTestSet(make([]uint32, 10)...).All()
	for _, c := range []struct{ asked, want int }{{0, 1600}, {5000, 5000}, {3, 10}, {1 << 30, MaxRingSize}} {
		if got := len(newRing(members, c.asked).points); math.Abs(float64(got-c.want)) > 10 {
			t.Errorf("a ring of %d has %d points; want about %d", c.asked, got, c.want)
		}
	}
	for _, c := range []struct{ asked, want int }{{0, 1021}, {2000, 2039}, {3, 251}, {1 << 30, MaxTableSize}} {
		if got := len(newTable(members, c.asked).slots); got != c.want {
			t.Errorf("a table of %d has %d slots; want %d", c.asked, got, c.want)
		}
	}
	if got := tableSize(0, 200_000); got != 262139 {
		t.Errorf("a table for 200,000 endpoints has %d slots", got)
	}
	for _, n := range tableSizes {
		for d := 2; d*d <= n; d++ {
			if n%d == 0 {
				t.Errorf("%d is no prime", n)
			}
		}
	}
}

func TestTheRingIsInOrder(t *testing.T) {
	r := newRing(newTestSet(1, 9, 2, 8, 3).All(), 0)
	for i := range r.points[1:] {
		if r.points[i].at > r.points[i+1].at {
			t.Fatalf("point %d is after point %d", i, i+1)
		}
	}
	for k := range uint64(10_000) {
		hash := scramble(k)
		i := r.next(hash)
		at := uint32(hash >> 32)
		want, _ := slices.BinarySearchFunc(r.points, at, func(p point, at uint32) int { return int(int64(p.at) - int64(at)) })
		if i != want%len(r.points) {
			t.Fatalf("the next point of %x is %d; want %d", at, i, want)
		}
	}
}

// budget: 10 ms of 10,000 endpoints: what a change of the set costs
func BenchmarkPrepare(b *testing.B) {
	for _, p := range everyPolicy {
		b.Run(p.String(), func(b *testing.B) {
			weights := make([]uint32, 10_000)
			for i := range weights {
				weights[i] = uint32(1 + i%7)
			}
			set := newTestSet(weights...)
			for b.Loop() {
				NewPicker(Options{Policy: p}).Prepare(set)
			}
		})
	}
}

// budget: 1 ms of 10,000 endpoints: what a change of one's fitness costs
func BenchmarkRenew(b *testing.B) {
	for _, p := range everyPolicy {
		b.Run(p.String(), func(b *testing.B) {
			weights := make([]uint32, 10_000)
			for i := range weights {
				weights[i] = uint32(1 + i%7)
			}
			set, picker := newTestSet(weights...), NewPicker(Options{Policy: p})
			ok := false
			for b.Loop() {
				set.All()[77].SetHealthy(ok, "sick", 1)
				picker.Prepare(set)
				ok = !ok
			}
		})
	}
}

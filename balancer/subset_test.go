package balancer

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

func TestASubsetIsStableAndDiffersByIdentity(t *testing.T) {
	// Given 100 endpoints and 1,000 processes that use 10 each,
	set := newTestSet(make([]uint32, 100)...)
	used := make(map[*Endpoint]int)
	for id := range uint64(1000) {
		members := NewPicker(Options{Subset: 10, Identity: id}).Members(set)
		if len(members) != 10 {
			t.Fatalf("process %d uses %d", id, len(members))
		}
		for _, e := range members {
			used[e]++
		}
	}
	// then each is used by about 100 of them.
	for _, e := range set.All() {
		if n := used[e]; n < 60 || n > 145 {
			t.Errorf("%s is used by %d of 1,000 processes", e.Address(), n)
		}
	}
	// When one endpoint leaves, then a process that used it takes one other, and
	// the rest none.
	for id := range uint64(100) {
		picker := NewPicker(Options{Subset: 10, Identity: id})
		before := picker.Members(set)
		next, _ := (&Set{}).With(specs(make([]uint32, 99)...))
		had := slices.ContainsFunc(before, func(e *Endpoint) bool { return e == set.All()[99] })
		changed := 0
		for _, e := range NewPicker(Options{Subset: 10, Identity: id}).Members(next) {
			if !slices.ContainsFunc(before, func(b *Endpoint) bool { return b.Address() == e.Address() }) {
				changed++
			}
		}
		if had && changed != 1 || !had && changed != 0 {
			t.Errorf("process %d: used it: %v; %d others", id, had, changed)
		}
	}
}

// orderOf returns the order in which a process uses the addresses, as larger and
// larger subsets of endpoints that are all fit show it.
func orderOf(set *Set, identity uint64) (order []string) {
	var specs []Spec
	for _, e := range set.All() {
		specs = append(specs, Spec{Address: e.Address()})
	}
	fit, _ := (&Set{}).With(specs)
	for n := range fit.Len() {
		for _, e := range NewPicker(Options{Subset: n + 1, Identity: identity}).Members(fit) {
			if !slices.Contains(order, e.Address()) {
				order = append(order, e.Address())
			}
		}
	}
	return order
}

// picksOf counts where so many picks go, by address.
func picksOf(p *Picker, set *Set, picks int) map[string]int {
	counts := make(map[string]int)
	for i, n := range shares(p, set, picks, nil) {
		if n > 0 {
			counts[set.All()[i].Address()] = n
		}
	}
	return counts
}

func TestTheNextInOrderStandInForUnfitMembersOfASubset(t *testing.T) {
	for _, p := range everyPolicy {
		// Given a subset of 3 of 20 endpoints, of which all are fit,
		set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Policy: p, Subset: 3, Identity: 7, PanicThreshold: 0.5})
		order := orderOf(set, 7)
		goTo := func(when string, want ...string) {
			t.Helper()
			counts := picksOf(picker, set, 3000)
			for _, address := range want {
				if counts[address] < 300 {
					t.Errorf("%v, %s: %s got %d of 3,000; all: %v", p, when, address, counts[address], counts)
				}
			}
			if len(counts) != len(want) {
				t.Errorf("%v, %s: %v, want %v", p, when, counts, want)
			}
		}
		goTo("all fit", order[:3]...)
		// when one falls ill the next one takes its place,
		set.Find(order[1]).SetHealthy(false, "status 500", 1)
		goTo("one ill", order[0], order[2], order[3])
		// when all are away the next three do, whatever is the matter with each,
		set.Find(order[0]).SetConnected(false, "connection refused", 2)
		set.Find(order[2]).Eject("5 failures in a row", 2, 9)
		goTo("all away", order[3:6]...)
		// and those that are back get their calls again.
		set.Find(order[1]).SetHealthy(true, "", 3)
		set.Find(order[2]).Restore(3)
		goTo("two back", order[1:4]...)
		set.Find(order[0]).SetConnected(true, "", 4)
		goTo("all back", order[:3]...)
	}
}

func TestASubsetReachesPastAllThatAreDrained(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Policy: p, Subset: 3, Identity: 7})
		order := orderOf(set, 7)
		for _, address := range order[:15] {
			set.Find(address).SetDraining(true)
		}
		for address := range picksOf(picker, set, 3000) {
			if !slices.Contains(order[15:18], address) {
				t.Errorf("%v: %s was picked", p, address)
			}
		}
	}
}

func TestWhenEverythingIsDownASubsetReachesTwiceItsSize(t *testing.T) {
	for _, p := range everyPolicy {
		for _, threshold := range []float64{0, 0.5} {
			set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Policy: p, Subset: 3, Identity: 7, PanicThreshold: threshold})
			order := orderOf(set, 7)
			// Given that whatever gets a call turns out to be down,
			for i := range 1000 {
				e := picker.Pick(set, Ask{Now: 1, Rnd: scramble(uint64(i))})
				e.SetConnected(false, "connection refused", 1)
				// then no call goes further than the sixth,
				if !slices.Contains(order[:6], e.Address()) {
					t.Fatalf("%v, panic below %v: call %d goes to %s; the order is %v", p, threshold, i, e.Address(), order)
				}
			}
			for _, e := range picker.Members(set) {
				if !slices.Contains(order[:6], e.Address()) {
					t.Errorf("%v, panic below %v: %s is a member", p, threshold, e.Address())
				}
			}
			// unless it is one call that has tried them all: that goes on in order.
			tried := func(e *Endpoint) bool { return slices.Contains(order[:6], e.Address()) }
			if e := picker.Pick(set, Ask{Now: 1, Rnd: 5, Excluded: tried}); e == nil || e.Address() != order[6] {
				t.Errorf("%v, panic below %v: the call that tried six goes to %v", p, threshold, e)
			}
		}
	}
}

func TestASubsetThatIsCompleteByOthersNeitherPanicsNorSpills(t *testing.T) {
	// Given a subset of 4 of the first priority, all of it unhealthy, and a second
	// priority,
	var specs []Spec
	for i := range 20 {
		specs = append(specs, Spec{Address: fmt.Sprintf("h%d:1", i), Priority: uint32(i / 10)})
	}
	set, _ := (&Set{}).With(specs)
	picker := NewPicker(Options{Subset: 4, Identity: 7, PanicThreshold: 0.5})
	for _, e := range picker.Members(set) {
		if e.Spec().Priority == 0 {
			e.SetHealthy(false, "status 500", 1)
		}
	}
	// then the four that stand in bear all calls.
	s := picker.Snapshot(set)
	if first := s.Priorities[0]; first.Share != 1 || first.Endpoints != 8 || first.Fit != 4 || s.Panicking {
		t.Errorf("got %+v", s)
	}
}

func TestReachTellsWhenMembersChange(t *testing.T) {
	set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Subset: 3, Identity: 7})
	member := picker.Members(set)[0]
	before := picker.Reach(set)
	// A word on one outside the subset changes nothing,
	set.Find(orderOf(set, 7)[10]).SetHealthy(false, "status 500", 1)
	if picker.Reach(set) != before {
		t.Error("it changed, and nobody stands in")
	}
	// one on a member does, there and back.
	member.SetHealthy(false, "status 500", 1)
	out := picker.Reach(set)
	member.SetHealthy(true, "", 2)
	if back := picker.Reach(set); out == before || back == out {
		t.Errorf("%d, %d, %d", before, out, back)
	}
}

// TestSubsetsReachByTheirRule: whatever is said of endpoints, and whichever come
// and go, the subset has its own members and so many of the next as it needs.
func TestSubsetsReachByTheirRule(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size, identity := rapid.IntRange(1, 4).Draw(t, "subset"), rapid.Uint64().Draw(t, "identity")
		picker := NewPicker(Options{Policy: rapid.SampledFrom(everyPolicy).Draw(t, "policy"), Subset: size, Identity: identity})
		set := newTestSet(make([]uint32, rapid.IntRange(size+1, 14).Draw(t, "endpoints"))...)
		for range rapid.IntRange(1, 30).Draw(t, "steps") {
			if rapid.IntRange(0, 9).Draw(t, "membership") == 0 {
				set, _ = set.With(specs(make([]uint32, rapid.IntRange(size+1, 14).Draw(t, "endpoints"))...))
			}
			e := set.All()[rapid.IntRange(0, set.Len()-1).Draw(t, "which")]
			ok := rapid.Bool().Draw(t, "ok")
			switch rapid.SampledFrom([]string{"connected", "healthy", "drained"}).Draw(t, "word") {
			case "connected":
				e.SetConnected(ok, "lost", 1)
			case "healthy":
				e.SetHealthy(ok, "sick", 1)
			default:
				e.SetDraining(!ok)
			}

			want := make(map[string]bool)
			asked, fit := 0, 0
			for i, address := range orderOf(set, identity) {
				e := set.Find(address)
				if i >= size && (fit == size || asked == 2*size) {
					break
				}
				if !e.Barred() {
					asked++
				}
				if e.Fit() {
					fit++
				}
				if i < size || !e.Barred() {
					want[address] = true
				}
			}
			got := picker.Members(set)
			for _, e := range got {
				if !want[e.Address()] {
					t.Fatalf("%s is a member", e.Address())
				}
			}
			if len(got) != len(want) {
				t.Fatalf("%d members, want %d", len(got), len(want))
			}
			picked := picker.Pick(set, Ask{Now: 1, Rnd: rapid.Uint64().Draw(t, "rnd")})
			if asked > 0 && (picked == nil || !want[picked.Address()] || fit > 0 && !picked.Fit()) {
				t.Fatalf("%v was picked, and %d of the members are fit", picked, fit)
			}
		}
	})
}

func TestPicksBeyondASubsetAllocateNothing(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Policy: p, Subset: 3})
		for _, e := range picker.Members(set) {
			e.SetHealthy(false, "status 500", 1)
		}
		tried := picker.Members(set)
		excluded := func(e *Endpoint) bool { return slices.Contains(tried, e) }
		rnd := uint64(1)
		if n := testing.AllocsPerRun(1000, func() {
			rnd = scramble(rnd)
			picker.Pick(set, Ask{Now: 1, Rnd: rnd})
			picker.Pick(set, Ask{Now: 1, Rnd: rnd, Excluded: excluded})
		}); n != 0 {
			t.Errorf("%v: %v allocations", p, n)
		}
	}
}

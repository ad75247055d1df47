package balancer

import (
	"slices"
	"testing"
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

func TestPicksStayInTheSubsetAsLongAsItHasAnyFit(t *testing.T) {
	for _, p := range everyPolicy {
		set, picker := newTestSet(make([]uint32, 20)...), NewPicker(Options{Policy: p, Subset: 3, Identity: 7})
		members := picker.Members(set)
		in := func(e *Endpoint) bool { return slices.Contains(members, e) }
		for i, n := range shares(picker, set, 3000, nil) {
			if (n > 0) != in(set.All()[i]) {
				t.Errorf("%v: endpoint %d got %d", p, i, n)
			}
		}
		for _, e := range members {
			e.SetDraining(true)
		}
		if e := picker.Pick(set, Ask{Now: 1, Rnd: 9}); e == nil || in(e) {
			t.Errorf("%v: the subset is drained, and %v was picked", p, e)
		}
	}
}

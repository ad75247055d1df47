package balancer

import "testing"

func TestASetThatChangesKeepsTheCounters(t *testing.T) {
	old := newTestSet(1, 1)
	kept := old.All()[0]
	kept.Begin()

	next, gone := old.With([]Spec{{Address: "10.0.0.1:1"}, {Address: "10.0.0.9:1"}})

	if next.All()[0] != kept || next.Find("10.0.0.1:1").InFlight() != 1 {
		t.Error("an endpoint that stayed lost its memory")
	}
	if len(gone) != 1 || gone[0] != old.All()[1] {
		t.Errorf("gone: %v", gone)
	}
	if next.Find("10.0.0.9:1") == nil || next.Find("nowhere") != nil {
		t.Error("Find")
	}
}

func TestAnEndpointOutlivesAChangeOfItsSpec(t *testing.T) {
	old := newTestSet(1, 1)
	e := old.All()[0]
	e.Begin()
	e.SetDraining(true)

	next, gone := old.With([]Spec{{Address: "10.0.0.1:1", Weight: 7, Zone: "b", Priority: 2}, {Address: "10.0.0.2:1"}})

	if next.All()[0] != e || e.InFlight() != 1 || !e.Barred() || next.All()[1].Barred() || len(gone) != 0 {
		t.Fatal("its memory was lost, or spread")
	}
	if s := e.Spec(); s != (Spec{"10.0.0.1:1", 7, "b", 2}) {
		t.Errorf("%+v", s)
	}
}

func TestASetWithoutAChangeIsTheSame(t *testing.T) {
	old := newTestSet(1, 2)
	if next, gone := old.With(specs(1, 2)); next != old || gone != nil {
		t.Error("another one")
	}
	if next, _ := old.With([]Spec{specs(1, 2)[1], specs(1, 2)[0]}); next == old {
		t.Error("another order is a change")
	}
	if next, gone := old.With(nil); next == old || next.Len() != 0 || len(gone) != 2 {
		t.Error("none is a change")
	}
}

func TestAnAddressThatComesTwiceCountsOnce(t *testing.T) {
	set, _ := (&Set{}).With([]Spec{{Address: "a:1", Weight: 3}, {Address: "b:1"}, {Address: "a:1", Weight: 5}})
	if set.Len() != 2 || set.Find("a:1").Spec().Weight != 3 {
		t.Errorf("%d endpoints", set.Len())
	}
}

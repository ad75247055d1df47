package policy

import (
	"slices"
	"strings"
	"testing"
	"time"
)

const ms = time.Millisecond

// scene is a limiter and calls that go by names.
type scene struct {
	t       *testing.T
	l       *Limiter
	waiters map[string]*Waiter
}

func newScene(t *testing.T, p ConcurrencyPolicy) *scene {
	return &scene{t, NewLimiter(p), make(map[string]*Waiter)}
}

// enter lets a call come and says where it is then, and who was woken.
func (s *scene) enter(name string, at time.Duration, crit Criticality, deadline Instant) (Place, []string) {
	w := s.waiters[name]
	if w == nil {
		w = &Waiter{Owner: name}
		s.waiters[name] = w
	}
	if deadline > 0 {
		deadline += start
	}
	place, _, woken := s.l.Enter(w, start+at, crit, deadline)
	return place, names(woken)
}

func names(woken []*Waiter) (out []string) {
	for _, w := range woken {
		out = append(out, w.Owner.(string))
	}
	return out
}

// wait lets a call come that must wait.
func (s *scene) wait(name string, at time.Duration, crit Criticality) {
	s.t.Helper()
	if place, woken := s.enter(name, at, crit, 0); place != Waiting || woken != nil {
		s.t.Fatalf("%s: %v, woken %v, want WAITING", name, place, woken)
	}
}

func (s *scene) leave(name string, at time.Duration) []string {
	return names(s.l.Leave(s.waiters[name], start+at, 10*ms, false))
}

func (s *scene) look(name string, at time.Duration) (Place, Turn) {
	return s.l.Look(s.waiters[name], start+at)
}

// order lets whoever is inside leave until nobody waits, all at once, and says
// who came in after whom.
func (s *scene) order(inside string, at time.Duration) (out []string) {
	for {
		woken := s.leave(inside, at)
		if len(woken) == 0 {
			return out
		}
		out = append(out, woken...)
		inside = woken[len(woken)-1]
	}
}

func TestTheOldestGoesFirstWhileTheQueueIsCalm(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10})
	s.enter("inside", 0, Critical, 0)
	s.wait("a", 1*ms, Critical)
	s.wait("b", 2*ms, Critical)
	s.wait("c", 3*ms, Critical)

	if got := s.order("inside", 50*ms); !slices.Equal(got, []string{"a", "b", "c"}) {
		t.Fatalf("got %v", got)
	}
}

func TestTheMostCriticalGoesFirst(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10})
	s.enter("inside", 0, Critical, 0)
	s.wait("sheddable", 1*ms, Sheddable)
	s.wait("sheddable+", 2*ms, SheddablePlus)
	s.wait("critical", 3*ms, Critical)
	s.wait("critical+", 4*ms, CriticalPlus)
	s.wait("critical too", 5*ms, Critical)

	if got := s.order("inside", 50*ms); !slices.Equal(got, []string{"critical+", "critical", "critical too", "sheddable+", "sheddable"}) {
		t.Fatalf("got %v", got)
	}
}

// overload is a scene with one call inside and a queue that was not empty from
// 0 until 110 ms.
func overload(t *testing.T) *scene {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10})
	s.enter("inside", 0, Critical, 0)
	s.wait("first", 0, Critical)
	s.wait("second", 99*ms, Critical)
	if place, woken := s.enter("third", 101*ms, Critical, 0); place != Waiting || !slices.Equal(woken, []string{"first"}) {
		t.Fatalf("%v, woken %v", place, woken)
	}
	return s
}

func TestTheYoungestGoesFirstUnderOverload(t *testing.T) {
	s := overload(t)
	s.wait("fourth", 102*ms, Critical)
	if !s.l.Snapshot(start + 102*ms).LIFO {
		t.Fatal("no overload")
	}

	if got := s.order("inside", 103*ms); !slices.Equal(got, []string{"fourth", "third", "second"}) {
		t.Fatalf("got %v", got)
	}
}

func TestUnderOverloadNobodyWaitsLong(t *testing.T) {
	s := overload(t)

	if due := s.l.Due(s.waiters["third"]); due != start+106*ms {
		t.Errorf("the third is due after %v, want 5ms after 101ms", due-start)
	}
	// The second came at 99 ms, while the queue was calm; 5 ms are enough for it
	// too.
	if place, woken := s.enter("much", 104*ms-1, Critical, 0); place != Waiting || woken != nil {
		t.Errorf("%v, woken %v", place, woken)
	}
	place, woken := s.enter("more", 104*ms, Critical, 0)
	if place != Waiting || !slices.Equal(woken, []string{"second"}) {
		t.Errorf("%v, woken %v", place, woken)
	}
	if place, turn := s.look("second", 104*ms); place != Turned || turn.Reason != QueueTimeout || turn.Message != "no slot came free within 5ms" {
		t.Errorf("the second: %v, %+v", place, turn)
	}
}

func TestUnderOverloadASlotMustBeAbleToComeFree(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10})
	s.enter("inside", 0, Critical, 0)
	s.wait("a", 0, Critical)
	s.wait("b", 10*ms, Critical)
	s.leave("inside", 20*ms) // a slot comes free each 20 ms
	s.wait("c", 99*ms, Critical)
	s.wait("d", 100*ms, Critical)

	s.enter("e", 105*ms, Critical, 0)

	if due := s.l.Due(s.waiters["e"]); due != start+145*ms {
		t.Fatalf("due after %v, want 40ms after 105ms", due-start)
	}
}

func TestALongQueueTimeoutIsNoOverload(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10, QueueTimeout: 2 * time.Second})
	s.enter("inside", 0, Critical, 0)
	s.wait("a", 0, Critical)
	s.wait("b", 1500*ms, Critical)

	if got := s.order("inside", 1900*ms); !slices.Equal(got, []string{"a", "b"}) {
		t.Fatalf("got %v", got)
	}
}

func TestOverloadIsOverOnceNobodyWasShedForAWhile(t *testing.T) {
	s := overload(t)
	s.enter("x", 150*ms, Critical, 0) // all others are over
	if due := s.l.Due(s.waiters["x"]); due != start+250*ms {
		t.Fatalf("due after %v", due-start)
	}
	s.enter("y", 152*ms, Critical, 0)
	if !s.l.Snapshot(start + 152*ms).LIFO {
		t.Fatal("emptied by shedding alone, the queue counts as calm")
	}
	s.enter("z", 400*ms, Critical, 0)
	s.wait("zz", 401*ms, Critical)
	if s.l.Snapshot(start + 401*ms).LIFO {
		t.Fatal("still overload")
	}
}

func TestUnderOverloadSheddableCallsDoNotWait(t *testing.T) {
	s := overload(t)

	w := &Waiter{}
	place, turn, _ := s.l.Enter(w, start+102*ms, Sheddable, 0)

	if place != Turned || turn.Reason != ConcurrencyLimit || !strings.Contains(turn.Message, "SHEDDABLE") {
		t.Fatalf("%v, %+v", place, turn)
	}
	s.wait("somewhat", 102*ms, SheddablePlus)
}

func TestAFullQueueLosesTheYoungestOfTheLeastCritical(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 3})
	s.enter("inside", 0, Critical, 0)
	s.wait("critical", 1*ms, Critical)
	s.wait("old", 2*ms, SheddablePlus)
	s.wait("young", 3*ms, SheddablePlus)

	place, woken := s.enter("late", 4*ms, Critical, 0)

	if place != Waiting || !slices.Equal(woken, []string{"young"}) {
		t.Fatalf("%v, woken %v", place, woken)
	}
	if place, turn := s.look("young", 4*ms); place != Turned || turn.Reason != ConcurrencyLimit || !strings.Contains(turn.Message, "more critical") {
		t.Fatalf("%v, %+v", place, turn)
	}
	if got := s.order("inside", 5*ms); !slices.Equal(got, []string{"critical", "late", "old"}) {
		t.Fatalf("got %v", got)
	}
}

func TestAFullQueueTurnsAwayWhoIsNotMoreCritical(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})
	s.enter("inside", 0, Critical, 0)
	s.wait("a", 1*ms, Critical)

	for _, crit := range []Criticality{Critical, SheddablePlus, Sheddable} {
		place, turn, woken := s.l.Enter(new(Waiter), start+2*ms, crit, 0)
		if place != Turned || woken != nil || turn.Message != "1 calls are in flight, the limit is 1; 1 wait, the limit is 1" {
			t.Errorf("%v: %v, %+v, %v", crit, place, turn, woken)
		}
	}
}

func TestToDisplaceTheOnlyWaiterEndsNoOverload(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})
	s.enter("inside", 0, Critical, 0)
	s.wait("a", 0, Sheddable)
	s.enter("b", 99*ms, SheddablePlus, 0)
	s.enter("c", 101*ms, Critical, 0)

	if !s.l.Snapshot(start + 101*ms).LIFO {
		t.Fatal("the queue counts as calm")
	}
}

// TestWhoWouldMissItsDeadlineDoesNotWait: at 10 ms a slot, the fifth in the
// queue has its turn after about 40 ms.
func TestWhoWouldMissItsDeadlineDoesNotWait(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 20, QueueTimeout: time.Second})
	s.enter("0", 0, Critical, 0)
	for _, name := range strings.Split("12345678abcd", "") {
		s.wait(name, 0, Critical)
	}
	for i, name := range strings.Split("01234567", "") {
		s.leave(name, time.Duration(i+1)*10*ms)
	}

	if place, _ := s.enter("hasty", 80*ms, Critical, 119*ms); place != Turned {
		t.Errorf("39 ms left: %v", place)
	}
	if place, _ := s.enter("patient", 80*ms, Critical, 121*ms); place != Waiting {
		t.Errorf("41 ms left: %v", place)
	}
	if place, _ := s.enter("hasty but critical", 80*ms, CriticalPlus, 81*ms); place != Waiting {
		t.Errorf("first in its line: %v", place)
	}
	_, turn, _ := s.l.Enter(new(Waiter), start+80*ms, Critical, start+90*ms)
	if turn.Reason != QueueTimeout || turn.Message != "6 calls wait; its turn would come in about 60ms, after its deadline" {
		t.Errorf("%+v", turn)
	}
	if got := s.l.Snapshot(start + 80*ms); got.Shed != 2 || got.Refused != 2 {
		t.Errorf("%+v", got)
	}
}

package policy

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestCallsGoUntilTheLimit(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 2})
	for _, name := range []string{"a", "b"} {
		if place, _ := s.enter(name, 0, Critical, 0); place != Inside {
			t.Fatalf("%s: %v", name, place)
		}
	}

	place, turn, woken := s.l.Enter(new(Waiter), start, CriticalPlus, 0)

	want := Turn{ConcurrencyLimit, "2 calls are in flight, the limit is 2, and none may wait", 100 * ms}
	if place != Turned || turn != want || woken != nil {
		t.Fatalf("%v, %+v, %v", place, turn, woken)
	}
	s.leave("a", 1*ms)
	if place, _ := s.enter("c", 1*ms, Critical, 0); place != Inside {
		t.Fatalf("after one left: %v", place)
	}
}

func TestWithoutABoundCallsStayOutside(t *testing.T) {
	for _, p := range []ConcurrencyPolicy{{}, {MaxQueue: 5}, {MaxInFlight: 1, Mode: Off}, {Adaptive: true, Mode: Off}} {
		l := NewLimiter(p)
		for range 3 {
			w := new(Waiter)
			if place, _, _ := l.Enter(w, start, Critical, 0); place != Outside {
				t.Errorf("%+v: %v", p, place)
			}
			if woken := l.Leave(w, start, ms, false); woken != nil {
				t.Errorf("%+v: woken %v", p, woken)
			}
		}
		if s := l.Snapshot(start); s != (LimiterSnapshot{}) {
			t.Errorf("%+v: %+v", p, s)
		}
	}
}

func TestASlotGoesToWhoWaits(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})
	s.enter("a", 0, Critical, 0)
	s.wait("b", 1*ms, Critical)
	if place, _ := s.look("b", 2*ms); place != Waiting {
		t.Fatalf("before: %v", place)
	}

	woken := s.leave("a", 3*ms)

	if place, turn := s.look("b", 3*ms); !slices.Equal(woken, []string{"b"}) || place != Inside || turn != (Turn{}) {
		t.Fatalf("woken %v, %v, %+v", woken, place, turn)
	}
	if due := s.l.Due(s.waiters["b"]); due != 0 {
		t.Fatalf("inside it is due at %v", due)
	}
	if got := s.l.Snapshot(start + 3*ms); got.InFlight != 1 || got.Waiting != 0 {
		t.Fatalf("%+v", got)
	}
}

func TestAWaitThatIsOver(t *testing.T) {
	for _, tc := range []struct {
		about             string
		timeout, deadline time.Duration
		due               time.Duration
	}{
		{"the default", 0, 0, 110 * ms},
		{"its own", 40 * ms, 0, 50 * ms},
		{"the call's deadline comes first", 40 * ms, 30 * ms, 30 * ms},
		{"the call's deadline comes later", 40 * ms, 90 * ms, 50 * ms},
	} {
		s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, QueueTimeout: tc.timeout})
		s.enter("a", 0, Critical, 0)
		s.enter("b", 10*ms, Critical, tc.deadline)
		if due := s.l.Due(s.waiters["b"]); due != start+tc.due {
			t.Errorf("%s: due after %v, want %v", tc.about, due-start, tc.due)
		}
		if place, _ := s.look("b", tc.due-1); place != Waiting {
			t.Errorf("%s: %v before it is due", tc.about, place)
		}
		place, turn := s.look("b", tc.due)
		if place != Turned || turn.Reason != QueueTimeout || turn.Message != "no slot came free within "+(tc.due-10*ms).String() || turn.RetryAfter != 100*ms {
			t.Errorf("%s: %v, %+v", tc.about, place, turn)
		}
		if woken := s.leave("a", tc.due); woken != nil {
			t.Errorf("%s: woken %v", tc.about, woken)
		}
		if got := s.l.Snapshot(start + tc.due); got.TimedOut != 1 || got.Refused != 1 || got.InFlight != 0 {
			t.Errorf("%s: %+v", tc.about, got)
		}
	}
}

func TestASlotPassesOverThoseWhoseWaitIsOver(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 3})
	s.enter("a", 0, Critical, 0)
	s.enter("late", 1*ms, Critical, 20*ms)
	s.wait("b", 2*ms, Critical)
	if got := s.l.Snapshot(start + 20*ms); got.Waiting != 1 || got.TimedOut != 1 || got.Refused != 1 {
		t.Errorf("before: %+v", got)
	}

	woken := s.leave("a", 20*ms)

	late, _ := s.look("late", 20*ms)
	b, _ := s.look("b", 20*ms)
	if !slices.Equal(woken, []string{"late", "b"}) || late != Turned || b != Inside {
		t.Fatalf("woken %v, %v, %v", woken, late, b)
	}
}

func TestADeadlineThatIsOverGetsNoSlot(t *testing.T) {
	l := NewLimiter(ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})

	place, turn, _ := l.Enter(new(Waiter), start, Critical, start)

	if place != Turned || turn.Reason != QueueTimeout || turn.Message == "" || l.Snapshot(start).InFlight != 0 {
		t.Fatalf("%v, %+v", place, turn)
	}
}

func TestWhoGivesUpLeavesTheQueue(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})
	s.enter("a", 0, Critical, 0)
	s.wait("b", 1*ms, Critical)

	s.leave("b", 2*ms)

	if got := s.l.Snapshot(start + 2*ms); got.Waiting != 0 || got.InFlight != 1 || got.Refused != 0 {
		t.Fatalf("%+v", got)
	}
	s.wait("c", 2*ms, Critical)
	if woken := s.leave("a", 3*ms); !slices.Equal(woken, []string{"c"}) {
		t.Fatalf("woken %v", woken)
	}
}

func TestOnceNobodyWaitsCallsTakeNoLock(t *testing.T) {
	for name, empty := range map[string]func(s *scene){
		"let in":    func(s *scene) { s.leave("a", 2*ms) },
		"gave up":   func(s *scene) { s.leave("b", 2*ms) },
		"timed out": func(s *scene) { s.look("b", time.Second) },
		"let go":    func(s *scene) { s.l.Update(ConcurrencyPolicy{}) },
	} {
		s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1})
		s.enter("a", 0, Critical, 0)
		s.wait("b", 1*ms, Critical)
		if s.l.word.Load()&somebodyWaits == 0 {
			t.Fatalf("%s: a newcomer would overtake who waits", name)
		}

		empty(s)

		if s.l.word.Load()&somebodyWaits != 0 {
			t.Errorf("%s: newcomers still take the lock", name)
		}
	}
}

func TestToLeaveTwiceFreesOneSlot(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 2, MaxQueue: 1})
	s.enter("a", 0, Critical, 0)
	s.enter("b", 0, Critical, 0)
	s.leave("a", 1*ms)
	s.leave("a", 1*ms)
	s.leave("b", 1*ms)
	if got := s.l.Snapshot(start + ms); got.InFlight != 0 {
		t.Fatalf("%+v", got)
	}
}

func TestALowerLimitThrowsNobodyOut(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 3, MaxQueue: 1})
	for _, name := range []string{"a", "b", "c"} {
		s.enter(name, 0, Critical, 0)
	}
	s.wait("d", 0, Critical)

	if woken := s.l.Update(ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1}); woken != nil {
		t.Fatalf("woken %v", woken)
	}

	for i, want := range [][]string{nil, nil, {"d"}} {
		if woken := s.leave(string(rune('a'+i)), 1*ms); !slices.Equal(woken, want) {
			t.Fatalf("leave %d: woken %v, want %v", i, woken, want)
		}
	}
}

func TestAHigherLimitLetsWaitersInAtTheNextEvent(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 2})
	s.enter("a", 0, Critical, 0)
	s.wait("b", 0, Critical)
	s.wait("c", 0, Critical)

	s.l.Update(ConcurrencyPolicy{MaxInFlight: 3, MaxQueue: 2})
	place, woken := s.enter("d", 1*ms, Critical, 0)

	if place != Waiting || !slices.Equal(woken, []string{"b", "c"}) {
		t.Fatalf("%v, woken %v", place, woken)
	}
}

func TestAnUpdateThatStopsActingLetsAllGo(t *testing.T) {
	for _, tc := range []struct {
		p    ConcurrencyPolicy
		want Place
	}{
		{ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 2, Mode: Observe}, Inside},
		{ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 2, Mode: Off}, Outside},
		{ConcurrencyPolicy{}, Outside},
	} {
		s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 2})
		s.enter("a", 0, Critical, 0)
		s.wait("b", 0, Critical)

		woken := names(s.l.Update(tc.p))

		if place, _ := s.look("b", 1*ms); !slices.Equal(woken, []string{"b"}) || place != tc.want {
			t.Errorf("%+v: woken %v, %v, want %v", tc.p, woken, place, tc.want)
		}
		s.leave("a", 1*ms)
		s.leave("b", 1*ms)
		if got := s.l.Snapshot(start + ms); got.InFlight != 0 || got.Waiting != 0 {
			t.Errorf("%+v: %+v", tc.p, got)
		}
	}
}

func TestAnUpdateKeepsWhatAnAdaptiveLimitLearned(t *testing.T) {
	l := NewLimiter(ConcurrencyPolicy{Adaptive: true, MaxInFlight: 1000})
	g := l.gradient.Load()
	g.estimate = 300

	l.Update(ConcurrencyPolicy{Adaptive: true, MaxInFlight: 500, MaxQueue: 3})
	if got := l.Snapshot(start).Limit; got != 300 {
		t.Fatalf("%d, want 300", got)
	}
	l.Update(ConcurrencyPolicy{Adaptive: true, MaxInFlight: 200})
	if got := l.Snapshot(start).Limit; got != 200 {
		t.Fatalf("%d, want 200", got)
	}
}

func TestObserveHoldsNobody(t *testing.T) {
	s := newScene(t, ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 2, Mode: Observe})
	for _, name := range []string{"in", "granted", "over", "full"} {
		if place, woken := s.enter(name, 0, Critical, 0); place != Inside || woken != nil {
			t.Fatalf("%s: %v, woken %v", name, place, woken)
		}
		if place, _ := s.look(name, 0); place != Inside || s.l.Due(s.waiters[name]) != 0 {
			t.Fatalf("%s: %v", name, place)
		}
	}
	if got := s.l.Snapshot(start); got.InFlight != 1 || got.Waiting != 2 || got.WouldRefuse != 1 {
		t.Fatalf("the shadow: %+v", got)
	}

	if woken := s.leave("in", 50*ms); woken != nil { // "granted" takes its slot
		t.Fatalf("woken %v", woken)
	}
	s.leave("over", 100*ms)
	s.leave("granted", 101*ms)
	s.leave("full", 102*ms)

	for name, want := range map[string]bool{"in": false, "granted": false, "over": true, "full": true} {
		if got := s.waiters[name].WouldRefuse(); got != want {
			t.Errorf("%s: would be refused: %v, want %v", name, got, want)
		}
	}
	if got := s.l.Snapshot(start + 102*ms); got.InFlight != 0 || got.Waiting != 0 || got.WouldRefuse != 2 || got.TimedOut != 1 || got.Refused != 0 {
		t.Errorf("in the end: %+v", got)
	}
}

func TestAWaiterForgetsWhatItWas(t *testing.T) {
	l := NewLimiter(ConcurrencyPolicy{MaxInFlight: 1, Mode: Observe})
	var in, w Waiter
	l.Enter(&in, start, Critical, 0)
	l.Enter(&w, start, Critical, 0)
	l.Leave(&w, start, ms, false)
	l.Leave(&in, start, ms, false)

	l.Enter(&w, start, Critical, 0)

	if w.WouldRefuse() || l.Snapshot(start).InFlight != 1 {
		t.Fatalf("%+v", l.Snapshot(start))
	}
}

// member is a call of the property test, at the limiter that enforces and at
// the one that observes.
type member struct {
	enforce, observe Waiter
	place            Place // as last told by enforce
	class            int
	deadline         Instant
	due              Instant
}

// pair is both limiters under the same script, and a model of the queue.
type pair struct {
	t                *rapid.T
	enforce, observe *Limiter
	now              Instant
	here             []*member // who has not left
	waiting          []*member // oldest first
}

// told takes what enforce said of waiters: each must have waited, be where it
// may be, and come in turn.
func (p *pair) told(woken []*Waiter, lifo bool) {
	for _, w := range woken {
		m := w.Owner.(*member)
		if m.place != Waiting {
			p.t.Fatalf("woken while %v", m.place)
		}
		var turn Turn
		if m.place, turn = p.enforce.Look(w, p.now); m.place == Waiting || (m.place == Turned) != (turn.Message != "") {
			p.t.Fatalf("woken for %v, %+v", m.place, turn)
		}
		at := slices.Index(p.waiting, m)
		p.waiting = slices.Delete(p.waiting, at, at+1)
		if m.place == Turned {
			continue
		}
		if p.now >= m.due {
			p.t.Fatalf("let in at %v, due at %v", p.now, m.due)
		}
		for i, other := range p.waiting {
			if other.class < m.class || other.class == m.class && (i < at) != lifo {
				p.t.Fatalf("class %d let in before class %d, at %d and %d of the queue, LIFO %v", m.class, other.class, at, i, lifo)
			}
		}
	}
}

func (p *pair) arrive(m *member, crit Criticality, left time.Duration) {
	m.enforce.Owner, m.class = m, crit.class()
	if left > 0 {
		m.deadline = p.now + left
	}
	lifo := p.enforce.Snapshot(p.now).LIFO
	place, turn, woken := p.enforce.Enter(&m.enforce, p.now, crit, m.deadline)
	p.told(woken, lifo)
	if m.place = place; (place == Turned) != (turn.Message != "") || place == Outside {
		p.t.Fatalf("%v, %+v", place, turn)
	}
	if place == Waiting {
		m.due = p.enforce.Due(&m.enforce)
		if m.due <= p.now || m.deadline != 0 && m.due > m.deadline {
			p.t.Fatalf("waits from %v to %v, deadline %v", p.now, m.due, m.deadline)
		}
		p.waiting = append(p.waiting, m)
	}
	p.here = append(p.here, m)
	if place, _, woken := p.observe.Enter(&m.observe, p.now, crit, m.deadline); place != Inside || woken != nil {
		p.t.Fatalf("observed: %v, woken %v", place, woken)
	}
}

func (p *pair) end(m *member, latency time.Duration, overload bool) {
	p.here = slices.DeleteFunc(p.here, func(other *member) bool { return other == m })
	if at := slices.Index(p.waiting, m); at >= 0 {
		p.waiting = slices.Delete(p.waiting, at, at+1)
		if p.now >= m.due {
			m.place = Turned
		}
	}
	lifo := p.enforce.Snapshot(p.now).LIFO
	p.told(p.enforce.Leave(&m.enforce, p.now, latency, overload), lifo)
	if woken := p.observe.Leave(&m.observe, p.now, latency, overload); woken != nil {
		p.t.Fatalf("observed: woken %v", woken)
	}
	if would := m.observe.WouldRefuse(); would != (m.place == Turned) {
		p.t.Fatalf("enforced: %v; observed: would refuse %v", m.place, would)
	}
}

// check compares the two, and both with the model.
func (p *pair) check(limit int) {
	s, shadow := p.enforce.Snapshot(p.now), p.observe.Snapshot(p.now)
	shadow.Refused, shadow.WouldRefuse = shadow.WouldRefuse, shadow.Refused
	if s != shadow {
		p.t.Fatalf("enforced: %+v\nobserved: %+v", s, shadow)
	}
	inside := 0
	for _, m := range p.here {
		if m.place == Inside {
			inside++
		}
	}
	if s.InFlight != inside || s.Waiting > len(p.waiting) {
		p.t.Fatalf("%d inside, %d waiting; %+v", inside, len(p.waiting), s)
	}
	if limit > 0 && inside > limit {
		p.t.Fatalf("%d inside, the limit is %d", inside, limit)
	}
	if s.Waiting > 0 && inside < s.Limit {
		p.t.Fatalf("somebody waits while a slot is free: %+v", s)
	}
}

// TestProperties plays arrivals, ends and waits in any order: nobody comes in
// beyond the limit, late or out of turn, nobody waits while a slot is free, all
// slots come back, and OBSERVE decides what ENFORCE does.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		policy := ConcurrencyPolicy{
			MaxInFlight:  rapid.IntRange(1, 4).Draw(t, "limit"),
			MaxQueue:     rapid.IntRange(0, 5).Draw(t, "queue"),
			QueueTimeout: rapid.SampledFrom([]time.Duration{0, 7 * ms, 400 * ms}).Draw(t, "timeout"),
			Adaptive:     rapid.Bool().Draw(t, "adaptive"),
		}
		p := &pair{t: t, enforce: NewLimiter(policy), now: start}
		policy.Mode = Observe
		p.observe = NewLimiter(policy)
		for range 200 {
			switch rapid.IntRange(0, 6).Draw(t, "step") {
			case 0: // time passes
				p.now += time.Duration(rapid.IntRange(0, 60).Draw(t, "wait")) * ms
			case 1, 2: // a call arrives
				crit := Criticality(rapid.IntRange(-2, 1).Draw(t, "criticality"))
				p.arrive(new(member), crit, time.Duration(rapid.IntRange(-50, 50).Draw(t, "left"))*ms)
			case 3: // a shell looks when a wait is over, or earlier
				if len(p.waiting) > 0 {
					m := rapid.SampledFrom(p.waiting).Draw(t, "look")
					if m.place, _ = p.enforce.Look(&m.enforce, p.now); (m.place == Turned) != (p.now >= m.due) {
						t.Fatalf("%v at %v, due at %v", m.place, p.now, m.due)
					}
					if m.place == Turned {
						p.waiting = slices.DeleteFunc(p.waiting, func(other *member) bool { return other == m })
					}
				}
			default: // a call ends
				if len(p.here) > 0 {
					m := rapid.SampledFrom(p.here).Draw(t, "end")
					p.end(m, time.Duration(rapid.IntRange(0, 30).Draw(t, "latency"))*ms, rapid.IntRange(0, 9).Draw(t, "overload") == 0)
				}
			}
			p.check(policy.MaxInFlight)
		}
		for len(p.here) > 0 {
			p.end(p.here[0], ms, false)
		}
		if s := p.enforce.Snapshot(p.now); s.InFlight != 0 || s.Waiting != 0 {
			t.Fatalf("all left: %+v", s)
		}
	})
}

// TestManyGoroutines drives a limiter as a shell does, with a goroutine a call,
// while its policy changes.
func TestManyGoroutines(t *testing.T) {
	p := ConcurrencyPolicy{MaxInFlight: 4, MaxQueue: 8}
	l := NewLimiter(p)
	var clock, inside, most atomic.Int64
	clock.Store(int64(start))
	wake := func(woken []*Waiter) {
		for _, w := range woken {
			w.Owner.(chan struct{}) <- struct{}{} // it has room for all that one wait can bring
		}
	}
	call := func(rnd *rand.Rand) {
		now := Instant(clock.Add(int64(rnd.Uint64N(200)) * int64(time.Microsecond)))
		signal := make(chan struct{}, 2)
		w := &Waiter{Owner: signal}
		place, _, woken := l.Enter(w, now, Criticality(rnd.IntN(4)-2), 0)
		wake(woken)
		if place == Waiting && rnd.IntN(8) > 0 { // else it gives up at once
			select {
			case <-signal:
			default:
				if rnd.IntN(2) == 0 {
					<-signal
				}
			}
			place, _ = l.Look(w, now)
		}
		if place == Inside {
			n := inside.Add(1)
			for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
			}
			inside.Add(-1)
		}
		wake(l.Leave(w, Instant(clock.Load()), time.Millisecond, false))
	}
	run := func(alongside func(i int)) {
		var wg sync.WaitGroup
		for g := range 16 {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(1, uint64(g)))
				for i := range 500 {
					call(rnd)
					if g == 0 {
						alongside(i)
					}
				}
			})
		}
		wg.Wait()
		if s := l.Snapshot(Instant(clock.Load())); s.InFlight != 0 || s.Waiting != 0 {
			t.Errorf("all left: %+v", s)
		}
	}

	run(func(int) { l.Snapshot(Instant(clock.Load())) })
	if n := most.Load(); n > 4 {
		t.Errorf("%d were inside at once, the limit is 4", n)
	}
	run(func(i int) {
		q := p
		q.Adaptive, q.MaxInFlight, q.Mode = i%2 == 0, 1+i%7, []Mode{Enforce, Observe, Off}[i%3]
		wake(l.Update(q))
	})
}

func TestCallsInFlightAllocateNothing(t *testing.T) {
	for name, p := range map[string]ConcurrencyPolicy{"fixed": {MaxInFlight: 10, MaxQueue: 10}, "adaptive": {Adaptive: true}} {
		l, w, now := NewLimiter(p), new(Waiter), start
		if n := testing.AllocsPerRun(1000, func() {
			now += ms
			l.Enter(w, now, Critical, now+time.Second)
			l.Leave(w, now, ms, false)
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestToHandOnASlotAllocatesNothing(t *testing.T) {
	handOn := handingOn()
	if n := testing.AllocsPerRun(1000, handOn); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

// handingOn returns what lets one call wait and another, which leaves, hand its
// slot on to it.
func handingOn() func() {
	l := NewLimiter(ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 10})
	var pair [2]Waiter
	l.Enter(&pair[0], start, Critical, 0)
	in, next := &pair[0], &pair[1]
	return func() {
		l.Enter(next, start, Critical, 0)
		if woken := l.Leave(in, start, ms, false); len(woken) != 1 || woken[0] != next {
			panic("the slot was not handed on")
		}
		in, next = next, in
	}
}

func TestPlacesHaveNames(t *testing.T) {
	var got []string
	for p := Outside; p <= Turned+1; p++ {
		got = append(got, p.String())
	}
	if s := strings.Join(got, " "); s != "OUTSIDE INSIDE WAITING TURNED UNKNOWN" {
		t.Fatal(s)
	}
}

func BenchmarkLimiter(b *testing.B) { // budget: 15 ns, 0 allocs; adaptive 25 ns, 0 allocs
	for name, p := range map[string]ConcurrencyPolicy{"fixed": {MaxInFlight: 1000, MaxQueue: 10}, "adaptive": {Adaptive: true}} {
		b.Run(name, func(b *testing.B) {
			l, w, now := NewLimiter(p), new(Waiter), start
			b.ReportAllocs()
			for b.Loop() {
				now += time.Microsecond
				l.Enter(w, now, Critical, 0)
				l.Leave(w, now, ms, false)
			}
		})
		b.Run(name+"/parallel", func(b *testing.B) {
			l := NewLimiter(p)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				w, now := new(Waiter), start
				for pb.Next() {
					now += time.Microsecond
					l.Enter(w, now, Critical, 0)
					l.Leave(w, now, ms, false)
				}
			})
		})
	}
}

func BenchmarkLimiterHandsOn(b *testing.B) { // budget: 150 ns, 0 allocs
	handOn := handingOn()
	b.ReportAllocs()
	for b.Loop() {
		handOn()
	}
}

func BenchmarkLimiterTurnsAway(b *testing.B) { // budget: 300 ns, 1 alloc: the message
	l, w := NewLimiter(ConcurrencyPolicy{MaxInFlight: 1}), new(Waiter)
	l.Enter(new(Waiter), start, Critical, 0)
	b.ReportAllocs()
	for b.Loop() {
		l.Enter(w, start, Critical, 0)
		l.Leave(w, start, 0, false)
	}
}

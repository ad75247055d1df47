package policy

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// world is a server behind a limiter, and the calls that come to it, played in
// virtual time. The server works on `workers` calls at a time, each for about
// `service`, and keeps the rest in a queue of its own, first come first served;
// it works on, also for callers that gave up. Those give up after `patience`.
type world struct {
	limiter  *Limiter // nil: none
	workers  int
	service  time.Duration
	patience time.Duration
	rate     float64 // calls a second
	noise    float64 // of the service time: 0 none, 1 exponential
	rnd      *rand.Rand

	now     Instant
	events  events
	busy    int
	backlog []*simulated

	from            Instant // when to begin to count
	good            int
	latencies       []time.Duration // of good calls, from arrival on
	lowest, highest int             // bound
}

// simulated is one call.
type simulated struct {
	w             Waiter
	arrived, sent Instant
	left          bool
}

type event struct {
	at Instant
	do func()
}

type events []event

func (e events) Len() int           { return len(e) }
func (e events) Less(i, j int) bool { return e[i].at < e[j].at }
func (e events) Swap(i, j int)      { e[i], e[j] = e[j], e[i] }
func (e *events) Push(x any)        { *e = append(*e, x.(event)) }
func (e *events) Pop() any {
	last := (*e)[len(*e)-1]
	*e = (*e)[:len(*e)-1]
	return last
}

func (w *world) at(t Instant, do func()) { heap.Push(&w.events, event{t, do}) }

// play runs the world until the instant, and counts from the instant `from` on.
func (w *world) play(from, until Instant) {
	w.from, w.good, w.latencies, w.lowest, w.highest = from, 0, nil, 1<<30, 0
	if w.now == 0 {
		w.now = start
		w.arrive()
	}
	for w.events[0].at < until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
		if w.limiter != nil && w.now >= w.from {
			bound := boundOf(w.limiter.word.Load())
			w.lowest, w.highest = min(w.lowest, bound), max(w.highest, bound)
		}
	}
}

func (w *world) arrive() {
	w.at(w.now+time.Duration(w.rnd.ExpFloat64()*float64(time.Second)/w.rate), w.arrive)
	c := &simulated{arrived: w.now}
	c.w.Owner = c
	deadline := w.now + w.patience
	if w.limiter == nil {
		w.send(c)
		return
	}
	place, _, woken := w.limiter.Enter(&c.w, w.now, Critical, deadline)
	w.wake(woken)
	switch place {
	case Inside:
		w.send(c)
	case Turned:
		c.left = true
		w.wake(w.limiter.Leave(&c.w, w.now, 0, false))
	case Waiting:
		w.at(w.limiter.Due(&c.w), func() { w.look(c) })
	}
}

func (w *world) wake(woken []*Waiter) {
	for _, waiter := range woken {
		w.look(waiter.Owner.(*simulated))
	}
}

func (w *world) look(c *simulated) {
	if c.left || c.sent != 0 {
		return
	}
	switch place, _ := w.limiter.Look(&c.w, w.now); place {
	case Inside:
		w.send(c)
	case Turned:
		c.left = true
		w.wake(w.limiter.Leave(&c.w, w.now, 0, false))
	}
}

func (w *world) send(c *simulated) {
	c.sent = w.now
	w.at(c.arrived+w.patience, func() { w.leave(c, true) })
	if w.busy < w.workers {
		w.work(c)
	} else {
		w.backlog = append(w.backlog, c)
	}
}

func (w *world) work(c *simulated) {
	w.busy++
	took := float64(w.service) * (1 - w.noise + w.noise*w.rnd.ExpFloat64())
	w.at(w.now+time.Duration(took), func() {
		w.busy--
		if len(w.backlog) > 0 {
			next := w.backlog[0]
			w.backlog = w.backlog[1:]
			w.work(next)
		}
		w.leave(c, false)
	})
}

func (w *world) leave(c *simulated, gaveUp bool) {
	if c.left {
		return
	}
	c.left = true
	if w.now >= w.from && c.sent != 0 && !gaveUp {
		w.good++
		w.latencies = append(w.latencies, w.now-c.arrived)
	}
	if w.limiter != nil {
		latency := time.Duration(0)
		if c.sent != 0 {
			latency = w.now - c.sent
		}
		w.wake(w.limiter.Leave(&c.w, w.now, latency, gaveUp && c.sent != 0))
	}
}

// goodput is the good calls a second, as a share of what the server can do.
func (w *world) goodput() float64 {
	return float64(w.good) / (w.now - w.from).Seconds() / (float64(w.workers) / w.service.Seconds())
}

func (w *world) p99() time.Duration {
	if len(w.latencies) == 0 {
		return 0
	}
	slices.Sort(w.latencies)
	return w.latencies[len(w.latencies)*99/100]
}

// overloadedWorld is offered three times what its server can do: 40 calls at a
// time, 10 ms each.
func overloadedWorld(seed uint64, l *Limiter) *world {
	return &world{
		limiter: l, workers: 40, service: 10 * time.Millisecond, patience: 200 * time.Millisecond, rate: 12_000,
		rnd: rand.New(rand.NewPCG(seed, 1)),
	}
}

func adaptive() *Limiter {
	return NewLimiter(ConcurrencyPolicy{Adaptive: true, MaxInFlight: 1000, MaxQueue: 16})
}

func TestTheAdaptiveLimitFindsTheKnee(t *testing.T) {
	for _, tc := range []struct {
		noise    float64
		unloaded time.Duration // p99
	}{{0, 10 * time.Millisecond}, {0.3, 21 * time.Millisecond}, {1, 46 * time.Millisecond}} {
		for seed := range uint64(3) {
			w := overloadedWorld(seed, adaptive())
			w.noise = tc.noise

			w.play(start+2*time.Second, start+5*time.Second)

			if w.goodput() < 0.9 || w.p99() > 3*tc.unloaded {
				t.Errorf("noise %v, seed %d: goodput %.2f, want 0.9; p99 %v, want at most %v", tc.noise, seed, w.goodput(), w.p99(), 3*tc.unloaded)
			}
			if w.lowest < 20 || w.highest > 120 {
				t.Errorf("noise %v, seed %d: the bound was %d to %d, the knee is 40", tc.noise, seed, w.lowest, w.highest)
			}
		}
	}
}

// TestWithoutItTheServerCollapses: no limit, and one that is too high, let
// callers give up on calls that the server still works on.
func TestWithoutItTheServerCollapses(t *testing.T) {
	for name, l := range map[string]*Limiter{"none": nil, "1000": NewLimiter(ConcurrencyPolicy{MaxInFlight: 1000, MaxQueue: 16})} {
		w := overloadedWorld(1, l)

		w.play(start+3*time.Second, start+8*time.Second)

		if w.goodput() > 0.1 {
			t.Errorf("limit %s: goodput %.2f: the world is not overloaded", name, w.goodput())
		}
	}
}

func TestTheAdaptiveLimitFollowsTheServer(t *testing.T) {
	for seed := range uint64(2) {
		w := overloadedWorld(seed, adaptive())
		w.play(start, start+3*time.Second)
		for _, service := range []time.Duration{30 * time.Millisecond, 5 * time.Millisecond, 10 * time.Millisecond} {
			w.service = service
			w.play(w.now, w.now+5*time.Second)

			w.play(w.now, w.now+2*time.Second)

			if w.goodput() < 0.9 || w.p99() > 3*service || w.lowest < 16 || w.highest > 120 {
				t.Errorf("seed %d, now %v a call: goodput %.2f, p99 %v, bound %d to %d", seed, service, w.goodput(), w.p99(), w.lowest, w.highest)
			}
		}
	}
}

func TestTheAdaptiveLimitOfServersOfOtherSizes(t *testing.T) {
	for _, tc := range []struct {
		workers int
		service time.Duration
		warm    time.Duration
	}{{8, 10 * time.Millisecond, 5 * time.Second}, {300, 20 * time.Millisecond, 5 * time.Second}, {100, time.Second, 40 * time.Second}} {
		w := overloadedWorld(1, adaptive())
		w.workers, w.service, w.patience, w.noise = tc.workers, tc.service, 20*tc.service, 1
		w.rate = 3 * float64(w.workers) / w.service.Seconds()

		w.play(start+tc.warm, start+2*tc.warm)

		if w.goodput() < 0.9 || w.highest > 2*tc.workers+32 {
			t.Errorf("%d at a time, %v each: goodput %.2f, bound %d to %d", tc.workers, tc.service, w.goodput(), w.lowest, w.highest)
		}
	}
}

func TestTheAdaptiveLimitDoesNotDrift(t *testing.T) {
	w := overloadedWorld(1, adaptive())
	w.service, w.rate, w.patience, w.noise = 100*time.Millisecond, 1200, 2*time.Second, 0.3

	w.play(start+30*time.Second, start+4*time.Minute)

	if w.lowest < 20 || w.highest > 100 || w.goodput() < 0.9 {
		t.Errorf("in four minutes the bound was %d to %d, goodput %.2f", w.lowest, w.highest, w.goodput())
	}
}

func TestTheAdaptiveLimitLeavesAHealthyLoadAlone(t *testing.T) {
	for _, load := range []float64{0.1, 0.5, 0.9} {
		for _, noise := range []float64{0, 1} {
			w := overloadedWorld(1, adaptive())
			w.rate, w.noise = load*4000, noise

			w.play(start, start+20*time.Second)

			if s := w.limiter.Snapshot(w.now); float64(s.Refused) > load*load*4000*20/1000 {
				t.Errorf("load %v, noise %v: more than %v in a thousand refused: %+v", load, noise, load, s)
			}
		}
	}
}

// window plays one window of the gradient: ten calls and more, one each 5 ms.
// It returns the bound as it is without dips.
func window(t *testing.T, g *gradient, now *Instant, inFlight int, latency time.Duration, failed int) int {
	t.Helper()
	for i := range 1000 {
		*now += 5 * time.Millisecond
		if g.sample(*now, latency, i < failed) {
			g.settle(*now, inFlight)
			return int(g.estimate)
		}
	}
	t.Fatal("the window does not end")
	return 0
}

func TestTheBoundDoublesUntilLatencyRises(t *testing.T) {
	g, now := newGradient(1000), start
	for i, want := range []int{64, 128, 256, 512} { // after the first it is not known whether latency rises
		if got := window(t, g, &now, 500, 10*time.Millisecond, 0); got != want {
			t.Fatalf("window %d: %d, want %d", i, got, want)
		}
	}
	// 512 × 0.65 + √512, a fifth of the way; afterwards it grows by a fifth of its root.
	if got := window(t, g, &now, 500, 20*time.Millisecond, 0); got != 480 {
		t.Fatalf("twice as slow: %d, want 480", got)
	}
	if got := window(t, g, &now, 480, 10*time.Millisecond, 0); got != 485 {
		t.Fatalf("fast again: %d, want 485", got)
	}
}

func TestTheBoundStaysWhileHalfOfItIsFree(t *testing.T) {
	g, now := newGradient(1000), start
	for range 10 {
		if got := window(t, g, &now, 32, 10*time.Millisecond, 0); got != 64 {
			t.Fatalf("%d, want 64", got)
		}
	}
}

func TestFailuresOfLoadCutTheBoundByHalfTheirShare(t *testing.T) {
	g, now := newGradient(1000), start

	got := window(t, g, &now, 10, 10*time.Millisecond, 5) // of eleven

	if got != 49 {
		t.Fatalf("%d, want 49 of 64", got)
	}
	for range 10 {
		window(t, g, &now, 64, 10*time.Millisecond, 1000)
	}
	if g.estimate != lowestBound {
		t.Fatalf("nothing but failures: %v, want %d", g.estimate, lowestBound)
	}
}

func TestTheBoundDipsFromTimeToTime(t *testing.T) {
	g, now := newGradient(64), start
	var begun []int
	for i := range 140 {
		was := g.bound()
		window(t, g, &now, 64, 10*time.Millisecond, 0)
		if was == 64 && g.bound() == 32 {
			begun = append(begun, i)
		}
	}
	// After 5 windows, 10, 20 and then 40; the dip itself takes two.
	if want := []int{5, 17, 39, 81, 123}; !slices.Equal(begun, want) {
		t.Fatalf("dips began after windows %v, want %v", begun, want)
	}
}

func TestABoundThatFallsDipsAtOnce(t *testing.T) {
	g, now := newGradient(64), start
	for range 85 { // the next dip is 40 windows away
		window(t, g, &now, 64, 10*time.Millisecond, 0)
	}

	windows := 0
	for g.dip == noDip {
		window(t, g, &now, 64, 30*time.Millisecond, 0)
		windows++
	}

	if windows > 6 || g.estimate > 0.7*64 {
		t.Fatalf("it dips after %d windows, fallen to %v", windows, g.estimate)
	}
}

func TestTheBoundDoesNotDipWhileHalfOfItIsFree(t *testing.T) {
	g, now := newGradient(64), start
	for i := range 140 {
		window(t, g, &now, 32, 10*time.Millisecond, 0)
		if g.bound() != 64 {
			t.Fatalf("window %d: %d", i, g.bound())
		}
	}
}

func TestAnAdaptiveLimitStaysWithinItsMost(t *testing.T) {
	for most, want := range map[int]int{0: 64, 1: 1, 10: 10, 1000: 64} {
		l := NewLimiter(ConcurrencyPolicy{Adaptive: true, MaxInFlight: most})
		if got := l.Snapshot(start).Limit; got != want {
			t.Errorf("MaxInFlight %d: %d, want %d", most, got, want)
		}
	}
}

func TestOneOfManySettlesAWindow(t *testing.T) {
	g := newGradient(1000)
	g.sample(start, time.Millisecond, false)
	var settlers atomic.Int32
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				if g.sample(start+time.Second, time.Millisecond, false) {
					settlers.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := settlers.Load(); n != 1 {
		t.Fatalf("%d settle it, want 1", n)
	}
}

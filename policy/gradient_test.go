package policy

import (
	"container/heap"
	"math/rand/v2"
	"slices"
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
	good, overrun   int
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
	w.from, w.good, w.overrun, w.latencies, w.lowest, w.highest = from, 0, 0, nil, 1<<30, 0
	if w.now == 0 {
		w.now = start
		w.arrive()
	}
	for w.events[0].at < until {
		e := heap.Pop(&w.events).(event)
		w.now = e.at
		e.do()
		if w.limiter != nil && w.now >= w.from {
			bound := w.limiter.Snapshot(w.now).Limit
			w.lowest, w.highest = min(w.lowest, bound), max(w.highest, bound)
		}
	}
}

func (w *world) arrive() {
	w.at(w.now+time.Duration(w.rnd.ExpFloat64()*float64(time.Second)/w.rate), w.arrive)
	c := &simulated{arrived: w.now}
	c.w.Owner = c
	deadline := w.now + w.patience
	w.at(deadline, func() { w.leave(c, true) })
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
	if w.now >= w.from && c.sent != 0 {
		if gaveUp {
			w.overrun++
		} else {
			w.good++
			w.latencies = append(w.latencies, w.now-c.arrived)
		}
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

func TestExplore(t *testing.T) {
	for _, noise := range []float64{0, 0.3, 1} {
		for seed := range uint64(3) {
			w := overloadedWorld(seed, adaptive())
			w.noise = noise
			w.play(start+5*time.Second, start+25*time.Second)
			t.Logf("noise %v seed %d: goodput %.3f p99 %v overrun %d bound %d..%d", noise, seed, w.goodput(), w.p99(), w.overrun, w.lowest, w.highest)
			w.service = 30 * time.Millisecond
			for range 5 {
				w.play(w.now, w.now+3*time.Second)
				t.Logf("  slower: goodput %.3f p99 %v overrun %d bound %d..%d", w.goodput(), w.p99(), w.overrun, w.lowest, w.highest)
			}
			w.service = 5 * time.Millisecond
			for range 3 {
				w.play(w.now, w.now+3*time.Second)
				t.Logf("  faster: goodput %.3f p99 %v overrun %d bound %d..%d", w.goodput(), w.p99(), w.overrun, w.lowest, w.highest)
			}
		}
	}
	for _, l := range []*Limiter{nil, NewLimiter(ConcurrencyPolicy{MaxInFlight: 1000, MaxQueue: 16})} {
		w := overloadedWorld(1, l)
		w.play(start+5*time.Second, start+15*time.Second)
		t.Logf("none/static: goodput %.3f p99 %v overrun %d", w.goodput(), w.p99(), w.overrun)
	}
}

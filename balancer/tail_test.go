package balancer

import (
	"container/heap"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// finish is a call's end in the simulation.
type finish struct {
	at, arrived Instant
	server      int
}

type finishes []finish

func (f finishes) Len() int           { return len(f) }
func (f finishes) Less(i, j int) bool { return f[i].at < f[j].at }
func (f finishes) Swap(i, j int)      { f[i], f[j] = f[j], f[i] }
func (f *finishes) Push(x any)        { *f = append(*f, x.(finish)) }
func (f *finishes) Pop() any {
	last := (*f)[len(*f)-1]
	*f = (*f)[:len(*f)-1]
	return last
}

// latencies simulates so many calls in virtual time: they come at random, 600 a
// second; ten servers of 8 workers each take 10 ms on average, exponentially
// distributed, the first one ten times as long. It returns how long calls took,
// in order.
func latencies(o Options, calls int) []time.Duration {
	const workers = 8
	rnd := rand.New(rand.NewPCG(1, 2))
	set, picker := newTestSet(make([]uint32, 10)...), NewPicker(o)
	busy, queues := make([]int, set.Len()), make([][]Instant, set.Len())
	var ends finishes
	serve := func(server int, now, arrived Instant) {
		mean := 10 * time.Millisecond
		if server == 0 {
			mean *= 10
		}
		busy[server]++
		heap.Push(&ends, finish{now + time.Duration(rnd.ExpFloat64()*float64(mean)) + 1, arrived, server})
	}
	var took []time.Duration
	next := time.Second
	for len(took) < calls {
		if len(ends) == 0 || next <= ends[0].at {
			e := picker.Pick(set, Ask{Now: next, Rnd: rnd.Uint64()})
			e.Begin()
			server := slices.Index(set.All(), e)
			if busy[server] < workers {
				serve(server, next, next)
			} else {
				queues[server] = append(queues[server], next)
			}
			next += time.Duration(rnd.ExpFloat64() * float64(time.Second) / 600)
			continue
		}
		f := heap.Pop(&ends).(finish)
		set.All()[f.server].End(f.at, f.at-f.arrived, false)
		took = append(took, f.at-f.arrived)
		busy[f.server]--
		if q := queues[f.server]; len(q) > 0 {
			queues[f.server] = q[1:]
			serve(f.server, f.at, q[0])
		}
	}
	slices.Sort(took)
	return took
}

func TestTheTailBesideASlowEndpoint(t *testing.T) {
	p99 := make(map[Policy]time.Duration)
	for _, p := range []Policy{RoundRobin, Random, LeastRequest, PeakEWMA} {
		took := latencies(Options{Policy: p}, 200_000)
		p99[p] = took[len(took)*99/100]
		t.Logf("%-14v p50 %-8v p90 %-8v p99 %-8v p99.9 %v", p, took[len(took)/2].Round(100*time.Microsecond),
			took[len(took)*9/10].Round(100*time.Microsecond), p99[p].Round(100*time.Microsecond), took[len(took)*999/1000].Round(100*time.Microsecond))
	}
	if best := min(p99[LeastRequest], p99[PeakEWMA]); 3*best > p99[RoundRobin] {
		t.Errorf("p99 %v; %v by turns", best, p99[RoundRobin])
	}
}

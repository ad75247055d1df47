package api

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// dueList is a heap of permits by when something falls due for them. Leases are
// much of a length, so most permits go to its end, which costs one comparison.
type dueList []*permit

func (d dueList) Len() int           { return len(d) }
func (d dueList) Less(i, j int) bool { return d[i].due < d[j].due }
func (d dueList) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].place, d[j].place = i, j
}

// Push implements heap.Interface.
func (d *dueList) Push(x any) {
	p := x.(*permit)
	p.place = len(*d)
	*d = append(*d, p)
}

// Pop implements heap.Interface.
func (d *dueList) Pop() any {
	last := len(*d) - 1
	p := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	p.place = nowhere
	return p
}

// nowhere is the place of a permit for which nothing falls due.
const nowhere = -1

// alarm calls ring, on a goroutine of its own, once the earliest instant that
// was set has come. One serves all permits of a server; between two calls no
// goroutine of it runs.
type alarm struct {
	now  func() policy.Instant
	ring func()

	at      atomic.Int64 // the Instant that the timer is set to; 0: it is not
	mu      sync.Mutex
	timer   *time.Timer
	stopped bool
	ringing sync.WaitGroup
}

// set asks for a ring at an instant, or before.
func (a *alarm) set(due policy.Instant) {
	if at := a.at.Load(); at != 0 && at <= int64(due) {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if at := a.at.Load(); a.stopped || at != 0 && at <= int64(due) {
		return
	}
	if a.timer != nil && a.timer.Stop() {
		a.ringing.Done()
	}
	a.at.Store(int64(due))
	a.ringing.Add(1)
	a.timer = time.AfterFunc(max(due-a.now(), 0), func() {
		defer a.ringing.Done()
		a.at.Store(0) // before the ring: what is set meanwhile rings again
		a.ring()
	})
}

// stop ends the alarm and waits for a ring that is under way.
func (a *alarm) stop() {
	a.mu.Lock()
	a.stopped = true
	if a.timer != nil && a.timer.Stop() {
		a.ringing.Done()
	}
	a.mu.Unlock()
	a.ringing.Wait()
}

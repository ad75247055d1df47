package relay

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	wheelTick   = 5 * time.Millisecond
	wheelSlots  = 512 // 2.56 s a turn; later entries wait for their turn to come again
	wheelShards = 8   // so that cores don't share a lock
	// wheelIdle is how long an empty wheel goes on turning before it stops:
	// long enough that a busy agent never starts it per call.
	wheelIdle = time.Second
)

// wheel is a hashed timer wheel (Varghese and Lauck, 1987): arming and
// cancelling are O(1), entries fire up to one tick late. Its goroutine sleeps
// while nothing is armed.
type wheel struct {
	now    func() policy.Instant
	shards [wheelShards]wheelShard
	armed  atomic.Int64
	asleep atomic.Bool
	wake   chan struct{}
}

type wheelShard struct {
	mu    sync.Mutex
	slots [wheelSlots]*timer
	_     [56]byte
}

// timed is what a timer ends. expire is called on the wheel's goroutine,
// unlocked; what it writes is flushed for it.
type timed interface{ expire(b *batch) }

// timer is an entry of the wheel. The zero value is not armed. Set shard and
// owner before the first arm.
type timer struct {
	shard      uint32
	owner      timed
	when       policy.Instant
	slot       int32
	linked     bool
	next, prev *timer
}

func newWheel(now func() policy.Instant) *wheel {
	w := &wheel{now: now, wake: make(chan struct{}, 1)}
	w.asleep.Store(true)
	return w
}

// arm makes t fire at or up to one tick after when; an armed timer is moved.
func (w *wheel) arm(t *timer, when policy.Instant) {
	s := &w.shards[t.shard%wheelShards]
	s.mu.Lock()
	if t.linked {
		if t.when == when {
			s.mu.Unlock()
			return
		}
		s.unlink(t)
	} else {
		w.armed.Add(1)
	}
	t.when = when
	// Rounded up: the turn of the slot comes after the time, never before it.
	t.slot = int32((when/wheelTick + 1) % wheelSlots)
	t.next = s.slots[t.slot]
	t.prev = nil
	if t.next != nil {
		t.next.prev = t
	}
	s.slots[t.slot] = t
	t.linked = true
	s.mu.Unlock()
	if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
		w.wake <- struct{}{}
	}
}

// cancel disarms t. A timer that is firing at this moment still fires.
func (w *wheel) cancel(t *timer) {
	s := &w.shards[t.shard%wheelShards]
	s.mu.Lock()
	if t.linked {
		s.unlink(t)
		w.armed.Add(-1)
	}
	s.mu.Unlock()
}

func (s *wheelShard) unlink(t *timer) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		s.slots[t.slot] = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.next, t.prev, t.linked = nil, nil, false
}

// run turns the wheel until stop is closed.
func (w *wheel) run(stop <-chan struct{}) {
	ticker := time.NewTicker(wheelTick)
	defer ticker.Stop()
	ticker.Stop()
	b := newBatch()
	for {
		select {
		case <-stop:
			return
		case <-w.wake:
		}
		ticker.Reset(wheelTick)
		w.turn(stop, ticker, b)
		ticker.Stop()
	}
}

// turn visits slots as they fall due until the wheel has been empty for
// wheelIdle.
func (w *wheel) turn(stop <-chan struct{}, ticker *time.Ticker, b *batch) {
	last := w.now()/wheelTick - 1
	busy := w.now()
	for {
		select {
		case <-stop:
			return
		case <-ticker.C:
		}
		now := w.now()
		if turn := now/wheelTick - wheelSlots; last < turn {
			last = turn // one whole turn visits every slot
		}
		for last < now/wheelTick {
			last++
			for i := range w.shards {
				w.visit(&w.shards[i], int(last%wheelSlots), now, b)
			}
		}
		if w.armed.Load() > 0 {
			busy = now
		} else if now-busy > wheelIdle {
			w.asleep.Store(true)
			// An arm that came before the store did not see it.
			if w.armed.Load() == 0 || !w.asleep.CompareAndSwap(true, false) {
				return
			}
		}
	}
}

// visit fires the slot's due entries, one at a time and unlocked.
func (w *wheel) visit(s *wheelShard, slot int, now policy.Instant, b *batch) {
	s.mu.Lock()
	for {
		t := s.slots[slot]
		for t != nil && t.when > now {
			t = t.next
		}
		if t == nil {
			break
		}
		s.unlink(t)
		w.armed.Add(-1)
		s.mu.Unlock()
		b.now = now
		t.owner.expire(b)
		b.flush()
		s.mu.Lock()
	}
	s.mu.Unlock()
}

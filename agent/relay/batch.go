package relay

import "github.com/outrigger-rpc/outrigger/policy"

// batch is what one goroutine causes before it writes: the connections that
// got output, and the credit that is owed. Each reader has one, so do the
// wheel and whoever else touches connections. Not safe for concurrent use.
type batch struct {
	now       policy.Instant
	dirty     []*conn
	credits   []credit
	room      []*upstream      // may have room for calls that wait
	woken     []*policy.Waiter // their calls may be admitted now
	fetched   []*call          // waited for another call's answer
	held      []*attempt       // their answers' heads wait for what follows
	refreshes []*call          // of answers in a cache, to be begun
	handovers []*handover      // to the store of calls that are kept for later
	record    policy.Record    // lent to the observer
}

// credit is owed to the sender of a leg: n of its bytes were moved on.
type credit struct {
	leg *leg
	n   int
}

func newBatch() *batch { return &batch{} }

// touch notes that c has output. c.mu is held.
func (b *batch) touch(c *conn) {
	if c.touchedBy != b {
		c.touchedBy = b
		b.dirty = append(b.dirty, c)
	}
}

// owe notes that n bytes which came in on l were moved on. l is nil where the
// agent itself made them.
func (b *batch) owe(l *leg, n int) {
	if n > 0 && l != nil {
		b.credits = append(b.credits, credit{l, n})
	}
}

// wake notes calls that another one's end, or arrival, moved in the queue of a
// concurrency limit: those of the relay, and of other shells of the service.
func (b *batch) wake(waiters []*policy.Waiter) { b.woken = append(b.woken, waiters...) }

// flush gives credit back, lets calls go on that wait, and writes every
// connection once. No lock is held.
func (b *batch) flush() {
	each(&b.held, func(a *attempt) { a.stillHeld(b) })
	for len(b.credits)+len(b.room)+len(b.woken)+len(b.fetched)+len(b.refreshes)+len(b.handovers)+len(b.dirty) > 0 {
		each(&b.credits, func(c credit) { c.leg.creditSender(b, c.n) })
		each(&b.room, func(u *upstream) { u.admit(b) })
		each(&b.woken, func(w *policy.Waiter) {
			if c, ok := w.Owner.(*call); ok {
				c.woken(b)
			} else {
				policy.Wake([]*policy.Waiter{w})
			}
		})
		each(&b.fetched, func(c *call) { c.fetched(b) })
		each(&b.refreshes, func(c *call) { c.beginRefresh(b) })
		each(&b.handovers, (*handover).begin)
		each(&b.dirty, func(c *conn) {
			c.relay.relieve(b)
			c.flush(b)
		})
	}
}

// each does something with all of a list, with what is added meanwhile too, and
// empties it.
func each[T any](list *[]T, do func(T)) {
	for i := 0; i < len(*list); i++ {
		do((*list)[i])
	}
	clear(*list)
	*list = (*list)[:0]
}

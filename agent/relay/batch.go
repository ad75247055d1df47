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

// flush gives credit back, lets calls that wait in, and writes every
// connection once. No lock is held.
func (b *batch) flush() {
	for i := 0; i < len(b.held); i++ {
		b.held[i].stillHeld(b)
	}
	clear(b.held)
	b.held = b.held[:0]
	for len(b.credits) > 0 || len(b.room) > 0 || len(b.woken) > 0 || len(b.fetched) > 0 || len(b.refreshes) > 0 || len(b.dirty) > 0 {
		for i := 0; i < len(b.credits); i++ {
			b.credits[i].leg.creditSender(b, b.credits[i].n)
		}
		clear(b.credits)
		b.credits = b.credits[:0]
		for i := 0; i < len(b.room); i++ {
			b.room[i].admit(b)
		}
		clear(b.room)
		b.room = b.room[:0]
		for i := 0; i < len(b.woken); i++ {
			if c, ok := b.woken[i].Owner.(*call); ok {
				c.woken(b)
			} else {
				policy.Wake(b.woken[i : i+1])
			}
		}
		clear(b.woken)
		b.woken = b.woken[:0]
		for i := 0; i < len(b.fetched); i++ {
			b.fetched[i].fetched(b)
		}
		clear(b.fetched)
		b.fetched = b.fetched[:0]
		for i := 0; i < len(b.refreshes); i++ {
			b.refreshes[i].beginRefresh(b)
		}
		clear(b.refreshes)
		b.refreshes = b.refreshes[:0]
		for i := 0; i < len(b.dirty); i++ {
			c := b.dirty[i]
			c.relay.relieve(b)
			c.flush(b)
		}
		clear(b.dirty)
		b.dirty = b.dirty[:0]
	}
}

package relay

import (
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"
)

// Many gRPC servers send headers before an error too: an interceptor set some.
// By gRFC A6 a call is committed then. So the head of an answer that may yet
// turn out to be a failure is held until the next frame of it comes, which is
// nearly always in the same packet, or for a moment.

// holdHead is how long a head is held at most, up to two turns of the wheel on
// top: far less than what a stream that begins with its headers would notice.
const holdHead = 5 * time.Millisecond

// head is a final header block that is held.
type head struct{ fields []hpack.HeaderField }

var heads = sync.Pool{New: func() any { return new(head) }}

// hold keeps the head back. What it is made of is copied.
func (a *attempt) hold(b *batch, fields []hpack.HeaderField) {
	a.head = heads.Get().(*head)
	a.head.fields = append(a.head.fields[:0], fields...)
	a.heldUntil = b.now + holdHead
	b.held = append(b.held, a)
}

// dropHead forgets the head.
func (a *attempt) dropHead() {
	if a.head != nil {
		clear(a.head.fields)
		heads.Put(a.head)
		a.head = nil
	}
}

// release forwards a head that was held. c.mu is held.
func (c *call) release(b *batch, a *attempt) {
	held := a.head
	a.head = nil
	c.status, c.grpc = 200, true
	c.forwardHead(b, a, held.fields, false)
	clear(held.fields)
	heads.Put(held)
}

// releaseDue forwards the first head whose time is over.
func (c *call) releaseDue(b *batch) {
	for _, a := range c.live {
		if a.head != nil && b.now >= a.heldUntil {
			c.release(b, a)
			return
		}
	}
}

// stillHeld arms the timer of an attempt whose head the batch did not go on
// with.
func (a *attempt) stillHeld(b *batch) {
	c := a.call
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over && a.head != nil {
		c.rearm(b)
	}
}

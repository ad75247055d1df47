package relay

import (
	"sync/atomic"

	"golang.org/x/net/http2/hpack"
)

// leg is one side of a call: an HTTP/2 stream on one connection.
type leg struct {
	call *call
	conn *conn // nil until the leg is attached; then fixed
	id   uint32

	// What comes in. received belongs to the connection's reader.
	received int64        // flow-controlled bytes that came
	granted  atomic.Int64 // how many may come
	span     atomic.Int64 // the window that the peer has: it grows
	owed     atomic.Int64 // taken, but not granted anew yet

	// What goes out. Guarded by conn.mu, by call.mu while conn is nil.
	source   *leg    // where the bytes come from: it gets the credit
	window   int64   // how many the peer still takes
	queue    *buffer // waits for credit; with keep also what was sent
	sent     int     // how much of queue was sent
	keep     bool    // what was sent may have to be sent again
	repaid   int     // how much of queue gave its credit back before: on an earlier attempt, or as it was gathered
	fin      bool    // the stream ends after the queue
	trailers []hpack.HeaderField

	finSent     bool
	finReceived bool
	removed     bool

	// Place in conn.blocked: the legs that wait for the connection.
	listed     bool
	next, prev *leg
}

// grant gives the leg's peer the window that streams begin with.
func (l *leg) grant(n int) {
	l.granted.Store(int64(n))
	l.span.Store(int64(n))
}

// waiting returns how many queued bytes were not sent.
func (l *leg) waiting() int {
	if l.queue == nil {
		return 0
	}
	return len(l.queue.b) - l.sent
}

// enqueue copies p behind the queue. conn.mu (or call.mu) is held.
func (l *leg) enqueue(p []byte) {
	if len(p) == 0 {
		return
	}
	if l.queue == nil {
		l.queue = newBuffer()
	} else if l.sent > 0 && !l.keep && len(l.queue.b)+len(p) > cap(l.queue.b) {
		l.queue.b = append(l.queue.b[:0], l.queue.b[l.sent:]...)
		l.call.relay.buffered.Add(-int64(l.sent))
		l.sent, l.repaid = 0, max(l.repaid-l.sent, 0)
	}
	l.queue.reserve(len(p))
	l.queue.b = append(l.queue.b, p...)
	l.call.relay.buffered.Add(int64(len(p)))
}

// dropQueue forgets what is queued.
func (l *leg) dropQueue() {
	if l.queue != nil {
		l.call.relay.buffered.Add(-int64(len(l.queue.b)))
		l.queue.free()
		l.queue = nil
	}
	l.sent, l.repaid = 0, 0
	l.trailers = nil
}

// commit gives up sending the queue again. conn.mu (or call.mu) is held.
func (l *leg) commit() {
	if !l.keep {
		return
	}
	l.keep = false
	if l.waiting() == 0 {
		trailers := l.trailers
		l.dropQueue()
		l.trailers = trailers
	}
}

// send moves p to the leg's peer, as far as credit goes, and queues the rest.
// end says that nothing follows. call.mu is held.
func (l *leg) send(b *batch, p []byte, end bool) {
	c := l.conn
	if c == nil {
		l.enqueue(p)
		l.fin = l.fin || end
		return
	}
	c.mu.Lock()
	if l.removed || l.finSent {
		// Nobody wants the bytes; their sender must not stall for it.
		c.mu.Unlock()
		b.owe(l.source, len(p))
		return
	}
	l.fin = l.fin || end
	var moved int
	if l.queue == nil && !l.keep {
		moved = c.emit(b, l, p, l.fin)
		l.enqueue(p[moved:])
	} else {
		l.enqueue(p)
		moved = c.pump(b, l)
	}
	if moved < len(p) {
		c.stalls(b)
	}
	c.mu.Unlock()
	b.owe(l.source, moved)
}

// sendTrailers ends the leg with a header block behind what is queued. The
// fields are copied if they have to wait. call.mu is held.
func (l *leg) sendTrailers(b *batch, fields []hpack.HeaderField) {
	c := l.conn
	if c == nil {
		l.trailers = append([]hpack.HeaderField(nil), fields...)
		l.fin = true
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.removed || l.finSent {
		return
	}
	l.fin = true
	if l.waiting() > 0 {
		l.trailers = append([]hpack.HeaderField(nil), fields...)
		return
	}
	c.writeHeaders(b, l.id, fields, true)
	c.sentFin(b, l)
}

// reset ends the leg at once, both ways. It does nothing to a leg that is over.
func (l *leg) reset(b *batch, code errCode) {
	c := l.conn
	if c == nil {
		l.dropQueue()
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.removed {
		return
	}
	if !c.closed {
		c.output(b, appendRSTStream(c.pending(), l.id, code))
	}
	c.remove(b, l)
}

// creditSender gives credit for n bytes back to whoever sent them on this leg.
// Small amounts are saved up: one WINDOW_UPDATE for half a window.
func (l *leg) creditSender(b *batch, n int) {
	c := l.conn
	if c == nil {
		return
	}
	owed := l.owed.Add(int64(n))
	if owed < l.span.Load()/2 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l.removed || l.finReceived || c.closed {
		return
	}
	if owed = l.owed.Swap(0); owed > 0 {
		// Twice the window was seen to move on: the stream is read, so it may
		// have more on its way, unless much waits elsewhere.
		if span := l.span.Load(); span < int64(c.relay.limits.StreamWindow) && l.granted.Load() >= 3*span && c.relay.buffered.Load() < c.relay.limits.BufferedBytes/32 {
			more := min(span, int64(c.relay.limits.StreamWindow)-span)
			l.span.Add(more)
			owed += more
		}
		l.granted.Add(owed)
		c.output(b, appendWindowUpdate(c.pending(), l.id, uint32(owed)))
	}
}

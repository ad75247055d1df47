package relay

import (
	"golang.org/x/net/http2/hpack"
)

// This file is what leaves a connection: frames into its output, the output
// into the socket. Everything with "c.mu is held" appends only; flush writes.

// headerSink collects what the HPACK encoder writes.
type headerSink struct{ b []byte }

func (s *headerSink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// pending returns the output to append to; hand the result to output.
func (c *conn) pending() []byte {
	if c.out == nil {
		c.out = newBuffer()
	}
	return c.out.b
}

// output takes what pending returned, with frames appended. A peer that makes
// output and does not read it is cut off by the reader. c.mu is held.
func (c *conn) output(b *batch, out []byte) {
	c.out.b = out
	b.touch(c)
	if len(out)+c.inWrite > outputLimit {
		c.flooded.Store(true)
	}
}

// roomy reports whether DATA may be added to the output.
func (c *conn) roomy() bool {
	n := c.inWrite
	if c.out != nil {
		n += len(c.out.b)
	}
	return n < outputHighWater
}

// emit appends as much of p as the windows and the output allow and returns
// how much. end: the stream ends with p's last byte. c.mu is held.
func (c *conn) emit(b *batch, l *leg, p []byte, end bool) int {
	if len(p) == 0 {
		if end {
			c.output(b, appendFrameHeader(c.pending(), 0, frameData, flagEndStream, l.id))
			c.sentFin(b, l)
		}
		return 0
	}
	n := min(int64(len(p)), l.window)
	if n <= 0 {
		return 0 // the stream's own WINDOW_UPDATE goes on
	}
	if n = min(n, c.window); n <= 0 || !c.roomy() {
		c.park(l)
		return 0
	}
	l.window -= n
	c.window -= n
	c.updates = min(c.updates+updatesPerData, maxUpdates)
	if d, ok := c.side.(*downConn); ok {
		d.slow.moved += n
	}
	out := c.pending()
	rest := p[:n]
	for len(rest) > 0 {
		part := rest[:min(len(rest), c.peerMaxFrame)]
		rest = rest[len(part):]
		var flags byte
		if end && len(rest) == 0 && int(n) == len(p) {
			flags = flagEndStream
		}
		out = append(appendFrameHeader(out, len(part), frameData, flags, l.id), part...)
	}
	c.output(b, out)
	if int(n) == len(p) {
		if end {
			c.sentFin(b, l)
		}
	} else if l.window > 0 {
		c.park(l)
	}
	return int(n)
}

// pump sends what is queued on the leg as far as credit goes, then what stands
// behind it, and returns how many bytes went for the first time: that is what
// their sender gets credit for. c.mu is held.
func (c *conn) pump(b *batch, l *leg) int {
	if l.removed || l.finSent {
		return 0
	}
	fresh := 0
	if l.waiting() > 0 {
		moved := c.emit(b, l, l.queue.b[l.sent:], l.fin && l.trailers == nil)
		fresh = max(min(moved, l.sent+moved-l.repaid), 0)
		if l.removed {
			return fresh
		}
		l.sent += moved
		if l.waiting() > 0 {
			return fresh
		}
		if !l.keep {
			trailers := l.trailers
			l.dropQueue()
			l.trailers = trailers
		}
	}
	if l.fin && !l.finSent {
		if l.trailers != nil {
			c.writeHeaders(b, l.id, l.trailers, true)
			c.sentFin(b, l)
		} else {
			c.emit(b, l, nil, true)
		}
	}
	return fresh
}

// resume lets the legs that wait for the connection go on, in turn. c.mu is
// held.
func (c *conn) resume(b *batch) {
	for range c.blocked.n {
		if c.window <= 0 || !c.roomy() {
			return
		}
		l := c.blocked.pop()
		b.owe(l.source, c.pump(b, l))
	}
}

// sentFin notes that END_STREAM went out on the leg. c.mu is held.
func (c *conn) sentFin(b *batch, l *leg) {
	l.finSent = true
	c.finished++
	if l.finReceived {
		c.remove(b, l)
		return
	}
	if _, down := c.side.(*downConn); down {
		// The answer is complete: the rest of the request is not wanted
		// (RFC 9113, 8.1).
		c.output(b, appendRSTStream(c.pending(), l.id, codeNo))
		c.remove(b, l)
	}
}

// receivedFin notes whether END_STREAM came in on the leg. c.mu is held.
func (c *conn) receivedFin(b *batch, l *leg, end bool) {
	l.finReceived = end
	if end && l.finSent {
		c.remove(b, l)
	}
}

// remove takes a leg off its connection. c.mu is held.
func (c *conn) remove(b *batch, l *leg) {
	if l.removed {
		return
	}
	l.removed = true
	delete(c.streams, l.id)
	if d, ok := c.side.(*downConn); ok && l.finReceived {
		d.past.ends(l.id)
	}
	c.blocked.remove(l)
	if !l.keep {
		l.dropQueue()
	}
	if up, ok := c.side.(*upConn); ok {
		b.freed(up.upstream)
		up.idleSince = b.now
	}
	if c.draining && len(c.streams) == 0 {
		c.closeWhenWritten(b)
	}
}

// closeWhenWritten closes the connection once its output is written. c.mu is
// held.
func (c *conn) closeWhenWritten(b *batch) {
	c.closeAfter = true
	b.touch(c)
}

// writeHeaders encodes and appends a header block. c.mu is held.
func (c *conn) writeHeaders(b *batch, stream uint32, fields []hpack.HeaderField, end bool) {
	c.encoded.b = c.encoded.b[:0]
	c.encodeAll(fields)
	c.endHeaders(b, stream, end)
}

// encodeOnce adds a field that will not come again with that value, so that
// it pushes nothing out of the peer's table: a literal without indexing
// (RFC 7541, 6.2.2). c.mu is held.
func (c *conn) encodeOnce(name string, value []byte) {
	e := append(c.encoded.b, 0)
	e = appendHpackString(e, name)
	e = appendHpackLen(e, len(value))
	c.encoded.b = append(e, value...)
}

// endHeaders appends the block under construction as frames. c.mu is held.
func (c *conn) endHeaders(b *batch, stream uint32, end bool) {
	c.output(b, appendHeaderBlock(c.pending(), stream, c.encoded.b, end, c.peerMaxFrame))
}

func appendHpackString(b []byte, s string) []byte {
	return append(appendHpackLen(b, len(s)), s...)
}

// appendHpackLen appends a string's length with a 7-bit prefix, not Huffman
// coded (RFC 7541, 5.1 and 5.2).
func appendHpackLen(b []byte, n int) []byte {
	if n < 127 {
		return append(b, byte(n))
	}
	b = append(b, 127)
	n -= 127
	for n >= 128 {
		b = append(b, byte(n)|128)
		n >>= 7
	}
	return append(b, byte(n))
}

// flush writes the output, as far as the kernel takes it at once; a writer
// goroutine does the rest.
func (c *conn) flush(b *batch) {
	c.mu.Lock()
	c.touchedBy = nil
	if c.writing || c.closed {
		c.mu.Unlock()
		return
	}
	for c.out != nil {
		out := c.out
		c.out = nil
		c.writing, c.inWrite = true, len(out.b)
		c.mu.Unlock()
		left, err := c.sock.write(out.b)
		c.mu.Lock()
		c.inWrite = left
		if err != nil {
			out.free()
			c.broken()
			return
		}
		if left > 0 {
			c.writers.Add(1)
			go c.writeRest(out)
			c.mu.Unlock()
			return
		}
		out.free()
		c.writing = false
		c.resume(b)
	}
	c.written()
}

// writeRest is the writer goroutine: it waits for the socket until nothing is
// left.
func (c *conn) writeRest(out *buffer) {
	defer c.writers.Done()
	b := newBatch()
	for {
		err := c.sock.finish()
		out.free()
		c.mu.Lock()
		c.inWrite = 0
		if err != nil {
			c.broken()
			return
		}
		b.now = c.relay.now()
		c.resume(b)
		out = c.out
		c.out = nil
		if out == nil || c.closed {
			c.writing = false
			c.written()
			b.flush()
			return
		}
		c.inWrite = len(out.b)
		c.mu.Unlock()
		b.flush() // credit to the senders; this connection is being written
		if _, err := c.sock.write(out.b); err != nil {
			out.free()
			c.mu.Lock()
			c.broken()
			return
		}
	}
}

// broken ends a connection that can't be written. c.mu is held; it is
// released.
func (c *conn) broken() {
	c.writing, c.inWrite = false, 0
	c.closed = true
	c.mu.Unlock()
	c.sock.close()
}

// written follows after everything is out. c.mu is held; it is released.
func (c *conn) written() {
	done := c.closeAfter && !c.closed
	c.mu.Unlock()
	if done {
		c.sock.closeWrite()
	}
}

// legList is a queue of legs, linked through them.
type legList struct {
	head, tail *leg
	n          int
}

// park queues a leg for the connection's next credit. c.mu is held.
func (c *conn) park(l *leg) {
	if l.listed {
		return
	}
	l.listed = true
	l.prev, l.next = c.blocked.tail, nil
	if l.prev != nil {
		l.prev.next = l
	} else {
		c.blocked.head = l
	}
	c.blocked.tail = l
	c.blocked.n++
}

func (q *legList) pop() *leg {
	l := q.head
	q.remove(l)
	return l
}

func (q *legList) remove(l *leg) {
	if !l.listed {
		return
	}
	if l.prev != nil {
		l.prev.next = l.next
	} else {
		q.head = l.next
	}
	if l.next != nil {
		l.next.prev = l.prev
	} else {
		q.tail = l.prev
	}
	l.next, l.prev, l.listed = nil, nil, false
	q.n--
}

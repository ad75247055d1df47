package relay

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// downConn is an app's connection to the agent: the server's side of HTTP/2.
type downConn struct {
	conn
	preface timer  // until the client has said that it speaks HTTP/2
	tunnel  string // where the client asked to be connected (CONNECT); empty: it did not
	leave   func() // gives up the connection's place among the clients
	slow    slowness
	past    history // guarded by mu
	goAways int     // how many GOAWAYs went out; 2: the last. Guarded by mu
	drained timer   // until the last one
	// lastOpened is lastStream for other goroutines.
	lastOpened atomic.Uint32
}

func newDownConn(r *Relay, sock *socket, peer string) *downConn {
	d := &downConn{leave: func() {}}
	d.init(r, sock, d, peer)
	d.preface = timer{shard: d.serial, owner: prefaceTimeout{d}}
	d.drained = timer{shard: d.serial, owner: drainStep{d}}
	d.slow.headers = timer{shard: d.serial, owner: slowHeaders{d}}
	d.slow.stall = timer{shard: d.serial, owner: stallCheck{d}}
	return d
}

// drainStep sends the last GOAWAY when the client does not answer the PING.
type drainStep struct{ d *downConn }

func (t drainStep) expire(b *batch) { t.d.lastGoAway(b) }

// settled implements side.
func (d *downConn) settled(*batch) { d.relay.wheel.cancel(&d.preface) }

// headers implements side: a new call, or the trailers of its request.
func (d *downConn) headers(b *batch, stream uint32, list *fieldList, end bool) error {
	if stream%2 == 0 {
		return &connError{code: codeProtocol, why: fmt.Sprintf("a client opened stream %d, which has a server's number", stream)}
	}
	if stream <= d.lastStream {
		return d.trailers(b, stream, list, end)
	}
	d.mu.Lock()
	d.past.opens(d.lastStream, stream)
	d.mu.Unlock()
	d.lastStream = stream
	d.lastOpened.Store(stream)
	c := &call{relay: d.relay, born: b.now}
	c.down.call, c.down.conn, c.down.id = c, &d.conn, stream
	c.down.grant(d.relay.limits.firstWindow())
	c.down.finReceived = end
	malformed := c.req.parse(list.fields, d.relay.tracer != nil)
	tooBig := list.tooBig()
	if tooBig {
		if err := d.annoyedBy(b, weightOfHeaders); err != nil {
			return err
		}
	}

	d.mu.Lock()
	code := codeNo
	switch {
	case d.goAways == 2 || len(d.streams) >= d.relay.limits.DownstreamStreams:
		code = codeRefusedStream // not processed: the client may send it elsewhere
	case malformed != "" && !tooBig:
		code = codeProtocol
	}
	if code != codeNo {
		defer d.mu.Unlock()
		d.output(b, appendRSTStream(d.pending(), stream, code))
		return d.annoyed(b)
	}
	c.down.window = d.peerWindow
	d.streams[stream] = &c.down
	d.mu.Unlock()
	c.begin(b, tooBig, end)
	return nil
}

// trailers ends a request with a second header block.
func (d *downConn) trailers(b *batch, stream uint32, list *fieldList, end bool) error {
	d.mu.Lock()
	l := d.streams[stream]
	if l == nil {
		passed, ended := d.past.passedOver(d.lastStream, stream), d.past.endedByClient(stream)
		switch {
		case passed:
			d.mu.Unlock()
			return &connError{code: codeProtocol, why: fmt.Sprintf("stream %d opened after stream %d", stream, d.lastStream)}
		case ended:
			d.mu.Unlock()
			return &connError{code: codeStreamClosed, why: fmt.Sprintf("HEADERS on stream %d after its end", stream)}
		}
	}
	if l == nil || l.finReceived {
		if l == nil {
			d.output(b, appendRSTStream(d.pending(), stream, codeStreamClosed))
		}
		d.mu.Unlock()
		if l != nil {
			l.call.abort(b, l, codeStreamClosed, "HEADERS after END_STREAM")
		}
		return d.annoyed(b)
	}
	d.receivedFin(b, l, end)
	d.mu.Unlock()
	if !end {
		l.call.abort(b, l, codeProtocol, "trailers that do not end the request")
		return nil
	}
	for i := range list.fields {
		if f := &list.fields[i]; f.Name == "" || f.Name[0] == ':' || malformedField(f) != "" {
			l.call.abort(b, l, codeProtocol, "malformed trailers")
			return nil
		}
	}
	if list.tooBig() {
		l.call.abort(b, l, codeEnhanceYourCalm, "trailers that are too long")
		return nil
	}
	l.call.requestTrailers(b, list.fields)
	return nil
}

// goAway implements side: a client that leaves; its calls go on.
func (d *downConn) goAway(b *batch, _ uint32, _ errCode, _ string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.draining = true
	if len(d.streams) == 0 {
		d.closeWhenWritten(b)
	}
}

// drain asks the client to leave, in two steps (RFC 9113, 6.8): the first
// GOAWAY names no limit, so that calls on their way are still served; the last
// comes after a round trip.
func (d *downConn) drain(b *batch) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.goAways > 0 || d.closed {
		return
	}
	d.goAways = 1
	if !d.greeted {
		d.goAways = 2
		d.draining = true
		d.closeWhenWritten(b)
		return
	}
	out := appendGoAway(d.pending(), maxStreamID, codeNo, "the agent is shutting down")
	d.output(b, appendPing(out, false, drainPing[:]))
	d.relay.wheel.arm(&d.drained, b.now+drainPingTimeout)
}

// drainPing marks the PING between the two GOAWAYs.
var drainPing = [pingLen]byte{'d', 'r', 'a', 'i', 'n', 'i', 'n', 'g'}

// pong implements side.
func (d *downConn) pong(b *batch, data uint64) {
	if data == binary.BigEndian.Uint64(drainPing[:]) {
		d.lastGoAway(b)
	}
}

func (d *downConn) lastGoAway(b *batch) {
	d.relay.wheel.cancel(&d.drained)
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.goAways != 1 || d.closed {
		return
	}
	d.goAways = 2
	d.draining = true
	d.output(b, appendGoAway(d.pending(), d.lastOpened.Load(), codeNo, "the agent is shutting down"))
	if len(d.streams) == 0 {
		d.closeWhenWritten(b)
	}
}

// lost implements side.
func (d *downConn) lost(b *batch, err error) {
	d.cancelTimers()
	for _, l := range d.orphans(b) {
		l.call.callerGone(b)
	}
	d.relay.forgetDown(d)
	d.leave()
}

func (d *downConn) cancelTimers() {
	for _, t := range []*timer{&d.preface, &d.drained, &d.slow.headers, &d.slow.stall} {
		d.relay.wheel.cancel(t)
	}
}

// refuseAll ends what is left on the connection: the drain is over.
func (d *downConn) refuseAll(b *batch) {
	d.mu.Lock()
	calls := make([]*call, 0, len(d.streams))
	for _, l := range d.streams {
		calls = append(calls, l.call)
	}
	d.mu.Unlock()
	for _, c := range calls {
		c.drain(b)
	}
	d.mu.Lock()
	d.closeWhenWritten(b)
	d.mu.Unlock()
}

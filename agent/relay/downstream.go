package relay

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"sync/atomic"
)

// downConn is an app's connection to the agent: the server's side of HTTP/2.
type downConn struct {
	conn
	preface timer // until the client has said that it speaks HTTP/2
	goAways int   // how many GOAWAYs went out; 2: the last. Guarded by mu
	drained timer // until the last one
	// lastOpened is lastStream for other goroutines.
	lastOpened atomic.Uint32
}

func newDownConn(r *Relay, sock *socket, peer string) *downConn {
	d := &downConn{}
	d.init(r, sock, d, peer)
	d.preface = timer{shard: d.serial, owner: prefaceTimeout{d}}
	d.drained = timer{shard: d.serial, owner: drainStep{d}}
	return d
}

// prefaceTimeout ends a connection that does not speak.
type prefaceTimeout struct{ d *downConn }

func (t prefaceTimeout) expire(*batch) {
	t.d.relay.stats.prefaceTimeouts.Add(1)
	t.d.shut()
}

// drainStep sends the last GOAWAY when the client does not answer the PING.
type drainStep struct{ d *downConn }

func (t drainStep) expire(b *batch) { t.d.lastGoAway(b) }

// begin implements side: the client's preface, or something else altogether.
func (d *downConn) begin(b *batch, in []byte) (int, error) {
	n := min(len(in), len(clientPreface))
	if string(in[:n]) != clientPreface[:n] {
		return 0, d.stranger(b, in)
	}
	if n < len(clientPreface) {
		return 0, nil
	}
	d.relay.wheel.cancel(&d.preface)
	d.greet(b, setting{settingMaxConcurrentStreams, uint32(d.relay.limits.DownstreamStreams)})
	return n, nil
}

// notHTTP2 is the error of a client that speaks something else.
type notHTTP2 struct{ what string }

func (e *notHTTP2) Error() string { return "not HTTP/2: " + e.what }

// stranger answers a client that does not speak HTTP/2.
func (d *downConn) stranger(b *batch, in []byte) error {
	what := "unknown bytes"
	switch {
	case len(in) >= 3 && in[0] == 0x16 && in[1] == 3:
		what = "TLS, where this port takes plaintext"
	case looksLikeHTTP1(in):
		what = "HTTP/1.1"
		const body = "outrigger: this port speaks HTTP/2 without TLS (h2c, prior knowledge), as gRPC clients do. HTTP/1.1 is not supported by this version.\n"
		answer := fmt.Sprintf("HTTP/1.1 505 HTTP Version Not Supported\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s", len(body), body)
		d.mu.Lock()
		d.output(b, append(d.pending(), answer...))
		d.closeWhenWritten(b)
		d.mu.Unlock()
	}
	d.relay.stats.strangers.Add(1)
	d.relay.logger.Warn("connection refused: not HTTP/2", "peer", d.peer, "got", what)
	return &notHTTP2{what}
}

func looksLikeHTTP1(in []byte) bool {
	line, _, _ := bytes.Cut(in, []byte("\r\n"))
	for _, method := range []string{"GET ", "POST ", "PUT ", "HEAD ", "DELETE ", "OPTIONS ", "PATCH ", "CONNECT ", "TRACE "} {
		if n := min(len(line), len(method)); n > 0 && string(line[:n]) == method[:n] {
			return true
		}
	}
	return false
}

// settled implements side.
func (d *downConn) settled(*batch) {}

// headers implements side: a new call, or the trailers of its request.
func (d *downConn) headers(b *batch, stream uint32, list *fieldList, end bool) error {
	if stream%2 == 0 {
		return &connError{codeProtocol, fmt.Sprintf("a client opened stream %d, which has a server's number", stream)}
	}
	if stream <= d.lastStream {
		return d.trailers(b, stream, list, end)
	}
	d.lastStream = stream
	d.lastOpened.Store(stream)
	c := &call{relay: d.relay}
	c.down.call, c.down.conn, c.down.id = c, &d.conn, stream
	c.down.granted.Store(int64(d.relay.limits.StreamWindow))
	c.down.finReceived = end
	malformed := c.req.parse(list.fields, d.relay.tracer != nil)
	tooBig := list.tooBig()

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
	d.relay.wheel.cancel(&d.preface)
	d.relay.wheel.cancel(&d.drained)
	for _, l := range d.orphans(b) {
		l.call.callerGone(b)
	}
	d.relay.forgetDown(d)
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

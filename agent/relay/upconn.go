package relay

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/outrigger-rpc/outrigger/policy"
)

// errNoSettings ends a connection whose peer never spoke HTTP/2.
var errNoSettings = errors.New("no SETTINGS")

// upConn is a connection to an endpoint: the client's side of HTTP/2.
type upConn struct {
	conn
	upstream   *upstream
	preface    timer  // until the endpoint's SETTINGS
	nextStream uint32 // id of the next stream. Guarded by mu
	ready      bool   // SETTINGS came. Reader only
	silent     bool   // SETTINGS did not come in time. Guarded by mu
	lastError  string // what the endpoint's GOAWAY said. Reader only
	lifeTimer  timer
	life       life           // guarded by mu
	idleSince  policy.Instant // when its last stream ended. Guarded by mu
	tenure     tenure         // guarded by upstream.mu
}

func newUpConn(r *Relay, sock *socket, u *upstream) *upConn {
	up := &upConn{upstream: u, nextStream: 1}
	up.init(r, sock, up, u.endpoint.Address())
	up.begun, up.greeted = true, true
	up.preface = timer{shard: up.serial, owner: settingsTimeout{up}}
	up.lifeTimer = timer{shard: up.serial, owner: lifeCheck{up}}
	up.tenure.timer = timer{shard: up.serial, owner: tend{up}}
	up.life.wait = r.keepalive.Interval
	return up
}

// settingsTimeout ends a connection whose endpoint accepted it and is silent.
type settingsTimeout struct{ up *upConn }

func (t settingsTimeout) expire(*batch) {
	t.up.mu.Lock()
	t.up.silent = true
	t.up.mu.Unlock()
	t.up.shut()
}

// open gives the attempt a stream and sends what it has. It reports false where
// the connection takes no more. call.mu is held.
func (up *upConn) open(b *batch, a *attempt) bool {
	up.mu.Lock()
	defer up.mu.Unlock()
	if up.closed || up.draining || len(up.streams) >= int(up.peerStreams) || up.nextStream > maxStreamID {
		return false
	}
	c, l := a.call, &a.leg
	l.conn, l.id = &up.conn, up.nextStream
	up.nextStream += 2
	l.window = up.peerWindow
	l.grant(up.relay.limits.firstWindow())
	up.streams[l.id] = l
	if len(up.streams) == 1 {
		up.awake(b)
	}

	up.encoded.b = up.encoded.b[:0]
	again := c.policy.Previous()
	if again == 0 {
		up.encodeAll(c.req.fields)
	} else {
		for i := range c.req.fields {
			if c.req.fields[i].Name != previousAttempts { // the sum stands below
				up.encode(&c.req.fields[i])
			}
		}
	}
	if left, ok := c.policy.Remaining(b.now); ok {
		var text [16]byte
		up.encodeOnce("grpc-timeout", appendGRPCTimeout(text[:0], left))
	}
	if again > 0 {
		var text [16]byte
		up.encodeOnce(previousAttempts, strconv.AppendInt(text[:0], int64(c.req.previous+again), 10))
	}
	if c.trace != nil && a.parent != "" {
		up.encodeOnce("traceparent", []byte(a.parent))
	}
	end := l.fin && l.waiting() == 0 && l.trailers == nil
	up.endHeaders(b, l.id, end)
	if c.req.explain {
		c.sentAt = up.relay.now()
	}
	if end {
		up.sentFin(b, l)
	} else {
		b.owe(l.source, up.pump(b, l))
	}
	return true
}

// previousAttempts tells an endpoint how often the call was sent before (gRFC
// A6).
const previousAttempts = "grpc-previous-rpc-attempts"

// begin implements side. The client's preface went out, none comes in.
func (up *upConn) begin(*batch, []byte) (int, error) { return 0, nil }

// settled implements side.
func (up *upConn) settled(b *batch) {
	if !up.ready {
		up.ready = true
		up.upstream.connected(b, up)
		return
	}
	up.upstream.admit(b) // MAX_CONCURRENT_STREAMS may have grown
}

// headers implements side: an answer's headers or trailers.
func (up *upConn) headers(b *batch, stream uint32, list *fieldList, end bool) error {
	up.mu.Lock()
	l := up.streams[stream]
	if l == nil {
		opened := stream%2 == 1 && stream < up.nextStream
		up.mu.Unlock()
		if !opened {
			return &connError{code: codeProtocol, why: fmt.Sprintf("HEADERS on stream %d, which was never opened", stream)}
		}
		return nil // the call ended a moment ago
	}
	if l.finReceived {
		up.mu.Unlock()
		l.call.abort(b, l, codeStreamClosed, "HEADERS after END_STREAM")
		return nil
	}
	up.carried = true
	up.receivedFin(b, l, end)
	up.mu.Unlock()
	l.call.response(b, l, list, end)
	return nil
}

// goAway implements side: calls above last were not processed and go
// elsewhere, the others finish.
func (up *upConn) goAway(b *batch, last uint32, code errCode, debug string) {
	up.lastError = code.String()
	if debug != "" {
		up.lastError += " (" + debug + ")"
	}
	up.upstream.drop(b, up, false)
	up.mu.Lock()
	up.draining = true
	var untouched []*leg
	for id, l := range up.streams {
		if id > last {
			untouched = append(untouched, l)
		}
	}
	for _, l := range untouched {
		up.remove(b, l)
	}
	if len(up.streams) == 0 {
		up.closeWhenWritten(b)
	}
	up.mu.Unlock()
	for _, l := range untouched {
		l.call.connectionLost(b, l, true, "the endpoint goes away: "+up.lastError)
	}
}

// leave stops new calls; the connection closes after those under way.
func (up *upConn) leave(b *batch) {
	up.mu.Lock()
	defer up.mu.Unlock()
	up.draining = true
	if len(up.streams) == 0 {
		up.closeWhenWritten(b)
	}
}

// pong implements side: any frame is a sign of life.
func (up *upConn) pong(*batch, uint64) {}

// lost implements side.
func (up *upConn) lost(b *batch, err error) {
	u := up.upstream
	u.relay.wheel.cancel(&up.preface)
	u.relay.wheel.cancel(&up.lifeTimer)
	u.relay.wheel.cancel(&up.tenure.timer)
	if !up.ready {
		up.mu.Lock()
		if up.silent {
			err = errNoSettings
		}
		up.mu.Unlock()
		u.drop(b, up, true)
		u.connectFailed(b, err)
		return
	}
	why := "closed by the endpoint"
	if !isEOF(err) && err != nil {
		why = u.relay.plainConnectError(err)
	}
	if up.lastError != "" {
		why += " after GOAWAY " + up.lastError
	}
	up.mu.Lock()
	if up.life.dead != "" {
		why = up.life.dead
	}
	graceful := up.draining
	up.mu.Unlock()
	u.drop(b, up, true)
	if !graceful {
		u.vanished(b, why)
	}
	for _, l := range up.orphans(b) {
		l.call.connectionLost(b, l, false, why)
	}
}

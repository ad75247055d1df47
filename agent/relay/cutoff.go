package relay

import (
	"fmt"
	"net"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// cutOff is what a client was cut off or turned away for: a bound that no
// well-behaved client comes near.
type cutOff uint8

const (
	cutNothing cutOff = iota
	cutControlFrames
	cutResets
	cutHeaders
	cutSlowHeaders
	cutSlowPreface
	cutUnread
	cutStalled
	cutConnections
	cutPeerConnections
	numCutOffs
)

var cutOffNames = [numCutOffs]string{
	cutControlFrames: "control_frames", cutResets: "resets", cutHeaders: "header_block", cutSlowHeaders: "slow_headers",
	cutSlowPreface: "slow_preface", cutUnread: "unread_output", cutStalled: "stalled", cutConnections: "connections",
	cutPeerConnections: "connections_per_peer",
}

// String returns the label that stands in metrics and logs.
func (c cutOff) String() string { return cutOffNames[c] }

// calm ends a connection with ENHANCE_YOUR_CALM.
func calm(what cutOff, why string) *connError {
	return &connError{code: codeEnhanceYourCalm, why: why, cut: what}
}

func (r *Relay) countProtocolError(e *connError) {
	if e.cut != cutNothing {
		r.stats.cutOffs[e.cut].Add(1)
	}
	if int(e.code) < len(r.stats.protocolErrors) {
		r.stats.protocolErrors[e.code].Add(1)
	}
}

// slowness is what a client connection knows about how slow its peer is.
type slowness struct {
	headers timer
	pending uint64 // what headers is armed for; 0: it is not. Reader only

	// Guarded by mu.
	stall   timer
	watched bool           // stall is armed
	moved   int64          // bytes of DATA that went to the peer so far
	seen    int64          // moved at the last look
	since   policy.Instant // when next to nothing moved any more
}

// watchHeaders bounds how long the client takes over a header block, or over a
// frame that is not DATA. Reader goroutine only.
func (d *downConn) watchHeaders(b *batch) {
	partial := d.begun && d.have > 0 && (d.have < frameHeaderLen || d.in[3] != frameData)
	var pending uint64
	switch {
	case d.blockStream != 0:
		pending = d.blocks<<1 | 1
	case partial:
		pending = d.frames << 1
	}
	if pending == d.slow.pending {
		return
	}
	d.slow.pending = pending
	if pending != 0 {
		d.relay.wheel.arm(&d.slow.headers, b.now+d.relay.limits.HeaderTimeout)
	} else {
		d.relay.wheel.cancel(&d.slow.headers)
	}
}

// slowHeaders ends a connection that drips a header block.
type slowHeaders struct{ d *downConn }

func (t slowHeaders) expire(*batch) {
	t.d.condemn(calm(cutSlowHeaders, fmt.Sprintf("a frame or header block was not complete after %v", t.d.relay.limits.HeaderTimeout)))
}

// prefaceTimeout ends a connection that does not say what it speaks.
type prefaceTimeout struct{ d *downConn }

func (t prefaceTimeout) expire(*batch) {
	d := t.d
	if d.tunnel != "" {
		// It waits for the other side to speak first: no protocol of ours.
		_ = d.sock.nc.SetReadDeadline(time.Unix(1, 0))
		return
	}
	d.condemn(calm(cutSlowPreface, fmt.Sprintf("no HTTP/2 preface and SETTINGS within %v", d.relay.limits.PrefaceTimeout)))
}

// crawl is how many bytes a peer that has much waiting must take a period so
// as not to count as stalled.
const crawl = 4 << 10

// stalls begins to watch a client for which bytes wait. c.mu is held.
func (c *conn) stalls(b *batch) {
	d, ok := c.side.(*downConn)
	if !ok || d.slow.watched {
		return
	}
	d.slow.watched, d.slow.seen, d.slow.since = true, d.slow.moved, b.now
	d.relay.wheel.arm(&d.slow.stall, b.now+d.relay.limits.StallTimeout/4)
}

// stallCheck ends a connection whose peer takes nothing of much.
type stallCheck struct{ d *downConn }

func (t stallCheck) expire(b *batch) {
	d, l := t.d, &t.d.relay.limits
	d.mu.Lock()
	defer d.mu.Unlock()
	s := &d.slow
	s.watched = false
	if d.closed {
		return
	}
	waiting := d.inWrite
	if d.out != nil {
		waiting += len(d.out.b)
	}
	streams := 0
	for _, leg := range d.streams {
		if n := leg.waiting(); n > 0 {
			waiting += n
			streams++
		}
	}
	if waiting == 0 {
		return
	}
	if s.moved-s.seen >= crawl || waiting < l.StalledBytes {
		s.since = b.now
	}
	s.seen = s.moved
	if b.now-s.since >= l.StallTimeout {
		d.condemn(calm(cutStalled, fmt.Sprintf("%d bytes of %d streams wait and next to nothing was taken for %v", waiting, streams, l.StallTimeout)))
		return
	}
	s.watched = true
	d.relay.wheel.arm(&s.stall, b.now+l.StallTimeout/4)
}

// peerHost is what the connections of one peer have in common.
func peerHost(nc net.Conn) string {
	if a, ok := nc.RemoteAddr().(*net.TCPAddr); ok {
		return a.IP.String()
	}
	return "unix"
}

// turnAwayLog is how often connections that are turned away get a line.
const turnAwayLog = 10 * time.Second

// admitConnection finds a place for a client, or turns it away. leave gives the
// place up.
func (r *Relay) admitConnection(nc net.Conn) (leave func(), ok bool) {
	host := peerHost(nc)
	r.mu.Lock()
	defer r.mu.Unlock()
	cut := cutNothing
	switch {
	case r.clients >= r.limits.Connections:
		cut = cutConnections
	case r.peers[host] >= r.limits.ConnectionsPerPeer:
		cut = cutPeerConnections
	}
	if cut != cutNothing {
		r.stats.cutOffs[cut].Add(1)
		r.turnedAway++
		if now := r.now(); r.turnedAwayAt == 0 || now-r.turnedAwayAt >= turnAwayLog {
			r.turnedAwayAt = now
			r.logger.Warn("connections turned away: too many are open", "limit", cut.String(), "peer", host,
				"connections", r.clients, "of_peer", r.peers[host], "turned_away", r.turnedAway)
			r.turnedAway = 0
		}
		return nil, false
	}
	r.clients++
	r.peers[host]++
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.clients--
		if r.peers[host]--; r.peers[host] == 0 {
			delete(r.peers, host)
		}
	}, true
}

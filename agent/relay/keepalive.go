package relay

import (
	"fmt"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Keepalive finds endpoints that died without a word. PINGs are sent on
// suspicion only, because gRPC servers cut off who pings an honest silence too
// often (gRFC A8 and A9: by default at the third PING within five minutes
// between which they sent nothing).
type Keepalive struct {
	// Interval is how long an endpoint with calls in flight may be silent
	// before it is asked. Default 10 s.
	Interval time.Duration
	// Timeout is how long it may take to answer. Default 5 s.
	Timeout time.Duration
}

func (k Keepalive) withDefaults() Keepalive {
	if k.Interval == 0 {
		k.Interval = 10 * time.Second
	}
	if k.Timeout == 0 {
		k.Timeout = 5 * time.Second
	}
	return k
}

const (
	// pingPatience is by how much the next PING of one silence waits longer.
	pingPatience = 3
	// maxEarlyPings are sent within one silence before pingMinimum holds.
	maxEarlyPings = 2
	// pingMinimum is what gRPC servers take for ever: their default of five
	// minutes, and some.
	pingMinimum = 5*time.Minute + 10*time.Second
)

// life is what an upstream connection knows about whether its peer lives.
// Guarded by the connection's mutex.
type life struct {
	watched bool           // the timer is armed
	quiet   policy.Instant // since when there are calls and nothing was heard
	pinged  policy.Instant // when a PING went out that nothing followed; 0: none
	wait    time.Duration  // how long a silence may last before the next PING
	pings   int            // since the endpoint last sent DATA or HEADERS
	dead    string         // why the connection was given up; empty: it was not
}

// lifeCheck asks how the endpoint is.
type lifeCheck struct{ up *upConn }

func (t lifeCheck) expire(b *batch) {
	up := t.up
	up.mu.Lock()
	defer up.mu.Unlock()
	l := &up.life
	l.watched = false
	up.listen()
	if up.closed || len(up.streams) == 0 && l.pinged == 0 {
		return // the next call watches again
	}
	switch {
	case l.pinged != 0 && b.now >= l.pinged+up.relay.keepalive.Timeout:
		l.dead = fmt.Sprintf("no sign of life for %v, nor an answer to a PING", (b.now - l.quiet).Round(time.Millisecond))
		up.relay.stats.silentDeaths.Add(1)
		up.sock.close()
		return
	case l.pinged == 0 && b.now >= l.quiet+l.wait:
		up.ping(b)
	}
	up.watchLife()
}

// listen takes note of what was heard. up.mu is held.
func (up *upConn) listen() {
	l := &up.life
	if heard := up.heardAt(); heard > l.quiet {
		l.quiet, l.pinged = heard, 0
	}
	if up.carried {
		// What a server sends of a call clears its memory of PINGs.
		up.carried = false
		l.pings, l.wait = 0, up.relay.keepalive.Interval
	}
}

// watchLife arms the timer for what is due next. up.mu is held.
func (up *upConn) watchLife() {
	due := up.life.quiet + up.life.wait
	if up.life.pinged != 0 {
		due = up.life.pinged + up.relay.keepalive.Timeout
	}
	up.life.watched = true
	up.relay.wheel.arm(&up.lifeTimer, due)
}

// ping asks for a sign of life. up.mu is held.
func (up *upConn) ping(b *batch) {
	l := &up.life
	l.pinged = b.now
	if l.pings++; l.pings < maxEarlyPings {
		l.wait *= pingPatience
	} else {
		l.wait = pingMinimum
	}
	up.output(b, appendPing(up.pending(), false, make([]byte, pingLen)))
}

// awake follows a stream that was opened where none was: the time before it
// was no silence. After a long one the endpoint is asked at once, since nothing
// would have told of its death. up.mu is held.
func (up *upConn) awake(b *batch) {
	l := &up.life
	up.listen()
	idle := b.now - l.quiet
	l.quiet = b.now
	if l.pinged == 0 && idle >= up.relay.keepalive.Interval && l.pings < maxEarlyPings {
		up.ping(b)
		up.watchLife()
	} else if !l.watched {
		up.watchLife()
	}
}

// suspect asks at once: a call timed out, and nothing was heard since it
// began.
func (up *upConn) suspect(b *batch, since policy.Instant) {
	up.mu.Lock()
	defer up.mu.Unlock()
	l := &up.life
	up.listen()
	if up.closed || l.pinged != 0 || l.pings >= maxEarlyPings || up.heardAt() >= since {
		return
	}
	up.ping(b)
	up.watchLife()
}

func (up *upConn) heardAt() policy.Instant { return policy.Instant(up.heard.Load()) }

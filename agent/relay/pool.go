package relay

import (
	"math/rand/v2"
	"slices"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Connections says how connections to an endpoint are kept. The zero value:
// the first call opens one, calls that find no stream another, and they stay
// open.
type Connections struct {
	// Warm are kept open without calls. Zero: none.
	Warm int
	// Max bounds those that take new streams. Zero, and above it:
	// Limits.UpstreamConnections.
	Max int
	// MaxAge is how long a connection takes new streams, ± 10 %. Then another
	// takes its place, and it ends with its last stream; while no other can be
	// had it stays. Zero: for ever.
	MaxAge time.Duration
	// IdleTimeout ends what had no stream for so long, but for Warm of them.
	// Zero: never.
	IdleTimeout time.Duration
}

const (
	// ageJitter is by how much of its age a connection ends sooner or later, so
	// that those opened together don't end together (gRFC A9's MAX_CONNECTION_AGE
	// has the same 10 %).
	ageJitter = 0.1
	// warmSpread is between two connects where many endpoints are to be
	// connected at once.
	warmSpread = time.Millisecond
	// warmPause is from the end of a warm connection to the next connect: an
	// endpoint that ends each of them at once is not to be asked without pause.
	// Calls don't wait for it.
	warmPause = time.Second
	// wornPause is between two attempts to replace a connection.
	wornPause = 5 * time.Second
)

// Keep says how the connections to the endpoints are kept from now on, and
// opens those that are to be warm. Endpoints that were connected keep their
// connections.
func (r *Relay) Keep(endpoints []*balancer.Endpoint, t Transport, c Connections) {
	if t == nil {
		t = Direct{}
	}
	now := r.now()
	for i, e := range endpoints {
		if c != (Connections{}) {
			r.upstreamOf(e, t).retain(now, now+time.Duration(i)*warmSpread, c)
		} else if u, ok := r.upstreams.Load(e); ok {
			u.(*upstream).retain(now, now, c)
		}
	}
}

// Release lets go of endpoints that stay in their service, but that calls are
// not meant for any more: connections end, each after the calls under way on
// it, nothing is connected in the background, and what is known of connections
// is forgotten. A call that comes all the same connects the endpoint anew.
func (r *Relay) Release(endpoints []*balancer.Endpoint) {
	b := newBatch()
	b.now = r.now()
	for _, e := range endpoints {
		if u, ok := r.upstreams.Load(e); ok {
			u.(*upstream).release(b)
		}
	}
	b.flush()
}

func (u *upstream) release(b *batch) {
	u.mu.Lock()
	if u.forgotten || len(u.waiting) > 0 {
		u.mu.Unlock()
		return
	}
	u.released, u.keep.Warm = true, 0
	u.retryAt, u.failures = 0, 0
	u.haste.down, u.haste.spent = false, false
	conns := slices.Clone(u.conns)
	for _, up := range conns {
		u.part(up)
	}
	u.relay.wheel.cancel(&u.retry)
	u.endpoint.SetConnected(true, "", b.now)
	u.mu.Unlock()
	for _, up := range conns {
		up.leave(b)
	}
}

// retain takes settings over; what is to be warm is connected from an instant
// on.
func (u *upstream) retain(now, from policy.Instant, c Connections) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.released = false
	if u.forgotten || u.keep == c {
		return
	}
	u.keep = c
	for _, up := range u.conns {
		u.tendLater(up, now)
	}
	u.warm(from)
}

// limit is how many connections may take new streams. u.mu is held.
func (u *upstream) limit() int {
	if u.keep.Max == 0 {
		return u.relay.limits.UpstreamConnections
	}
	return min(u.keep.Max, u.relay.limits.UpstreamConnections)
}

// wanted reports whether a connection is to be opened without a call that asks.
// u.mu is held.
func (u *upstream) wanted() bool {
	return !u.forgotten && !u.released && u.dialing == 0 && (len(u.conns) == 0 || len(u.conns) < u.keep.Warm)
}

// warm opens what is missing of the warm connections, from an instant on. u.mu
// is held.
func (u *upstream) warm(from policy.Instant) {
	if u.keep.Warm > 0 && u.wanted() {
		u.relay.wheel.arm(&u.retry, max(from, u.retryAt))
	}
}

// tenure is a connection's time in use. Guarded by upstream.mu.
type tenure struct {
	timer  timer
	since  policy.Instant // when the endpoint's SETTINGS came
	jitter float64        // what the age is multiplied by
	worn   bool           // past its age: the next one takes its place
}

// tend looks after a connection's age and idleness.
type tend struct{ up *upConn }

func (t tend) expire(b *batch) {
	if u := t.up.upstream; u.tend(b, t.up) {
		t.up.leave(b)
	}
}

// begin takes note of a connection that takes streams from now on. u.mu is
// held.
func (u *upstream) begin(up *upConn, now policy.Instant) {
	up.mu.Lock()
	up.idleSince = now
	up.mu.Unlock()
	up.tenure.since, up.tenure.jitter = now, 1+ageJitter*(2*rand.Float64()-1)
	u.tendLater(up, now)
}

// ends is when the connection is worn; false: never. u.mu is held.
func (u *upstream) ends(up *upConn) (policy.Instant, bool) {
	return up.tenure.since + time.Duration(float64(u.keep.MaxAge)*up.tenure.jitter), u.keep.MaxAge > 0
}

// tend judges a connection whose time may have come. It reports whether it is
// to leave.
func (u *upstream) tend(b *batch, up *upConn) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.forgotten || !slices.Contains(u.conns, up) {
		return false
	}
	if idle := u.keep.IdleTimeout; idle > 0 && len(u.conns) > u.keep.Warm && b.now >= up.idleFrom(b.now)+idle {
		u.part(up)
		return true
	}
	if ends, ever := u.ends(up); ever && b.now >= ends {
		up.tenure.worn = true
		if u.dialing == 0 && b.now >= u.retryAt {
			u.dial() // connected sees to the rest
		}
	}
	u.tendLater(up, b.now)
	return false
}

// tendLater arms the timer for what is due next, if anything is. u.mu is held.
func (u *upstream) tendLater(up *upConn, now policy.Instant) {
	due := policy.Instant(0)
	next := func(at policy.Instant) {
		if due == 0 || at < due {
			due = at
		}
	}
	ends, ever := u.ends(up)
	switch {
	case up.tenure.worn:
		next(now + wornPause)
	case ever:
		next(max(ends, now))
	}
	if idle := u.keep.IdleTimeout; idle > 0 {
		at := up.idleFrom(now) + idle
		if at <= now { // kept because it is warm
			at = now + idle
		}
		next(at)
	}
	if due == 0 {
		u.relay.wheel.cancel(&up.tenure.timer)
		return
	}
	u.relay.wheel.arm(&up.tenure.timer, due)
}

// succeed lets a new connection take a worn one's place. It returns the one that
// is to leave; nil: none is worn. u.mu is held.
func (u *upstream) succeed() *upConn {
	i := slices.IndexFunc(u.conns, func(up *upConn) bool { return up.tenure.worn })
	if i < 0 {
		return nil
	}
	up := u.conns[i]
	u.part(up)
	if u.dialing == 0 && slices.ContainsFunc(u.conns, func(up *upConn) bool { return up.tenure.worn }) {
		u.dial()
	}
	return up
}

// part takes a connection out of use in good order: it finishes its streams.
// u.mu is held.
func (u *upstream) part(up *upConn) {
	u.conns = slices.DeleteFunc(u.conns, func(x *upConn) bool { return x == up })
	u.leaving = append(u.leaving, up)
	u.current.CompareAndSwap(up, nil)
}

// idleFrom is since when the connection has had no stream; now, where it has
// some.
func (up *upConn) idleFrom(now policy.Instant) policy.Instant {
	up.mu.Lock()
	defer up.mu.Unlock()
	if len(up.streams) > 0 {
		return now
	}
	return up.idleSince
}

package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Backoff between attempts to connect (gRPC connection backoff, with a shorter
// ceiling: the endpoint is a neighbour, and is wanted back within seconds).
const (
	backoffBase   = 100 * time.Millisecond
	backoffFactor = 1.6
	backoffMax    = 5 * time.Second
	backoffJitter = 0.2
)

// upstream is one endpoint's connections and the calls that wait for one.
type upstream struct {
	relay     *Relay
	endpoint  *balancer.Endpoint
	transport Transport
	current   atomic.Pointer[upConn] // had room a moment ago: tried first
	queued    atomic.Int32           // len(waiting)
	retry     timer

	mu         sync.Mutex
	conns      []*upConn // take new streams
	leaving    []*upConn // finish theirs
	dialing    int
	waiting    []*attempt
	failures   int    // connects that failed in a row
	lastError  string // of the last one
	lastReason policy.Reason
	retryAt    policy.Instant // no connect before it
	forgotten  bool
	released   bool // nobody means to call it: it is not connected in the background
	keep       Connections
	haste      haste
}

func newUpstream(r *Relay, e *balancer.Endpoint, t Transport) *upstream {
	u := &upstream{relay: r, endpoint: e, transport: t}
	u.retry = timer{shard: rand.Uint32(), owner: reconnect{u}}
	return u
}

// reconnect tries again after a backoff, whether or not a call waits: that is
// how an endpoint comes back, and how connections stay warm.
type reconnect struct{ u *upstream }

func (t reconnect) expire(*batch) {
	t.u.mu.Lock()
	defer t.u.mu.Unlock()
	if t.u.wanted() {
		t.u.dial()
	}
}

// take gives the attempt a stream, now or as soon as there is one. Otherwise it
// says why not; the attempt did not reach the endpoint. call.mu is held.
func (u *upstream) take(b *batch, a *attempt) *policy.Refusal {
	if up := u.current.Load(); up != nil && up.open(b, a) {
		return nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.openAny(b, a) {
		return nil
	}
	c := a.call
	address := u.endpoint.Address()
	switch {
	case u.forgotten:
		return c.policy.Refuse(policy.NoEndpoints, address, "endpoint "+address+" left the service")
	case u.dialing == 0 && len(u.conns) == 0 && b.now < u.retryAt:
		r := c.policy.Refuse(u.lastReason, address, u.connectMessage())
		r.RetryAfter = u.retryAt - b.now
		return r
	case len(u.waiting) >= u.relay.limits.WaitingCalls:
		return c.policy.Refuse(policy.ConcurrencyLimit, address, fmt.Sprintf(
			"endpoint %s: all streams of %d connections are in use and %d calls wait", address, len(u.conns), len(u.waiting)))
	}
	u.released = false
	u.waiting = append(u.waiting, a)
	u.queued.Store(int32(len(u.waiting)))
	a.queuedAt = u
	if u.dialing == 0 && len(u.conns) < u.limit() {
		u.dial()
	}
	return nil
}

// connectMessage says why there is no connection. u.mu is held.
func (u *upstream) connectMessage() string {
	return fmt.Sprintf("endpoint %s can't be reached: %s", u.endpoint.Address(), u.lastError)
}

// openAny tries the connections in turn. u.mu and call.mu are held.
func (u *upstream) openAny(b *batch, a *attempt) bool {
	for _, up := range u.conns {
		if up.open(b, a) {
			u.current.Store(up)
			return true
		}
	}
	return false
}

// leave takes an attempt that is over out of the queue.
func (u *upstream) leave(a *attempt) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if i := slices.Index(u.waiting, a); i >= 0 {
		u.waiting = slices.Delete(u.waiting, i, i+1)
		u.queued.Store(int32(len(u.waiting)))
	}
}

// admit gives streams to calls that wait, as long as there are any.
func (u *upstream) admit(b *batch) {
	for u.queued.Load() > 0 {
		u.mu.Lock()
		if len(u.waiting) == 0 {
			u.mu.Unlock()
			return
		}
		a := u.waiting[0]
		u.mu.Unlock()
		c := a.call
		c.mu.Lock()
		if c.over || a.queuedAt != u {
			c.mu.Unlock()
			u.leave(a)
			continue
		}
		u.mu.Lock()
		opened := u.openAny(b, a)
		if !opened && u.dialing == 0 && !u.forgotten && len(u.conns) < u.limit() && b.now >= u.retryAt {
			u.dial()
		}
		u.mu.Unlock()
		if opened {
			a.queuedAt = nil
			u.leave(a)
		}
		c.mu.Unlock()
		if !opened {
			return
		}
	}
}

// dial starts to connect. u.mu is held.
func (u *upstream) dial() {
	if !u.relay.addWork() {
		return
	}
	u.dialing++
	go func() {
		defer u.relay.work.Done()
		b := newBatch()
		up, err := u.connect(b)
		b.now = u.relay.now()
		if err != nil {
			u.connectFailed(b, err)
			b.flush()
			return
		}
		b.flush()
		up.serve()
	}()
}

// connect opens a socket and greets. The connection counts only once the
// endpoint's SETTINGS are there: what accepts and never speaks is no endpoint.
func (u *upstream) connect(b *batch) (*upConn, error) {
	ctx, cancel := context.WithTimeout(u.relay.ctx, u.relay.connectTimeout)
	defer cancel()
	sock, err := u.relay.open(ctx, u.transport, u.endpoint.Address())
	if err != nil {
		return nil, err
	}
	up := newUpConn(u.relay, sock, u)
	u.mu.Lock()
	u.leaving = append(u.leaving, up) // not usable yet, but to be closed with the rest
	u.mu.Unlock()
	b.now = u.relay.now()
	up.mu.Lock()
	up.output(b, append(up.pending(), clientPreface...))
	up.mu.Unlock()
	up.greet(b, setting{settingEnablePush, 0})
	u.relay.wheel.arm(&up.preface, b.now+u.relay.connectTimeout)
	return up, nil
}

// connected takes a connection into use: the endpoint's SETTINGS came.
func (u *upstream) connected(b *batch, up *upConn) {
	u.relay.wheel.cancel(&up.preface)
	u.mu.Lock()
	u.dialing--
	late := u.haste.settle(u)
	u.haste.down, u.haste.spent = false, false
	u.failures, u.retryAt = 0, 0
	u.leaving = slices.DeleteFunc(u.leaving, func(x *upConn) bool { return x == up })
	if u.forgotten || u.released || late {
		u.leaving = append(u.leaving, up)
		u.mu.Unlock()
		up.leave(b)
		return
	}
	u.conns = append(u.conns, up)
	u.current.Store(up)
	u.begin(up, b.now)
	worn := u.succeed()
	if u.keep.Warm > 0 && u.wanted() {
		u.dial() // one after the other
	}
	u.mu.Unlock()
	if worn != nil {
		worn.leave(b)
	}
	u.endpoint.SetConnected(true, "", b.now)
	u.admit(b)
}

// connectFailed notes a connect that failed and sends the calls that wait
// elsewhere.
func (u *upstream) connectFailed(b *batch, err error) {
	u.mu.Lock()
	u.dialing--
	if u.haste.settle(u) {
		u.mu.Unlock()
		u.relay.stats.connectFailures.Add(1)
		return // the endpoint is back already
	}
	u.failures++
	wait := backoff(u.failures)
	u.retryAt = b.now + wait
	u.lastError, u.lastReason = u.relay.plainConnectError(err), connectReason(err)
	reason, message := u.lastReason, u.connectMessage()
	var calls []*attempt
	if len(u.conns) == 0 {
		calls, u.waiting = u.waiting, nil
		u.queued.Store(0)
	}
	wanted := u.wanted()
	if len(u.conns) == 0 && !u.forgotten && !u.released {
		u.haste.down = true
		u.endpoint.SetConnected(false, u.lastError, b.now)
	}
	u.mu.Unlock()
	u.relay.stats.connectFailures.Add(1)
	if wanted {
		u.relay.wheel.arm(&u.retry, b.now+wait)
	}
	for _, a := range calls {
		a.connectFailed(b, u, func(c *call) *policy.Refusal {
			r := c.policy.Refuse(reason, u.endpoint.Address(), message)
			r.RetryAfter = wait
			return r
		})
	}
}

// backoff returns how long to wait after so many failures in a row.
func backoff(failures int) time.Duration {
	d := float64(backoffBase)
	for range failures - 1 {
		if d *= backoffFactor; d > float64(backoffMax) {
			d = float64(backoffMax)
			break
		}
	}
	return time.Duration(d * (1 + backoffJitter*(2*rand.Float64()-1)))
}

// connectReason tells a handshake that failed from a connect that did.
func connectReason(err error) policy.Reason {
	var secure *tlsError
	if errors.As(err, &secure) {
		return policy.TLS
	}
	return policy.ConnectFailed
}

// plainConnectError says in a few words why a connect failed.
func (r *Relay) plainConnectError(err error) string {
	var secure *tlsError
	switch {
	case errors.As(err, &secure):
		return r.explainTLS(secure.err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, errNoSettings):
		return fmt.Sprintf("no HTTP/2 connection within the connect timeout of %v", r.connectTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case isEOF(err):
		return "the endpoint closed the connection before it spoke HTTP/2"
	}
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err.Error()
	}
	return err.Error()
}

// drop takes a connection out of use; calls on it may go on.
func (u *upstream) drop(b *batch, up *upConn, over bool) {
	same := func(x *upConn) bool { return x == up }
	u.mu.Lock()
	u.conns = slices.DeleteFunc(u.conns, same)
	u.leaving = slices.DeleteFunc(u.leaving, same)
	if !over {
		u.leaving = append(u.leaving, up)
	}
	u.current.CompareAndSwap(up, nil)
	if len(u.waiting) > 0 && len(u.conns) == 0 && u.dialing == 0 && !u.forgotten {
		u.dial()
	}
	u.warm(b.now + warmPause)
	u.mu.Unlock()
}

// vanished says that a connection in use ended without a word: nothing tells
// whether the endpoint is still there, so it is asked at once, and gets no new
// call before it answers.
func (u *upstream) vanished(b *batch, why string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.conns) > 0 || u.dialing > 0 || u.forgotten || u.released || b.now < u.retryAt {
		return
	}
	u.haste.down = true
	u.endpoint.SetConnected(false, "connection lost: "+why, b.now)
	u.dial()
}

// retire makes an upstream that was never used take no call.
func (u *upstream) retire() {
	u.mu.Lock()
	u.forgotten = true
	u.mu.Unlock()
}

// forget ends the upstream: calls in flight finish, no new one comes.
func (u *upstream) forget(b *batch) {
	u.mu.Lock()
	u.forgotten = true
	conns := u.conns
	u.conns = nil
	u.leaving = append(u.leaving, conns...)
	u.current.Store(nil)
	calls := u.waiting
	u.waiting = nil
	u.queued.Store(0)
	u.mu.Unlock()
	u.relay.wheel.cancel(&u.retry)
	for _, up := range conns {
		up.leave(b)
	}
	for _, a := range calls {
		a.connectFailed(b, u, func(c *call) *policy.Refusal {
			return c.policy.Refuse(policy.ConnectionLost, u.endpoint.Address(), "endpoint "+u.endpoint.Address()+" left the service")
		})
	}
}

// all returns every connection, whatever its state.
func (u *upstream) all() []*upConn {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append(slices.Clone(u.conns), u.leaving...)
}

// freed notes that a stream of the upstream ended, where calls wait for one.
func (b *batch) freed(u *upstream) {
	if u.queued.Load() > 0 && !slices.Contains(b.room, u) {
		b.room = append(b.room, u)
	}
}

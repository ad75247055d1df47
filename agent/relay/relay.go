package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// DefaultConnectTimeout bounds how long an endpoint may take to be connected
// and to speak HTTP/2.
const DefaultConnectTimeout = 5 * time.Second

// Options make a Relay.
type Options struct {
	// Origin is where all Instants count from; it must lie in the past.
	Origin time.Time
	// Now reads the clock in place of the time since Origin, for tests that
	// move it themselves. It must never go back, and is asked by many goroutines
	// at once. Timers still look at it every 5 ms of real time; connects are
	// bounded in real time too. nil: the monotonic time since Origin.
	Now func() policy.Instant
	// Table routes calls; SetTable changes it. nil: everything is NO_ROUTE.
	Table *Table
	// Observer hears of each call at its end. nil: nobody.
	Observer policy.Observer
	// Tracer makes spans. nil: none; trace context passes unchanged.
	Tracer policy.Tracer
	// Logger gets one line a connection that misbehaves. nil: slog.Default.
	Logger *slog.Logger
	// Limits bound what peers can cause.
	Limits Limits
	// ConnectTimeout is for endpoints. Zero: DefaultConnectTimeout.
	ConnectTimeout time.Duration
	// Keepalive finds endpoints that died without a word.
	Keepalive Keepalive
	// TLS is what clients are answered with. nil: plaintext. It should offer
	// h2 and http/1.1 by ALPN.
	TLS *tls.Config
	// ExplainTLS says in plain words why a handshake failed. nil: the error's
	// own text.
	ExplainTLS func(error) string
	// Guests takes connections that do not speak HTTP/2. nil: they are closed.
	Guests Guests
	// Deferrer keeps calls for later. nil: none are, and who asks is refused.
	Deferrer Deferrer
}

// Relay forwards calls from apps to endpoints. Make it with New; end it with
// Drain or Close. Safe for concurrent use.
type Relay struct {
	clock          func() policy.Instant // nil: the time since origin
	origin         time.Time
	table          atomic.Pointer[Table]
	observer       policy.Observer
	tracer         policy.Tracer
	logger         *slog.Logger
	limits         Limits
	connectTimeout time.Duration
	keepalive      Keepalive
	serverTLS      *tls.Config
	explainTLS     func(error) string
	guests         Guests
	deferrer       Deferrer
	wheel          *wheel
	nobody         *conn // takes the answers that only a cache waits for

	ctx    context.Context // over once the relay closes: ends connects under way
	cancel context.CancelFunc
	stop   chan struct{} // closed when the relay is closed for good

	serial   atomic.Uint32
	calls    atomic.Uint64
	active   atomic.Int64
	buffered atomic.Int64 // bytes of DATA that wait or may be sent again
	stats    counters

	upstreams sync.Map // *balancer.Endpoint to *upstream

	starving atomic.Int32 // len(starved)

	mu           sync.Mutex
	listeners    map[net.Listener]struct{}
	downs        map[*downConn]struct{}
	draining     bool
	closed       bool
	starved      map[*conn]int64 // connections that are owed credit
	clients      int             // connections, those handed over included
	peers        map[string]int  // clients by address
	turnedAway   int             // since the last line about it
	turnedAwayAt policy.Instant  // when that was
	work         sync.WaitGroup  // every goroutine; Add under mu unless closed
}

// New returns a relay that serves nothing yet.
func New(o Options) *Relay {
	r := &Relay{
		origin: o.Origin, clock: o.Now, observer: o.Observer, tracer: o.Tracer, logger: o.Logger,
		limits: o.Limits.withDefaults(), connectTimeout: o.ConnectTimeout, keepalive: o.Keepalive.withDefaults(),
		serverTLS: o.TLS, explainTLS: o.ExplainTLS, guests: o.Guests, deferrer: o.Deferrer,
		stop:      make(chan struct{}),
		listeners: make(map[net.Listener]struct{}),
		downs:     make(map[*downConn]struct{}),
		starved:   make(map[*conn]int64),
		peers:     make(map[string]int),
	}
	if r.origin.IsZero() {
		r.origin = time.Now().Add(-time.Nanosecond)
	}
	if r.logger == nil {
		r.logger = slog.Default()
	}
	if r.explainTLS == nil {
		r.explainTLS = error.Error
	}
	if r.connectTimeout == 0 {
		r.connectTimeout = DefaultConnectTimeout
	}
	if o.Table == nil {
		o.Table = NewTable(nil, nil)
	}
	r.table.Store(o.Table)
	r.ctx, r.cancel = context.WithCancel(context.Background())
	r.wheel = newWheel(r.now)
	r.nobody = &conn{relay: r, peer: "cache", closed: true}
	r.work.Add(1)
	go func() {
		defer r.work.Done()
		r.wheel.run(r.stop)
	}()
	return r
}

// now reads the clock.
func (r *Relay) now() policy.Instant {
	if r.clock != nil {
		return r.clock()
	}
	return time.Since(r.origin)
}

// SetTable routes the calls from now on.
func (r *Relay) SetTable(t *Table) { r.table.Store(t) }

// Table returns what routes the calls now.
func (r *Relay) Table() *Table { return r.table.Load() }

// addWork counts a goroutine that is about to start. It reports false once the
// relay is closed.
func (r *Relay) addWork() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return false
	}
	r.work.Add(1)
	return true
}

// Serve takes connections from l until l, or the relay, is closed. It returns
// nil after Drain or Close.
func (r *Relay) Serve(l net.Listener) error {
	r.mu.Lock()
	if r.draining || r.closed {
		r.mu.Unlock()
		l.Close()
		return nil
	}
	r.listeners[l] = struct{}{}
	r.work.Add(1)
	r.mu.Unlock()
	defer r.work.Done()
	for {
		nc, err := l.Accept()
		if err != nil {
			r.mu.Lock()
			delete(r.listeners, l)
			ended := r.draining || r.closed
			r.mu.Unlock()
			if ended {
				return nil
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Out of descriptors, most likely: connections end, this one goes on.
			r.logger.Error("egress: accept failed; trying again in 50 ms", "error", err)
			r.mu.Lock()
			r.listeners[l] = struct{}{}
			r.mu.Unlock()
			select {
			case <-r.stop:
				return nil
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		r.accept(nc)
	}
}

func (r *Relay) accept(nc net.Conn) {
	leave, ok := r.admitConnection(nc)
	if !ok {
		nc.Close()
		return
	}
	r.stats.accepted.Add(1)
	peer := r.peerName(nc)
	if r.serverTLS == nil {
		r.welcome(nc, nil, peer, leave)
		return
	}
	if !r.addWork() {
		nc.Close()
		leave()
		return
	}
	go func() {
		defer r.work.Done()
		if s := r.secureServer(nc, peer); s != nil {
			r.welcome(nc, s, peer, leave)
		} else {
			leave()
		}
	}()
}

// Join serves a connection of the agent's own: in plaintext whatever clients are
// asked for, and outside their limits. peer is who it is said to be in logs. A
// relay that drains closes it.
func (r *Relay) Join(nc net.Conn, peer string) { r.welcome(nc, nil, peer, func() {}) }

func (r *Relay) peerName(nc net.Conn) string {
	if peer := nc.RemoteAddr().String(); peer != "" && peer != "@" {
		return peer
	}
	return "unix"
}

// welcome begins to serve a client.
func (r *Relay) welcome(nc net.Conn, s *secure, peer string, leave func()) {
	sock, err := newSocket(nc, nil, s)
	if err != nil {
		r.logger.Error("egress: connection refused", "error", err)
		nc.Close()
		leave()
		return
	}
	d := newDownConn(r, sock, peer)
	d.leave = leave
	r.serve(d)
}

// serve reads a client's connection on a goroutine of its own.
func (r *Relay) serve(d *downConn) {
	r.mu.Lock()
	if r.draining || r.closed {
		r.mu.Unlock()
		d.sock.close()
		d.leave()
		return
	}
	r.downs[d] = struct{}{}
	r.work.Add(1)
	r.mu.Unlock()
	r.wheel.arm(&d.preface, r.now()+r.limits.PrefaceTimeout)
	go func() {
		defer r.work.Done()
		d.conn.serve()
	}()
}

func (r *Relay) forgetDown(d *downConn) {
	r.mu.Lock()
	delete(r.downs, d)
	delete(r.starved, &d.conn)
	r.starving.Store(int32(len(r.starved)))
	r.mu.Unlock()
}

// upstreamOf returns the connections of an endpoint. One that left its service
// while a call picked it gets none.
func (r *Relay) upstreamOf(e *balancer.Endpoint, t Transport) *upstream {
	if u, ok := r.upstreams.Load(e); ok {
		return u.(*upstream)
	}
	u, _ := r.upstreams.LoadOrStore(e, newUpstream(r, e, t))
	if e.Retired() { // Forget came before the store, or will find it
		r.upstreams.Delete(e)
		u.(*upstream).retire()
	}
	return u.(*upstream)
}

// Forget ends the connections of endpoints that left their service, each after
// the calls under way on it.
func (r *Relay) Forget(endpoints []*balancer.Endpoint) {
	b := newBatch()
	b.now = r.now()
	for _, e := range endpoints {
		e.Retire()
		if u, ok := r.upstreams.LoadAndDelete(e); ok {
			u.(*upstream).forget(b)
		}
	}
	b.flush()
}

// starve notes that a connection is owed credit which it gets once less is
// buffered.
func (r *Relay) starve(c *conn, n int64) {
	r.mu.Lock()
	r.starved[c] += n
	r.starving.Store(int32(len(r.starved)))
	r.mu.Unlock()
}

// relieve gives starved connections their credit when there is room again.
func (r *Relay) relieve(b *batch) {
	if r.starving.Load() == 0 || r.buffered.Load() > r.limits.BufferedBytes/2 {
		return
	}
	r.mu.Lock()
	starved := r.starved
	r.starved = make(map[*conn]int64)
	r.starving.Store(0)
	r.mu.Unlock()
	for c, n := range starved {
		c.grant(b, n)
	}
}

// Drain stops accepting, asks clients to leave and waits for their calls. What
// is left when ctx ends is refused with DRAINING. It returns once everything
// has stopped; the error is ctx's when calls were cut off.
func (r *Relay) Drain(ctx context.Context) error {
	r.mu.Lock()
	r.draining = true
	for l := range r.listeners {
		l.Close()
	}
	downs := make([]*downConn, 0, len(r.downs))
	for d := range r.downs {
		downs = append(downs, d)
	}
	r.mu.Unlock()
	b := newBatch()
	b.now = r.now()
	for _, d := range downs {
		d.drain(b)
		b.flush()
	}
	err := r.waitForClients(ctx)
	if err != nil {
		r.refuseRest()
	}
	return errors.Join(err, r.Close())
}

// waitForClients waits until the last client has left.
func (r *Relay) waitForClients(ctx context.Context) error {
	poll := time.NewTicker(drainPoll)
	defer poll.Stop()
	for {
		r.mu.Lock()
		left := len(r.downs)
		r.mu.Unlock()
		if left == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			if r.active.Load() == 0 {
				return nil // connections without calls: nothing is lost
			}
			return ctx.Err()
		case <-poll.C:
		}
	}
}

// drainPoll is how often a drain looks whether it is done.
const drainPoll = 5 * time.Millisecond

// refuseRest ends the calls that outlived the drain and gives their clients a
// moment to read why.
func (r *Relay) refuseRest() {
	r.mu.Lock()
	downs := make([]*downConn, 0, len(r.downs))
	for d := range r.downs {
		downs = append(downs, d)
	}
	r.mu.Unlock()
	b := newBatch()
	b.now = r.now()
	for _, d := range downs {
		d.refuseAll(b)
		b.flush()
	}
	ctx, cancel := context.WithTimeout(context.Background(), lingerTimeout)
	defer cancel()
	_ = r.waitForClients(ctx) // their time is up either way
}

// Close ends everything at once and returns when nothing runs any more. Calls
// in flight are cut off.
func (r *Relay) Close() error {
	r.mu.Lock()
	if r.closed {
		r.mu.Unlock()
		r.work.Wait()
		return nil
	}
	r.closed, r.draining = true, true
	for l := range r.listeners {
		l.Close()
	}
	for d := range r.downs {
		d.sock.close()
	}
	r.mu.Unlock()
	r.cancel()
	b := newBatch()
	b.now = r.now()
	r.upstreams.Range(func(_, value any) bool {
		u := value.(*upstream)
		u.forget(b)
		for _, up := range u.all() {
			up.shut()
		}
		return true
	})
	close(r.stop)
	r.work.Wait()
	return nil
}

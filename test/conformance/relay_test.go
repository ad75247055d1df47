package conformance

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/policy"
)

// relayDoor drives a relay between a client and endpoints that hold every
// request until the script answers it. Its clock moves by the script only, and
// stops where something fell due in the core: a little later, since a timer is
// up to a tick of the wheel (5 ms) late.
type relayDoor struct {
	service *policy.Service
	relay   *relay.Relay
	clock   atomic.Int64 // policy.Instant
	looks   atomic.Int64 // of the timer wheel at the clock
	served  chan error
	client  *client
	idle    net.Conn // never says a word: its timer keeps the wheel turning
	servers []*upstream
	gates   map[string]*gate // by address; nil: connects are not held up
	watch   *watcher
	ended   map[string]string // calls that their callers canceled
	stops   []time.Duration
}

// forever is longer than any row: what the relay does about peers that are
// silent is not the table's business.
const forever = 1000 * time.Hour

// patience bounds how long a test waits for what must come.
const patience = 5 * time.Second

// newRelayDoor returns the door for a row in which things fell due at those
// times since it began.
func newRelayDoor(r *row, fell []time.Duration) (*relayDoor, error) {
	d := &relayDoor{stops: stopsAfter(fell), watch: newWatcher(), ended: make(map[string]string), served: make(chan error, 1)}
	d.clock.Store(int64(epoch))
	var at []string
	for range r.endpoints() {
		u, err := startUpstream()
		if err != nil {
			return nil, err
		}
		d.servers = append(d.servers, u)
		at = append(at, u.listener.Addr().String())
	}
	if slices.ContainsFunc(r.Script, func(s step) bool { return s.Unreached }) {
		d.gates = make(map[string]*gate)
		for _, a := range at {
			d.gates[a] = &gate{open: make(chan bool)}
		}
	}
	d.service = newService(r, at...)
	d.relay = relay.New(relay.Options{
		Now: d.look, Tracer: d.watch, Logger: slog.New(slog.DiscardHandler), ConnectTimeout: forever,
		Keepalive: relay.Keepalive{Interval: forever, Timeout: forever},
		Limits:    relay.Limits{PrefaceTimeout: forever, HeaderTimeout: forever, StallTimeout: forever},
		Table:     relay.NewTable([]relay.Route{{Target: relay.Target{Service: d.service, Transport: d}}}, nil),
	})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	go func() { d.served <- d.relay.Serve(l) }()
	if d.idle, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, err
	}
	d.client, err = dialClient(l.Addr().String())
	return d, err
}

// look reads the clock for the relay, and counts how often the wheel does.
func (d *relayDoor) look() policy.Instant {
	now := policy.Instant(d.clock.Load())
	var callers [4]uintptr
	frames := runtime.CallersFrames(callers[:runtime.Callers(2, callers[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, "(*wheel).turn") {
			d.looks.Add(1)
		}
		if !more {
			return now
		}
	}
}

// gate holds up connects to an endpoint until the script says what becomes of
// them.
type gate struct {
	open chan bool // by connect: whether it succeeds
	held atomic.Int64
}

// Dial implements relay.Transport.
func (d *relayDoor) Dial(ctx context.Context, address string) (net.Conn, error) {
	if g := d.gates[address]; g != nil {
		g.held.Add(1)
		defer g.held.Add(-1)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case ok := <-g.open:
			if !ok {
				return nil, &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
			}
		}
	}
	return relay.Direct{}.Dial(ctx, address)
}

// TLS implements relay.Transport.
func (d *relayDoor) TLS(string, ...string) (*tls.Config, error) { return nil, nil }

func (d *relayDoor) arrive(name string, w with) error {
	if err := d.client.send(name, w); err != nil {
		return err
	}
	return d.settle()
}

func (d *relayDoor) say(name string) error {
	if err := d.client.say(name); err != nil {
		return err
	}
	return d.settle()
}

func (d *relayDoor) cancel(name string) error {
	d.ended[name] = canceled
	if err := d.client.reset(name); err != nil {
		return err
	}
	return d.settle()
}

func (d *relayDoor) answer(name string, h how) error {
	a, err := d.watch.attempt(name, h.Attempt)
	if err != nil {
		return err
	}
	if g := d.gates[a.endpoint]; g != nil && (h.Unreached || g.held.Load() > 0) {
		select {
		case g.open <- !h.Unreached:
		case <-time.After(patience):
			return fmt.Errorf("nobody connects to %s", a.endpoint)
		}
	}
	if h.Unreached {
		if err := until("the attempt ends", func() bool { return !d.watch.isUnderWay(a) }); err != nil {
			return err
		}
		return d.settle()
	}
	held, err := d.held(a)
	if err != nil {
		return err
	}
	if err := held.end(h); err != nil {
		return err
	}
	if h.Lost {
		if err := until("the attempt ends", func() bool { return !d.watch.isUnderWay(a) }); err != nil {
			return err
		}
	}
	return d.settle()
}

func (d *relayDoor) head(name string, h how) error {
	a, err := d.watch.attempt(name, h.Attempt)
	if err != nil {
		return err
	}
	held, err := d.held(a)
	if err != nil {
		return err
	}
	if err := held.begin(); err != nil {
		return err
	}
	return d.settle()
}

// held waits for an attempt's request.
func (d *relayDoor) held(a *seen) (h *held, err error) {
	err = until("the request of "+a.id()+" arrives", func() bool {
		for _, u := range d.servers {
			if h = u.request(a.id()); h != nil {
				return true
			}
		}
		return false
	})
	return h, err
}

// stopsAfter are the times at which the clock stops for what fell due in the
// core: a tick later, and again for what that causes soon, such as a retry after
// a pause of a millisecond, and for what is late since that was.
func stopsAfter(fell []time.Duration) (stops []time.Duration) {
	const tick = 5 * time.Millisecond
	for _, at := range fell {
		at = at.Truncate(tick) + tick
		stops = append(stops, at, at+2*tick, at+4*tick, at+7*tick)
	}
	slices.Sort(stops)
	return slices.Compact(stops)
}

func (d *relayDoor) advance(to time.Duration) error {
	for len(d.stops) > 0 && d.stops[0] < to {
		if err := d.stop(d.stops[0]); err != nil {
			return err
		}
		d.stops = d.stops[1:]
	}
	return d.stop(to)
}

// stop sets the clock and waits until the wheel has turned at it.
func (d *relayDoor) stop(to time.Duration) error {
	if policy.Instant(d.clock.Load()) >= epoch+to {
		return nil
	}
	d.clock.Store(int64(epoch + to))
	// The first look may be that of a wheel that only starts, the next one
	// visits what is due, the third comes after those visits.
	before := d.looks.Load()
	if err := until("the wheel turns", func() bool { return d.looks.Load() >= before+3 }); err != nil {
		return err
	}
	return d.settle()
}

func (d *relayDoor) reload(s policy.Settings) error {
	d.service.Update(s)
	return d.settle()
}

func (d *relayDoor) subject() *policy.Service { return d.service }

func (d *relayDoor) now() policy.Instant { return policy.Instant(d.clock.Load()) }

// settle waits until what was sent has been handled: the relay answers a PING
// behind it, and attempts have come to their endpoints.
func (d *relayDoor) settle() error {
	if err := d.client.ping(); err != nil {
		return err
	}
	for _, a := range d.watch.underWay() {
		if err := until("the request of "+a.id()+" arrives, or waits for a connection", func() bool {
			g := d.gates[a.endpoint]
			return !d.watch.isUnderWay(a) || g != nil && g.held.Load() > 0 || slices.ContainsFunc(d.servers, func(u *upstream) bool { return u.request(a.id()) != nil })
		}); err != nil {
			return err
		}
	}
	return d.client.ping()
}

func (d *relayDoor) state(name string) state {
	if how := d.ended[name]; how != "" {
		return state{text: how}
	}
	if how := d.client.outcome(name); how != "" {
		return state{text: how}
	}
	return d.watch.state(name)
}

// close ends the relay, and compares what endpoints got with what was decided.
func (d *relayDoor) close() error {
	wrong := d.balance()
	for _, name := range d.client.open() {
		wrong = errors.Join(wrong, d.cancel(name))
	}
	wrong = errors.Join(wrong, nothingHeld(d.service, d.now()), d.relay.Close(), <-d.served)
	d.idle.Close()
	d.client.close()
	for _, u := range d.servers {
		u.close()
	}
	return wrong
}

// balance checks that endpoints got each attempt once, and no other request;
// and that those which are over are over for them too.
func (d *relayDoor) balance() error {
	var wrong error
	err := until("requests and attempts match", func() bool {
		wrong = nil
		for _, u := range d.servers {
			for id, n := range u.counts() {
				if n != 1 || d.watch.byID(id) == nil {
					wrong = errors.Join(wrong, fmt.Errorf("an endpoint got the request of %s %d times", id, n))
				}
			}
			for _, id := range u.open() {
				if a := d.watch.byID(id); a != nil && !d.watch.isUnderWay(a) {
					wrong = errors.Join(wrong, fmt.Errorf("%s is over, and its endpoint was not told", id))
				}
			}
		}
		return wrong == nil
	})
	return errors.Join(err, wrong)
}

// until waits for what other goroutines bring about.
func until(what string, ok func() bool) error {
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(500 * time.Microsecond) {
		if time.Now().After(deadline) {
			return fmt.Errorf("after %v: not so that %s", patience, what)
		}
	}
	return nil
}

// watcher hears of the relay's attempts as its tracer. A call's traceparent is
// its name, and that of an attempt its name and number: so requests are known
// at the endpoints.
type watcher struct {
	mu       sync.Mutex
	attempts []*seen
}

// seen is an attempt.
type seen struct {
	call     string
	number   int
	endpoint string
	over     bool
}

func (a *seen) id() string { return fmt.Sprintf("%s-%d", a.call, a.number) }

func newWatcher() *watcher { return &watcher{} }

// StartCall implements policy.Tracer.
func (w *watcher) StartCall(_ policy.Instant, traceparent, _, _, _ string) policy.Trace {
	return &watched{w, traceparent}
}

type watched struct {
	*watcher
	call string
}

// TraceID implements policy.Trace.
func (t *watched) TraceID() string { return t.call }

// StartAttempt implements policy.Trace.
func (t *watched) StartAttempt(_ policy.Instant, endpoint string, number int) string {
	t.mu.Lock()
	defer t.mu.Unlock()
	a := &seen{call: t.call, number: number, endpoint: endpoint}
	t.attempts = append(t.attempts, a)
	return a.id()
}

// EndAttempt implements policy.Trace.
func (t *watched) EndAttempt(_ policy.Instant, number int, _ policy.Result, _ string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, a := range t.attempts {
		if a.call == t.call && a.number == number {
			a.over = true
		}
	}
}

// Event implements policy.Trace.
func (t *watched) Event(policy.Instant, string) {}

// End implements policy.Trace.
func (t *watched) End(policy.Instant, *policy.Record) {}

func (w *watcher) underWay() (all []*seen) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.attempts {
		if !a.over {
			all = append(all, a)
		}
	}
	return all
}

func (w *watcher) isUnderWay(a *seen) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return !a.over
}

func (w *watcher) byID(id string) *seen {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range w.attempts {
		if a.id() == id {
			return a
		}
	}
	return nil
}

func (w *watcher) of(call string) (all []*seen) {
	for _, a := range w.underWay() {
		if a.call == call {
			all = append(all, a)
		}
	}
	return all
}

// attempt returns an attempt under way; 0: the latest.
func (w *watcher) attempt(call string, number int) (*seen, error) {
	for _, a := range slices.Backward(w.of(call)) {
		if number == 0 || a.number == number {
			return a, nil
		}
	}
	return nil, fmt.Errorf("no attempt %d is under way; it is %q", number, w.state(call).text)
}

func (w *watcher) state(call string) state {
	all := w.of(call)
	if len(all) == 0 {
		return state{text: waits}
	}
	var numbers []int
	var at []string
	for _, a := range all {
		numbers, at = append(numbers, a.number), append(at, a.endpoint)
	}
	return state{text: underWay(numbers...), at: at}
}

package relay

import (
	"context"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// gate is a Transport whose connects fail while it is shut, or wait.
type gate struct {
	Direct
	mu    sync.Mutex
	shut  bool
	hold  chan struct{} // connects wait until it is closed; nil: they don't
	dials int
}

func (g *gate) Dial(ctx context.Context, address string) (net.Conn, error) {
	g.mu.Lock()
	g.dials++
	shut, hold := g.shut, g.hold
	g.mu.Unlock()
	if hold != nil {
		select {
		case <-hold:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	if shut {
		return nil, syscall.ECONNREFUSED
	}
	return g.Direct.Dial(ctx, address)
}

func (g *gate) set(shut bool, hold chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.shut, g.hold = shut, hold
}

func (g *gate) count() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.dials
}

// gated is a relay with one warm endpoint behind a gate and a door.
type gated struct {
	*fixture
	*gate
	door     *door
	endpoint *balancer.Endpoint
	up       *upstream
}

func newGated(t *testing.T, shut bool) *gated {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := &gated{gate: &gate{shut: shut}, door: &door{Listener: l, open: make(map[int]net.Conn)}}
	server := grpc.NewServer()
	server.RegisterService(new(echoServer).desc(), nil)
	go server.Serve(g.door)
	t.Cleanup(server.Stop)
	g.fixture = newFixture(t, policy.Policy{}, l.Addr().String())
	g.endpoint = g.service.Endpoints().All()[0]
	g.relay.Keep(g.service.Endpoints().All(), g.gate, Connections{Warm: 1})
	u, _ := g.relay.upstreams.Load(g.endpoint)
	g.up = u.(*upstream)
	return g
}

// stall waits until a connect has failed and puts the next one off for ever.
func (g *gated) stall(t *testing.T) {
	t.Helper()
	waits(t, "a connect has failed", func() bool {
		g.up.mu.Lock()
		defer g.up.mu.Unlock()
		if g.up.dialing > 0 || g.up.failures == 0 {
			return false
		}
		g.up.retryAt = g.relay.now() + time.Hour
		g.relay.wheel.cancel(&g.up.retry)
		return true
	})
}

// later makes what was hurried last so much older.
func (g *gated) later(d time.Duration) {
	g.up.mu.Lock()
	defer g.up.mu.Unlock()
	g.up.haste.last -= d
}

func TestAnEndpointIsConnectedBeforeItsBackoffIsOver(t *testing.T) {
	g := newGated(t, true)
	g.stall(t)
	g.set(false, nil)

	g.relay.Hurry(g.endpoint, false)

	waits(t, "it is connected", g.endpoint.Fit)
}

func TestConnectsAreHurriedOnceAndWithNews(t *testing.T) {
	g := newGated(t, true)
	g.stall(t)
	for _, step := range []struct {
		what   string
		passes time.Duration
		news   bool
		dials  int
	}{
		{"the first", 0, false, 1},
		{"nothing is new", 0, false, 0},
		{"nothing is new a minute later", time.Minute, false, 0},
		{"news", 0, true, 1},
		{"news within a second", 0, true, 0},
		{"the same a second later", time.Second, false, 1},
		{"nothing is new again", time.Second, false, 0},
	} {
		before := g.count()
		g.later(step.passes)
		g.relay.Hurry(g.endpoint, step.news)
		g.stall(t) // a connect that was begun is over
		if got := g.count() - before; got != step.dials {
			t.Errorf("%s: %d connects, want %d", step.what, got, step.dials)
		}
	}
}

func TestAConnectIsHurriedBesideOneThatHangs(t *testing.T) {
	// Given an endpoint that was down, and a connect to it that hangs,
	g := newGated(t, true)
	g.stall(t)
	hangs := make(chan struct{})
	g.set(false, hangs)
	g.relay.Hurry(g.endpoint, true)
	waits(t, "a connect hangs", func() bool { return g.count() == 2 })
	g.set(false, nil)
	g.later(time.Second)

	g.relay.Hurry(g.endpoint, true)

	waits(t, "it is connected", g.endpoint.Fit)
	g.later(time.Second)
	g.relay.Hurry(g.endpoint, true)
	if n := g.count(); n != 3 {
		t.Errorf("%d connects, want 3: none to what has a connection", n)
	}
	// then the one that hung is not kept.
	close(hangs)
	waits(t, "one connection is left of two", func() bool { accepted, open := g.door.count(); return accepted == 2 && open == 1 })
}

func TestAConnectThatHungAndFailsHarmsNothing(t *testing.T) {
	g := newGated(t, true)
	g.stall(t)
	hangs := make(chan struct{})
	g.set(true, hangs)
	g.relay.Hurry(g.endpoint, true)
	waits(t, "a connect hangs", func() bool { return g.count() == 2 })
	g.set(false, nil)
	g.later(time.Second)
	g.relay.Hurry(g.endpoint, true)
	waits(t, "it is connected", g.endpoint.Fit)
	before := g.relay.Stats().ConnectFailuresTotal

	close(hangs)

	waits(t, "it has failed", func() bool { return g.relay.Stats().ConnectFailuresTotal > before })
	g.up.mu.Lock()
	defer g.up.mu.Unlock()
	if g.up.failures != 0 || !g.endpoint.Fit() || g.up.haste.racing {
		t.Errorf("%d failures; fit: %v; %+v", g.up.failures, g.endpoint.Fit(), g.up.haste)
	}
}

func TestWhatIsNotDownIsNotHurried(t *testing.T) {
	g := newGated(t, false)
	waits(t, "a connection", func() bool { _, open := g.door.count(); return open == 1 })
	g.relay.Hurry(g.endpoint, true)
	g.relay.Hurry(balancer.NewEndpoint(balancer.Spec{Address: "never.called:1"}), true)
	if n := g.count(); n != 1 {
		t.Errorf("%d connects to what is up", n)
	}

	g.set(true, nil)
	g.door.mu.Lock()
	g.door.open[1].Close()
	g.door.mu.Unlock()
	g.stall(t)
	g.relay.Release(g.service.Endpoints().All())
	before := g.count()
	g.relay.Hurry(g.endpoint, true)
	if n := g.count() - before; n != 0 {
		t.Errorf("%d connects to what was released", n)
	}
}

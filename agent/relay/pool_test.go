package relay

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// door is a listener that keeps a book of its connections: "+1" when the first
// was accepted, "-1" when the relay, or the server, closed it.
type door struct {
	net.Listener
	mu   sync.Mutex
	book []string
	open map[int]net.Conn
	n    int
}

type doorConn struct {
	net.Conn
	once  sync.Once
	close func()
}

func (c *doorConn) Close() error {
	c.once.Do(c.close)
	return c.Conn.Close()
}

func (d *door) Accept() (net.Conn, error) {
	nc, err := d.Listener.Accept()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.n++
	n := d.n
	d.open[n] = nc
	d.book = append(d.book, fmt.Sprintf("+%d", n))
	return &doorConn{Conn: nc, close: func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		delete(d.open, n)
		d.book = append(d.book, fmt.Sprintf("-%d", n))
	}}, nil
}

// count returns how many connections were accepted and how many stand.
func (d *door) count() (accepted, open int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.n, len(d.open)
}

// newPool is a relay with one endpoint behind a door, and how its connections
// are kept.
func newPool(t *testing.T, c Connections, options ...grpc.ServerOption) (*fixture, *door) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{Listener: l, open: make(map[int]net.Conn)}
	server := grpc.NewServer(options...)
	server.RegisterService(new(echoServer).desc(), nil)
	go server.Serve(d)
	t.Cleanup(server.Stop)
	f := newFixture(t, policy.Policy{}, l.Addr().String())
	f.relay.Keep(f.service.Endpoints().All(), nil, c)
	return f, d
}

// waits waits for a condition that only counts.
func waits(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", soon, what)
		}
	}
}

func TestWarmConnectionsStandWithoutACall(t *testing.T) {
	f, d := newPool(t, Connections{Warm: 2})

	waits(t, "two connections", func() bool { _, open := d.count(); return open == 2 })

	if _, err := unary(testContext(t), f.client(t), nil); err != nil {
		t.Fatal(err)
	}
	if accepted, open := d.count(); accepted != 2 || open != 2 {
		t.Errorf("after a call: %d accepted, %d open", accepted, open)
	}
}

func TestAWarmConnectionThatEndedIsReplaced(t *testing.T) {
	_, d := newPool(t, Connections{Warm: 2})
	waits(t, "two connections", func() bool { _, open := d.count(); return open == 2 })

	d.mu.Lock()
	d.open[1].Close()
	d.mu.Unlock()

	waits(t, "a third", func() bool { accepted, open := d.count(); return accepted == 3 && open == 2 })
}

func TestAnEndpointThatLeavesIsNotKeptWarm(t *testing.T) {
	f, d := newPool(t, Connections{Warm: 1})
	waits(t, "a connection", func() bool { _, open := d.count(); return open == 1 })

	f.relay.Forget(f.service.Endpoints().All())

	waits(t, "none", func() bool { _, open := d.count(); return open == 0 })
	f.relay.Keep(f.service.Endpoints().All(), nil, Connections{Warm: 2})
	time.Sleep(50 * time.Millisecond)
	if accepted, _ := d.count(); accepted != 1 {
		t.Errorf("%d connections to what has left", accepted)
	}
}

func TestAnEndpointThatIsReleasedIsConnectedByCallsAlone(t *testing.T) {
	f, d := newPool(t, Connections{Warm: 1})
	waits(t, "a connection", func() bool { _, open := d.count(); return open == 1 })
	e := f.service.Endpoints().All()

	f.relay.Release(e)

	waits(t, "none", func() bool { _, open := d.count(); return open == 0 })
	if accepted, _ := d.count(); accepted != 1 || !e[0].Fit() {
		t.Errorf("%d connections to what was released; fit: %v", accepted, e[0].Fit())
	}
	if _, err := unary(testContext(t), f.client(t), nil); err != nil {
		t.Fatal(err)
	}
	if accepted, open := d.count(); accepted != 2 || open != 1 {
		t.Errorf("after a call: %d accepted, %d open", accepted, open)
	}

	f.relay.Release(e)
	waits(t, "none again", func() bool { _, open := d.count(); return open == 0 })
	f.relay.Keep(e, nil, Connections{Warm: 2})
	waits(t, "two once it is kept", func() bool { _, open := d.count(); return open == 2 })
}

func TestWhatIsReleasedIsNotReconnected(t *testing.T) {
	f, d := newPool(t, Connections{Warm: 1})
	waits(t, "a connection", func() bool { _, open := d.count(); return open == 1 })
	e := f.service.Endpoints().All()
	// Given an endpoint that is down,
	d.Close()
	d.mu.Lock()
	d.open[1].Close()
	d.mu.Unlock()
	waits(t, "it is known to be down", func() bool { return f.relay.Stats().ConnectFailuresTotal > 1 && !e[0].Fit() })

	f.relay.Release(e)

	if !e[0].Fit() {
		t.Error("it still counts as not connected")
	}
	u, _ := f.relay.upstreams.Load(e[0])
	u.(*upstream).mu.Lock()
	defer u.(*upstream).mu.Unlock()
	if u.(*upstream).wanted() {
		t.Error("it is to be connected without a call")
	}
}

func TestAConnectionPastItsAgeIsReplacedBeforeItEnds(t *testing.T) {
	f, d := newPool(t, Connections{MaxAge: 50 * time.Millisecond})
	cc := f.client(t)
	stream, err := cc.NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi") // keeps the first open
	if err != nil {
		t.Fatal(err)
	}
	exchange(t, stream)

	failed := 0
	waits(t, "five connections", func() bool {
		if _, err := unary(testContext(t), cc, nil); err != nil {
			failed++
		}
		accepted, _ := d.count()
		return accepted >= 5
	})

	exchange(t, stream)
	if failed > 0 {
		t.Errorf("%d calls failed", failed)
	}
	waits(t, "an old connection ends", func() bool { accepted, open := d.count(); return open < accepted })
	d.mu.Lock()
	defer d.mu.Unlock()
	open := 0
	for _, entry := range d.book {
		if entry[0] == '+' {
			open++
		} else {
			open--
		}
		if open == 0 {
			t.Errorf("a moment without a connection: %v", d.book)
		}
		if entry == "-1" {
			t.Errorf("the connection of a stream under way was closed: %v", d.book)
		}
	}
}

func exchange(t *testing.T, stream grpc.ClientStream) {
	t.Helper()
	if err := stream.SendMsg(wrapperspb.Bytes([]byte("still there?"))); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		t.Fatal(err)
	}
}

func TestAConnectionPastItsAgeStaysWhereNoOtherCanBeHad(t *testing.T) {
	f, d := newPool(t, Connections{MaxAge: 100 * time.Millisecond})
	cc := f.client(t)
	if _, err := unary(testContext(t), cc, nil); err != nil {
		t.Fatal(err)
	}
	d.Listener.Close()

	waits(t, "a connect failed", func() bool { return f.relay.stats.connectFailures.Load() > 0 })

	if _, err := unary(testContext(t), cc, nil); err != nil {
		t.Errorf("a call over the old connection: %v", err)
	}
	if c, reason, _ := f.service.Endpoints().All()[0].Condition(); c != balancer.Ready {
		t.Errorf("%v: %s", c, reason)
	}
}

func TestIdleConnectionsEndButForTheWarmOnes(t *testing.T) {
	for warm, want := range []int{0, 1} {
		f, d := newPool(t, Connections{Warm: warm, IdleTimeout: 50 * time.Millisecond}, grpc.MaxConcurrentStreams(1))
		cc := f.client(t)
		var streams []grpc.ClientStream
		for range 3 { // a connection each
			stream, err := cc.NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
			if err != nil {
				t.Fatal(err)
			}
			exchange(t, stream)
			streams = append(streams, stream)
		}
		if _, open := d.count(); open != 3 {
			t.Fatalf("%d connections for three streams", open)
		}
		for _, stream := range streams {
			if err := stream.CloseSend(); err != nil {
				t.Fatal(err)
			}
		}
		waits(t, fmt.Sprintf("%d connections", want), func() bool { _, open := d.count(); return open == want })
		time.Sleep(200 * time.Millisecond)
		if _, open := d.count(); open != want {
			t.Errorf("warm %d: %d connections", warm, open)
		}
		if _, err := unary(testContext(t), cc, nil); err != nil {
			t.Errorf("warm %d: a call after that: %v", warm, err)
		}
	}
}

func TestConnectionsGrowUpToTheirBound(t *testing.T) {
	f, d := newPool(t, Connections{Max: 2}, grpc.MaxConcurrentStreams(1))
	cc := f.client(t)
	done := make(chan error, 20)
	for range 20 {
		go func() { _, err := unary(testContext(t), cc, nil); done <- err }()
	}
	for range 20 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if accepted, _ := d.count(); accepted > 2 {
		t.Errorf("%d connections, want at most 2", accepted)
	}
}

package guard

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// house is an agent with services and an API, and nothing else.
type house struct {
	t testing.TB

	mu       sync.Mutex
	services []*policy.Service
	listener *bufconn.Listener
	server   *api.Server
	served   chan error
}

func (h *house) Info() api.Info               { return api.Info{} }
func (h *house) Traffic() api.Traffic         { return api.Traffic{} }
func (h *house) Reload(context.Context) error { return nil }

func (h *house) Note(*balancer.Endpoint) string { return "" }

func (h *house) Drained(string, string, bool) {}

func (h *house) Discovery(string) (api.Discovery, bool) { return api.Discovery{}, false }
func (h *house) TaskPromises() []api.Promise            { return nil }

func (h *house) Services() []*policy.Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.services
}

func newHouse(t testing.TB) *house {
	h := &house{t: t}
	h.start()
	t.Cleanup(h.stop)
	return h
}

// start serves the API on a listener of its own.
func (h *house) start() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.listener = bufconn.Listen(64 << 10)
	h.server = api.New(api.Options{Origin: time.Now().Add(-time.Minute), Agent: h})
	h.served = make(chan error, 1)
	go func(s *api.Server, l net.Listener, served chan<- error) { served <- s.Serve(l) }(h.server, h.listener, h.served)
}

func (h *house) stop() {
	h.server.Shutdown(context.Background())
	if err := <-h.served; err != nil {
		h.t.Errorf("Serve: %v", err)
	}
}

// add makes a service; without addresses it is a resource.
func (h *house) add(name string, p policy.Policy, addresses ...string) *policy.Service {
	s := policy.NewService(name, policy.Settings{Policy: p, Resource: len(addresses) == 0}, nil)
	var specs []balancer.Spec
	for _, a := range addresses {
		specs = append(specs, balancer.Spec{Address: a})
	}
	s.SetEndpoints(specs)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.services = append(h.services, s)
	return s
}

// client returns a client of the agent, whichever runs.
func (h *house) client() *Client {
	conn, err := grpc.NewClient("passthrough:///agent", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) {
			h.mu.Lock()
			l := h.listener
			h.mu.Unlock()
			return l.DialContext(ctx)
		}))
	if err != nil {
		h.t.Fatal(err)
	}
	c := New(conn)
	h.t.Cleanup(func() {
		c.Close()
		conn.Close()
	})
	return c
}

// context ends with the test, and long before the test binary's patience.
func (h *house) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

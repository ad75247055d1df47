package api

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	sayHello = "/helloworld.Greeter/SayHello"
	sayBye   = "/helloworld.Greeter/SayBye"
	first    = "127.0.0.1:50051"
	second   = "127.0.0.1:50052"
)

// house is an agent whose calls are made by the test.
type house struct {
	t      *testing.T
	origin time.Time
	server *Server
	conn   *grpc.ClientConn

	mu       sync.Mutex
	services []*policy.Service
	info     Info
	traffic  Traffic
	reload   func() error
	reloads  int
	broken   bool // Info panics
	notes    map[string]string
	drained  []string // what the agent was told
	found    map[string]Discovery
	promises []Promise // of tasks
}

func (h *house) Info() Info {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.broken {
		panic("a wall gave way")
	}
	return h.info
}

func (h *house) Note(e *balancer.Endpoint) string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.notes[e.Address()]
}

func (h *house) Drained(service, address string, on bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.drained = append(h.drained, fmt.Sprint(service, " ", address, " ", on))
}

func (h *house) Discovery(service string) (Discovery, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	d, ok := h.found[service]
	return d, ok
}

func (h *house) Traffic() Traffic { return h.traffic }

func (h *house) Services() []*policy.Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.services
}

func (h *house) TaskPromises() []Promise {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.promises)
}

func (h *house) Reload(context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.reloads++
	if h.reload == nil {
		return nil
	}
	return h.reload()
}

// newHouse serves an agent without services, which started a minute ago.
func newHouse(t *testing.T, change ...func(*Options)) *house {
	h := &house{t: t, origin: time.Now().Add(-time.Minute), info: Info{Version: "v1.2.3", Egress: "127.0.0.1:7600"}}
	o := Options{Origin: h.origin, Agent: h, Logger: slog.New(slog.DiscardHandler)}
	for _, c := range change {
		c(&o)
	}
	h.server = New(o)
	listener := bufconn.Listen(64 << 10)
	served := make(chan error, 1)
	go func() { served <- h.server.Serve(listener) }()
	var err error
	h.conn, err = grpc.NewClient("passthrough:///agent",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return listener.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		h.conn.Close()
		h.server.Shutdown(context.Background())
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return h
}

// reference are the settings of the documentation: 5 failures in a row, 30 s.
func reference(scope policy.Scope) policy.Policy {
	p := policy.Default()
	p.Breaker = policy.BreakerPolicy{Scope: scope, Options: breaker.Reference()}
	p.LoadBalancing = balancer.Options{Policy: balancer.RoundRobin}
	return p
}

// byReports goes by endpoints' load reports, at once.
var byReports = balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true, ErrorUtilizationPenalty: 1}}

// add makes a service; without addresses it has first and second.
func (h *house) add(name string, p policy.Policy, addresses ...string) *policy.Service {
	return h.addWith(name, policy.Settings{Policy: p}, addresses...)
}

// resource makes a service without endpoints, to ask permits for.
func (h *house) resource(name string, p policy.Policy) *policy.Service {
	s := h.addWith(name, policy.Settings{Policy: p, Resource: true})
	s.SetEndpoints(nil)
	return s
}

func (h *house) addWith(name string, settings policy.Settings, addresses ...string) *policy.Service {
	if len(addresses) == 0 {
		addresses = []string{first, second}
	}
	s := policy.NewService(name, settings, func(breaker.Key, breaker.Transition) { h.server.Changed() })
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

func (h *house) remove(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var rest []*policy.Service
	for _, s := range h.services {
		if s.Name() != name {
			rest = append(rest, s)
		}
	}
	h.services = rest
}

// call makes n calls that take 20 ms and end with the code.
func (h *house) call(s *policy.Service, method string, n int, code policy.Code) {
	for range n {
		end := time.Since(h.origin)
		now := end - 20*time.Millisecond
		var c policy.Call
		var a policy.Attempt
		c.Begin(s.Method(method), now, policy.Arrival{Timeout: policy.NoTimeout})
		if r := c.Admit(now, 0).Refusal; r != nil {
			c.End(end, policy.Refused(r), 0)
			continue
		}
		if r := c.Pick(now, 0, &a); r != nil {
			c.End(end, policy.Refused(r), 0)
			continue
		}
		result := policy.Result{Code: code}
		c.Settle(&a, end, result, 0)
		c.End(end, result, 0)
	}
}

func (h *house) breakers() outriggerv1.BreakerServiceClient {
	return outriggerv1.NewBreakerServiceClient(h.conn)
}

func (h *house) endpoints() outriggerv1.EndpointServiceClient {
	return outriggerv1.NewEndpointServiceClient(h.conn)
}

func (h *house) reports() outriggerv1.SlaServiceClient {
	return outriggerv1.NewSlaServiceClient(h.conn)
}

func (h *house) agent() outriggerv1.AgentServiceClient {
	return outriggerv1.NewAgentServiceClient(h.conn)
}

// context ends with the test, and long before the test binary's patience.
func (h *house) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	h.t.Cleanup(cancel)
	return ctx
}

func wantCode(t *testing.T, err error, want codes.Code) *status.Status {
	t.Helper()
	s := status.Convert(err)
	if s.Code() != want {
		t.Fatalf("%v, want %v", err, want)
	}
	return s
}

func must[T any](t *testing.T) func(T, error) T {
	return func(v T, err error) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

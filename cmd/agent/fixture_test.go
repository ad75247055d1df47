package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const sayHello = "/helloworld.Greeter/SayHello"

// stage is an agent's API whose calls are made by the test.
type stage struct {
	address string
	origin  time.Time
	server  *api.Server
	greeter *policy.Service
}

func (s *stage) Info() api.Info {
	return api.Info{Version: "v1.2.3", ConfigPath: "o.yaml", ConfigGeneration: 3, Egress: "127.0.0.1:7600", API: s.address, Admin: "127.0.0.1:7602"}
}
func (s *stage) Note(*balancer.Endpoint) string { return "" }

func (s *stage) TaskPromises() []api.Promise { return nil }

func (s *stage) Drained(string, string, bool) {}

func (s *stage) Traffic() api.Traffic {
	return api.Traffic{Calls: 12, ActiveCalls: 1, DownstreamConnections: 1, UpstreamConnections: 2}
}
func (s *stage) Services() []*policy.Service { return []*policy.Service{s.greeter} }
func (s *stage) Discovery(string) (api.Discovery, bool) {
	return api.Discovery{Source: "dns greeter.default.svc:50051", Version: 2, Endpoints: 2, Stale: true, Age: 90 * time.Second, Problem: "10.0.0.10:53: no answer in time"}, true
}
func (s *stage) Reload(context.Context) error {
	return errors.New("o.yaml:3:5: services[0].name: want a name")
}

// newStage serves an agent with one service, greeter, whose two endpoints have
// a breaker each. $OUTRIGGER_API leads to it.
func newStage(t *testing.T) *stage {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &stage{address: listener.Addr().String(), origin: time.Now().Add(-time.Minute)}
	p := policy.Default()
	p.Breaker = policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: breaker.Reference()}
	p.LoadBalancing = balancer.Options{Policy: balancer.RoundRobin}
	s.greeter = policy.NewService("greeter", policy.Settings{Policy: p}, func(breaker.Key, breaker.Transition) { s.server.Changed() })
	s.greeter.SetEndpoints([]balancer.Spec{{Address: "127.0.0.1:50051", Zone: "a"}, {Address: "127.0.0.1:50052", Weight: 3}})
	s.server = api.New(api.Options{Origin: s.origin, Agent: s})
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener) }()
	t.Cleanup(func() {
		s.server.Shutdown(context.Background())
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	t.Setenv(apiVariable, s.address)
	return s
}

// call makes n calls that take 20 ms and end with the code.
func (s *stage) call(n int, code policy.Code) {
	for range n {
		end := time.Since(s.origin)
		now := end - 20*time.Millisecond
		var c policy.Call
		var a policy.Attempt
		result := policy.Result{Code: code}
		c.Begin(s.greeter.Method(sayHello), now, policy.Arrival{Timeout: policy.NoTimeout})
		if admission := c.Admit(now, 0); admission.Refusal != nil {
			result = policy.Refused(admission.Refusal)
		} else if r := c.Pick(now, 0, &a); r != nil {
			result = policy.Refused(r)
		} else {
			c.Settle(&a, end, result, 0)
		}
		c.End(end, result, 0)
	}
}

// outcome is what a verb did.
type outcome struct {
	code           int
	stdout, stderr string
}

// outrigger runs a verb.
func outrigger(args ...string) outcome {
	var stdout, stderr bytes.Buffer
	code := execute(context.Background(), args, &stdout, &stderr)
	return outcome{code, stdout.String(), stderr.String()}
}

// record is an output that a test can look at while it is written.
type record struct {
	mu    sync.Mutex
	text  bytes.Buffer
	grown chan struct{}
}

func newRecord() *record { return &record{grown: make(chan struct{}, 1)} }

func (r *record) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case r.grown <- struct{}{}:
	default:
	}
	return r.text.Write(p)
}

func (r *record) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

// await returns once the output is as found says.
func (r *record) await(t *testing.T, found func(string) bool) string {
	t.Helper()
	patience := time.After(20 * time.Second)
	for {
		if text := r.String(); found(text) {
			return text
		}
		select {
		case <-r.grown:
		case <-patience:
			t.Fatalf("it never came:\n%s", r.String())
		}
	}
}

func wantText(t *testing.T, got, want string) {
	t.Helper()
	if got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

package interceptors

import (
	"context"
	"errors"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

func newClient(t *testing.T, service *policy.Service) *Client {
	t.Helper()
	client, err := New(Options{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return client
}

func TestAnOpenBreakerOfAnEndpointSteersCallsAway(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 1
	ss := newServers(t)
	a, b := ss.start("a", failsWith(codes.Internal)), ss.start("b", nil)
	cc, service := ss.connect(policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}, Breaker: policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: o}}, []string{"a", "b"})
	eventually(t, "a gets no call", func() bool { _, _ = ask(t.Context(), cc); return a.calls.Load() == 1 })
	before := b.calls.Load()

	for range 10 {
		if who, err := ask(t.Context(), cc); err != nil || who != "b" {
			t.Fatalf("answered by %q, %v", who, err)
		}
	}

	if a.calls.Load() != 1 || b.calls.Load() != before+10 {
		t.Fatalf("%d calls to a, %d to b", a.calls.Load(), b.calls.Load()-before)
	}
	nothingHeld(t, service)
}

func TestABreakerByEndpointNeedsTheBalancer(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	cc := ss.either(false, policy.Policy{Breaker: policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: breaker.Reference()}}, "a")

	_, unary := ask(t.Context(), cc)
	_, stream := openBidi(t.Context(), cc)

	for _, err := range []error{unary, stream} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "DialOptions") {
			t.Errorf("got %v", err)
		}
	}
}

func TestAnotherBalancerInItsPlaceIsSaid(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	client := newClient(t, policy.NewService("greeter", policy.Settings{}, nil))
	cc := ss.dialTo("passthrough:///a", append(client.DialOptions(), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`))...)

	_, unary := ask(t.Context(), cc)
	_, stream := openBidi(t.Context(), cc)

	for _, err := range []error{unary, stream} {
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "WithDefaultServiceConfig") {
			t.Errorf("got %v", err)
		}
	}
}

func TestEndpointsMayComeAndGo(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	ss.start("b", nil)
	cc, service := ss.connect(policy.Policy{}, []string{"a"})
	if who, err := ask(t.Context(), cc); err != nil || who != "a" {
		t.Fatalf("answered by %q, %v", who, err)
	}

	service.SetEndpoints(specs("b"))

	if who, err := ask(t.Context(), cc); err != nil || who != "b" {
		t.Fatalf("answered by %q, %v", who, err)
	}
	service.SetEndpoints(nil)
	_, err := ask(t.Context(), cc)
	if reason, _ := reasonOf(err); reason != "NO_ENDPOINTS" {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

func TestADrainedEndpointGetsNoCall(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	ss.start("b", nil)
	cc, service := ss.connect(policy.Policy{}, []string{"a", "b"})
	service.Endpoints().Find("a").SetDraining(true)
	for range 20 {
		if _, err := ask(t.Context(), cc, grpc.WaitForReady(true)); err != nil {
			t.Fatal(err)
		}
	}
	if a.calls.Load() != 0 {
		t.Fatalf("%d calls", a.calls.Load())
	}
	service.Endpoints().Find("b").SetDraining(true)
	_, err := ask(t.Context(), cc)
	if reason, _ := reasonOf(err); reason != "ALL_UNHEALTHY" {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

func TestAnEjectedEndpointGetsNoCallUntilItsTimeIsOver(t *testing.T) {
	ss := newServers(t)
	var left atomic.Int64 // failures that a has left
	a := ss.start("a", func(context.Context, int64) error {
		if left.Add(-1) >= 0 {
			return status.Error(codes.Internal, "broken")
		}
		return nil
	})
	b := ss.start("b", nil)
	p := policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}, Outlier: balancer.OutlierOptions{ConsecutiveFailures: 3, EjectFor: 100 * time.Millisecond}}
	cc, service := ss.connect(p, []string{"a", "b"})
	// Both are connected: an ejected endpoint is better than one that is not.
	eventually(t, "both answer", func() bool { _, _ = ask(t.Context(), cc); return a.calls.Load() > 0 && b.calls.Load() > 0 })
	before := a.calls.Load()
	left.Store(3)
	for a.calls.Load() < before+3 {
		_, _ = ask(t.Context(), cc)
	}
	if out := service.Outliers().Out; len(out) != 1 || out[0].Endpoint.Address() != "a" {
		t.Fatalf("out are %+v", out)
	}
	// Calls bring it back, and it answers.
	for began := time.Now(); a.calls.Load() < before+4; {
		if _, err := ask(t.Context(), cc); err != nil {
			t.Fatal(err)
		}
		if time.Since(began) > 10*time.Second {
			t.Fatal("it did not come back")
		}
	}
	if c, reason, _ := service.Endpoints().Find("a").Condition(); c != balancer.Ready || reason != "" {
		t.Errorf("back, it is %v %q", c, reason)
	}
}

func TestOthersResolversSetTheEndpoints(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	ss.start("b", nil)
	service := policy.NewService("greeter", policy.Settings{}, nil)
	r := manual.NewBuilderWithScheme("made")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: "a"}}})
	cc := ss.dialTo("made:///x", append(newClient(t, service).DialOptions(), grpc.WithResolvers(r))...)
	if who, err := ask(t.Context(), cc); err != nil || who != "a" {
		t.Fatalf("answered by %q, %v", who, err)
	}

	r.UpdateState(resolver.State{Addresses: []resolver.Address{{Addr: "b"}}})

	if who, err := ask(t.Context(), cc); err != nil || who != "b" || service.Endpoints().Find("b").Calls() != 1 {
		t.Fatalf("answered by %q, %v", who, err)
	}
}

func TestTwoTargetsOfOneServiceAreRefused(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	ss.start("b", nil)
	options := newClient(t, policy.NewService("greeter", policy.Settings{}, nil)).DialOptions()
	first, same, other := ss.dialTo("passthrough:///a", options...), ss.dialTo("passthrough:///a", options...), ss.dialTo("passthrough:///b", options...)
	for _, cc := range []*grpc.ClientConn{first, same} {
		if _, err := ask(t.Context(), cc); err != nil {
			t.Fatal(err)
		}
	}

	_, err := ask(t.Context(), other)

	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "come from passthrough:///a already") {
		t.Fatalf("got %v", err)
	}
}

func TestClientsOfOneProcessKeepApart(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	ss.start("b", nil)
	ccA, serviceA := ss.connect(policy.Policy{}, []string{"a"})
	ccB, serviceB := ss.connect(policy.Policy{}, []string{"b"})
	for range 3 {
		if who, err := ask(t.Context(), ccA); err != nil || who != "a" {
			t.Fatalf("answered by %q, %v", who, err)
		}
	}
	if who, err := ask(t.Context(), ccB); err != nil || who != "b" {
		t.Fatalf("answered by %q, %v", who, err)
	}
	if a, b := serviceA.Recorder().Lifetime().Calls, serviceB.Recorder().Lifetime().Calls; a != 3 || b != 1 {
		t.Fatalf("%d and %d calls", a, b)
	}
}

func TestForgottenClientsLeaveTheRegistry(t *testing.T) {
	name := newClient(t, policy.NewService("forgotten", policy.Settings{}, nil)).name
	eventually(t, "it is registered still", func() bool {
		runtime.GC()
		_, there := registry.Load(name)
		return !there
	})
}

func TestTheTargetNamesTheService(t *testing.T) {
	ss := newServers(t)
	cc := ss.dialTo("outrigger:///billing", newClient(t, policy.NewService("greeter", policy.Settings{}, nil)).DialOptions()...)
	if _, err := ask(t.Context(), cc); err == nil || !strings.Contains(err.Error(), "want outrigger:///greeter") {
		t.Fatalf("got %v", err)
	}
}

func TestAnEndpointThatIsDownIsPassedOver(t *testing.T) {
	ss := newServers(t)
	b := ss.start("b", nil)
	cc, service := ss.connect(policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, []string{"a", "b"})
	for range 20 {
		if who, err := ask(t.Context(), cc); err != nil || who != "b" {
			t.Fatalf("answered by %q, %v", who, err)
		}
	}
	if b.calls.Load() != 20 {
		t.Fatalf("%d calls", b.calls.Load())
	}
	nothingHeld(t, service)
}

func TestNoEndpointUpSaysWhyAndFallsBack(t *testing.T) {
	ss := newServers(t)
	cc, service := ss.connect(policy.Policy{}, []string{"a"})

	_, err := ask(t.Context(), cc)

	var refusal *policy.Refusal
	if !errors.As(err, &refusal) || refusal.Reason != policy.ConnectFailed || refusal.Endpoint != "a" || !strings.Contains(refusal.Message, "connection refused") {
		t.Fatalf("got %v", err)
	}
	if service.Endpoints().All()[0].Failures() != 1 {
		t.Fatalf("%d failures of the endpoint", service.Endpoints().All()[0].Failures())
	}
	cc, _ = ss.connect(policy.Policy{Fallback: policy.FallbackPolicy{Enabled: true, Body: string(wrapped("nobody"))}}, []string{"a"})
	if who, err := ask(t.Context(), cc); err != nil || who != "nobody" {
		t.Fatalf("got %q, %v", who, err)
	}
}

func TestWaitForReadyWaits(t *testing.T) {
	ss := newServers(t)
	cc, service := ss.connect(policy.Policy{}, []string{"a"})
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	_, err := ask(ctx, cc, grpc.WaitForReady(true))

	if reason, _ := reasonOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "DEADLINE" || service.Endpoints().All()[0].Calls() != 0 {
		t.Fatalf("got %v (%s) after %d attempts", err, reason, service.Endpoints().All()[0].Calls())
	}
}

func TestRPCsOfOthersAreBalancedToo(t *testing.T) {
	ss := newServers(t)
	a, b := ss.start("a", nil), ss.start("b", nil)
	service := policy.NewService("greeter", policy.Settings{Policy: policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}}, nil)
	service.SetEndpoints(specs("a", "b"))
	c := newClient(t, service)
	cc := ss.dialTo("outrigger:///greeter", grpc.WithDefaultServiceConfig(c.serviceConfig()), grpc.WithResolvers(resolverBuilder{c}))
	eventually(t, "one endpoint gets no call", func() bool {
		err := cc.Invoke(t.Context(), "/t.T/Unary", wrapperspb.String(""), new(wrapperspb.StringValue))
		return err == nil && a.calls.Load() > 0 && b.calls.Load() > 0
	})
	nothingHeld(t, service)
	runtime.KeepAlive(c)
}

func TestABalancerWithoutItsClientIsRefused(t *testing.T) {
	_, err := grpc.NewClient("passthrough:///a", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"outrigger":{}}]}`))
	if err == nil || !strings.Contains(err.Error(), "Client.DialOptions") {
		t.Fatalf("got %v", err)
	}
}

func TestOptionsAreChecked(t *testing.T) {
	if _, err := New(Options{}); err == nil {
		t.Error("no service: taken")
	}
	if _, err := New(Options{Service: policy.NewService("s", policy.Settings{}, nil), Origin: time.Now().Add(time.Hour)}); err == nil {
		t.Error("an origin in the future: taken")
	}
}

func TestCallsOfOneHashGoToOneEndpoint(t *testing.T) {
	for _, key := range []string{keyHash, "x-user"} {
		ss := newServers(t)
		for _, name := range []string{"a", "b", "c"} {
			ss.start(name, nil)
		}
		cc, _ := ss.connect(policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.Maglev}, HashOn: policy.HashPolicy{Header: "x-user"}}, []string{"a", "b", "c"})
		answered := make(map[string]bool)
		eventually(t, "all three are connected", func() bool {
			user := strconv.Itoa(len(answered)) + strconv.FormatInt(time.Now().UnixNano(), 10)
			who, _ := ask(metadata.AppendToOutgoingContext(t.Context(), key, user), cc)
			answered[who] = true
			return answered["a"] && answered["b"] && answered["c"]
		})
		ctx := metadata.AppendToOutgoingContext(t.Context(), key, "anna")
		first, _ := ask(ctx, cc)

		for range 30 {
			if who, err := ask(ctx, cc); err != nil || who != first {
				t.Fatalf("%s: %q, then %q, %v", key, first, who, err)
			}
		}
	}
}

package api

import (
	"errors"
	"io"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// ledger is a Registrar that notes what it is told.
type ledger struct {
	mu     sync.Mutex
	held   []Registered
	length time.Duration
	closed bool
	err    error
}

func (l *ledger) Register(_ string, e Registered, length time.Duration) (string, time.Duration, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held, l.length = []Registered{e}, length
	return "lease-1", 10 * time.Second, l.err
}

func (l *ledger) Renew(id string) (time.Duration, error) {
	if id != "lease-1" {
		return 0, Refuse(NoLease, errors.New("no such lease"))
	}
	return 7 * time.Second, nil
}

func (l *ledger) Unregister(string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.held = nil
}

func (l *ledger) Stream(string) Registration { return l }

func (l *ledger) Set(list []Registered) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.err != nil {
		return 0, l.err
	}
	l.held = list
	return len(list), nil
}

func (l *ledger) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
}

func (l *ledger) over() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

func newLedger(t *testing.T) (*house, *ledger) {
	h, l := newHouse(t), &ledger{}
	h.server.registrar = l
	h.add("greeter", reference(policy.ScopeService))
	return h, l
}

func TestARegistrationGetsALease(t *testing.T) {
	h, l := newLedger(t)

	lease := must[*outriggerv1.RegisterEndpointResponse](t)(h.endpoints().RegisterEndpoint(h.context(), &outriggerv1.RegisterEndpointRequest{
		Service: "greeter", Endpoint: &outriggerv1.Registration{Address: "10.0.0.1:1", Zone: "b", Priority: 1, Terminating: true}, Lease: durationpb.New(time.Minute),
	}))

	if lease.GetLeaseId() != "lease-1" || lease.GetLease().AsDuration() != 10*time.Second || l.length != time.Minute {
		t.Errorf("%v, asked for %v", lease, l.length)
	}
	if e := l.held[0]; e.Address != "10.0.0.1:1" || e.Weight != 1 || e.Zone != "b" || e.Priority != 1 || !e.Terminating {
		t.Errorf("%+v", e)
	}
	renewed := must[*outriggerv1.RenewEndpointResponse](t)(h.endpoints().RenewEndpoint(h.context(), &outriggerv1.RenewEndpointRequest{LeaseId: "lease-1"}))
	if renewed.GetLease().AsDuration() != 7*time.Second {
		t.Errorf("%v", renewed)
	}
	must[*outriggerv1.UnregisterEndpointResponse](t)(h.endpoints().UnregisterEndpoint(h.context(), &outriggerv1.UnregisterEndpointRequest{LeaseId: "lease-1"}))
	if l.held != nil {
		t.Errorf("%+v", l.held)
	}
}

func TestRegistrationsThatAreRefused(t *testing.T) {
	h, l := newLedger(t)
	endpoint := &outriggerv1.Registration{Address: "10.0.0.1:1"}
	_, err := h.endpoints().RegisterEndpoint(h.context(), &outriggerv1.RegisterEndpointRequest{Service: "nobody", Endpoint: endpoint})
	wantCode(t, err, codes.NotFound)
	_, err = h.endpoints().RenewEndpoint(h.context(), &outriggerv1.RenewEndpointRequest{LeaseId: "lease-2"})
	wantCode(t, err, codes.NotFound)
	_, err = h.endpoints().RegisterEndpoint(h.context(), &outriggerv1.RegisterEndpointRequest{Service: "greeter"})
	wantCode(t, err, codes.InvalidArgument)
	for mistake, want := range map[Mistake]codes.Code{NoRegistrations: codes.FailedPrecondition, Full: codes.ResourceExhausted, BadEndpoint: codes.InvalidArgument} {
		l.err = Refuse(mistake, errors.New("why"))
		_, err = h.endpoints().RegisterEndpoint(h.context(), &outriggerv1.RegisterEndpointRequest{Service: "greeter", Endpoint: endpoint})
		if s := wantCode(t, err, want); s.Message() != "why" {
			t.Error(s.Message())
		}
	}
}

// registering opens a stream that has registered one endpoint.
func registering(t *testing.T, h *house) outriggerv1.EndpointService_RegisterEndpointsClient {
	t.Helper()
	stream := must[outriggerv1.EndpointService_RegisterEndpointsClient](t)(h.endpoints().RegisterEndpoints(h.context()))
	if err := stream.Send(&outriggerv1.RegisterEndpointsRequest{Service: "greeter", Endpoints: []*outriggerv1.Registration{{Address: "10.0.0.1:1", Weight: 3}}}); err != nil {
		t.Fatal(err)
	}
	if n := must[*outriggerv1.RegisterEndpointsResponse](t)(stream.Recv()).GetEndpoints(); n != 1 {
		t.Fatal(n)
	}
	return stream
}

func TestAStreamsRegistrationEndsWithIt(t *testing.T) {
	h, l := newLedger(t)
	stream := registering(t, h)
	if l.over() || l.held[0].Weight != 3 {
		t.Fatalf("%+v", l.held)
	}

	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	if !l.over() {
		t.Error("it is registered still")
	}
}

func TestAStreamsRegistrationEndsWithItsClient(t *testing.T) {
	h, l := newLedger(t)
	registering(t, h)

	h.conn.Close()

	for range 1000 {
		if l.over() {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("it is registered still")
}

func TestAStreamIsOfOneService(t *testing.T) {
	h, l := newLedger(t)
	stream := registering(t, h)

	if err := stream.Send(&outriggerv1.RegisterEndpointsRequest{Service: "billing"}); err != nil {
		t.Fatal(err)
	}
	_, err := stream.Recv()

	wantCode(t, err, codes.InvalidArgument)
	if !l.over() {
		t.Error("it is registered still")
	}
}

func TestAStreamEndsWithTheAgent(t *testing.T) {
	h, _ := newLedger(t)
	stream := registering(t, h)

	h.server.end()

	_, err := stream.Recv()
	wantCode(t, err, codes.Unavailable)
}

func TestStatusShowsWhereEndpointsComeFrom(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	h.add("dialled:80", reference(policy.ScopeService))
	h.found = map[string]Discovery{"greeter": {Source: "dns greeter:1", Version: 3, Endpoints: 2, Stale: true, Age: 12 * time.Second, Problem: "no answer"}}

	services := must[*outriggerv1.GetStatusResponse](t)(h.agent().GetStatus(h.context(), &outriggerv1.GetStatusRequest{})).GetStatus().GetServices()

	if services[0].GetDiscovery() != nil {
		t.Errorf("dialled: %v", services[0].GetDiscovery())
	}
	d := services[1].GetDiscovery()
	if d.GetSource() != "dns greeter:1" || d.GetVersion() != 3 || d.GetEndpoints() != 2 || !d.GetStale() || d.GetAge().AsDuration() != 12*time.Second || d.GetProblem() != "no answer" {
		t.Errorf("%v", d)
	}
}

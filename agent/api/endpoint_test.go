package api

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestEndpointsShowWhatTheyDid(t *testing.T) {
	// Given two endpoints, one of which failed and lost its connection,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	h.call(greeter, sayHello, 3, policy.OK)
	h.call(greeter, sayHello, 1, policy.Unavailable)
	greeter.Endpoints().Find(second).SetConnected(false, "connection refused", time.Second)
	// when they are listed,
	list := must[*outriggerv1.ListEndpointsResponse](t)(h.endpoints().ListEndpoints(h.context(), &outriggerv1.ListEndpointsRequest{})).GetEndpoints()
	// then each shows its share and its state.
	if len(list) != 2 {
		t.Fatalf("%v", list)
	}
	if e := list[0]; e.GetAddress() != first || e.GetState() != outriggerv1.Endpoint_READY || e.GetReason() != "" || e.GetCalls() != 2 || e.GetFailures() != 0 || e.GetInFlight() != 0 || e.GetWeight() != 1 {
		t.Errorf("%v", e)
	}
	if e := list[1]; e.GetState() != outriggerv1.Endpoint_CONNECTING || e.GetReason() != "connection refused" || e.GetCalls() != 2 || e.GetFailures() != 1 || !e.GetSince().AsTime().Equal(h.origin.Add(time.Second)) {
		t.Errorf("%v", e)
	}
}

func TestEndpointsShowTheWeightThatTheyReport(t *testing.T) {
	h := newHouse(t)
	greeter := h.add("greeter", policy.Policy{LoadBalancing: byReports})
	balancer.NewPicker(byReports).Report(greeter.Endpoints().Find(second), time.Since(h.origin), balancer.LoadReport{QPS: 50, CPUUtilization: 0.125})

	list := must[*outriggerv1.ListEndpointsResponse](t)(h.endpoints().ListEndpoints(h.context(), &outriggerv1.ListEndpointsRequest{})).GetEndpoints()

	if len(list) != 2 || list[0].GetReportedWeight() != 0 || list[1].GetReportedWeight() != 400 || list[1].GetWeight() != 1 {
		t.Errorf("%v", list)
	}
}

func TestADrainedEndpointGetsNoCalls(t *testing.T) {
	// Given an address that two services have,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	h.add("billing", reference(policy.ScopeService))
	// when it is drained, then in both,
	drained := must[*outriggerv1.DrainEndpointResponse](t)(h.endpoints().DrainEndpoint(h.context(), &outriggerv1.DrainEndpointRequest{Address: first})).GetEndpoints()
	if len(drained) != 2 || drained[0].GetService() != "billing" || drained[1].GetState() != outriggerv1.Endpoint_DRAINING || drained[1].GetReason() != "drained by an operator" {
		t.Fatalf("%v", drained)
	}
	// and no call goes there.
	h.call(greeter, sayHello, 10, policy.OK)
	if n := greeter.Endpoints().Find(first).Calls(); n != 0 {
		t.Errorf("%d calls", n)
	}
	// When it is taken back in one of them, then in that one alone.
	back := must[*outriggerv1.UndrainEndpointResponse](t)(h.endpoints().UndrainEndpoint(h.context(), &outriggerv1.UndrainEndpointRequest{Address: first, Service: "greeter"})).GetEndpoints()
	if len(back) != 1 || back[0].GetService() != "greeter" || back[0].GetState() != outriggerv1.Endpoint_READY {
		t.Errorf("%v", back)
	}
	if got, want := strings.Join(h.drained, ", "), "billing "+first+" true, greeter "+first+" true, greeter "+first+" false"; got != want {
		t.Errorf("the agent was told %s", got)
	}
	if !h.services[1].Endpoints().Find(first).Barred() {
		t.Error("billing's is not drained any more")
	}
}

func TestAnUnknownEndpointIsAnsweredWithTheKnownOnes(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	h.add("billing", reference(policy.ScopeService))
	_, err := h.endpoints().DrainEndpoint(h.context(), &outriggerv1.DrainEndpointRequest{Address: "127.0.0.1:1"})
	if s := wantCode(t, err, codes.NotFound); s.Message() != `there is no endpoint "127.0.0.1:1"; known: 127.0.0.1:50051, 127.0.0.1:50052` {
		t.Error(s.Message())
	}
}

func TestWatchEndpointsTellsEachChange(t *testing.T) {
	// Given a watcher that has seen both endpoints,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	stream := must[outriggerv1.EndpointService_WatchEndpointsClient](t)(h.endpoints().WatchEndpoints(h.context(), &outriggerv1.WatchEndpointsRequest{Service: "greeter"}))
	receive := must[*outriggerv1.WatchEndpointsResponse](t)
	for _, want := range []string{first, second} {
		if m := receive(stream.Recv()); m.GetEndpoint().GetAddress() != want || m.GetEndpoint().GetState() != outriggerv1.Endpoint_READY {
			t.Fatalf("%v", m)
		}
	}
	// when one is drained, then of that at once,
	must[*outriggerv1.DrainEndpointResponse](t)(h.endpoints().DrainEndpoint(h.context(), &outriggerv1.DrainEndpointRequest{Address: second}))
	if m := receive(stream.Recv()); m.GetEndpoint().GetAddress() != second || m.GetEndpoint().GetState() != outriggerv1.Endpoint_DRAINING {
		t.Fatalf("%v", m)
	}
	// and when one leaves, of that.
	greeter.SetEndpoints([]balancer.Spec{{Address: second}})
	h.server.Changed()
	if m := receive(stream.Recv()); m.GetEndpoint().GetAddress() != first || !m.GetGone() {
		t.Fatalf("%v", m)
	}
}

func TestAnEjectedEndpointSaysWhenItIsBack(t *testing.T) {
	// Given an endpoint that goes out for half a minute,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	now := time.Since(h.origin)
	greeter.Endpoints().Find(second).Eject("5 failures in a row", now, now+30*time.Second+200*time.Millisecond)
	// when it is watched, then the reason says until when,
	stream := must[outriggerv1.EndpointService_WatchEndpointsClient](t)(h.endpoints().WatchEndpoints(h.context(), &outriggerv1.WatchEndpointsRequest{Service: "greeter"}))
	receive := must[*outriggerv1.WatchEndpointsResponse](t)
	receive(stream.Recv())
	e := receive(stream.Recv()).GetEndpoint()
	if !strings.HasPrefix(e.GetReason(), "5 failures in a row; back in ") || e.GetState() != outriggerv1.Endpoint_EJECTED {
		t.Errorf("%v", e)
	}
	// and the passing of that time is no news.
	seen := endpointDiff{}
	var told []*outriggerv1.WatchEndpointsResponse
	send := func(m *outriggerv1.WatchEndpointsResponse) error { told = append(told, m); return nil }
	for _, s := range []*Server{{origin: h.origin, agent: h}, {origin: h.origin.Add(-10 * time.Second), agent: h}} {
		if err := seen.next(s, endpointsOf(h.services), send); err != nil {
			t.Fatal(err)
		}
	}
	if len(told) != 2 {
		t.Errorf("told %d times of two endpoints: %v", len(told), told)
	}
}

func TestWhatAPolicyWouldHaveDoneStandsBesideReady(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService)).Endpoints().Find(second).SetConnected(false, "connection refused", time.Second)
	note := "would be UNHEALTHY: health check: NOT_SERVING"
	h.notes = map[string]string{first: note, second: note}

	list := must[*outriggerv1.ListEndpointsResponse](t)(h.endpoints().ListEndpoints(h.context(), &outriggerv1.ListEndpointsRequest{})).GetEndpoints()

	if list[0].GetState() != outriggerv1.Endpoint_READY || list[0].GetReason() != note || list[1].GetReason() != "connection refused" {
		t.Errorf("%v", list)
	}
}

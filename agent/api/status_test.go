package api

import (
	"errors"
	"fmt"
	"maps"
	"math"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestGetAgentSaysWhatRuns(t *testing.T) {
	h := newHouse(t)
	loaded := time.Unix(1_800_000_000, 0)
	h.info = Info{Version: "v1.2.3", ConfigPath: "o.yaml", ConfigGeneration: 7, ConfigLoaded: loaded, ReloadError: "o.yaml:1:1: no", Egress: "127.0.0.1:7600", API: "127.0.0.1:7601", Admin: "unix:/a", Draining: true}
	a := must[*outriggerv1.GetAgentResponse](t)(h.agent().GetAgent(h.context(), &outriggerv1.GetAgentRequest{})).GetAgent()
	if a.GetVersion() != "v1.2.3" || a.GetConfigPath() != "o.yaml" || a.GetConfigGeneration() != 7 || !a.GetConfigLoaded().AsTime().Equal(loaded) ||
		a.GetLastReload() != nil || a.GetReloadError() != "o.yaml:1:1: no" || a.GetEgressAddress() != "127.0.0.1:7600" ||
		a.GetApiAddress() != "127.0.0.1:7601" || a.GetAdminAddress() != "unix:/a" || a.GetPhase() != outriggerv1.Agent_DRAINING {
		t.Errorf("%v", a)
	}
	if up := a.GetUptime().AsDuration(); up < time.Minute || !a.GetStarted().AsTime().Equal(h.origin) {
		t.Errorf("up %v since %v", up, a.GetStarted().AsTime())
	}
}

func TestStatusShowsEverythingAtAGlance(t *testing.T) {
	// Given a service with 90 good calls in the last 10 s, 5 that fail and so
	// open its breaker, and 5 that it then refuses,
	h := newHouse(t)
	h.traffic = Traffic{Calls: 100, ActiveCalls: 3, DownstreamConnections: 2, UpstreamConnections: 4, BufferedBytes: 5}
	greeter := h.add("greeter", reference(policy.ScopeService))
	h.call(greeter, sayHello, 90, policy.OK)
	h.call(greeter, sayHello, 10, policy.Unavailable)
	h.add("billing", policy.Default())
	// when the status is asked for,
	s := must[*outriggerv1.GetStatusResponse](t)(h.agent().GetStatus(h.context(), &outriggerv1.GetStatusRequest{})).GetStatus()
	// then it has it all.
	if s.GetCallsTotal() != 100 || s.GetActiveCalls() != 3 || s.GetDownstreamConnections() != 2 || s.GetUpstreamConnections() != 4 || s.GetBufferedBytes() != 5 || s.GetAgent().GetVersion() != "v1.2.3" {
		t.Errorf("%v", s)
	}
	if len(s.GetServices()) != 2 || s.GetServices()[0].GetName() != "billing" {
		t.Fatalf("%v", s.GetServices())
	}
	g := s.GetServices()[1]
	if g.GetAvailability() != 90 || g.GetSuccessRate() != 90 || g.GetCounted() != 100 || g.GetCallsTotal() != 100 {
		t.Errorf("%v", g)
	}
	if r := g.GetCallsPerSecond(); r < 9.9 || r > 11.2 {
		t.Errorf("%v calls a second", r)
	}
	if math.Abs(g.GetP50Ms()-20) > 0.4 {
		t.Errorf("p50 %v", g.GetP50Ms())
	}
	if want := map[string]uint64{"BREAKER_OPEN": 5}; !maps.Equal(g.GetRefusals(), want) {
		t.Errorf("%v", g.GetRefusals())
	}
	if want := map[string]uint64{"OK": 90, "UNAVAILABLE": 10}; !maps.Equal(g.GetCodes(), want) {
		t.Errorf("%v", g.GetCodes())
	}
	if len(g.GetEndpoints()) != 2 || len(g.GetBreakers()) != 1 || g.GetBreakers()[0].GetState() != outriggerv1.Breaker_OPEN {
		t.Errorf("%v %v", g.GetEndpoints(), g.GetBreakers())
	}
}

func TestStatusShowsWhatObserveWouldHaveRefused(t *testing.T) {
	// Given the built-in defaults, whose breaker observes,
	h := newHouse(t)
	greeter := h.add("greeter", policy.Default())
	// when it would have opened after 5 of 20 calls,
	h.call(greeter, sayHello, 20, policy.Unavailable)
	s := must[*outriggerv1.GetStatusResponse](t)(h.agent().GetStatus(h.context(), &outriggerv1.GetStatusRequest{Service: "greeter"})).GetStatus().GetServices()[0]
	// then 15 went through that enforcing would have refused.
	if s.GetWouldRefuse() != 15 || s.GetWouldRefusePercent() != 75 || len(s.GetRefusals()) != 0 {
		t.Errorf("%v", s)
	}
}

func TestStatusIsBounded(t *testing.T) {
	// Given 205 services, the last of them busy, with 203 endpoints and as many
	// breakers of which the last is open,
	h := newHouse(t)
	for i := range 204 {
		h.add(fmt.Sprintf("quiet%03d", i), policy.Policy{}, first)
	}
	var addresses []string
	for i := range 203 {
		addresses = append(addresses, fmt.Sprintf("10.0.0.%03d:1", i))
	}
	busy := h.add("zebra", reference(policy.ScopeEndpoint), addresses...)
	h.call(busy, sayHello, 203, policy.OK)
	last := "zebra@10.0.0.202:1"
	must[*outriggerv1.OpenBreakerResponse](t)(h.breakers().OpenBreaker(h.context(), &outriggerv1.OpenBreakerRequest{Name: last}))
	// when the status is asked for,
	s := must[*outriggerv1.GetStatusResponse](t)(h.agent().GetStatus(h.context(), &outriggerv1.GetStatusRequest{})).GetStatus()
	// then what matters is there, and what is left out is counted.
	if len(s.GetServices()) != 200 || s.GetOmittedServices() != 5 {
		t.Fatalf("%d services, %d left out", len(s.GetServices()), s.GetOmittedServices())
	}
	z := s.GetServices()[199]
	if z.GetName() != "zebra" || len(z.GetEndpoints()) != 200 || z.GetOmittedEndpoints() != 3 || len(z.GetBreakers()) != 200 || z.GetOmittedBreakers() != 3 {
		t.Fatalf("%s: %d + %d endpoints, %d + %d breakers", z.GetName(), len(z.GetEndpoints()), z.GetOmittedEndpoints(), len(z.GetBreakers()), z.GetOmittedBreakers())
	}
	if z.GetBreakers()[0].GetName() != last {
		t.Errorf("%v comes first", z.GetBreakers()[0].GetName())
	}
}

func TestWatchStatusComesAtOnceAndAtEachInterval(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	stream := must[outriggerv1.AgentService_WatchStatusClient](t)(h.agent().WatchStatus(h.context(), &outriggerv1.WatchStatusRequest{Interval: durationpb.New(100 * time.Millisecond)}))
	for range 3 {
		if m := must[*outriggerv1.WatchStatusResponse](t)(stream.Recv()); len(m.GetStatus().GetServices()) != 1 {
			t.Fatalf("%v", m)
		}
	}
}

func TestReload(t *testing.T) {
	h := newHouse(t)
	h.info.ConfigGeneration = 2
	a := must[*outriggerv1.ReloadResponse](t)(h.agent().Reload(h.context(), &outriggerv1.ReloadRequest{})).GetAgent()
	if a.GetConfigGeneration() != 2 || h.reloads != 1 {
		t.Errorf("%v after %d reloads", a, h.reloads)
	}
	// Given a file with a mistake, then the answer has its place.
	h.reload = func() error { return errors.New("o.yaml:3:5: services[0].policy.timeout: want more than 0") }
	_, err := h.agent().Reload(h.context(), &outriggerv1.ReloadRequest{})
	if s := wantCode(t, err, codes.FailedPrecondition); s.Message() != "o.yaml:3:5: services[0].policy.timeout: want more than 0" {
		t.Error(s.Message())
	}
	// Given one with very many, then the answer still arrives.
	h.reload = func() error { return errors.New(strings.Repeat("o.yaml:1:1: é\n", 10_000)) }
	_, err = h.agent().Reload(h.context(), &outriggerv1.ReloadRequest{})
	wantCode(t, err, codes.FailedPrecondition)
}

func TestStatusSaysWhenTooFewEndpointsAreFit(t *testing.T) {
	// Given a service with three endpoints, and one with a single one,
	h := newHouse(t)
	greeter := h.add("greeter", policy.Default(), "a:1", "b:1", "c:1")
	alone := h.add("alone", policy.Default(), "d:1")
	panicking := func() (says []string) {
		for _, s := range must[*outriggerv1.GetStatusResponse](t)(h.agent().GetStatus(h.context(), &outriggerv1.GetStatusRequest{})).GetStatus().GetServices() {
			if s.GetPanicking() {
				says = append(says, s.GetName())
			}
		}
		return says
	}
	// when one of three is unhealthy, then nothing is said,
	greeter.Endpoints().Find("a:1").SetHealthy(false, "no", time.Second)
	if got := panicking(); got != nil {
		t.Errorf("%v with two of three", got)
	}
	// when two are, and the single one of the other service is, then it is of the
	// one that has others to call,
	greeter.Endpoints().Find("b:1").SetHealthy(false, "no", time.Second)
	alone.Endpoints().Find("d:1").SetHealthy(false, "no", time.Second)
	if got := panicking(); len(got) != 1 || got[0] != "greeter" {
		t.Errorf("%v with one of three", got)
	}
	// and it ends when one is back.
	greeter.Endpoints().Find("b:1").SetHealthy(true, "", 2*time.Second)
	if got := panicking(); got != nil {
		t.Errorf("%v after one came back", got)
	}
}

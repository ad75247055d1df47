package agent

import (
	"testing"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const (
	dialling = ports + "unmatched: {mode: DIAL}\n"
	cared    = dialling + "defaults: {health_check: {grpc: {}, interval: 100ms}, connections: {warm: 2}}\n"
)

// startDialled starts an agent that dials, and an upstream that says how it is.
func startDialled(t *testing.T, text string) (*running, *upstream, *grpchealth.Server, *grpc.ClientConn) {
	t.Helper()
	u := newUpstream(t)
	word := withHealth(u)
	u.serve(t)
	a := startAgent(t, text)
	return a, u, word, dial(t, a.Addresses().Egress, grpc.WithAuthority(u.address))
}

func (r *running) upstreamConnections(n uint64) func() bool {
	return func() bool { return uint64(r.relay.Stats().UpstreamConnections) == n }
}

func (r *running) state(address string, want outriggerv1.Endpoint_State) func() bool {
	return func() bool { return r.endpoint(address).GetState() == want }
}

// checked reports whether there are checks of the name.
func (r *running) checked(name string) bool {
	for _, n := range r.health.Counts() {
		if n.Service == name {
			return true
		}
	}
	return false
}

// TestADialledAuthorityIsCheckedAndConnectedAsTheDefaultsAsk, and is not any
// more once they don't.
func TestADialledAuthorityIsCheckedAndConnectedAsTheDefaultsAsk(t *testing.T) {
	a, u, word, app := startDialled(t, cared)
	if err := call(app); err != nil {
		t.Fatal(err)
	}

	eventually(t, "two warm connections", a.upstreamConnections(2))
	word.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "it is UNHEALTHY", a.state(u.address, outriggerv1.Endpoint_UNHEALTHY))
	if err := call(app); err != nil {
		t.Errorf("there is no other endpoint, and a call fails: %v", err)
	}

	a.rewrite(dialling + "defaults: {health_check: {grpc: {}, interval: 100ms, mode: OBSERVE}}\n")
	if e := a.endpoint(u.address); e.GetState() != outriggerv1.Endpoint_READY || e.GetReason() == "" {
		t.Errorf("observed: %v", e)
	}
	a.rewrite(dialling)
	if e := a.endpoint(u.address); e.GetReason() != "" || a.checked(u.address) {
		t.Errorf("without a check: %v", e)
	}
	if err := call(app); err != nil {
		t.Error(err)
	}
}

// TestADialledAuthorityThatLeftIsForgotten: nobody asks it any more, and one of
// the same name that comes later is checked anew.
func TestADialledAuthorityThatLeftIsForgotten(t *testing.T) {
	a, u, word, app := startDialled(t, cared)
	word.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is UNHEALTHY", a.state(u.address, outriggerv1.Endpoint_UNHEALTHY))

	a.registry.dialled.services.Remove(u.address)

	eventually(t, "it is checked no more", func() bool { return !a.checked(u.address) })
	eventually(t, "its connections end", a.upstreamConnections(0))
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is UNHEALTHY again", a.state(u.address, outriggerv1.Endpoint_UNHEALTHY))
	a.rewrite(ports + "defaults: {health_check: {grpc: {}}}\n")
	if a.checked(u.address) {
		t.Error("it is checked, and nothing is dialled")
	}
}

// TestADialledAuthorityThatNobodyCallsIsLeftAlone until somebody does.
func TestADialledAuthorityThatNobodyCallsIsLeftAlone(t *testing.T) {
	a, u, _, app := startDialled(t, cared)
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two warm connections", a.upstreamConnections(2))
	eventually(t, "a check", func() bool { return a.checked(u.address) })

	r := a.registry
	r.mu.Lock()
	for _, a := range r.attended.known {
		a.used -= attendFor
	}
	r.mu.Unlock()

	eventually(t, "it is checked no more", func() bool { return !a.checked(u.address) })
	eventually(t, "its connections end", a.upstreamConnections(0))
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "two warm connections again", a.upstreamConnections(2))
	eventually(t, "a check again", func() bool { return a.checked(u.address) })
}

// TestAServiceThatHasADialledAuthoritysNameKeepsItsChecks: checks go by name.
func TestAServiceThatHasADialledAuthoritysNameKeepsItsChecks(t *testing.T) {
	a, u, _, app := startDialled(t, cared)
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	eventually(t, "a check", func() bool { return a.checked(u.address) })
	other := newUpstream(t)
	word := withHealth(other)
	other.serve(t)

	a.rewrite(cared + "services:\n  - name: \"" + u.address + "\"\n    match: {authorities: [other]}\n    endpoints: {static: [{address: \"" + other.address + "\"}]}\n")
	word.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "the service's endpoint is UNHEALTHY", a.state(other.address, outriggerv1.Endpoint_UNHEALTHY))
	a.registry.dialled.clear()
	eventually(t, "the dialled one is forgotten", func() bool {
		a.registry.mu.Lock()
		defer a.registry.mu.Unlock()
		return len(a.registry.attended.known) == 0
	})

	if e := a.endpoint(other.address); e.GetState() != outriggerv1.Endpoint_UNHEALTHY || !a.checked(u.address) {
		t.Errorf("the service's: %v", e)
	}
}

// TestADrainedAuthorityThatIsDialledAgainIsDrainedStill.
func TestADrainedAuthorityThatIsDialledAgainIsDrainedStill(t *testing.T) {
	a, u, _, app := startDialled(t, dialling)
	if err := call(app); err != nil {
		t.Fatal(err)
	}
	a.drainEndpoint(u.address)
	a.registry.dialled.clear()

	if err := call(app); err == nil {
		t.Error("a call went to it")
	}
}

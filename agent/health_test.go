package agent

import (
	"os"
	"strings"
	"testing"

	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// withHealth gives an upstream the gRPC health service.
func withHealth(u *upstream) *grpchealth.Server {
	h := grpchealth.NewServer()
	healthpb.RegisterHealthServer(u.server, h)
	return h
}

// endpoint returns what the API says about an address.
func (r *running) endpoint(address string) *outriggerv1.Endpoint {
	r.t.Helper()
	list, err := outriggerv1.NewEndpointServiceClient(dial(r.t, r.Addresses().API)).ListEndpoints(r.t.Context(), &outriggerv1.ListEndpointsRequest{})
	if err != nil {
		r.t.Fatal(err)
	}
	for _, e := range list.GetEndpoints() {
		if e.GetAddress() == address {
			return e
		}
	}
	return nil
}

func (r *running) rewrite(text string) {
	r.t.Helper()
	if err := os.WriteFile(r.path, []byte(text), 0o600); err != nil {
		r.t.Fatal(err)
	}
	if err := r.Reload(); err != nil {
		r.t.Fatal(err)
	}
}

// TestAHealthCheckIsSeenEverywhereAlike: what an endpoint says of itself shows
// in the API and the metrics, and calls go elsewhere; observed, it only shows.
func TestAHealthCheckIsSeenEverywhereAlike(t *testing.T) {
	good, sick := newUpstream(t), newUpstream(t)
	withHealth(good)
	word := withHealth(sick)
	good.serve(t)
	sick.serve(t)
	const check = "load_balancing: {policy: ROUND_ROBIN}, health_check: {grpc: {}, interval: 100ms"
	a := startAgent(t, configOf(check+"}", good, sick))
	app := a.app()
	eventually(t, "both were checked", func() bool {
		return strings.Contains(a.get("/metrics"), `outrigger_health_checks_total{outrigger_outcome="passed",outrigger_service="echo"`)
	})

	word.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "UNHEALTHY", func() bool {
		e := a.endpoint(sick.address)
		return e.GetState() == outriggerv1.Endpoint_UNHEALTHY && strings.HasPrefix(e.GetReason(), "health check: NOT_SERVING")
	})
	before := sick.calls.Load()
	for range 20 {
		if err := call(app); err != nil {
			t.Fatal(err)
		}
	}
	if n := sick.calls.Load() - before; n != 0 {
		t.Errorf("%d calls went to the unhealthy endpoint", n)
	}

	a.rewrite(configOf(check+", mode: OBSERVE}", good, sick))
	e := a.endpoint(sick.address)
	if e.GetState() == outriggerv1.Endpoint_UNHEALTHY || !strings.HasPrefix(e.GetReason(), "would be UNHEALTHY: health check: NOT_SERVING") {
		t.Errorf("observed: %v", e)
	}
	for range 20 {
		if err := call(app); err != nil {
			t.Fatal(err)
		}
	}
	if sick.calls.Load() == before {
		t.Error("observed: no call goes to the endpoint")
	}

	a.rewrite(configOf(check+"}", good, sick))
	eventually(t, "UNHEALTHY again", func() bool { return a.endpoint(sick.address).GetState() == outriggerv1.Endpoint_UNHEALTHY })
	a.rewrite(configOf("load_balancing: {policy: ROUND_ROBIN}", good, sick))
	if e := a.endpoint(sick.address); e.GetState() != outriggerv1.Endpoint_READY || e.GetReason() != "" {
		t.Errorf("without a check: %v", e)
	}
}

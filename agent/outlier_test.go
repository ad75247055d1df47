package agent

import (
	"context"
	"strings"
	"testing"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// TestAnEndpointThatFailsIsEjectedAndComesBack: out after its failures, seen by
// the API and the metrics, without calls until its time is over.
func TestAnEndpointThatFailsIsEjectedAndComesBack(t *testing.T) {
	good, bad := startUpstream(t), startUpstream(t)
	bad.fail.Store(true)
	r := startAgent(t, configOf("load_balancing: {policy: ROUND_ROBIN}, circuit_breaker: {mode: OFF}, outlier_detection: {consecutive_failures: 3, eject_for: 2s}", good, bad))
	cc := r.app()
	for range 6 {
		_ = call(cc)
	}
	bad.fail.Store(false)
	if n := bad.calls.Load(); n != 3 {
		t.Fatalf("it got %d calls before it went", n)
	}

	endpoints := outriggerv1.NewEndpointServiceClient(dial(t, r.Addresses().API))
	state := func() *outriggerv1.Endpoint {
		list, err := endpoints.ListEndpoints(context.Background(), &outriggerv1.ListEndpointsRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range list.GetEndpoints() {
			if e.GetAddress() == bad.address {
				return e
			}
		}
		return nil
	}
	if e := state(); e.GetState() != outriggerv1.Endpoint_EJECTED || !strings.HasPrefix(e.GetReason(), "3 failures in a row; back in ") {
		t.Errorf("the API says %v", e)
	}
	if text := r.get("/metrics"); !strings.Contains(text, `="ejected"`) {
		t.Error("no metric says so")
	}
	until := time.Now().Add(500 * time.Millisecond)
	for time.Now().Before(until) && state().GetState() == outriggerv1.Endpoint_EJECTED {
		if err := call(cc); err != nil {
			t.Fatal(err)
		}
	}

	// It comes back without a call, by the sweeper alone.
	eventually(t, "the endpoint is back", func() bool { return state().GetState() == outriggerv1.Endpoint_READY })
	for _, what := range []string{"an endpoint is ejected", "an endpoint is back from its ejection"} {
		if !strings.Contains(r.log.String(), what) {
			t.Errorf("the log does not say %q", what)
		}
	}
	before := bad.calls.Load()
	for range 10 {
		if err := call(cc); err != nil {
			t.Fatal(err)
		}
	}
	if n := bad.calls.Load() - before; n != 5 {
		t.Errorf("back, it got %d of 10 calls", n)
	}
}

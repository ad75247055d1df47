package agent

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func (r *running) permits() outriggerv1.ResilienceServiceClient {
	return outriggerv1.NewResilienceServiceClient(dial(r.t, r.Addresses().API))
}

func acquire(t *testing.T, api outriggerv1.ResilienceServiceClient, service string) *outriggerv1.Permit {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	response, err := api.Acquire(ctx, &outriggerv1.AcquireRequest{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	return response.GetPermit()
}

func TestAServiceWithoutEndpointsGivesPermitsAndRefusesCalls(t *testing.T) {
	a := startAgent(t, ports+"services:\n  - name: echo\n    endpoints: {none: {}}\n    policy: {concurrency: {max_in_flight: 1}}\n")
	api := a.permits()
	p := acquire(t, api, "echo")
	if p.GetEndpoint() != "" {
		t.Errorf("%v", p)
	}
	_, err := api.Acquire(context.Background(), &outriggerv1.AcquireRequest{Service: "echo"})
	if status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a second one: %v", err)
	}
	if err := call(a.app()); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a call beside them: %v", err)
	}
	if _, err := api.Report(context.Background(), &outriggerv1.ReportRequest{PermitId: p.GetId()}); err != nil {
		t.Fatal(err)
	}
}

// TestPermitsAndCallsShareALimit: what a permit holds a call waits for, and the
// other way round.
func TestPermitsAndCallsShareALimit(t *testing.T) {
	// Given one slot, which a permit has, and a call that waits for it,
	up := startUpstream(t)
	a := startAgent(t, configOf("concurrency: {max_in_flight: 1, max_queue: 100, queue_timeout: 10s}", up))
	api, app := a.permits(), a.app()
	p := acquire(t, api, "echo")
	called := make(chan error, 1)
	go func() { called <- call(app) }()
	select {
	case err := <-called:
		t.Fatalf("the call did not wait: %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	// when the permit is reported, then the call goes on.
	if _, err := api.Report(context.Background(), &outriggerv1.ReportRequest{PermitId: p.GetId()}); err != nil {
		t.Fatal(err)
	}
	if err := <-called; err != nil {
		t.Fatal(err)
	}
	// And many of both get through.
	done := make(chan error, 40)
	for range 20 {
		go func() { done <- call(app) }()
		go func() {
			response, err := api.Acquire(context.Background(), &outriggerv1.AcquireRequest{Service: "echo"})
			if err == nil {
				_, err = api.Report(context.Background(), &outriggerv1.ReportRequest{PermitId: response.GetPermit().GetId()})
			}
			done <- err
		}()
	}
	for range 40 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

func TestADrainLetsPermitsBeReported(t *testing.T) {
	a := startAgent(t, ports+"services:\n  - name: echo\n    endpoints: {none: {}}\n")
	api := a.permits()
	p := acquire(t, api, "echo")
	a.stop()
	for {
		// It is draining once it says so.
		response, err := api.Acquire(context.Background(), &outriggerv1.AcquireRequest{Service: "echo"})
		if err != nil {
			if status.Code(err) != codes.Unavailable {
				t.Fatal(err)
			}
			break
		}
		if _, err := api.Report(context.Background(), &outriggerv1.ReportRequest{PermitId: response.GetPermit().GetId()}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := api.Report(context.Background(), &outriggerv1.ReportRequest{PermitId: p.GetId()}); err != nil {
		t.Fatal(err)
	}
	a.end()
}

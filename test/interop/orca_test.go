package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"net"
	"os/exec"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	testgrpc "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/orca"
)

// reporter is a server that reports 100 requests a second at a utilization, by
// grpc-go's own ORCA package.
type reporter struct {
	testgrpc.UnimplementedTestServiceServer
	used    float64
	silent  atomic.Bool
	calls   atomic.Int64
	address string
}

func startReporter(t *testing.T, used float64) *reporter {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &reporter{used: used, address: l.Addr().String()}
	s := grpc.NewServer(orca.CallMetricsServerOption(nil))
	testgrpc.RegisterTestServiceServer(s, r)
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return r
}

func (r *reporter) EmptyCall(ctx context.Context, in *testgrpc.Empty) (*testgrpc.Empty, error) {
	r.calls.Add(1)
	if !r.silent.Load() {
		m := orca.CallMetricsRecorderFromContext(ctx)
		m.SetQPS(100)
		m.SetCPUUtilization(0.99)
		m.SetApplicationUtilization(r.used)
		m.SetNamedMetric("queue", 7)
		m.SetRequestCost("bytes", 1024)
	}
	return in, nil
}

// split is how 400 calls to a service are spread over the two.
func split(t *testing.T, cc *grpc.ClientConn, a, b *reporter) (atA, atB int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	client := testgrpc.NewTestServiceClient(cc)
	atA, atB = a.calls.Load(), b.calls.Load()
	for range 400 {
		if _, err := client.EmptyCall(ctx, &testgrpc.Empty{}); err != nil {
			t.Fatal(err)
		}
	}
	return a.calls.Load() - atA, b.calls.Load() - atB
}

// wantSplit waits until calls are spread so, within two calls.
func wantSplit(t *testing.T, cc *grpc.ClientConn, a, b *reporter, wantA int64) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		atA, atB := split(t, cc, a, b)
		if atA >= wantA-2 && atA <= wantA+2 {
			t.Logf("%d and %d of 400 calls", atA, atB)
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d and %d of 400 calls; want %d to the first", atA, atB, wantA)
		}
	}
}

func TestCallsFollowTheReportsOfGRPCGosServers(t *testing.T) {
	// Given two servers of which one bears three times as much, behind a service
	// that goes by that at once, and one that would after an hour,
	a, b := startReporter(t, 0.75), startReporter(t, 0.25)
	agent := build(t, "../..", "outrigger", "./cmd/agent")
	services := "services:\n"
	for name, blackout := range map[string]string{"prompt": "0s", "patient": "1h"} {
		services += fmt.Sprintf(`  - name: %s
    endpoints: {static: [{address: "%s"}, {address: "%s"}]}
    policy: {load_balancing: {policy: WEIGHTED_ROUND_ROBIN, load_reports: {blackout_period: %s, weight_expiration_period: 1s, weight_update_period: 100ms}}}
`, name, a.address, b.address, blackout)
	}
	egress, api := startAgent(t, agent, services)
	dial := func(service string) *grpc.ClientConn {
		cc, err := grpc.NewClient("passthrough:///"+egress, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(service), grpc.WithNoProxy())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cc.Close() })
		return cc
	}
	prompt, patient := dial("prompt"), dial("patient")
	// then the one's calls go 1 to 3,
	wantSplit(t, prompt, a, b, 100)
	// as the agent says that they weigh, as long as that has not expired,
	for deadline := time.Now().Add(30 * time.Second); weights(t, agent, api, "prompt") != [2]float64{133, 400}; {
		if time.Now().After(deadline) {
			t.Fatalf("the agent says %v; want 133 and 400", weights(t, agent, api, "prompt"))
		}
		split(t, prompt, a, b)
	}
	// and the other's stay as they were, over several updates.
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); {
		if atA, atB := split(t, patient, a, b); atA < 198 || atA > 202 {
			t.Errorf("%d and %d of 400 calls in the blackout", atA, atB)
		}
	}
	if got, want := weights(t, agent, api, "patient"), [2]float64{}; got != want {
		t.Errorf("the agent says %v in the blackout", got)
	}
	// When the servers fall silent, then their reports expire.
	a.silent.Store(true)
	b.silent.Store(true)
	wantSplit(t, prompt, a, b, 200)
	// When they speak again, then they are heard.
	a.silent.Store(false)
	b.silent.Store(false)
	wantSplit(t, prompt, a, b, 100)
}

// weights returns what the agent says that the two weigh.
func weights(t *testing.T, agent, api, service string) (w [2]float64) {
	t.Helper()
	out, err := exec.Command(agent, "endpoint", "list", "--service", service, "-o", "json", "--api", api).Output()
	if err != nil {
		t.Fatal(err)
	}
	var list struct {
		Endpoints []struct {
			Address        string  `json:"address"`
			ReportedWeight float64 `json:"reported_weight"`
		} `json:"endpoints"`
	}
	if err := json.Unmarshal(out, &list); err != nil || len(list.Endpoints) != 2 {
		t.Fatalf("%v in %s", err, out)
	}
	// Addresses are in their order, which need not be that of the servers.
	small, large := list.Endpoints[0].ReportedWeight, list.Endpoints[1].ReportedWeight
	return [2]float64{math.Round(min(small, large)), math.Round(max(small, large))}
}

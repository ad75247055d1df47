package agent

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// TestADrainUnderLoadFailsNoCall: an app that has two agents and obeys GOAWAY
// loses nothing when one of them is told to end.
func TestADrainUnderLoadFailsNoCall(t *testing.T) {
	up := startUpstream(t)
	first, second := startAgent(t, configOf("timeout: 3s", up)), startAgent(t, configOf("timeout: 3s", up))
	r := manual.NewBuilderWithScheme("agents")
	r.InitialState(resolver.State{Addresses: []resolver.Address{{Addr: first.Addresses().Egress}, {Addr: second.Addresses().Egress}}})
	app, err := grpc.NewClient("agents:///echo", grpc.WithResolvers(r), grpc.WithAuthority("echo"), grpc.WithNoProxy(),
		grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"round_robin": {}}]}`))
	if err != nil {
		t.Fatal(err)
	}
	defer app.Close()
	ctx, cancel := context.WithCancel(context.Background())
	var load sync.WaitGroup
	var calls atomic.Int64
	for range 16 {
		load.Go(func() {
			for ctx.Err() == nil {
				calls.Add(1)
				if err := call(app); err != nil {
					t.Errorf("call %d: %v", calls.Load(), err)
					return
				}
			}
		})
	}
	time.Sleep(200 * time.Millisecond)
	before := calls.Load()

	first.end()

	time.Sleep(200 * time.Millisecond)
	cancel()
	load.Wait()
	if before == 0 || calls.Load() == before {
		t.Fatalf("%d calls before the drain, %d in all", before, calls.Load())
	}
}

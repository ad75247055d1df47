package agent

import (
	"context"
	"fmt"
	"testing"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestAnAgentIsTheSameAfterARestartAndNotAnother(t *testing.T) {
	first := selfOf("127.0.0.1:7600")
	if again := selfOf("127.0.0.1:7600"); again != first {
		t.Error("two lives of one agent differ")
	}
	if first == selfOf("127.0.0.1:7700") {
		t.Error("two agents of one host are the same")
	}
}

func TestEveryPolicyKnowsWhoseItIs(t *testing.T) {
	// Given settings as a configuration has them,
	given := policy.Settings{Methods: map[string]policy.Policy{"/a.B/C": {LoadBalancing: balancer.Options{Subset: 3}}}}
	// when they become those of an agent,
	got := (&registry{self: 7}).own(given)
	// then all say so, and the configuration is as it was.
	if got.Policy.LoadBalancing.Identity != 7 || got.Methods["/a.B/C"].LoadBalancing != (balancer.Options{Subset: 3, Identity: 7}) {
		t.Errorf("got %+v", got)
	}
	if given.Methods["/a.B/C"].LoadBalancing.Identity != 0 {
		t.Error("the configuration was changed")
	}
}

// TestCallsOfOneHashGoToOneEndpoint: by the header that hash_on names.
func TestCallsOfOneHashGoToOneEndpoint(t *testing.T) {
	upstreams := []*upstream{startUpstream(t), startUpstream(t), startUpstream(t)}
	for _, algorithm := range []string{"RING_HASH", "MAGLEV"} {
		a := startAgent(t, configOf("load_balancing: {policy: "+algorithm+"}, hash_on: {header: x-user-id}", upstreams...))
		app, used := a.app(), make(map[*upstream]bool)
		for user := range 20 {
			var theirs *upstream
			for range 5 {
				before := make(map[*upstream]int64)
				for _, u := range upstreams {
					before[u] = u.calls.Load()
				}
				ctx := metadata.AppendToOutgoingContext(context.Background(), "x-user-id", fmt.Sprint("user", user))
				if err := app.Invoke(ctx, "/test.Echo/Call", wrapperspb.String("x"), new(wrapperspb.StringValue)); err != nil {
					t.Fatal(err)
				}
				for _, u := range upstreams {
					if u.calls.Load() == before[u] {
						continue
					}
					if theirs != nil && theirs != u {
						t.Errorf("%s: user %d went to two endpoints", algorithm, user)
					}
					theirs = u
				}
			}
			used[theirs] = true
		}
		if len(used) < 2 {
			t.Errorf("%s: 20 users share %d endpoint", algorithm, len(used))
		}
	}
}

// TestThePriorityThatFollowsTakesOver: calls stay with the first priority until
// it is drained, and the list shows which is which.
func TestThePriorityThatFollowsTakesOver(t *testing.T) {
	first, second := startUpstream(t), startUpstream(t)
	a := startAgent(t, fmt.Sprintf("%szone: a\nservices:\n  - name: echo\n    endpoints: {static: [{address: %q, priority: 1}, {address: %q, zone: a}]}\n    policy: {load_balancing: {zone_aware: true}}\n",
		ports, second.address, first.address))
	app := a.app()
	calls := func(n int) {
		t.Helper()
		for range n {
			if err := call(app); err != nil {
				t.Fatal(err)
			}
		}
	}
	calls(20)
	if first.calls.Load() != 20 || second.calls.Load() != 0 {
		t.Errorf("%d and %d calls", first.calls.Load(), second.calls.Load())
	}
	if e := a.endpoint(second.address); e.GetPriority() != 1 || e.GetZone() != "" {
		t.Errorf("listed as %v", e)
	}
	if e := a.endpoint(first.address); e.GetPriority() != 0 || e.GetZone() != "a" {
		t.Errorf("listed as %v", e)
	}

	endpoints := outriggerv1.NewEndpointServiceClient(dial(t, a.Addresses().API))
	if _, err := endpoints.DrainEndpoint(context.Background(), &outriggerv1.DrainEndpointRequest{Address: first.address}); err != nil {
		t.Fatal(err)
	}
	calls(20)
	if first.calls.Load() != 20 || second.calls.Load() != 20 {
		t.Errorf("%d and %d calls after the drain", first.calls.Load(), second.calls.Load())
	}
}

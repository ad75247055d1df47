package agent

import (
	"slices"
	"testing"

	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// TestASubsetReachesOnWhileItsMembersAreIll: those that stand in get the calls,
// are checked and connected as members are, and are let go when these are well.
func TestASubsetReachesOnWhileItsMembersAreIll(t *testing.T) {
	var ups []*upstream
	words := make(map[string]*grpchealth.Server)
	calls := func() (of map[string]int64) {
		of = make(map[string]int64)
		for _, u := range ups {
			of[u.address] = u.calls.Load()
		}
		return of
	}
	for range 6 {
		u := newUpstream(t)
		words[u.address] = withHealth(u)
		u.serve(t)
		ups = append(ups, u)
	}
	a := startAgent(t, configOf("load_balancing: {policy: ROUND_ROBIN, subset: 2}, connections: {warm: 1}, health_check: {grpc: {}, interval: 100ms}", ups...))
	app := a.app()
	members := func() (addresses []string) {
		for _, e := range a.registry.all()[0].Members() {
			addresses = append(addresses, e.Address())
		}
		return addresses
	}
	// goTo checks that calls go to these addresses, and to no other.
	goTo := func(when string, want ...string) {
		t.Helper()
		before := calls()
		for range 20 {
			if err := call(app); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
		for address, n := range calls() {
			if got := n > before[address]; got != slices.Contains(want, address) {
				t.Errorf("%s: %s got %d calls, want some by %v", when, address, n-before[address], want)
			}
		}
	}
	own := members()
	eventually(t, "two warm connections", a.upstreamConnections(2))
	goTo("all well", own...)

	for _, address := range own {
		words[address].SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	}
	for _, address := range own {
		eventually(t, address+" is UNHEALTHY", a.state(address, outriggerv1.Endpoint_UNHEALTHY))
	}
	all := members()
	if len(all) != 4 {
		t.Fatalf("members: %v", all)
	}
	standIns := slices.DeleteFunc(slices.Clone(all), func(address string) bool { return slices.Contains(own, address) })
	eventually(t, "warm connections to those that stand in", a.upstreamConnections(4))
	goTo("both ill", standIns...)

	words[standIns[0]].SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "a stand-in is checked", a.state(standIns[0], outriggerv1.Endpoint_UNHEALTHY))
	goTo("three ill", standIns[1])

	for _, address := range own {
		words[address].SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	}
	for _, address := range own {
		eventually(t, address+" is READY", a.state(address, outriggerv1.Endpoint_READY))
	}
	goTo("well again", own...)
	eventually(t, "two connections are left", a.upstreamConnections(2))
	eventually(t, "a stand-in is no longer checked", a.state(standIns[0], outriggerv1.Endpoint_READY))
}

func TestOthers(t *testing.T) {
	a, b, c := balancer.NewEndpoint(balancer.Spec{Address: "a:1"}), balancer.NewEndpoint(balancer.Spec{Address: "b:1"}), balancer.NewEndpoint(balancer.Spec{Address: "c:1"})
	if got := others([]*balancer.Endpoint{a, b, c}, []*balancer.Endpoint{c, a}); len(got) != 1 || got[0] != b {
		t.Errorf("got %v", got)
	}
}

package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestALoadBalancingBlockTakesTheDefaults(t *testing.T) {
	for text, want := range map[string]balancer.Options{
		"":                   {PanicThreshold: 0.5},
		"load_balancing: {}": {PanicThreshold: 0.5},
		"load_balancing: {panic_threshold: 0, subset: 0}":            {},
		"load_balancing: {policy: ROUND_ROBIN, slow_start: 30s}":     {Policy: balancer.RoundRobin, PanicThreshold: 0.5, SlowStart: 30 * time.Second},
		"load_balancing: {policy: WEIGHTED_ROUND_ROBIN, subset: 20}": {Policy: balancer.WeightedRoundRobin, PanicThreshold: 0.5, Subset: 20},
		"load_balancing: {policy: WEIGHTED_ROUND_ROBIN, load_reports: {}}": {Policy: balancer.WeightedRoundRobin, PanicThreshold: 0.5, LoadReports: balancer.LoadReports{
			On: true, BlackoutPeriod: 10 * time.Second, WeightExpirationPeriod: 3 * time.Minute, WeightUpdatePeriod: time.Second, ErrorUtilizationPenalty: 1}},
		"load_balancing: {policy: WEIGHTED_ROUND_ROBIN, load_reports: {blackout_period: 0s, weight_expiration_period: 1m, weight_update_period: 250ms, error_utilization_penalty: 0}}": {
			Policy: balancer.WeightedRoundRobin, PanicThreshold: 0.5, LoadReports: balancer.LoadReports{On: true, WeightExpirationPeriod: time.Minute, WeightUpdatePeriod: 250 * time.Millisecond}},
		"load_balancing: {policy: RANDOM, zone_aware: true, min_zone_percent: 70}":              {Policy: balancer.Random, PanicThreshold: 0.5, ZoneAware: true, Zone: "a", MinZonePercent: 70},
		"load_balancing: {policy: LEAST_REQUEST, choices: 3}":                                   {PanicThreshold: 0.5, Choices: 3},
		"load_balancing: {policy: PEAK_EWMA, choices: 4, decay: 5s, slow_start: 1m}":            {Policy: balancer.PeakEWMA, PanicThreshold: 0.5, Choices: 4, Decay: 5 * time.Second, SlowStart: time.Minute},
		"load_balancing: {policy: RING_HASH, ring_size: 1000, bounded_load: 1.25}":              {Policy: balancer.RingHash, PanicThreshold: 0.5, RingSize: 1000, BoundedLoad: 1.25},
		"load_balancing: {policy: RING_HASH, bounded_load: 0, slow_start: 0s}":                  {Policy: balancer.RingHash, PanicThreshold: 0.5},
		"load_balancing: {policy: MAGLEV, table_size: 1009, panic_threshold: 0.3, subset: 100}": {Policy: balancer.Maglev, PanicThreshold: 0.3, TableSize: 1009, Subset: 100},
	} {
		got := parse(t, "zone: a"+oneService+"    policy: {"+text+"}\n").Services[0].Policy.LoadBalancing
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestLoadBalancingIsInheritedFieldByField(t *testing.T) {
	got := overridden(t, "load_balancing: {choices: 3, subset: 9}", "load_balancing: {panic_threshold: 0.2, slow_start: 5s}", "load_balancing: {subset: 4}").LoadBalancing

	want := balancer.Options{Choices: 3, PanicThreshold: 0.2, SlowStart: 5 * time.Second, Subset: 4}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestWhatBelongsToAnAlgorithmIsNotInheritedByAnother(t *testing.T) {
	got := overridden(t, "load_balancing: {choices: 3, slow_start: 5s}", "", "load_balancing: {policy: RING_HASH}").LoadBalancing

	if want := (balancer.Options{Policy: balancer.RingHash, PanicThreshold: 0.5}); got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestLoadReportsAreInheritedFieldByField(t *testing.T) {
	got := overridden(t, "load_balancing: {policy: WEIGHTED_ROUND_ROBIN, load_reports: {}}", "load_balancing: {load_reports: {blackout_period: 5s}}",
		"load_balancing: {load_reports: {error_utilization_penalty: 2}}").LoadBalancing.LoadReports

	want := balancer.LoadReports{On: true, BlackoutPeriod: 5 * time.Second, WeightExpirationPeriod: 3 * time.Minute, WeightUpdatePeriod: time.Second, ErrorUtilizationPenalty: 2}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestLoadReportsAreNotInheritedByAnotherAlgorithm(t *testing.T) {
	got := overridden(t, "load_balancing: {policy: WEIGHTED_ROUND_ROBIN, load_reports: {}}", "load_balancing: {policy: ROUND_ROBIN}", "").LoadBalancing

	if want := (balancer.Options{Policy: balancer.RoundRobin, PanicThreshold: 0.5}); got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

// TestWhatIsHashed: what the defaults, the service and the method write, and
// what the method's calls are hashed by.
func TestWhatIsHashed(t *testing.T) {
	const ring = "load_balancing: {policy: RING_HASH}, "
	for _, test := range []struct {
		name, defaults, service, method string
		want                            policy.HashPolicy
	}{
		{"by what the caller asks alone", ring, "", "", policy.HashPolicy{}},
		{"a header", "", ring + "hash_on: {header: x-user-id}", "", policy.HashPolicy{Header: "x-user-id"}},
		{"the first there is of several", "", ring + "hash_on: {cookie: session, source: true, method: true}", "", policy.HashPolicy{Cookie: "session", Source: true, Method: true}},
		{"inherited", ring + "hash_on: {source: true}", "", "timeout: 1s", policy.HashPolicy{Source: true}},
		{"replaced whole", ring + "hash_on: {header: x-user-id}", "", "hash_on: {cookie: session}", policy.HashPolicy{Cookie: "session"}},
		{"taken back", ring + "hash_on: {header: x-user-id}", "hash_on: {}", "", policy.HashPolicy{}},
		{"inherited by what does not hash", ring + "hash_on: {header: x-user-id}", "", "load_balancing: {policy: RANDOM}", policy.HashPolicy{}},
		{"of a method alone", "", "", "load_balancing: {policy: MAGLEV}, hash_on: {method: true}", policy.HashPolicy{Method: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := overridden(t, test.defaults, test.service, test.method).HashOn; got != test.want {
				t.Errorf("got %+v, want %+v", got, test.want)
			}
		})
	}
}

func TestEndpointsHavePriorities(t *testing.T) {
	s := parse(t, "services:\n  - {name: a, endpoints: {static: [{address: \"h:1\"}, {address: \"h:2\", priority: 1}]}}\n").Services[0]

	if s.Endpoints[0].Priority != 0 || s.Endpoints[1].Priority != 1 {
		t.Errorf("got %+v", s.Endpoints)
	}
}

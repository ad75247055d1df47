package main

import (
	"strings"
	"testing"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestStatusShowsWhatPoliciesDid(t *testing.T) {
	var out strings.Builder
	policyTable([]*outriggerv1.ServiceStatus{
		{Name: "quiet"},
		{Name: "greeter",
			Actions:     map[string]uint64{"retry": 12, "over_budget": 3, "would_hedge": 4},
			Observed:    map[string]uint64{"RATE_LIMIT": 5},
			Concurrency: &outriggerv1.ConcurrencyStatus{Limit: 10, InFlight: 7, Waiting: 2},
			Cache:       &outriggerv1.CacheStatus{Hits: 75, Misses: 25, Bytes: 3000}},
	}).print(&out, false)

	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	want := []string{
		"POLICIES OF  DID                      IN OBSERVE                   LIMIT                       CACHE",
		"greeter      retry 12, over budget 3  RATE_LIMIT 5, would hedge 4  7 of 10 in flight, 2 waiting  75.0 % of 100 calls answered, 3 KiB kept",
	}
	if len(lines) != 2 || strings.Fields(lines[0])[0] != "POLICIES" || strings.Join(strings.Fields(lines[1]), " ") != strings.Join(strings.Fields(want[1]), " ") {
		t.Fatalf("got\n%s\nwant\n%s", out.String(), strings.Join(want, "\n"))
	}
}

func TestStatusIsSilentAboutPoliciesThatDidNothing(t *testing.T) {
	if got := policyTable([]*outriggerv1.ServiceStatus{{Name: "quiet"}}); got != nil {
		t.Fatalf("%+v", got)
	}
}

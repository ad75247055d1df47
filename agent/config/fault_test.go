package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestFault(t *testing.T) {
	for text, want := range map[string]policy.FaultPolicy{
		"":                             {},
		"fault: {mode: OFF}":           {Mode: policy.Off},
		"fault: {abort: {percent: 1}}": {AbortPercent: 1, Abort: policy.Unavailable},
		"fault: {abort: {percent: 0}}": {Abort: policy.Unavailable},
		"fault: {delay: {percent: 100, delay: 1h}}": {DelayPercent: 100, Delay: time.Hour},
		`fault: {delay: {percent: 10, delay: 200ms}, abort: {percent: 0.5, code: INTERNAL}, header: {name: x-chaos, value: "1"}, mode: OBSERVE}`: {
			DelayPercent: 10, Delay: 200 * ms, AbortPercent: 0.5, Abort: policy.Internal, Header: "x-chaos", Value: "1", Mode: policy.Observe,
		},
	} {
		c := parse(t, "chaos: {enabled: true}"+oneService+"    policy: {"+text+"}\n")

		if got := c.Services[0].Policy.Fault; got != want || !c.Chaos {
			t.Errorf("%s:\ngot  %+v, chaos %v\nwant %+v", text, got, c.Chaos, want)
		}
	}
}

func TestAFaultOfTheDefaultsReachesEverybody(t *testing.T) {
	c := parse(t, "chaos: {enabled: true}\ndefaults: {fault: {abort: {percent: 1}}}\nunmatched: {mode: DIAL}"+oneService+"    methods: [{method: /a.B/C, policy: {fault: {abort: {percent: 2}}}}]\n")

	s := c.Services[0]
	if c.Unmatched.Policy.Fault.AbortPercent != 1 || s.Policy.Fault.AbortPercent != 1 || s.MethodPolicies["/a.B/C"].Fault.AbortPercent != 2 {
		t.Errorf("got %+v, %+v", c.Unmatched.Policy.Fault, s)
	}
}

func TestChaosIsOffUnlessWritten(t *testing.T) {
	for text, want := range map[string]bool{"": false, "chaos: {}\n": false, "chaos: {enabled: false}\n": false, "chaos: {enabled: true}\n": true} {
		if got := parse(t, text).Chaos; got != want {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

package config

import (
	"testing"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestDefer(t *testing.T) {
	for text, want := range map[string]policy.DeferMode{
		"":                          policy.DeferNever,
		"defer: {}":                 policy.DeferNever,
		`defer: {mode: "OFF"}`:      policy.DeferNever,
		"defer: {mode: ON_REQUEST}": policy.DeferOnRequest,
		"defer: {mode: ON_FAILURE}": policy.DeferOnFailure,
	} {
		if got := parse(t, "tasks: {}"+oneService+"    policy: {"+text+"}\n").Services[0].Policy.Defer.Mode; got != want {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
}

func TestADeferOfTheDefaultsReachesWhatIsCalled(t *testing.T) {
	c := parse(t, "tasks: {}\ndefaults: {defer: {mode: ON_REQUEST}}\nunmatched: {mode: DIAL}"+oneService+`    methods: [{method: /a.B/C, policy: {defer: {mode: ON_FAILURE}}}, {method: /a.B/D, policy: {defer: {mode: "OFF"}}}]
`)

	s := c.Services[0]
	if c.Unmatched.Policy.Defer.Mode != policy.DeferOnRequest || s.Policy.Defer.Mode != policy.DeferOnRequest ||
		s.MethodPolicies["/a.B/C"].Defer.Mode != policy.DeferOnFailure || s.MethodPolicies["/a.B/D"].Defer.Mode != policy.DeferNever {
		t.Errorf("got %+v", c)
	}
}

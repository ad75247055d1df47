package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

const ms = time.Millisecond

// served returns the policy of a service that writes the text.
func served(t *testing.T, text string) policy.Policy {
	t.Helper()
	return parse(t, oneService+"    policy: {"+text+"}\n").Services[0].Policy
}

// overridden returns the policy of a method under what the three levels write.
func overridden(t *testing.T, defaults, service, method string) policy.Policy {
	t.Helper()
	c := parse(t, "defaults: {"+defaults+"}"+oneService+"    policy: {"+service+"}\n    methods: [{method: /a.B/C, policy: {"+method+"}}]\n")
	return c.Services[0].MethodPolicies["/a.B/C"]
}

func TestARetryBlockTakesTheReferenceFiguresAndEnforces(t *testing.T) {
	unavailable, budget := policy.Codes(policy.Unavailable), policy.BudgetPolicy{Ratio: 0.2, MinPerSecond: 10}
	for text, want := range map[string]policy.RetryPolicy{
		"":                               {Budget: budget}, // hedges draw on it, and methods that retry
		"retry: {}":                      {MaxAttempts: 3, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: time.Second, Budget: budget},
		"retry: {max_attempts: 1}":       {MaxAttempts: 1, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: time.Second, Budget: budget},
		"retry: {mode: OBSERVE}":         {MaxAttempts: 3, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: time.Second, Budget: budget, Mode: policy.Observe},
		"retry: {mode: OFF}":             {MaxAttempts: 3, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: time.Second, Budget: budget, Mode: policy.Off},
		"retry: {budget: {ratio: 0}}":    {MaxAttempts: 3, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: time.Second, Budget: policy.BudgetPolicy{MinPerSecond: 10}},
		"retry: {backoff: {base: 2s}}":   {MaxAttempts: 3, Codes: unavailable, BackoffBase: 2 * time.Second, BackoffMax: 2 * time.Second, Budget: budget},
		"retry: {backoff: {max: 100ms}}": {MaxAttempts: 3, Codes: unavailable, BackoffBase: 25 * ms, BackoffMax: 100 * ms, Budget: budget},
		"retry: {max_attempts: 5, codes: [ABORTED, NOT_FOUND], backoff: {base: 10ms, max: 20ms}, budget: {ratio: 0.5, min_per_second: 0}, mode: ENFORCE}": {
			MaxAttempts: 5, Codes: policy.Codes(policy.Aborted, policy.NotFound), BackoffBase: 10 * ms, BackoffMax: 20 * ms, Budget: policy.BudgetPolicy{Ratio: 0.5},
		},
	} {
		if got := served(t, text).Retry; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestARetryIsInheritedFieldByField(t *testing.T) {
	got := overridden(t, "retry: {codes: [ABORTED, UNAVAILABLE], budget: {ratio: 0.5}}", "retry: {budget: {min_per_second: 3}, mode: OBSERVE}", "retry: {codes: [INTERNAL], mode: ENFORCE}").Retry

	want := policy.RetryPolicy{
		MaxAttempts: 3, Codes: policy.Codes(policy.Internal), BackoffBase: 25 * ms, BackoffMax: time.Second,
		Budget: policy.BudgetPolicy{Ratio: 0.5, MinPerSecond: 3},
	}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestAHedgeBlockTakesTheReferenceFiguresAndEnforces(t *testing.T) {
	unavailable := policy.Codes(policy.Unavailable)
	for text, want := range map[string]policy.HedgePolicy{
		"":                                       {},
		"idempotent: true, hedge: {delay: 50ms}": {Delay: 50 * ms, MaxAttempts: 2, NonFatal: unavailable},
		"idempotent: true, hedge: {delay_quantile: 0.95}":      {DelayQuantile: 0.95, MaxAttempts: 2, NonFatal: unavailable},
		"idempotent: true, timeout: 1s, hedge: {delay: 999ms}": {Delay: 999 * ms, MaxAttempts: 2, NonFatal: unavailable},
		"hedge: {mode: OFF}":                         {MaxAttempts: 2, NonFatal: unavailable, Mode: policy.Off},
		"hedge: {max_attempts: 1}":                   {MaxAttempts: 1, NonFatal: unavailable},
		"timeout: 1s, hedge: {delay: 2s, mode: OFF}": {Delay: 2 * time.Second, MaxAttempts: 2, NonFatal: unavailable, Mode: policy.Off},
		"idempotent: true, hedge: {delay: 1ms, non_fatal_codes: [DATA_LOSS, UNKNOWN], delay_quantile: 0.9, max_attempts: 3, mode: OBSERVE}": {
			Delay: ms, DelayQuantile: 0.9, MaxAttempts: 3, NonFatal: policy.Codes(policy.DataLoss, policy.Unknown), Mode: policy.Observe,
		},
	} {
		if got := served(t, text).Hedge; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestAMethodMayTakeAnInheritedHedgeBack(t *testing.T) {
	got := overridden(t, "", "idempotent: true, hedge: {delay: 50ms}", "idempotent: false, hedge: {mode: OFF}")

	if got.Idempotent || got.Hedge.Mode != policy.Off {
		t.Errorf("got %+v", got)
	}
}

func TestIdempotentIsInherited(t *testing.T) {
	for _, test := range []struct {
		name, defaults, service, method string
		want                            bool
	}{
		{"not written", "", "", "", false},
		{"from the defaults", "idempotent: true", "", "", true},
		{"from the service, for a method's hedge", "", "idempotent: true", "hedge: {delay: 50ms}", true},
		{"of the method alone", "", "", "idempotent: true, hedge: {delay: 50ms}", true},
		{"taken back", "idempotent: true", "", "idempotent: false", false},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := overridden(t, test.defaults, test.service, test.method).Idempotent; got != test.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

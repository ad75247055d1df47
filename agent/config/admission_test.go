package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestConcurrency(t *testing.T) {
	for text, want := range map[string]policy.ConcurrencyPolicy{
		"":                                       {},
		"concurrency: {}":                        {QueueTimeout: 100 * ms},
		"concurrency: {max_in_flight: 0}":        {QueueTimeout: 100 * ms},
		"concurrency: {max_in_flight: 1024}":     {MaxInFlight: 1024, QueueTimeout: 100 * ms},
		"concurrency: {adaptive: true}":          {Adaptive: true, QueueTimeout: 100 * ms},
		"concurrency: {max_queue: 5, mode: OFF}": {MaxQueue: 5, QueueTimeout: 100 * ms, Mode: policy.Off},
		"concurrency: {max_in_flight: 200, adaptive: true, max_queue: 128, queue_timeout: 1s, mode: OBSERVE}": {
			MaxInFlight: 200, Adaptive: true, MaxQueue: 128, QueueTimeout: time.Second, Mode: policy.Observe,
		},
	} {
		if got := served(t, text).Concurrency; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestAQueueInFrontOfAnInheritedBound(t *testing.T) {
	got := overridden(t, "concurrency: {max_in_flight: 10}", "concurrency: {queue_timeout: 2s}", "concurrency: {max_queue: 3}").Concurrency

	if want := (policy.ConcurrencyPolicy{MaxInFlight: 10, MaxQueue: 3, QueueTimeout: 2 * time.Second}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestABoundThatIsTakenBackTakesItsQueueAlong(t *testing.T) {
	if got := overridden(t, "", "concurrency: {max_in_flight: 10, max_queue: 3}", "concurrency: {max_in_flight: 0}").Concurrency; got.On() {
		t.Errorf("%+v asks for something", got)
	}
}

func TestRateLimit(t *testing.T) {
	for text, want := range map[string]policy.RateLimitPolicy{
		"":                                                     {},
		"rate_limit: {per_second: 0, burst: 0}":                {},
		"rate_limit: {per_second: 100}":                        {PerSecond: 100, Burst: 100},
		"rate_limit: {per_second: 2.5}":                        {PerSecond: 2.5, Burst: 3},
		"rate_limit: {per_second: 0.1}":                        {PerSecond: 0.1, Burst: 1},
		"rate_limit: {per_second: 0.001}":                      {PerSecond: 0.001, Burst: 1},
		"rate_limit: {per_second: 1e9}":                        {PerSecond: 1e9, Burst: 1_000_000_000},
		"rate_limit: {per_second: 100, burst: 7}":              {PerSecond: 100, Burst: 7},
		"rate_limit: {burst: 7, mode: OFF}":                    {Burst: 7, Mode: policy.Off},
		"rate_limit: {per_second: 1, key: {header: \"\"}}":     {PerSecond: 1, Burst: 1},
		"rate_limit: {per_second: 1, key: {header: x-tenant}}": {PerSecond: 1, Burst: 1, KeyHeader: "x-tenant", MaxKeys: 10_000},
		"rate_limit: {per_second: 5, burst: 10, per_method: true, key: {header: x-tenant}, max_keys: 100, mode: OBSERVE}": {
			PerSecond: 5, Burst: 10, PerMethod: true, KeyHeader: "x-tenant", MaxKeys: 100, Mode: policy.Observe,
		},
	} {
		if got := served(t, text).RateLimit; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestAnInheritedRateLimit(t *testing.T) {
	for _, test := range []struct {
		name, method string
		want         policy.RateLimitPolicy
	}{
		{"whole", "", policy.RateLimitPolicy{PerSecond: 10, Burst: 20, KeyHeader: "x-tenant", MaxKeys: 10_000}},
		{"another rate, the same burst", "rate_limit: {per_second: 5}", policy.RateLimitPolicy{PerSecond: 5, Burst: 20, KeyHeader: "x-tenant", MaxKeys: 10_000}},
		{"burst of its rate again", "rate_limit: {burst: 0}", policy.RateLimitPolicy{PerSecond: 10, Burst: 10, KeyHeader: "x-tenant", MaxKeys: 10_000}},
		{"one bucket for all", "rate_limit: {key: {header: \"\"}}", policy.RateLimitPolicy{PerSecond: 10, Burst: 20}},
		{"fewer keys", "rate_limit: {max_keys: 5}", policy.RateLimitPolicy{PerSecond: 10, Burst: 20, KeyHeader: "x-tenant", MaxKeys: 5}},
	} {
		t.Run(test.name, func(t *testing.T) {
			if got := overridden(t, "", "rate_limit: {per_second: 10, burst: 20, key: {header: x-tenant}}", test.method).RateLimit; got != test.want {
				t.Errorf("\ngot  %+v\nwant %+v", got, test.want)
			}
		})
	}
}

func TestARateLimitThatIsTakenBackLimitsNothing(t *testing.T) {
	if got := overridden(t, "", "rate_limit: {per_second: 10, burst: 20}", "rate_limit: {per_second: 0}").RateLimit; got.On() {
		t.Errorf("%+v asks for something", got)
	}
}

func TestClientThrottle(t *testing.T) {
	for text, want := range map[string]policy.ThrottlePolicy{
		"":                    {},
		"client_throttle: {}": {Ratio: 2, Window: 2 * time.Minute},
		"client_throttle: {ratio: 1, window: 1s}": {Ratio: 1, Window: time.Second},
		"client_throttle: {mode: OBSERVE}":        {Ratio: 2, Window: 2 * time.Minute, Mode: policy.Observe},
		"client_throttle: {mode: OFF}":            {Ratio: 2, Window: 2 * time.Minute, Mode: policy.Off},
	} {
		if got := served(t, text).Throttle; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

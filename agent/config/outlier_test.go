package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestAnOutlierBlockTakesTheReferenceFiguresAndEnforces(t *testing.T) {
	with := func(change func(*balancer.OutlierOptions)) balancer.OutlierOptions {
		o := balancer.OutlierOptions{
			ConsecutiveFailures: 5, MinimumCalls: 20, MinimumHosts: 3,
			Interval: 10 * time.Second, EjectFor: 30 * time.Second, MaxEjectFor: 5 * time.Minute, MaxEjected: 0.5,
		}
		change(&o)
		return o
	}
	for text, want := range map[string]balancer.OutlierOptions{
		"":                                     policy.Default().Outlier,
		"outlier_detection: {}":                with(func(*balancer.OutlierOptions) {}),
		"outlier_detection: {mode: OBSERVE}":   with(func(o *balancer.OutlierOptions) { o.ObserveOnly = true }),
		"outlier_detection: {mode: OFF}":       {},
		"outlier_detection: {max_ejected: 0}":  with(func(o *balancer.OutlierOptions) { o.MaxEjected = -1 }),
		"outlier_detection: {eject_for: 2s}":   with(func(o *balancer.OutlierOptions) { o.EjectFor, o.MaxEjectFor = 2*time.Second, 20*time.Second }),
		"outlier_detection: {eject_for: 3m}":   with(func(o *balancer.OutlierOptions) { o.EjectFor, o.MaxEjectFor = 3*time.Minute, 30*time.Minute }),
		"outlier_detection: {failure_rate: 1}": with(func(o *balancer.OutlierOptions) { o.FailureRate = 1 }),
		`outlier_detection: {consecutive_failures: 0, consecutive_local: 2, failure_rate: 0.3, success_rate_deviation: 1.9, latency_factor: 4,
      minimum_calls: 7, minimum_hosts: 2, interval: 1s, eject_for: 3s, max_eject_for: 4s, max_ejected: 0.2, mode: ENFORCE}`: {
			ConsecutiveLocal: 2, FailureRate: 0.3, SuccessRateDeviation: 1.9, LatencyFactor: 4, MinimumCalls: 7, MinimumHosts: 2,
			Interval: time.Second, EjectFor: 3 * time.Second, MaxEjectFor: 4 * time.Second, MaxEjected: 0.2,
		},
	} {
		got := served(t, text).Outlier
		if got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
		if err := got.Validate(); err != nil {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestOutlierDetectionIsInheritedFieldByField(t *testing.T) {
	got := overridden(t, "outlier_detection: {eject_for: 10s, mode: OFF}", "outlier_detection: {interval: 1s}", "timeout: 1s").Outlier
	if got != (balancer.OutlierOptions{}) {
		t.Errorf("OFF in the defaults, and yet %+v", got)
	}
	got = overridden(t, "outlier_detection: {eject_for: 10s, mode: OFF}", "outlier_detection: {interval: 1s, mode: ENFORCE}", "timeout: 1s").Outlier
	if got.EjectFor != 10*time.Second || got.Interval != time.Second || got.ObserveOnly {
		t.Errorf("got %+v", got)
	}
}

package sla

import (
	"math"
	"strings"
	"testing"
	"time"
)

func TestDefaultTargetsAreTheDocumentedOnes(t *testing.T) {
	got := DefaultTargets()
	if got.Availability != 99.9 || got.SuccessRate != 99.5 || got.Window != 30*24*time.Hour ||
		len(got.Latency) != 1 || got.Latency[0] != (LatencyTarget{0.95, 200 * time.Millisecond}) {
		t.Errorf("%+v", got)
	}
	if err := got.Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidate(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Targets)
		want   string // part of the error; empty: none
	}{
		{"bounds", func(t *Targets) {
			t.Availability, t.SuccessRate, t.Window = 100, 1e-9, time.Hour
			t.Latency = []LatencyTarget{{1, time.Hour}, {1e-9, time.Microsecond}}
		}, ""},
		{"no latency", func(t *Targets) { t.Latency = nil }, ""},
		{"no window is the default", func(t *Targets) { t.Window = 0 }, ""},
		{"no availability", func(t *Targets) { t.Availability = 0 }, "availability is 0"},
		{"a share for a percentage", func(t *Targets) { t.SuccessRate = 100.1 }, "success rate is 100.1"},
		{"not a number", func(t *Targets) { t.Availability = math.NaN() }, "availability is NaN"},
		{"a percentage for a share", func(t *Targets) { t.Latency[0].Quantile = 95 }, "latency[0]: quantile is 95"},
		{"quantile 0", func(t *Targets) { t.Latency[0].Quantile = 0 }, "latency[0]: quantile is 0"},
		{"quantile NaN", func(t *Targets) { t.Latency[0].Quantile = math.NaN() }, "quantile is NaN"},
		{"twice the same quantile", func(t *Targets) { t.Latency = append(t.Latency, t.Latency[0]) }, "latency[1]: quantile 0.95 has a target already"},
		{"target 0", func(t *Targets) { t.Latency[0].Target = 0 }, "target is 0s; give a duration from 1µs to 1h0m0s"},
		{"target too long", func(t *Targets) { t.Latency[0].Target = time.Hour + 1 }, "target is 1h0m0.000000001s"},
		{"window too short", func(t *Targets) { t.Window = time.Minute }, "window is 1m0s"},
		{"window too long", func(t *Targets) { t.Window = 91 * 24 * time.Hour }, "window is 2184h"},
	} {
		t.Run(c.name, func(t *testing.T) {
			targets := DefaultTargets()
			c.change(&targets)
			err := targets.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestValidateTellsEverything(t *testing.T) {
	err := Targets{Latency: []LatencyTarget{{}}, Window: 1}.Validate()
	if got := strings.Count(err.Error(), "sla: "); got != 5 {
		t.Errorf("%d problems in %q", got, err)
	}
}

package main

import (
	"slices"
	"strings"
	"testing"
	"time"
)

func TestPeerOfALogLine(t *testing.T) {
	for line, want := range map[string]string{
		`msg="connection ended" peer=127.0.0.2:40001 error=x`: "127.0.0.2:40001",
		`msg="connection ended" peer="127.0.0.2:40001"`:       "127.0.0.2:40001",
		`msg="too many connections" peer=127.0.0.2 limit=512`: "127.0.0.2",
		`msg=call endpoint=127.0.0.1:40001`:                   "",
		`msg=call endpoint=127.0.0.23:40001`:                  "",
	} {
		if got := peerOf(line); got != want {
			t.Errorf("peerOf(%s) = %q, want %q", line, got, want)
		}
	}
}

func TestMovedNamesTheRelaysCountersWithoutItsTraffic(t *testing.T) {
	before, err := parseMetrics(strings.NewReader("outrigger_relay_calls_total{otel_scope_name=\"o\"} 5\n"))
	if err != nil {
		t.Fatal(err)
	}
	after, err := parseMetrics(strings.NewReader(`# HELP outrigger_relay_calls_total Calls that arrived.
# TYPE outrigger_relay_calls_total counter
outrigger_relay_calls_total{otel_scope_name="o"} 9
outrigger_relay_connections{otel_scope_name="o",outrigger_side="downstream"} 3
outrigger_relay_protocol_errors_total{otel_scope_name="o",outrigger_kind="ENHANCE_YOUR_CALM"} 2
outrigger_refusals_total{otel_scope_name="o",outrigger_reason="CANCELLED"} 7
`))
	if err != nil {
		t.Fatal(err)
	}
	relay, refusals := moved(before, after)
	if want := []string{`relay_protocol_errors{kind="ENHANCE_YOUR_CALM"} +2`}; !slices.Equal(relay, want) {
		t.Errorf("relay: %q, want %q", relay, want)
	}
	if want := []string{`refusals{reason="CANCELLED"} +7`}; !slices.Equal(refusals, want) {
		t.Errorf("refusals: %q, want %q", refusals, want)
	}
}

// kept is the outcome of an attack that broke no promise.
func kept() outcome {
	return outcome{
		Quiet: experience{Calls: 600, Success: 1, P99: time.Millisecond}, During: experience{Calls: 600, Success: 1, P99: 2 * time.Millisecond},
		RSSBefore: 20 << 10, RSSPeak: 30 << 10, AgentAlive: true,
		Opened: 5, Cut: 5, FirstCut: time.Second, LastCut: 2 * time.Second,
		Moved: []string{"relay_protocol_errors +5"}, Sampled: 5, LinesOfHost: 5,
	}
}

func TestJudge(t *testing.T) {
	for name, test := range map[string]struct {
		change func(o *outcome)
		want   string // the verdict that fails; empty: none
	}{
		"everything kept":              {func(*outcome) {}, ""},
		"the agent died":               {func(o *outcome) { o.AgentAlive = false }, "agent"},
		"1 of 600 calls failed":        {func(o *outcome) { o.During.Failed, o.During.Success = 1, 599.0/600 }, "success"},
		"1 of 1,600 calls failed":      {func(o *outcome) { o.During = experience{Calls: 1600, Failed: 1, Success: 1599.0 / 1600} }, ""},
		"5 ms slower":                  {func(o *outcome) { o.During.P99 = 6 * time.Millisecond }, ""},
		"more than 5 ms slower":        {func(o *outcome) { o.During.P99 = 7 * time.Millisecond }, "p99"},
		"twice as slow":                {func(o *outcome) { o.Quiet.P99, o.During.P99 = 10*time.Millisecond, 20*time.Millisecond }, ""},
		"17 MiB more":                  {func(o *outcome) { o.RSSPeak = 37 << 10 }, "memory"},
		"one connection never cut off": {func(o *outcome) { o.Cut, o.Uncut = 4, 1 }, "cut off"},
		"the last came too late":       {func(o *outcome) { o.Cut = 4 }, ""},
		"cut off late":                 {func(o *outcome) { o.LastCut = 6 * time.Second }, "cut off"},
		"no connection was made":       {func(o *outcome) { o.Opened = 0 }, "cut off"},
		"a connection not logged":      {func(o *outcome) { o.Unlogged = 1 }, "log"},
		"a connection logged twice":    {func(o *outcome) { o.Repeated = 1 }, "log"},
		"nothing counted":              {func(o *outcome) { o.Moved = nil }, "metric"},
		"a crowd that keeps some":      {func(o *outcome) { o.Crowd, o.Opened, o.Uncut = true, 10_000, 1000 }, ""},
		"a crowd that fills the log":   {func(o *outcome) { o.Crowd, o.LinesOfHost = true, 101 }, "log"},
		"a crowd that nobody names":    {func(o *outcome) { o.Crowd, o.LinesOfHost = true, 0 }, "log"},
	} {
		t.Run(name, func(t *testing.T) {
			o := kept()
			test.change(&o)
			failures := judge(&o)
			if test.want == "" {
				if len(failures) > 0 {
					t.Fatalf("failed: %q", failures)
				}
				return
			}
			if len(failures) != 1 || !strings.HasPrefix(failures[0], test.want+": ") {
				t.Fatalf("failed: %q, want %s alone", failures, test.want)
			}
		})
	}
}

func TestBetweenCountsTheCallsSentInIt(t *testing.T) {
	begin := time.Unix(1000, 0)
	var c goodClient
	for i := range 300 { // one each 10 ms, each takes as many µs as its number
		c.calls = append(c.calls, sample{start: begin.Add(time.Duration(i) * 10 * time.Millisecond), took: time.Duration(i) * time.Microsecond})
	}
	got := c.between(begin.Add(time.Second), begin.Add(2*time.Second))
	if want := (experience{Calls: 100, Success: 1, P99: 199 * time.Microsecond, Worst: 199 * time.Microsecond}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

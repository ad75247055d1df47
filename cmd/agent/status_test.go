package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

var noon = time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC)

// busyStatus is an agent in trouble.
func busyStatus() *outriggerv1.Status {
	return &outriggerv1.Status{
		At: timestamppb.New(noon),
		Agent: &outriggerv1.Agent{
			Version: "v1.2.3", Uptime: durationpb.New(75 * time.Minute), ConfigPath: "o.yaml", ConfigGeneration: 3, EgressAddress: "127.0.0.1:7600",
			ReloadError: "o.yaml:3:5: services[0].name: want a name",
		},
		ActiveCalls: 12, DownstreamConnections: 1, UpstreamConnections: 2, CallsTotal: 4_500_000,
		Services: []*outriggerv1.ServiceStatus{{
			Name: "greeter", CallsPerSecond: 1234, Availability: 99.9999, SuccessRate: 98.5, Counted: 12340,
			P50Ms: 0.85, P95Ms: 12.34, P99Ms: 250, InFlight: 12, Panicking: true,
			Refusals: map[string]uint64{"TIMEOUT": 3, "BREAKER_OPEN": 1500},
			Endpoints: []*outriggerv1.Endpoint{
				{Service: "greeter", Address: "127.0.0.1:50051", State: outriggerv1.Endpoint_READY, Calls: 5000, InFlight: 12},
				{Service: "greeter", Address: "127.0.0.1:50052", State: outriggerv1.Endpoint_CONNECTING, Reason: "connection refused", Calls: 400, Failures: 7},
			},
			Breakers: []*outriggerv1.Breaker{
				{Name: "greeter@127.0.0.1:50052", Service: "greeter", Endpoint: "127.0.0.1:50052", State: outriggerv1.Breaker_OPEN, Mode: outriggerv1.Breaker_ENFORCE,
					Reason: "5 failures in a row", Since: timestamppb.New(noon.Add(-20 * time.Second)), OpenUntil: timestamppb.New(noon.Add(9500 * time.Millisecond)), Refused: 1500},
				{Name: "greeter@127.0.0.1:50051", Service: "greeter", Endpoint: "127.0.0.1:50051", State: outriggerv1.Breaker_CLOSED, Mode: outriggerv1.Breaker_ENFORCE},
			},
		}, {
			Name: "billing", WouldRefuse: 15, WouldRefusePercent: 7.5,
			Endpoints: []*outriggerv1.Endpoint{{Service: "billing", Address: "10.0.0.1:80", State: outriggerv1.Endpoint_READY}},
			Breakers:  []*outriggerv1.Breaker{{Name: "billing", Service: "billing", State: outriggerv1.Breaker_HALF_OPEN, Mode: outriggerv1.Breaker_OBSERVE, WouldRefuse: 15, Reason: "the open time is over: probing"}},
		}},
		OmittedServices: 4,
	}
}

const busyPage = `outrigger v1.2.3 · up 1h15m · o.yaml (generation 3) · egress 127.0.0.1:7600
12 calls in flight · 1 connection from apps, 2 to endpoints · 4500000 calls so far
the last reload failed, the configuration from before holds:
  o.yaml:3:5: services[0].name: want a name

SERVICE   CALLS  AVAILABLE  SUCCESS     P50      P95     P99  IN FLIGHT  REFUSED                       OBSERVE WOULD
greeter  1.2k/s    99.99 %  98.50 %  850 µs  12.3 ms  250 ms         12  BREAKER_OPEN 1.5k, TIMEOUT 3  –
billing     0/s          –        –       –        –       –          0  –                             15 (7.5 %)

greeter: too few endpoints are fit, so calls are spread over all that are connected
ENDPOINT         OF       STATE       BREAKER    CALLS  IN FLIGHT  SENT  FAILED  REASON
127.0.0.1:50051  greeter  READY       CLOSED     500/s         12  5.0k       0  –
127.0.0.1:50052  greeter  CONNECTING  OPEN         0/s          0   400       7  connection refused
10.0.0.1:80      billing  READY       HALF_OPEN      –          0     0       0  –

BREAKER                  STATE      MODE     FOR  PROBE IN   REFUSED  REASON
greeter@127.0.0.1:50052  OPEN       ENFORCE  20s       10s      1.5k  5 failures in a row
greeter@127.0.0.1:50051  CLOSED     ENFORCE    –         –         0  –
billing                  HALF_OPEN  OBSERVE    –         –  would 15  the open time is over: probing

4 services more, all of them quieter: ` + "`outrigger status --service NAME`" + ` shows one
`

func TestStatusPage(t *testing.T) {
	// Given a status of two seconds before with fewer calls,
	before := &outriggerv1.Status{At: timestamppb.New(noon.Add(-2 * time.Second)), Services: []*outriggerv1.ServiceStatus{{Name: "greeter", Endpoints: []*outriggerv1.Endpoint{
		{Service: "greeter", Address: "127.0.0.1:50051", Calls: 4000}, {Service: "greeter", Address: "127.0.0.1:50052", Calls: 400},
	}}}}
	// when the status is printed, then it is this page.
	var page bytes.Buffer
	printStatus(&page, busyStatus(), before, false)
	wantText(t, page.String(), busyPage)
}

func TestColoursChangeNothingButColours(t *testing.T) {
	var plainPage, colourPage bytes.Buffer
	printStatus(&plainPage, busyStatus(), nil, false)
	printStatus(&colourPage, busyStatus(), nil, true)
	text := colourPage.String()
	if !strings.Contains(text, "\x1b[1;31mOPEN\x1b[0m") || !strings.Contains(text, "\x1b[32mREADY\x1b[0m") || !strings.Contains(text, "\x1b[33mHALF_OPEN\x1b[0m") {
		t.Error(text)
	}
	for _, e := range append(escapes[1:], "\x1b[0m") {
		text = strings.ReplaceAll(text, e, "")
	}
	wantText(t, text, plainPage.String())
}

func TestNamesCannotDriveTheTerminal(t *testing.T) {
	table := newTable("NAME")
	table.add("greeter/\x1b[2J\r\nevil\u202e")
	var out bytes.Buffer
	table.print(&out, true)
	if got := out.String(); strings.Contains(got, "\x1b[2J") || strings.Contains(got, "\r") || strings.Contains(got, "\u202e") || strings.Count(got, "\n") != 2 {
		t.Errorf("%q", got)
	}
}

func TestAnAgentWithoutServices(t *testing.T) {
	var page bytes.Buffer
	printStatus(&page, &outriggerv1.Status{Agent: &outriggerv1.Agent{Version: "v1", EgressAddress: "127.0.0.1:7600", Phase: outriggerv1.Agent_DRAINING}}, nil, false)
	for _, says := range []string{"built-in defaults", "it finishes the calls in flight", "no services yet: configure some, or send calls to 127.0.0.1:7600"} {
		if !strings.Contains(page.String(), says) {
			t.Errorf("%q is not in\n%s", says, page.String())
		}
	}
}

func TestWatchWithoutATerminalIsPlainLines(t *testing.T) {
	// Given a watcher whose output is no terminal,
	s := newStage(t)
	s.greeter.Endpoints().Find("127.0.0.1:50052").SetDraining(true)
	s.call(1, policy.OK)
	out := newRecord()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- execute(ctx, []string{"status", "--watch", "--interval", "100ms"}, out, out) }()
	out.await(t, func(text string) bool { return strings.Contains(text, "1/2 endpoints ready") })
	// when a breaker opens, then there is a line that says why;
	s.call(5, policy.Unavailable)
	text := out.await(t, func(text string) bool {
		return strings.Contains(text, "breaker greeter@127.0.0.1:50051  CLOSED → OPEN  5 failures in a row")
	})
	if strings.Contains(text, "\x1b") {
		t.Errorf("escapes in %q", text)
	}
	// when the user has seen enough, then it ends well.
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("ended with %d: %s", got, out)
	}
}

func TestWatchJSONIsALineEach(t *testing.T) {
	newStage(t)
	out := newRecord()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- execute(ctx, []string{"status", "-w", "--interval", "100ms", "-o", "json"}, out, out) }()
	text := out.await(t, func(text string) bool { return strings.Count(text, "\n") >= 2 })
	cancel()
	<-code
	for line := range strings.Lines(text) {
		if !strings.HasPrefix(line, `{"status":{"at":"`) || !strings.HasSuffix(line, "}\n") {
			t.Errorf("%q", line)
		}
	}
}

func TestWatchWaitsForAnAgentThatWent(t *testing.T) {
	// Given a watcher of an agent,
	s := newStage(t)
	out := newRecord()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- execute(ctx, []string{"status", "-w", "--interval", "100ms"}, out, out) }()
	out.await(t, func(text string) bool { return strings.Contains(text, "greeter") })
	// when the agent ends, then the watcher says so once and waits.
	s.server.Shutdown(context.Background())
	text := out.await(t, func(text string) bool {
		return strings.Contains(text, "no agent answers at "+s.address+" any more: waiting")
	})
	if strings.Count(text, "waiting") != 1 {
		t.Error(text)
	}
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("ended with %d", got)
	}
}

func TestTheScreenIsRestored(t *testing.T) {
	// Given a screen (whose size can't be known, so 24 lines),
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &screen{terminal: w}
	if err := s.status(&outriggerv1.WatchStatusResponse{Status: busyStatus()}); err != nil {
		t.Fatal(err)
	}
	if err := s.gone("127.0.0.1:7601"); err != nil {
		t.Fatal(err)
	}
	// when it is closed, then the terminal is as before.
	s.close()
	w.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(r); err != nil {
		t.Fatal(err)
	}
	text := got.String()
	if !strings.HasPrefix(text, enterScreen+home+"outrigger v1.2.3") || !strings.HasSuffix(text, clearBelow+leaveScreen) || !strings.Contains(text, "no agent answers at 127.0.0.1:7601 any more") {
		t.Errorf("%q", text)
	}
}

func TestAFrameFitsItsWindow(t *testing.T) {
	for _, c := range []struct {
		height int
		want   string
	}{
		{10, "a|b|c|d||end"},
		{6, "a|b|c|d||end"},
		{5, "a|b|… 2 lines more: a taller window shows them||end"},
		{1, "… 4 lines more: a taller window shows them||end"},
	} {
		got := frame("a\nb\nc\nd\n", "end", c.height)
		got = strings.TrimSuffix(strings.TrimPrefix(got, home), clearRight+clearBelow)
		if got = strings.ReplaceAll(got, clearRight+"\r\n", "|"); got != c.want {
			t.Errorf("%d lines: %q, want %q", c.height, got, c.want)
		}
	}
}

func TestSourcesOfEndpointsThatAreNotWellAreTold(t *testing.T) {
	var page bytes.Buffer
	printDiscovery(&page, []*outriggerv1.ServiceStatus{
		{Name: "well", Discovery: &outriggerv1.DiscoveryStatus{Source: "static", Version: 1}},
		{Name: "dialled"},
		{Name: "stale", Discovery: &outriggerv1.DiscoveryStatus{Source: "dns a:1", Version: 2, Stale: true, Age: durationpb.New(90 * time.Second), Problem: "10.0.0.10:53: no answer in time"}},
		{Name: "young", Discovery: &outriggerv1.DiscoveryStatus{Source: "dns b:1"}},
		{Name: "empty", Discovery: &outriggerv1.DiscoveryStatus{Source: "registered", Version: 1, Problem: "no endpoint is registered"}},
	}, false)
	wantText(t, page.String(), `endpoints of stale (dns a:1): has been stale for 1m30s: 10.0.0.10:53: no answer in time
endpoints of young (dns b:1): has not answered yet
endpoints of empty (registered): no endpoint is registered
`)
}

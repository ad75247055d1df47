package telemetry

import (
	"context"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/telemetry/telemetrytest"
	"github.com/outrigger-rpc/outrigger/policy"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// withCollector returns telemetry that pushes to a collector of its own.
// flush shuts it down, which sends what waits.
func withCollector(t *testing.T, ratio float64) (c *telemetrytest.Collector, tracer *Tracer, flush func()) {
	t.Helper()
	c = telemetrytest.Start(t)
	telemetry, err := New(Options{Version: "v1.2.3", OTLPEndpoint: c.Endpoint, SampleRatio: ratio})
	if err != nil {
		t.Fatal(err)
	}
	done := false
	flush = func() {
		if done {
			return
		}
		done = true
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := telemetry.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
	}
	t.Cleanup(flush)
	return c, telemetry.Tracer(), flush
}

func find(t *testing.T, spans []*tracepb.Span, name string) *tracepb.Span {
	t.Helper()
	for _, s := range spans {
		if s.Name == name {
			return s
		}
	}
	t.Fatalf("no span %q", name)
	return nil
}

func wantAttributes(t *testing.T, s *tracepb.Span, want map[string]any) {
	t.Helper()
	got := telemetrytest.Attributes(s.Attributes)
	for key, value := range want {
		if got[key] != value {
			t.Errorf("%s: attribute %s is %v, want %v", s.Name, key, got[key], value)
		}
	}
}

func TestSampledCallIsASpanWithASpanAnAttempt(t *testing.T) {
	collector, tracer, flush := withCollector(t, 0)

	// Given a caller whose trace is sampled, one attempt that fails at 10 ms
	// and one that succeeds at 30 ms.
	call := tracer.StartCall(1*time.Second, sampledParent, "vendor=1", "greeter", "/helloworld.Greeter/SayHello")
	if call == nil {
		t.Fatal("the call is not recorded")
	}
	first := call.StartAttempt(1*time.Second, "10.0.0.1:50051", 1)
	call.EndAttempt(1010*time.Millisecond, 1, policy.Result{Code: policy.Unavailable, Reason: policy.ConnectFailed}, "connection refused")
	second := call.StartAttempt(1020*time.Millisecond, "unix:/run/greeter.sock", 2)
	call.EndAttempt(1030*time.Millisecond, 2, policy.Result{}, "")
	call.End(1030*time.Millisecond, Summary{Endpoint: "unix:/run/greeter.sock", Authority: "greeter", Peer: "127.0.0.1:9", Task: "t1", Attempts: 2, RequestBytes: 7, ResponseBytes: 9})
	flush()

	spans := collector.Spans(t, 3)
	outer := find(t, spans, "helloworld.Greeter/SayHello")
	if got := hex.EncodeToString(outer.TraceId); got != "4bf92f3577b34da6a3ce929d0e0e4736" || got != call.TraceID() {
		t.Errorf("trace ID %s", got)
	}
	if got := hex.EncodeToString(outer.ParentSpanId); got != "00f067aa0ba902b7" {
		t.Errorf("the call's parent is %s", got)
	}
	if outer.TraceState != "vendor=1" {
		t.Errorf("tracestate %q", outer.TraceState)
	}
	if d := time.Duration(outer.EndTimeUnixNano - outer.StartTimeUnixNano); d != 30*time.Millisecond {
		t.Errorf("the call took %v", d)
	}
	if age := time.Since(time.Unix(0, int64(outer.StartTimeUnixNano))); age < 0 || age > time.Minute {
		t.Errorf("the call started %v ago", age)
	}
	wantAttributes(t, outer, map[string]any{
		"rpc.system": "grpc", "rpc.service": "helloworld.Greeter", "rpc.method": "SayHello",
		"rpc.grpc.status_code": int64(0), "rpc.response.status_code": "OK",
		"server.address": "/run/greeter.sock", "outrigger.service": "greeter", "outrigger.attempts": int64(2),
		"outrigger.request.bytes": int64(7), "network.peer.address": "127.0.0.1:9", "outrigger.task": "t1",
	})

	attempts := 0
	for _, s := range spans {
		if s == outer {
			continue
		}
		if string(s.ParentSpanId) != string(outer.SpanId) || s.Kind != tracepb.Span_SPAN_KIND_CLIENT {
			t.Errorf("%s: parent %x, kind %v", s.Name, s.ParentSpanId, s.Kind)
		}
		header := "00-4bf92f3577b34da6a3ce929d0e0e4736-" + hex.EncodeToString(s.SpanId) + "-01"
		switch telemetrytest.Attributes(s.Attributes)["outrigger.attempt"] {
		case int64(1):
			attempts++
			wantAttributes(t, s, map[string]any{
				"server.address": "10.0.0.1", "server.port": int64(50051),
				"rpc.grpc.status_code": int64(14), "outrigger.reason": "CONNECT_FAILED",
			})
			if s.Status.Code != tracepb.Status_STATUS_CODE_ERROR || s.Status.Message != "connection refused" {
				t.Errorf("status %v", s.Status)
			}
			if header != first {
				t.Errorf("the upstream of attempt 1 got %s, want %s", first, header)
			}
		case int64(2):
			attempts++
			if header != second {
				t.Errorf("the upstream of attempt 2 got %s, want %s", second, header)
			}
		}
	}
	if attempts != 2 {
		t.Errorf("%d attempts", attempts)
	}
	if r := collector.Resource(); r["service.name"] != "outrigger" || r["service.version"] != "v1.2.3" {
		t.Errorf("resource %v", r)
	}
}

func TestRefusalIsVisibleOnTheSpan(t *testing.T) {
	collector, tracer, flush := withCollector(t, 1)

	call := tracer.StartCall(time.Second, "", "", "greeter", "/helloworld.Greeter/SayHello")
	call.Event(time.Second, "an event")
	call.End(time.Second, Summary{
		Result:  policy.Result{Code: policy.Unavailable, Reason: policy.BreakerOpen},
		Message: "the circuit breaker of greeter is OPEN: 5 consecutive failures",
	})
	flush()

	span := find(t, collector.Spans(t, 1), "helloworld.Greeter/SayHello")
	if len(span.ParentSpanId) != 0 {
		t.Errorf("a root has the parent %x", span.ParentSpanId)
	}
	if len(span.Events) != 2 || span.Events[0].Name != "an event" || span.Events[1].Name != "BREAKER_OPEN" {
		t.Fatalf("events %v", span.Events)
	}
	if m := telemetrytest.Attributes(span.Events[1].Attributes)["outrigger.message"]; !strings.Contains(m.(string), "5 consecutive") {
		t.Errorf("message %v", m)
	}
	wantAttributes(t, span, map[string]any{"outrigger.reason": "BREAKER_OPEN", "rpc.grpc.status_code": int64(14)})
}

func TestSamplingFollowsTheParent(t *testing.T) {
	for _, test := range []struct {
		name, parent string
		ratio        float64
		want         bool
	}{
		{"parent sampled, ratio 0", sampledParent, 0, true},
		{"parent not sampled, ratio 1", unsampledParent, 1, false},
		{"no parent, ratio 0", "", 0, false},
		{"no parent, ratio 1", "", 1, true},
		{"broken parent counts as none, ratio 1", "junk", 1, true},
		{"broken parent counts as none, ratio 0", "junk", 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, tracer, _ := withCollector(t, test.ratio)
			call := tracer.StartCall(time.Second, test.parent, "", "s", "/a.B/C")
			if got := call != nil; got != test.want {
				t.Fatalf("recorded: %v, want %v", got, test.want)
			}
			if call != nil {
				call.End(time.Second, Summary{})
			}
		})
	}
}

func TestRatioHoldsForTracesThatBeginHere(t *testing.T) {
	_, tracer, _ := withCollector(t, 0.1)
	recorded := 0
	for range 10_000 {
		if call := tracer.StartCall(time.Second, "", "", "s", "/a.B/C"); call != nil {
			recorded++
			call.End(time.Second, Summary{})
		}
	}
	if recorded < 800 || recorded > 1200 { // 6 standard deviations
		t.Errorf("%d of 10000 recorded, want about 1000", recorded)
	}
}

func TestUnsampledCallDoesNotAllocate(t *testing.T) {
	_, tracer, _ := withCollector(t, 0)
	for name, header := range map[string]string{"the caller says no": unsampledParent, "the ratio says no": ""} {
		if n := testing.AllocsPerRun(100, func() { tracer.StartCall(1, header, "", "s", "/a.B/C") }); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestACollectorThatIsAwayHoldsNothingUp(t *testing.T) {
	telemetry, err := New(Options{OTLPEndpoint: "127.0.0.1:1", SampleRatio: 1})
	if err != nil {
		t.Fatal(err)
	}
	// When more calls end than the queue holds, they go on.
	for range 3 * maxQueuedSpans {
		call := telemetry.Tracer().StartCall(time.Second, "", "", "s", "/a.B/C")
		call.End(time.Second, Summary{})
	}
	// Then the flush ends with its context and says that something is lost.
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	if err := telemetry.Shutdown(ctx); err == nil {
		t.Error("Shutdown reports no loss")
	}
}

func BenchmarkStartCallUnsampled(b *testing.B) { // budget: 50 ns, 0 allocs
	telemetry, err := New(Options{OTLPEndpoint: "127.0.0.1:1"})
	if err != nil {
		b.Fatal(err)
	}
	defer telemetry.Shutdown(context.Background())
	b.ReportAllocs()
	for b.Loop() {
		telemetry.Tracer().StartCall(1, unsampledParent, "", "s", "/a.B/C")
	}
}

func BenchmarkSampledCall(b *testing.B) { // budget: 10 µs
	telemetry, err := New(Options{OTLPEndpoint: "127.0.0.1:1", SampleRatio: 1})
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	defer telemetry.Shutdown(ctx)
	b.ReportAllocs()
	for b.Loop() {
		call := telemetry.Tracer().StartCall(1, sampledParent, "", "s", "/a.B/C")
		call.StartAttempt(1, "10.0.0.1:50051", 1)
		call.EndAttempt(2, 1, policy.Result{}, "")
		call.End(2, Summary{Endpoint: "10.0.0.1:50051", Attempts: 1})
	}
}

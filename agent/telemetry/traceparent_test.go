package telemetry

import (
	"context"
	"testing"

	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
)

const (
	sampledParent   = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
	unsampledParent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"
)

func TestParseTraceparent(t *testing.T) {
	for _, test := range []struct {
		name, header string
		ok, sampled  bool
	}{
		{"sampled", sampledParent, true, true},
		{"not sampled", unsampledParent, true, false},
		{"random flag", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-03", true, true},
		{"unknown flags are passed over", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-fd", true, true},
		{"a later version", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", true, true},
		{"a later version with more fields", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", true, true},
		{"a later version that goes on without a dash", "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01more", false, false},
		{"version 00 with more fields", sampledParent + "-more", false, false},
		{"version ff", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", false, false},
		{"empty", "", false, false},
		{"short", sampledParent[:54], false, false},
		{"upper case", "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01", false, false},
		{"no hex", "00-4bf92f3577b34da6a3ce929d0e0e473x-00f067aa0ba902b7-01", false, false},
		{"zero trace ID", "00-00000000000000000000000000000000-00f067aa0ba902b7-01", false, false},
		{"zero span ID", "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01", false, false},
		{"wrong separator", "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01", false, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			p, ok := parseTraceparent(test.header)
			if ok != test.ok || p.sampled() != test.sampled {
				t.Errorf("got ok %v, sampled %v; want %v, %v", ok, p.sampled(), test.ok, test.sampled)
			}
		})
	}
}

// FuzzTraceparent compares with OpenTelemetry's own propagator.
func FuzzTraceparent(f *testing.F) {
	f.Add(sampledParent)
	f.Add(unsampledParent)
	f.Add("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more")
	f.Add("")
	f.Fuzz(func(t *testing.T, header string) {
		p, ok := parseTraceparent(header)
		carrier := propagation.MapCarrier{"traceparent": header}
		theirs := trace.SpanContextFromContext(propagation.TraceContext{}.Extract(context.Background(), carrier))
		if !ok {
			if p != (parent{}) {
				t.Errorf("%q: refused, but %+v was returned", header, p)
			}
			// Every header that they take in version 00, we take.
			if theirs.IsValid() && len(header) == traceparentLength && header[:2] == "00" {
				t.Errorf("%q: refused, OpenTelemetry takes it", header)
			}
			return
		}
		again := formatTraceparent(trace.NewSpanContext(trace.SpanContextConfig{
			TraceID: p.traceID, SpanID: p.spanID, TraceFlags: p.flags,
		}))
		if q, ok := parseTraceparent(again); !ok || q != p {
			t.Errorf("%q was written as %q, which reads as %+v, %v", header, again, q, ok)
		}
		if theirs.IsValid() && (theirs.TraceID() != p.traceID || theirs.SpanID() != p.spanID || theirs.IsSampled() != p.sampled()) {
			t.Errorf("%q: got %+v, OpenTelemetry reads %+v", header, p, theirs)
		}
	})
}

func TestParseTraceparentDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { parseTraceparent(sampledParent) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

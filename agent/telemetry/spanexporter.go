package telemetry

import (
	"context"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// spanExporter makes an exporter's end certain. OpenTelemetry's batcher returns
// from Shutdown when the context ends and leaves its goroutine to retry the
// delivery; this one ends the delivery, and says when the batcher is through.
type spanExporter struct {
	sdktrace.SpanExporter
	stop   context.Context
	cancel context.CancelFunc
	ended  chan struct{} // closed when the batcher has let go of the exporter
}

func newSpanExporter(e sdktrace.SpanExporter) *spanExporter {
	s := &spanExporter{SpanExporter: e, ended: make(chan struct{})}
	s.stop, s.cancel = context.WithCancel(context.Background())
	return s
}

// ExportSpans delivers spans unless finish has ended deliveries.
func (s *spanExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.stop, cancel)()
	return s.SpanExporter.ExportSpans(ctx, spans)
}

// Shutdown is the last thing that the batcher calls, once.
func (s *spanExporter) Shutdown(ctx context.Context) error {
	defer close(s.ended)
	return s.SpanExporter.Shutdown(ctx)
}

// finish ends the deliveries that are still under way and waits for the
// batcher's goroutines. The provider's Shutdown must have returned.
func (s *spanExporter) finish() {
	s.cancel()
	<-s.ended
}

// Package telemetry tells the world outside what the agent recorded: metrics
// for Prometheus and OTLP, spans for OTLP, both by OpenTelemetry.
//
//	t, err := telemetry.New(telemetry.Options{
//		Source:       source,                  // what there is to read
//		Prometheus:   true,                    // t.MetricsHandler() serves /metrics
//		OTLPEndpoint: "http://127.0.0.1:4317", // pushes metrics and spans too
//		SampleRatio:  0.1,
//	})
//	defer t.Shutdown(ctx)
//
// Metrics cost calls nothing: no instrument is written to. The policies and
// windows count anyway, and a collection reads them (producer.go). Which
// metrics there are stands in names.go.
//
// Spans are made by a Tracer for the calls that are sampled; for the others
// the Tracer says so without an allocation (tracer.go).
//
// Nothing is set up that is not asked for: no provider, registry, connection
// or goroutine exists before its first use.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"sync"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
)

// Options says what to report, and where. The zero value reports nothing.
type Options struct {
	// Version is the agent's, for service.version and outrigger.build.info.
	Version string
	// Source is what the metrics are read from.
	Source Source
	// Prometheus makes MetricsHandler serve the metrics.
	Prometheus bool
	// OTLPEndpoint is the collector that metrics and spans are pushed to over
	// gRPC: "host:port" or "http://host:port" in plain text,
	// "https://host:port" with TLS. Empty: none, and no spans are made. Headers
	// and timeouts come from OpenTelemetry's own environment variables.
	OTLPEndpoint string
	// SampleRatio is the share of traces that begin here to record, 0 to 1. A
	// trace that began at the caller is recorded if the caller's is.
	SampleRatio float64
	// MetricInterval is how often metrics are pushed. Zero: what
	// OTEL_METRIC_EXPORT_INTERVAL says, else 60 s.
	MetricInterval time.Duration
	// Logger hears of exports that fail. nil: nobody does.
	Logger *slog.Logger
}

// Telemetry is everything that reports. Safe for concurrent use. Make it with
// New, end it with Shutdown.
type Telemetry struct {
	options  Options
	resource *resource.Resource
	metrics  http.Handler // nil: off
	tracer   *Tracer      // nil: off

	connection *grpc.ClientConn
	exporter   *spanExporter
	spans      *sdktrace.TracerProvider
	pushed     *sdkmetric.MeterProvider
}

// New starts what the options ask for. It fails when OTLPEndpoint can't be
// understood, not when nobody listens there: a collector may come later.
func New(o Options) (*Telemetry, error) {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.Source.Origin.IsZero() {
		o.Source.Origin = time.Now()
	}
	t := &Telemetry{options: o}
	if o.OTLPEndpoint == "" && !o.Prometheus {
		return t, nil
	}
	otel.SetErrorHandler(&errorLog{logger: o.Logger})
	t.resource = describe(o.Version)
	if o.Prometheus {
		t.metrics = &prometheusHandler{producer: newProducer(o.Source, o.Version), resource: t.resource}
	}
	if o.OTLPEndpoint == "" {
		return t, nil
	}
	if err := t.startOTLP(); err != nil {
		return nil, err
	}
	return t, nil
}

// MetricsHandler serves the metrics in Prometheus's formats. It is nil when
// Prometheus is off.
func (t *Telemetry) MetricsHandler() http.Handler { return t.metrics }

// Tracer records calls as spans. It is nil when no collector is configured.
func (t *Telemetry) Tracer() *Tracer { return t.tracer }

// Shutdown sends what is waiting, until ctx ends, and stops everything. The
// Telemetry must not be used any more.
func (t *Telemetry) Shutdown(ctx context.Context) error {
	var wg sync.WaitGroup
	var spans, metrics error
	// Side by side: a collector that hangs takes both the same time.
	if t.spans != nil {
		wg.Go(func() {
			spans = t.spans.Shutdown(ctx)
			t.exporter.finish()
		})
	}
	if t.pushed != nil {
		wg.Go(func() { metrics = t.pushed.Shutdown(ctx) })
	}
	wg.Wait()
	err := errors.Join(spans, metrics)
	if t.connection != nil {
		err = errors.Join(err, t.connection.Close())
	}
	if closer, ok := t.metrics.(io.Closer); ok {
		err = errors.Join(err, closer.Close())
	}
	if err != nil {
		return fmt.Errorf("telemetry: what was recorded last may be lost: %w", err)
	}
	return nil
}

// describe returns the resource that all telemetry is of. OTEL_SERVICE_NAME
// and OTEL_RESOURCE_ATTRIBUTES win over what is known here.
func describe(version string) *resource.Resource {
	host, _ := os.Hostname()
	own := []attribute.KeyValue{
		attribute.String("service.name", "outrigger"),
		attribute.String("service.version", version),
		// One agent runs beside each app, and often many on a host.
		attribute.String("service.instance.id", fmt.Sprintf("%s:%d", host, os.Getpid())),
	}
	r, err := resource.New(context.Background(), resource.WithAttributes(own...), resource.WithFromEnv())
	if err != nil {
		otel.Handle(fmt.Errorf("OTEL_RESOURCE_ATTRIBUTES is not used in full: %w", err))
	}
	return r
}

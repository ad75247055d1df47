package telemetry

import (
	"context"
	"fmt"
	"net"
	"net/url"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlpmetric/otlpmetricgrpc"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracegrpc"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
)

const (
	// maxQueuedSpans bounds the spans that wait for the collector; further
	// ones are dropped, never waited for.
	maxQueuedSpans = 2048
	// exportTimeout bounds one delivery with its retries.
	exportTimeout = 10 * time.Second
	// scopeName names the instrumentation in what is exported.
	scopeName = "github.com/outrigger-rpc/outrigger"
)

// startOTLP sets up what pushes to the collector. Spans and metrics share one
// connection, which is made when the first of them is delivered.
func (t *Telemetry) startOTLP() error {
	target, creds, err := parseEndpoint(t.options.OTLPEndpoint)
	if err != nil {
		return err
	}
	t.connection, err = grpc.NewClient(target, grpc.WithTransportCredentials(creds))
	if err != nil {
		return fmt.Errorf("telemetry.otlp.endpoint %q: %w", t.options.OTLPEndpoint, err)
	}
	// The exporters' constructors take a context and an error for what they do
	// without a connection of ours; with one there is nothing to wait for.
	ctx := context.Background()
	spans, err := otlptracegrpc.New(ctx, otlptracegrpc.WithGRPCConn(t.connection), otlptracegrpc.WithTimeout(exportTimeout))
	if err != nil {
		return fmt.Errorf("telemetry.otlp.endpoint %q: spans: %w", t.options.OTLPEndpoint, err)
	}
	metrics, err := otlpmetricgrpc.New(ctx, otlpmetricgrpc.WithGRPCConn(t.connection), otlpmetricgrpc.WithTimeout(exportTimeout))
	if err != nil {
		return fmt.Errorf("telemetry.otlp.endpoint %q: metrics: %w", t.options.OTLPEndpoint, err)
	}
	t.exporter = newSpanExporter(spans)
	t.spans = sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(t.exporter, sdktrace.WithMaxQueueSize(maxQueuedSpans), sdktrace.WithExportTimeout(exportTimeout)),
		sdktrace.WithResource(t.resource),
		// The Tracer decides before it asks for a span.
		sdktrace.WithSampler(sdktrace.AlwaysSample()),
	)
	t.tracer = &Tracer{
		tracer: t.spans.Tracer(scopeName),
		ratio:  sdktrace.TraceIDRatioBased(t.options.SampleRatio),
	}
	reader := []sdkmetric.PeriodicReaderOption{
		sdkmetric.WithProducer(newProducer(t.options.Source, t.options.Version)),
		sdkmetric.WithTimeout(exportTimeout),
	}
	if t.options.MetricInterval > 0 {
		reader = append(reader, sdkmetric.WithInterval(t.options.MetricInterval))
	}
	t.pushed = sdkmetric.NewMeterProvider(
		sdkmetric.WithReader(sdkmetric.NewPeriodicReader(metrics, reader...)),
		sdkmetric.WithResource(t.resource),
	)
	return nil
}

// parseEndpoint reads telemetry.otlp.endpoint. Without a scheme it is plain
// text, since the collector of a sidecar is beside it.
func parseEndpoint(endpoint string) (target string, creds credentials.TransportCredentials, err error) {
	wrong := func(what string) error {
		return fmt.Errorf("telemetry.otlp.endpoint %q: %s; expected HOST:PORT, http://HOST:PORT or https://HOST:PORT, "+
			"for example 127.0.0.1:4317", endpoint, what)
	}
	target, creds = endpoint, insecure.NewCredentials()
	if scheme, _, ok := strings.Cut(endpoint, "://"); ok {
		u, err := url.Parse(endpoint)
		if err != nil {
			return "", nil, wrong("not a URL")
		}
		if strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.User != nil {
			return "", nil, wrong("gRPC has no path, query or user")
		}
		switch scheme {
		case "http":
		case "https":
			creds = credentials.NewTLS(nil)
		default:
			return "", nil, wrong("scheme " + scheme + " is not known")
		}
		target = u.Host
	}
	host, port, err := net.SplitHostPort(target)
	if err != nil || host == "" || port == "" {
		return "", nil, wrong("no host and port")
	}
	return target, creds, nil
}

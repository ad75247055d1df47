// Package telemetrytest is an OTLP collector for tests: it listens on loopback
// and keeps what it is sent.
package telemetrytest

import (
	"context"
	"net"
	"sync"
	"testing"
	"time"

	collectormetrics "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	collectortrace "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	commonpb "go.opentelemetry.io/proto/otlp/common/v1"
	metricspb "go.opentelemetry.io/proto/otlp/metrics/v1"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/grpc"
)

// Collector keeps what exporters send. Safe for concurrent use.
type Collector struct {
	// Endpoint is where it listens, as "host:port".
	Endpoint string

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced when something arrives
	spans    []*tracepb.Span
	metrics  map[string]*metricspb.Metric // the latest of each name
	resource *resourcepb.Resource
}

// Start starts a collector that ends with the test.
func Start(t testing.TB) *Collector {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	c := &Collector{
		Endpoint: l.Addr().String(),
		changed:  make(chan struct{}),
		metrics:  make(map[string]*metricspb.Metric),
	}
	server := grpc.NewServer()
	collectortrace.RegisterTraceServiceServer(server, traceService{c: c})
	collectormetrics.RegisterMetricsServiceServer(server, metricsService{c: c})
	var wg sync.WaitGroup
	wg.Go(func() { _ = server.Serve(l) })
	t.Cleanup(func() {
		server.Stop()
		wg.Wait()
	})
	return c
}

// Spans waits until at least n spans arrived and returns all. It fails the test
// when they don't.
func (c *Collector) Spans(t testing.TB, n int) []*tracepb.Span {
	t.Helper()
	var spans []*tracepb.Span
	c.wait(t, "spans", func() bool {
		spans = append([]*tracepb.Span(nil), c.spans...)
		return len(spans) >= n
	})
	return spans
}

// Metric waits until the metric arrived and returns its latest points.
func (c *Collector) Metric(t testing.TB, name string) *metricspb.Metric {
	t.Helper()
	var m *metricspb.Metric
	c.wait(t, name, func() bool {
		m = c.metrics[name]
		return m != nil
	})
	return m
}

// Resource returns the attributes of the resource that sent last.
func (c *Collector) Resource() map[string]any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Attributes(c.resource.GetAttributes())
}

func (c *Collector) wait(t testing.TB, what string, arrived func() bool) {
	t.Helper()
	timeout := time.After(10 * time.Second)
	for {
		c.mu.Lock()
		ok, changed := arrived(), c.changed
		c.mu.Unlock()
		if ok {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("the collector did not get %s in time", what)
		}
	}
}

func (c *Collector) store(f func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f()
	close(c.changed)
	c.changed = make(chan struct{})
}

type traceService struct {
	collectortrace.UnimplementedTraceServiceServer
	c *Collector
}

func (s traceService) Export(_ context.Context, r *collectortrace.ExportTraceServiceRequest) (*collectortrace.ExportTraceServiceResponse, error) {
	s.c.store(func() {
		for _, resource := range r.ResourceSpans {
			s.c.resource = resource.Resource
			for _, scope := range resource.ScopeSpans {
				s.c.spans = append(s.c.spans, scope.Spans...)
			}
		}
	})
	return &collectortrace.ExportTraceServiceResponse{}, nil
}

type metricsService struct {
	collectormetrics.UnimplementedMetricsServiceServer
	c *Collector
}

func (s metricsService) Export(_ context.Context, r *collectormetrics.ExportMetricsServiceRequest) (*collectormetrics.ExportMetricsServiceResponse, error) {
	s.c.store(func() {
		for _, resource := range r.ResourceMetrics {
			s.c.resource = resource.Resource
			for _, scope := range resource.ScopeMetrics {
				for _, m := range scope.Metrics {
					s.c.metrics[m.Name] = m
				}
			}
		}
	})
	return &collectormetrics.ExportMetricsServiceResponse{}, nil
}

// Attributes returns key-value pairs as a map of plain Go values.
func Attributes(list []*commonpb.KeyValue) map[string]any {
	m := make(map[string]any, len(list))
	for _, kv := range list {
		switch v := kv.Value.Value.(type) {
		case *commonpb.AnyValue_StringValue:
			m[kv.Key] = v.StringValue
		case *commonpb.AnyValue_IntValue:
			m[kv.Key] = v.IntValue
		case *commonpb.AnyValue_DoubleValue:
			m[kv.Key] = v.DoubleValue
		case *commonpb.AnyValue_BoolValue:
			m[kv.Key] = v.BoolValue
		}
	}
	return m
}

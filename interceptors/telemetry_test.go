package interceptors

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/stats"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// collected sums up what a reader collects by metric and the value of one
// attribute.
func collected(t *testing.T, r metric.Reader) map[string]int64 {
	t.Helper()
	var all metricdata.ResourceMetrics
	if err := r.Collect(context.Background(), &all); err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]int64)
	add := func(name string, points []metricdata.DataPoint[int64]) {
		for _, p := range points {
			for _, key := range []attribute.Key{keyStatusCode, keyReason, keyState} {
				if v, ok := p.Attributes.Value(key); ok {
					sums[name+" "+v.AsString()] += p.Value
				}
			}
			sums[name] += p.Value
		}
	}
	for _, scope := range all.ScopeMetrics {
		for _, m := range scope.Metrics {
			switch data := m.Data.(type) {
			case metricdata.Sum[int64]:
				add(m.Name, data.DataPoints)
			case metricdata.Gauge[int64]:
				add(m.Name, data.DataPoints)
			}
		}
	}
	return sums
}

func TestCountersAreReported(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 3
	ss := newServers(t)
	ss.start("a", failsWith(codes.Unavailable))
	p := retrying()
	p.Breaker = policy.BreakerPolicy{Options: o}
	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
	service.SetEndpoints(specs("a"))
	client := newClient(t, service)
	cc := ss.dialTo("outrigger:///greeter", client.DialOptions()...)
	reader := metric.NewManualReader()
	registration, err := client.Report(metric.NewMeterProvider(metric.WithReader(reader)).Meter("test"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_, _ = ask(t.Context(), cc, grpc.WaitForReady(true))
	}

	got := collected(t, reader)

	for name, want := range map[string]int64{
		MetricCalls + " UNAVAILABLE": 2, MetricRefusals + " BREAKER_OPEN": 1, MetricRetries: 2, MetricEndpointAttempts: 3, MetricEndpointFailures: 3,
		MetricEndpointActive: 0, MetricBreakerState + " OPEN": 1, MetricBreakerState + " CLOSED": 0,
	} {
		if got[name] != want {
			t.Errorf("%s: %d, want %d", name, got[name], want)
		}
	}
	if err := registration.Unregister(); err != nil {
		t.Fatal(err)
	}
	if got := collected(t, reader); len(got) != 0 {
		t.Errorf("after Unregister: %v", got)
	}
}

// attemptTracer makes a span an attempt, as otelgrpc does.
type attemptTracer struct{ trace.Tracer }

func (s attemptTracer) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	ctx, _ = s.Start(ctx, "attempt")
	return ctx
}
func (attemptTracer) HandleRPC(ctx context.Context, s stats.RPCStats) {
	if _, ok := s.(*stats.End); ok {
		trace.SpanFromContext(ctx).End()
	}
}
func (attemptTracer) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }
func (attemptTracer) HandleConn(context.Context, stats.ConnStats)                       {}

func TestSpansSayWhatPoliciesDid(t *testing.T) {
	spans := tracetest.NewSpanRecorder()
	tracer := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans)).Tracer("test")
	ss := newServers(t)
	ss.start("a", failsWith(codes.Unavailable))
	p := retrying()
	p.RateLimit = policy.RateLimitPolicy{PerSecond: 0.001, Burst: 1}
	cc, _ := ss.connect(p, []string{"a"}, grpc.WithStatsHandler(attemptTracer{tracer}), grpc.WithStatsHandler(StatsHandler()))
	ctx, span := tracer.Start(t.Context(), "caller")
	_, _ = ask(ctx, cc)
	_, _ = ask(ctx, cc)
	span.End()

	var events []string
	var attempts []int64
	eventually(t, "spans are missing", func() bool { return len(spans.Ended()) == 4 })
	for _, s := range spans.Ended() {
		if s.Name() == "caller" {
			for _, e := range s.Events() {
				events = append(events, e.Name)
			}
			continue
		}
		endpoint := false
		for _, a := range s.Attributes() {
			if a.Key == keyAttempt {
				attempts = append(attempts, a.Value.AsInt64())
			}
			endpoint = endpoint || a.Key == keyEndpoint
		}
		if !endpoint {
			t.Error("an attempt's span does not name the endpoint")
		}
	}

	if want := []string{"retry", "retry", "RATE_LIMIT"}; !slices.Equal(events, want) {
		t.Errorf("events %q, want %q", events, want)
	}
	if slices.Sort(attempts); !slices.Equal(attempts, []int64{1, 2, 3}) {
		t.Errorf("attempts %d", attempts)
	}
}

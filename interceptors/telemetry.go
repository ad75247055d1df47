package interceptors

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/stats"

	"github.com/outrigger-rpc/outrigger/policy"
)

// The metrics of Client.Report, by the names that the agent has for them too.
const (
	MetricCalls            = "outrigger.calls"
	MetricRefusals         = "outrigger.refusals"
	MetricRetries          = "outrigger.retries"
	MetricBreakerState     = "outrigger.breaker.state"
	MetricEndpointAttempts = "outrigger.endpoint.attempts"
	MetricEndpointFailures = "outrigger.endpoint.failures"
	MetricEndpointActive   = "outrigger.endpoint.attempts.active"
)

// The attributes of metrics and spans, as the agent has them.
const (
	keyService    = attribute.Key("outrigger.service")
	keyEndpoint   = attribute.Key("outrigger.endpoint")
	keyMethod     = attribute.Key("outrigger.method")
	keyReason     = attribute.Key("outrigger.reason")
	keyPolicy     = attribute.Key("outrigger.policy")
	keyState      = attribute.Key("outrigger.state")
	keyMode       = attribute.Key("outrigger.mode")
	keyAttempt    = attribute.Key("outrigger.attempt")
	keyStatusCode = attribute.Key("rpc.response.status_code")
)

var breakerStates = [...]string{"CLOSED", "OPEN", "HALF_OPEN"}

// Report gives the Service's counters to OpenTelemetry. They are read when
// metrics are collected, so a call pays for none. Unregister what it returns to
// stop it. It fails as the meter does.
func (c *Client) Report(meter metric.Meter) (metric.Registration, error) {
	var r reader
	var err error
	counter := func(name, unit, help string) metric.Int64ObservableCounter {
		i, e := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(help))
		if err == nil {
			err = e
		}
		return i
	}
	gauge := func(name, unit, help string) metric.Int64ObservableGauge {
		i, e := meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(help))
		if err == nil {
			err = e
		}
		return i
	}
	r.calls = counter(MetricCalls, "{call}", "Calls that ended, by the gRPC status that the caller got.")
	r.refusals = counter(MetricRefusals, "{call}", "Calls that a policy refused or ended, by reason.")
	r.retries = counter(MetricRetries, "{attempt}", "Attempts after a call's first.")
	r.attempts = counter(MetricEndpointAttempts, "{attempt}", "Attempts sent to an endpoint.")
	r.failures = counter(MetricEndpointFailures, "{attempt}", "Attempts that failed and that the endpoint is to blame for.")
	r.active = gauge(MetricEndpointActive, "{attempt}", "Attempts that are on their way to an endpoint now.")
	r.breaker = gauge(MetricBreakerState, "", "1 for the state that a circuit breaker is in, 0 for the others.")
	if err != nil {
		return nil, err
	}
	return meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
		r.read(o, c.service, c.now())
		return nil
	}, r.calls, r.refusals, r.retries, r.attempts, r.failures, r.active, r.breaker)
}

// reader reads one Service's counters.
type reader struct {
	calls, refusals, retries, attempts, failures metric.Int64ObservableCounter
	active, breaker                              metric.Int64ObservableGauge
}

func (r *reader) read(o metric.Observer, s *policy.Service, now policy.Instant) {
	name := keyService.String(s.Name())
	with := metric.WithAttributes
	for _, n := range s.Codes() {
		o.ObserveInt64(r.calls, int64(n.Total), with(name, keyStatusCode.String(n.Label)))
	}
	for _, n := range s.Refusals() {
		o.ObserveInt64(r.refusals, int64(n.Total), with(name, keyReason.String(n.Label)))
	}
	o.ObserveInt64(r.retries, int64(s.Retries()), with(name))
	for _, e := range s.Endpoints().All() {
		labels := with(name, keyEndpoint.String(e.Address()))
		o.ObserveInt64(r.attempts, int64(e.Calls()), labels)
		o.ObserveInt64(r.failures, int64(e.Failures()), labels)
		o.ObserveInt64(r.active, e.InFlight(), labels)
	}
	for _, b := range s.Breakers() {
		snapshot := b.Breaker.Snapshot(now)
		labels := []attribute.KeyValue{name, keyMode.String(snapshot.Mode.String())}
		if b.Key.Endpoint != "" {
			labels = append(labels, keyEndpoint.String(b.Key.Endpoint))
		}
		switch {
		case b.Override != "":
			labels = append(labels, keyMethod.String(b.Override))
		case b.Key.Method != "":
			labels = append(labels, keyMethod.String(b.Key.Method))
		}
		for _, state := range breakerStates {
			on := int64(0)
			if snapshot.State.String() == state {
				on = 1
			}
			o.ObserveInt64(r.breaker, on, metric.WithAttributeSet(attribute.NewSet(append(labels[:len(labels):len(labels)], keyState.String(state))...)))
		}
	}
}

// event notes on the caller's span that a policy did something.
func (l *life) event(what string) {
	if span := trace.SpanFromContext(l.ctx); span.IsRecording() {
		span.AddEvent(what, trace.WithAttributes(keyService.String(l.client.service.Name()), keyAttempt.Int(l.call.Attempts())))
	}
}

// refusalEvent notes a refusal on the caller's span, under its reason's name.
func (l *life) refusalEvent(r *policy.Refusal) {
	span := trace.SpanFromContext(l.ctx)
	if !span.IsRecording() {
		return
	}
	labels := []attribute.KeyValue{keyService.String(r.Service), keyReason.String(r.Reason.String())}
	if r.Policy != "" {
		labels = append(labels, keyPolicy.String(r.Policy))
	}
	if r.Endpoint != "" {
		labels = append(labels, keyEndpoint.String(r.Endpoint))
	}
	span.AddEvent(r.Reason.String(), trace.WithAttributes(labels...))
}

// StatsHandler returns a handler that writes on the span of each attempt which
// attempt it is and which endpoint it goes to. It makes no spans: give it to
// grpc.WithStatsHandler after the one that does, such as otelgrpc's, which has a
// span for each attempt.
func StatsHandler() stats.Handler { return attemptSpans{} }

type attemptSpans struct{}

// TagRPC implements stats.Handler.
func (attemptSpans) TagRPC(ctx context.Context, _ *stats.RPCTagInfo) context.Context {
	a, ok := ctx.Value(attemptKey{}).(*attempt)
	if !ok {
		return ctx
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(keyService.String(a.life.client.service.Name()), keyAttempt.Int(a.number))
	}
	return ctx
}

// HandleRPC implements stats.Handler. The endpoint is known when the headers
// went out.
func (attemptSpans) HandleRPC(ctx context.Context, s stats.RPCStats) {
	h, ok := s.(*stats.OutHeader)
	if !ok || h.RemoteAddr == nil {
		return
	}
	if span := trace.SpanFromContext(ctx); span.IsRecording() {
		span.SetAttributes(keyEndpoint.String(h.RemoteAddr.String()))
	}
}

// TagConn implements stats.Handler.
func (attemptSpans) TagConn(ctx context.Context, _ *stats.ConnTagInfo) context.Context { return ctx }

// HandleConn implements stats.Handler.
func (attemptSpans) HandleConn(context.Context, stats.ConnStats) {}

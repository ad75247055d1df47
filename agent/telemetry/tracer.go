package telemetry

import (
	"context"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
)

// Tracer records calls as OpenTelemetry spans: one of kind CLIENT for the call
// and below it one for each attempt. Safe for concurrent use; Telemetry makes
// it.
//
// What is recorded is decided as OpenTelemetry's ParentBased(TraceIDRatioBased)
// sampler would, but before a span exists, so that an unsampled call costs a
// parsed header.
type Tracer struct {
	tracer trace.Tracer
	ratio  sdktrace.Sampler
}

// Call is one recorded call. It is not safe for concurrent use.
type Call struct {
	tracer *Tracer
	ctx    context.Context // carries the call's span to its attempts
	span   trace.Span
	name   string

	// wall and start are one moment on two clocks. Fixed a call rather than a
	// process, so that the wall clock's corrections don't add up.
	wall  time.Time
	start policy.Instant

	attempts []attemptSpan // under way: more than one with a hedge
}

// attemptSpan is an attempt that is under way.
type attemptSpan struct {
	number int
	span   trace.Span
}

// Summary is what a call's end adds to its span. Strings may be reused by the
// caller afterwards.
type Summary struct {
	Result policy.Result
	// Message says why it failed; empty for OK.
	Message string
	// Endpoint is the last one tried; empty when none was.
	Endpoint string
	// Authority is what the caller asked for (":authority").
	Authority string
	// Peer is the caller's address.
	Peer string
	// Task is the id of the task that the call became; empty: it became none.
	Task string
	// Attempts is how many were made.
	Attempts int
	// Bytes and messages of the call's bodies.
	RequestBytes, ResponseBytes       uint64
	RequestMessages, ResponseMessages uint64
}

// StartCall decides whether the call is recorded and starts its span if so. It
// returns nil if not: then the caller's own context passes unchanged, which is
// what W3C Trace Context asks of one that takes no part. traceparent and
// tracestate are the caller's headers, empty where there were none.
func (t *Tracer) StartCall(now policy.Instant, traceparent, tracestate, service, method string) *Call {
	p, hasParent := parseTraceparent(traceparent)
	if hasParent {
		if !p.sampled() {
			return nil
		}
	} else {
		p.traceID = newTraceID()
		decision := t.ratio.ShouldSample(sdktrace.SamplingParameters{
			ParentContext: context.Background(), TraceID: p.traceID,
		})
		if decision.Decision != sdktrace.RecordAndSample {
			return nil
		}
		tracestate = "" // it means nothing without its traceparent
	}
	return t.record(now, p, tracestate, service, method)
}

func (t *Tracer) record(now policy.Instant, p parent, tracestate, service, method string) *Call {
	config := trace.SpanContextConfig{TraceID: p.traceID, SpanID: p.spanID, TraceFlags: p.flags, Remote: true}
	if tracestate != "" {
		// A list that can't be read is left out, as the specification says.
		config.TraceState, _ = trace.ParseTraceState(strings.Clone(tracestate))
	}
	// Without a parent the span ID is zero: the span becomes a root, under the
	// trace ID that the decision was made for.
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), trace.NewSpanContext(config))

	// "/pkg.Service/Method"; the string may belong to the connection's buffer.
	name := strings.Clone(strings.TrimPrefix(method, "/"))
	c := &Call{tracer: t, name: name, wall: time.Now(), start: now}
	attributes := make([]attribute.KeyValue, 0, 4)
	attributes = append(attributes, keyRPCSystem.String("grpc"), keyService.String(service))
	if rpcService, rpcMethod, ok := strings.Cut(name, "/"); ok {
		attributes = append(attributes, keyRPCService.String(rpcService), keyRPCMethod.String(rpcMethod))
	}
	c.ctx, c.span = t.tracer.Start(ctx, name,
		trace.WithTimestamp(c.wall), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	return c
}

// TraceID returns the trace's ID in hex, for logs.
func (c *Call) TraceID() string { return c.span.SpanContext().TraceID().String() }

// StartAttempt starts an attempt's span and returns the traceparent header
// that the upstream gets. number counts from 1.
func (c *Call) StartAttempt(now policy.Instant, endpoint string, number int) (traceparent string) {
	attributes := append(make([]attribute.KeyValue, 0, 4),
		keyRPCSystem.String("grpc"), keyAttempt.Int(number))
	attributes = appendServer(attributes, endpoint)
	_, span := c.tracer.tracer.Start(c.ctx, "Attempt "+c.name,
		trace.WithTimestamp(c.at(now)), trace.WithSpanKind(trace.SpanKindClient), trace.WithAttributes(attributes...))
	c.attempts = append(c.attempts, attemptSpan{number, span})
	return formatTraceparent(span.SpanContext())
}

// EndAttempt ends the span of the attempt with that number.
func (c *Call) EndAttempt(now policy.Instant, number int, result policy.Result, message string) {
	for i, a := range c.attempts {
		if a.number == number {
			setResult(a.span, result, strings.Clone(message))
			a.span.End(trace.WithTimestamp(c.at(now)))
			c.attempts = slices.Delete(c.attempts, i, i+1)
			return
		}
	}
}

// Event notes on the call's span that something happened, for example that a
// breaker in OBSERVE would have refused the call.
func (c *Call) Event(now policy.Instant, name string) {
	c.span.AddEvent(strings.Clone(name), trace.WithTimestamp(c.at(now)))
}

// End ends the call's span. A refusal stands there as an event named by its
// reason.
func (c *Call) End(now policy.Instant, s Summary) {
	at := trace.WithTimestamp(c.at(now))
	message := strings.Clone(s.Message)
	if s.Result.Reason != policy.ReasonNone {
		c.span.AddEvent(s.Result.Reason.String(), at, trace.WithAttributes(keyMessage.String(message)))
	}
	setResult(c.span, s.Result, message)
	attributes := make([]attribute.KeyValue, 0, 10)
	attributes = append(attributes,
		keyAttempts.Int(s.Attempts),
		keyRequestBytes.Int64(int64(s.RequestBytes)), keyResponseBytes.Int64(int64(s.ResponseBytes)),
		keyRequestMessages.Int64(int64(s.RequestMessages)), keyResponseMessages.Int64(int64(s.ResponseMessages)))
	if s.Peer != "" {
		attributes = append(attributes, keyPeer.String(strings.Clone(s.Peer)))
	}
	if s.Authority != "" {
		attributes = append(attributes, keyAuthority.String(strings.Clone(s.Authority)))
	}
	if s.Task != "" {
		attributes = append(attributes, keyTask.String(s.Task))
	}
	if s.Endpoint != "" {
		attributes = appendServer(attributes, s.Endpoint)
	}
	c.span.SetAttributes(attributes...)
	for _, a := range c.attempts {
		a.span.End(at) // nobody said how it ended
	}
	c.span.End(at)
}

// at converts an instant to the wall clock.
func (c *Call) at(now policy.Instant) time.Time { return c.wall.Add(now - c.start) }

func setResult(span trace.Span, r policy.Result, message string) {
	span.SetAttributes(keyRPCStatusCode.Int(int(r.Code)), keyRPCStatusName.String(r.Code.String()))
	if r.Reason != policy.ReasonNone {
		span.SetAttributes(keyReason.String(r.Reason.String()))
	}
	if r.Code != policy.OK {
		if message == "" {
			message = r.Code.String()
		}
		span.SetStatus(codes.Error, message)
	}
}

// appendServer appends server.address and server.port of an endpoint. A unix
// socket's path is the address.
func appendServer(attributes []attribute.KeyValue, endpoint string) []attribute.KeyValue {
	if path, ok := strings.CutPrefix(endpoint, "unix:"); ok {
		return append(attributes, keyServerAddress.String(path))
	}
	host, port, err := net.SplitHostPort(endpoint)
	if err != nil {
		return append(attributes, keyServerAddress.String(endpoint))
	}
	attributes = append(attributes, keyServerAddress.String(host))
	if n, err := strconv.Atoi(port); err == nil {
		attributes = append(attributes, keyServerPort.Int(n))
	}
	return attributes
}

// newTraceID draws an ID that is not zero.
func newTraceID() (id trace.TraceID) {
	for !id.IsValid() {
		binary.BigEndian.PutUint64(id[:8], rand.Uint64())
		binary.BigEndian.PutUint64(id[8:], rand.Uint64())
	}
	return id
}

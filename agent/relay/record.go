package relay

import "github.com/outrigger-rpc/outrigger/policy"

// CallRecord is what an Observer hears of a call. Fields that do not apply are
// empty: a call without a route has no Service.
type CallRecord struct {
	Service   string
	Method    string // "/pkg.Service/Method", or the path of a plain HTTP/2 request
	Endpoint  string // of the last attempt
	Authority string
	Peer      string // the app's address
	TraceID   string

	Code    policy.Code
	Reason  policy.Reason // ReasonNone: the upstream's own answer
	Message string        // grpc-message as it was on the wire, or the refusal's

	Start, End policy.Instant
	Attempts   int

	RequestBytes, ResponseBytes       uint64 // of DATA
	RequestMessages, ResponseMessages uint64 // whole gRPC messages
}

// Observer hears of each call once, at its end. It is called on the relay's
// goroutines: it must not block, and must not keep the record.
type Observer interface{ CallEnded(*CallRecord) }

// Tracer makes spans for calls. It must be cheap where a call is not sampled.
type Tracer interface {
	// StartCall begins a call's span; traceparent and tracestate are the
	// caller's, or empty. nil: the call is not recorded, and the caller's
	// traceparent passes unchanged.
	StartCall(now policy.Instant, traceparent, tracestate, service, method string) CallTrace
}

// CallTrace is one call's spans. It is used by one goroutine at a time.
type CallTrace interface {
	TraceID() string
	// StartAttempt begins an attempt's span and returns the traceparent that
	// the endpoint gets. number counts from 1.
	StartAttempt(now policy.Instant, endpoint string, number int) (traceparent string)
	EndAttempt(now policy.Instant, result policy.Result, message string)
	Event(now policy.Instant, name string)
	End(now policy.Instant, record *CallRecord)
}

// record tells the observer and the trace. c.mu is held.
func (c *call) record(b *batch, r policy.Result, message, endpoint string) {
	observer := c.relay.observer
	if observer == nil && c.trace == nil {
		return
	}
	record := &b.record
	*record = CallRecord{
		Method: c.req.path, Endpoint: endpoint, Authority: c.req.authority, Peer: c.down.conn.peer,
		Code: r.Code, Reason: r.Reason, Message: message,
		Start: b.now, End: b.now,
		RequestBytes: c.bytesUp, ResponseBytes: c.bytesDown,
		RequestMessages: c.requests.whole, ResponseMessages: c.responses.whole,
	}
	if c.known {
		m := c.policy.Method()
		record.Service, record.Method = m.Service().Name(), m.Name()
		record.Start, record.Attempts = c.policy.Start(), c.policy.Attempts()
	}
	if c.trace != nil {
		record.TraceID = c.trace.TraceID()
		c.trace.End(b.now, record)
		c.trace = nil
	}
	if observer != nil {
		observer.CallEnded(record)
	}
	*record = CallRecord{}
}

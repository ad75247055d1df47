package policy

// Record is what an Observer hears of a call. Fields that do not apply are
// empty: a call without a route has no Service.
type Record struct {
	Service   string
	Method    string // "/pkg.Service/Method", or the path of a plain HTTP request
	Endpoint  string // of the last attempt
	Authority string
	Peer      string // the app's address
	TraceID   string
	TaskID    string // of a call that is kept for later

	Code    Code
	Reason  Reason // ReasonNone: the upstream's own answer
	Message string // grpc-message as it was on the wire, or the refusal's

	Start, End Instant
	Attempts   int

	RequestBytes, ResponseBytes       uint64 // of bodies
	RequestMessages, ResponseMessages uint64 // whole gRPC messages
}

// Observer hears of each call once, at its end. It is called on the data
// plane's goroutines: it must not block, and must not keep the record.
type Observer interface{ CallEnded(*Record) }

// Tracer makes spans for calls. It must be cheap where a call is not sampled.
type Tracer interface {
	// StartCall begins a call's span; traceparent and tracestate are the
	// caller's, or empty. nil: the call is not recorded, and the caller's
	// traceparent passes unchanged.
	StartCall(now Instant, traceparent, tracestate, service, method string) Trace
}

// Trace is one call's spans. It is used by one goroutine at a time.
type Trace interface {
	TraceID() string
	// StartAttempt begins an attempt's span and returns the traceparent that
	// the endpoint gets. number counts from 1.
	StartAttempt(now Instant, endpoint string, number int) (traceparent string)
	// EndAttempt ends it. Attempts may overlap: number says which.
	EndAttempt(now Instant, number int, result Result, message string)
	Event(now Instant, name string)
	End(now Instant, record *Record)
}

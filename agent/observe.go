package agent

import (
	"sync/atomic"

	"github.com/outrigger-rpc/outrigger/agent/telemetry"
	"github.com/outrigger-rpc/outrigger/policy"
)

// tracer lets the data plane make spans with the telemetry of the moment, which a
// reload may replace. It implements policy.Tracer.
type tracer struct {
	telemetry *atomic.Pointer[telemetry.Telemetry]
}

// StartCall begins a call's span, or returns nil when it is not recorded.
func (t tracer) StartCall(now policy.Instant, traceparent, tracestate, service, method string) policy.Trace {
	spans := t.telemetry.Load().Tracer()
	if spans == nil {
		return nil
	}
	call := spans.StartCall(now, traceparent, tracestate, service, method)
	if call == nil {
		return nil // and not a CallTrace that holds a nil
	}
	return callTrace{call}
}

// callTrace is a telemetry.Call as the data plane knows it.
type callTrace struct{ *telemetry.Call }

// End ends the call's span.
func (c callTrace) End(now policy.Instant, r *policy.Record) {
	c.Call.End(now, telemetry.Summary{
		Result:        policy.Result{Code: r.Code, Reason: r.Reason},
		Message:       r.Message,
		Endpoint:      r.Endpoint,
		Authority:     r.Authority,
		Peer:          r.Peer,
		Task:          r.TaskID,
		Attempts:      r.Attempts,
		RequestBytes:  r.RequestBytes,
		ResponseBytes: r.ResponseBytes, RequestMessages: r.RequestMessages, ResponseMessages: r.ResponseMessages,
	})
}

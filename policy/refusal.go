package policy

import (
	"encoding/binary"
	"time"
)

// Domain is the ErrorInfo domain of everything the agent answers by itself.
const Domain = "outrigger"

// Refusal is the agent's own answer to a call that it refused or ended.
type Refusal struct {
	// Reason decides the gRPC status.
	Reason Reason
	// Service, Endpoint and Policy say where it happened: the service's name,
	// the endpoint's address, the policy block (for example "circuit_breaker").
	// Empty where there is none.
	Service, Endpoint, Policy string
	// Message says what happened, with values, and what to do. It is the
	// status message.
	Message string
	// RetryAfter is how long waiting helps. Zero: not known.
	RetryAfter time.Duration
	// Status is the gRPC status where the configuration names one: an injected
	// fault's, a fallback's. OK: the reason's own.
	Status Code
}

// Error returns the message with the reason in front.
func (r *Refusal) Error() string { return r.Reason.String() + ": " + r.Message }

// Code returns the gRPC status code.
func (r *Refusal) Code() Code {
	if r.Status != OK {
		return r.Status
	}
	return r.Reason.Code()
}

// AppendDetails appends the wire form of google.rpc.Status: the code, the
// message, an ErrorInfo and, where waiting helps, a RetryInfo. It is what the
// grpc-status-details-bin trailer carries (base64). Written by hand because a
// refusal must stay cheap in the very storm that causes it.
func (r *Refusal) AppendDetails(b []byte) []byte {
	b = binary.AppendUvarint(append(b, 1<<3), uint64(r.Code()))
	b = appendField(b, 2, r.Message)
	b = appendAny(b, "type.googleapis.com/google.rpc.ErrorInfo", r.appendErrorInfo(nil))
	if r.RetryAfter > 0 {
		var delay, info []byte
		if s := int64(r.RetryAfter / time.Second); s != 0 {
			delay = binary.AppendUvarint(append(delay, 1<<3), uint64(s))
		}
		if n := int64(r.RetryAfter % time.Second); n != 0 {
			delay = binary.AppendUvarint(append(delay, 2<<3), uint64(n))
		}
		info = appendField(info, 1, string(delay))
		b = appendAny(b, "type.googleapis.com/google.rpc.RetryInfo", info)
	}
	return b
}

func (r *Refusal) appendErrorInfo(b []byte) []byte {
	b = appendField(b, 1, r.Reason.String())
	b = appendField(b, 2, Domain)
	for _, entry := range [...][2]string{{"service", r.Service}, {"endpoint", r.Endpoint}, {"policy", r.Policy}} {
		if entry[1] != "" {
			b = appendField(b, 3, string(appendField(appendField(nil, 1, entry[0]), 2, entry[1])))
		}
	}
	return b
}

// appendAny appends a google.protobuf.Any as the status's field 3 (details).
func appendAny(b []byte, typeURL string, value []byte) []byte {
	return appendField(b, 3, string(appendField(appendField(nil, 1, typeURL), 2, string(value))))
}

// appendField appends a length-delimited protobuf field.
func appendField(b []byte, number uint64, value string) []byte {
	b = binary.AppendUvarint(b, number<<3|2)
	b = binary.AppendUvarint(b, uint64(len(value)))
	return append(b, value...)
}

package relay

import (
	"encoding/base64"
	"encoding/binary"
	"math/rand/v2"
	"strconv"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// drainRetryAfter is the advice to callers whose agent shuts down: about what
// a restart takes.
const drainRetryAfter = time.Second

// refuse answers the call for the upstream and ends it: with a gRPC status
// that explains itself, or with an HTTP status where the caller does not speak
// gRPC. c.mu is held.
func (c *call) refuse(b *batch, refusal *policy.Refusal) {
	if c.standsIn(b, policy.Refused(refusal)) {
		for len(c.live) > 0 {
			a := c.live[0]
			c.policy.Settle(&a.policy, b.now, policy.Refused(refusal), rand.Uint64())
			a.cut(b)
			c.forget(b, a, policy.Refused(refusal), refusal.Message)
		}
		c.answerKept(b)
		return
	}
	if c.keepFailed(b, failure{result: policy.Refused(refusal), message: refusal.Message, refusal: refusal}) {
		return
	}
	if !c.answered && c.req.grpc && c.known {
		if f := c.policy.Fallback(refusal); f != nil {
			c.fallBack(b, f, refusal)
			return
		}
	}
	switch {
	case !c.answered && c.req.grpc:
		fields := append(make([]hpack.HeaderField, 0, 8),
			hpack.HeaderField{Name: ":status", Value: "200"},
			hpack.HeaderField{Name: "content-type", Value: "application/grpc"})
		fields = appendStatus(fields, refusal)
		if c.req.explain {
			fields = append(fields, c.explanation()...)
		}
		c.writeDown(b, fields, true)
	case !c.answered:
		c.refuseHTTP(b, refusal)
	case c.grpc:
		// What is queued stays behind: the status is what the caller needs now.
		d := c.down.conn
		d.mu.Lock()
		c.down.dropQueue()
		d.mu.Unlock()
		c.down.sendTrailers(b, appendStatus(make([]hpack.HeaderField, 0, 4), refusal))
	default:
		c.down.reset(b, codeInternal)
	}
	c.answered = true
	c.end(b, policy.Refused(refusal), refusal.Message)
}

// fallBack answers with what the policy has for a refusal, and says so. c.mu is
// held.
func (c *call) fallBack(b *batch, f *policy.FallbackPolicy, refusal *policy.Refusal) {
	fields := append(make([]hpack.HeaderField, 0, 10),
		hpack.HeaderField{Name: ":status", Value: "200"},
		hpack.HeaderField{Name: "content-type", Value: "application/grpc"},
		hpack.HeaderField{Name: "outrigger-fallback", Value: refusal.Reason.String()})
	if c.req.explain {
		fields = append(fields, c.explanation()...)
	}
	status := hpack.HeaderField{Name: "grpc-status", Value: strconv.Itoa(int(f.Code))}
	if f.Code == policy.OK {
		c.writeDown(b, fields, false)
		c.down.send(b, appendMessage(nil, f.Body), false)
		c.down.sendTrailers(b, []hpack.HeaderField{status})
	} else {
		c.writeDown(b, append(fields, status, hpack.HeaderField{Name: "grpc-message", Value: percentEncode(f.Message)}), true)
	}
	c.answered = true
	c.end(b, policy.Result{Code: f.Code, Reason: refusal.Reason}, "fallback: "+refusal.Message)
}

// appendMessage appends a gRPC message with its prefix: not compressed, and the
// length (gRPC over HTTP/2: Length-Prefixed-Message).
func appendMessage(b []byte, message string) []byte {
	b = binary.BigEndian.AppendUint32(append(b, 0), uint32(len(message)))
	return append(b, message...)
}

// appendStatus appends the gRPC status trailers of a refusal.
func appendStatus(fields []hpack.HeaderField, refusal *policy.Refusal) []hpack.HeaderField {
	details := refusal.AppendDetails(nil)
	return append(fields,
		hpack.HeaderField{Name: "grpc-status", Value: strconv.Itoa(int(refusal.Code()))},
		// Messages differ from call to call: kept out of the peer's table.
		hpack.HeaderField{Name: "grpc-message", Value: percentEncode(refusal.Message), Sensitive: true},
		hpack.HeaderField{Name: "grpc-status-details-bin", Value: base64.RawStdEncoding.EncodeToString(details), Sensitive: true})
}

// refuseHTTP answers a caller that does not speak gRPC: the status as HTTP
// knows it, the rest as problem details.
func (c *call) refuseHTTP(b *batch, refusal *policy.Refusal) {
	d := c.down.conn
	body := refusal.Problem()
	fields := append(make([]hpack.HeaderField, 0, 5),
		hpack.HeaderField{Name: ":status", Value: strconv.Itoa(policy.HTTPStatus(refusal.Code()))},
		hpack.HeaderField{Name: "content-type", Value: policy.ProblemType},
		hpack.HeaderField{Name: "content-length", Value: strconv.Itoa(len(body))},
		hpack.HeaderField{Name: "outrigger-reason", Value: refusal.Reason.String()})
	if seconds := refusal.RetryAfterSeconds(); seconds != "" {
		fields = append(fields, hpack.HeaderField{Name: "retry-after", Value: seconds})
	}
	d.mu.Lock()
	if !c.down.removed {
		d.writeHeaders(b, c.down.id, fields, false)
	}
	d.mu.Unlock()
	c.down.send(b, body, true)
}

// percentEncode writes a status message as the gRPC protocol wants it
// (Status-Message: percent-encoded UTF-8).
func percentEncode(s string) string {
	const hex = "0123456789ABCDEF"
	plain := func(c byte) bool { return c >= ' ' && c <= '~' && c != '%' }
	i := 0
	for i < len(s) && plain(s[i]) {
		i++
	}
	if i == len(s) {
		return s
	}
	b := append(make([]byte, 0, len(s)+16), s[:i]...)
	for ; i < len(s); i++ {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '%', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

// explanation is what outrigger-explain asks for.
func (c *call) explanation() []hpack.HeaderField {
	spent := c.relay.now() - c.policy.Start()
	if c.sentAt != 0 {
		spent = c.sentAt - c.policy.Start()
	}
	endpoint := c.main.address()
	if c.winner != nil {
		endpoint = c.winner.address()
	}
	return []hpack.HeaderField{
		{Name: "outrigger-endpoint", Value: endpoint},
		{Name: "outrigger-attempts", Value: strconv.Itoa(c.policy.Attempts())},
		{Name: "outrigger-policy-time-us", Value: strconv.FormatInt(spent.Microseconds(), 10), Sensitive: true},
	}
}

package interceptors

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"

	"github.com/outrigger-rpc/outrigger/policy"
)

// NewRoundTripper returns an http.RoundTripper that sends requests through base
// under the policies of o.Service; a nil base is http.DefaultTransport. It fails
// as New does.
//
// Where the Service has endpoints a request goes to the one that is picked, and
// the host of its URL stays its Host header; with https the endpoint's
// certificate has to be good for the endpoint's address. A Service without
// endpoints leaves requests to the host of their URL, and circuit breakers of
// scope ENDPOINT then find no endpoint.
//
// A request is sent again only where that is harmless (GET, HEAD, OPTIONS,
// TRACE, PUT, DELETE, an Idempotency-Key header, or Policy.Idempotent) or the
// endpoint was never reached, and where its body is there again
// (http.Request.GetBody, or none). Hedges are for requests without a body. What
// answer is a failure says policy.HTTPStatuses; Retry-After, in seconds, puts
// the next attempt off. Caches and fallbacks are for gRPC.
//
// A call lasts until its answer's body was read or closed, and so do Timeout
// and the place in the concurrency limit; PerTryTimeout too bounds an answer to
// its end. An answer of type text/event-stream, and a connection that was
// upgraded, is bounded by Policy.Stream instead.
//
// errors.As finds a *policy.Refusal in the error of a request that a policy
// refused or ended, and of one whose endpoint was not reached.
func NewRoundTripper(o Options, base http.RoundTripper) (http.RoundTripper, error) {
	client, err := New(o)
	if err != nil {
		return nil, err
	}
	if base == nil {
		base = http.DefaultTransport
	}
	return &roundTripper{client: client, base: base}, nil
}

type roundTripper struct {
	client *Client
	base   http.RoundTripper
}

// exchange is one HTTP request and its answer.
type exchange struct {
	life
	base    http.RoundTripper
	request *http.Request
	bodies  int   // how often the request's body was taken
	tail    error // what ended the answer's body; nil: nothing did
}

// RoundTrip implements http.RoundTripper.
func (t *roundTripper) RoundTrip(request *http.Request) (*http.Response, error) {
	x := &exchange{base: t.base, request: request}
	x.client, x.door, x.ctx = t.client, x, request.Context()
	m := t.client.service.Method(request.URL.Path)
	again := idempotent(request)
	x.deferred = request.Header.Get(keyDefer) == "true"
	now := t.client.now()
	criticality, _ := policy.ParseCriticality(request.Header.Get(keyCriticality))
	x.begin(m, now, policy.Arrival{Metadata: header{request.Header}, Criticality: criticality, Idempotent: again, Once: !again,
		NoRetry: request.Header.Get(keyRetry) == "off" || !x.bodyless() && request.GetBody == nil})
	x.run(now)
	if x.bodies == 0 && request.Body != nil {
		request.Body.Close() // a RoundTripper closes it in any case
	}
	if x.won == nil || !x.won.lingers {
		err := x.failure()
		x.end()
		return nil, err
	}
	response := x.won.response
	response.Request = request
	return response, nil
}

// idempotent reports whether HTTP says that the request may be processed twice
// (RFC 9110 section 9.2.2), or its sender does, as net/http has it.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != "" || r.Header.Get("X-Idempotency-Key") != ""
}

// header is a request's metadata.
type header struct{ http.Header }

func (x *exchange) bodyless() bool { return x.request.Body == nil || x.request.Body == http.NoBody }

// start implements door.
func (x *exchange) start(a *attempt, now policy.Instant) *policy.Refusal {
	begin := x.call.Send
	if p := x.call.Method().Policy(); x.client.service.Endpoints().Len() > 0 || p.Breaker.Scope == policy.ScopeEndpoint && p.Breaker.Options.Mode != policy.Off {
		begin = x.call.Pick
	}
	if r := begin(now, rand.Uint64(), &a.core); r != nil {
		return r
	}
	a.began(now)
	return nil
}

// send implements door.
func (x *exchange) send(a *attempt) {
	out, err := x.outgoing(a)
	var response *http.Response
	if err == nil {
		response, err = x.base.RoundTrip(out) //nolint:bodyclose // attempt closes it, or the caller
	}
	x.mu.Lock()
	a.response, a.err = response, err
	x.mu.Unlock()
}

// outgoing makes the request of an attempt.
func (x *exchange) outgoing(a *attempt) (*http.Request, error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	out := x.request.WithContext(a)
	for _, key := range [...]string{keyRetry, keyCriticality, keyHash} {
		if out.Header.Get(key) != "" {
			out.Header = out.Header.Clone()
			out.Header.Del(key)
		}
	}
	if e := a.core.Endpoint; e != nil {
		url := *out.URL
		url.Host = e.Address()
		out.URL = &url
		if out.Host == "" {
			out.Host = x.request.URL.Host
		}
	}
	if x.bodyless() {
		return out, nil
	}
	if x.bodies++; x.bodies == 1 {
		return out, nil
	}
	var err error
	out.Body, err = x.request.GetBody()
	return out, err
}

// judge implements door.
func (x *exchange) judge(a *attempt) policy.Ending {
	if a.refusal != nil {
		return policy.Ending{Result: policy.Refused(a.refusal)}
	}
	if a.err != nil {
		return x.judgeFailure(a)
	}
	h := a.response.Header
	if x.call.WantsLoad() {
		if r, ok := (policy.LoadReportHeaders{Binary: h.Get(policy.LoadReportBinary), Text: h.Get(policy.LoadReportText)}).Parse(); ok {
			x.call.ReportLoad(&a.core, x.client.now(), r)
		}
	}
	stream := a.response.StatusCode == http.StatusSwitchingProtocols || strings.HasPrefix(h.Get("Content-Type"), "text/event-stream")
	if stream {
		x.call.MarkStream()
	}
	e := policy.Ending{Result: policy.Result{Code: x.call.Method().Policy().HTTP.Code(a.response.StatusCode)},
		Pushback: policy.ParseRetryAfter(h.Get("Retry-After"))}
	body := &answerBody{exchange: x, attempt: a, body: a.response.Body, result: e.Result, stream: stream}
	a.response.Body = body
	if rw, ok := body.body.(io.ReadWriter); ok && a.response.StatusCode == http.StatusSwitchingProtocols {
		a.response.Body = &upgradedBody{answerBody: body, Writer: rw}
	}
	return e
}

// judgeFailure judges an attempt without an answer.
func (x *exchange) judgeFailure(a *attempt) policy.Ending {
	if x.ctx.Err() != nil {
		r := policy.Result{Code: policy.Canceled}
		if errors.Is(x.ctx.Err(), context.DeadlineExceeded) {
			r.Code = policy.DeadlineExceeded
		}
		x.callersEnd(a, &r)
		return policy.Ending{Result: r}
	}
	where := x.request.URL.Host
	if a.core.Endpoint != nil {
		where = a.core.Endpoint.Address()
	}
	reason, unreached := sortFailure(a.err)
	if unreached {
		a.refusal = x.call.Refuse(reason, where, fmt.Sprintf("endpoint %s can't be reached: %v", where, a.err))
	} else {
		a.refusal = x.call.Refuse(reason, where, fmt.Sprintf("the connection to endpoint %s was lost in mid-call: %v", where, a.err))
	}
	return policy.Ending{Result: policy.Refused(a.refusal), Unreached: unreached}
}

// sortFailure says whether an error of the transport means that the request
// never went out.
func sortFailure(err error) (reason policy.Reason, unreached bool) {
	var op *net.OpError
	var certificate *tls.CertificateVerificationError
	var record tls.RecordHeaderError
	var alert tls.AlertError
	var unknown x509.UnknownAuthorityError
	switch {
	case errors.As(err, &certificate), errors.As(err, &record), errors.As(err, &alert), errors.As(err, &unknown):
		return policy.TLS, true
	case errors.As(err, &op) && op.Op == "dial":
		return policy.ConnectFailed, true
	}
	return policy.ConnectionLost, false
}

// drained bounds what is read of an answer that nobody reads, so that its
// connection can be used again.
const drained = 4 << 10

// discard leaves an answer behind.
func discard(r *http.Response) {
	if r.ContentLength <= drained {
		_, _ = io.CopyN(io.Discard, r.Body, drained)
	}
	r.Body.Close()
}

// ready implements door.
func (x *exchange) ready() bool { return x.bodyless() }

// overrun implements door: the answer takes too long to read.
func (x *exchange) overrun(now policy.Instant) {
	if !x.lingers() {
		return
	}
	r := x.call.Expire(now, &x.won.core)
	if r == nil {
		r = x.call.ExpireAttempt(now, &x.won.core)
	}
	if r == nil {
		x.arm(now)
		return
	}
	x.won.refusal = r
	x.won.sever()
}

// failure is why there is no answer.
func (x *exchange) failure() error {
	if x.refusal == nil {
		return x.ctx.Err()
	}
	x.refusalEvent(x.refusal)
	cause := x.ctx.Err()
	if cause == nil && x.won != nil {
		cause = x.won.err
	}
	return &requestError{refusal: x.refusal, cause: cause}
}

// requestError is a refusal as the error of a request.
type requestError struct {
	refusal *policy.Refusal
	cause   error // nil: the policy's word alone
}

// Error returns the refusal's message with its reason in front.
func (e *requestError) Error() string { return "outrigger: " + e.refusal.Error() }

// Unwrap finds the refusal, and what caused it.
func (e *requestError) Unwrap() []error {
	if e.cause == nil {
		return []error{e.refusal}
	}
	return []error{e.refusal, e.cause}
}

// Timeout is what http.Client asks of errors.
func (e *requestError) Timeout() bool { return e.refusal.Code() == policy.DeadlineExceeded }

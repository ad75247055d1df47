package forward

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httputil"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// maxTransparent bounds how many endpoints are tried for a request that none
// of them saw.
const maxTransparent = 4

// exchange is one request and its answer: one policy.Call.
type exchange struct {
	server *Server
	client *client
	target Target
	in     *http.Request
	asked  metadata
	cancel context.CancelCauseFunc

	mu        sync.Mutex
	known     bool // a service was found: call is in use
	call      policy.Call
	attempt   policy.Attempt
	trace     policy.Trace
	timer     *time.Timer
	over      bool
	start     policy.Instant
	sentAt    policy.Instant
	bytesUp   uint64
	bytesDown uint64
}

type exchangeKey struct{}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// metadata is what the caller asks of the agent, and not of the upstream.
type metadata struct {
	service           string
	timeout           time.Duration // negative: none
	explain, deferred bool
	noRetry           bool
}

func takeMetadata(h http.Header) metadata {
	m := metadata{
		service: h.Get("Outrigger-Service"), timeout: -1,
		explain: h.Get("Outrigger-Explain") == "true", deferred: h.Get("Outrigger-Defer") == "true", noRetry: h.Get("Outrigger-Retry") == "off",
	}
	if ms, err := strconv.ParseUint(h.Get("Outrigger-Timeout-Ms"), 10, 40); err == nil {
		m.timeout = time.Duration(ms) * time.Millisecond
	}
	for _, name := range [...]string{"Outrigger-Service", "Outrigger-Timeout-Ms", "Outrigger-Explain", "Outrigger-Defer", "Outrigger-Retry", "Outrigger-Hash-Key"} {
		h.Del(name)
	}
	return m
}

// serve answers one request.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	c, ok := r.Context().Value(clientKey{}).(*client)
	if !ok {
		panic("forward: a request without its connection")
	}
	if r.Method == http.MethodConnect {
		s.connect(w, r, c)
		return
	}
	ctx, cancel := context.WithCancelCause(r.Context())
	defer cancel(nil)
	x := &exchange{server: s, client: c, in: r, asked: takeMetadata(r.Header), cancel: cancel, start: s.now()}
	if refusal := x.begin(); refusal != nil {
		x.refuse(w, refusal)
		return
	}
	defer func() {
		if p := recover(); p != nil {
			c.broken.Store(true)
			panic(p) // net/http ends the connection
		}
	}()
	s.proxy.ServeHTTP(w, r.WithContext(context.WithValue(ctx, exchangeKey{}, x)))
	x.end(policy.Result{Code: policy.OK}, "") // nothing, where the answer's body ended it
}

// begin routes and admits the request.
func (x *exchange) begin() *policy.Refusal {
	r, s := x.in, x.server
	if r.URL.Scheme == "https" {
		return &policy.Refusal{Reason: policy.NoRoute, Message: "https in absolute form is not relayed: use CONNECT, as https_proxy makes clients do"}
	}
	target, why := s.options.Route(Query{Authority: r.Host, Path: r.URL.Path, Service: x.asked.service, Tunnel: x.client.tunnel})
	if target.Service == nil {
		return &policy.Refusal{Reason: policy.NoRoute, Message: why}
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	x.target, x.known = target, true
	refusal := x.call.Begin(target.Service.Method(r.URL.Path), x.start, x.asked.timeout, rand.Uint64())
	if t := s.options.Tracer; t != nil {
		x.trace = t.StartCall(x.start, r.Header.Get("Traceparent"), r.Header.Get("Tracestate"), target.Service.Name(), r.URL.Path)
	}
	if refusal == nil && x.asked.deferred {
		refusal = x.call.Refuse(policy.DeferOff, "", "outrigger-defer: deferring calls is not supported by this version")
	}
	if refusal == nil {
		x.arm()
	}
	return refusal
}

// arm waits for what falls due next. x.mu is held.
func (x *exchange) arm() {
	due := x.call.Expiry(&x.attempt)
	if due == 0 || x.over {
		return
	}
	wait := max(due-x.server.now(), 0)
	if x.timer == nil {
		x.timer = time.AfterFunc(wait, x.expire)
	} else {
		x.timer.Reset(wait)
	}
}

func (x *exchange) expire() {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	if refusal := x.call.Expire(x.server.now(), &x.attempt); refusal != nil {
		x.cancel(refusedError{refusal})
		return
	}
	x.arm()
}

// refusedError carries a refusal through net/http.
type refusedError struct{ *policy.Refusal }

// rewrite makes the request that goes out of the one that came in: the same,
// without what holds for one hop only.
func rewrite(p *httputil.ProxyRequest) {
	p.Out.URL.Scheme = "http"
	p.Out.URL.Host = p.In.Host
	p.Out.Host = p.In.Host
	for _, name := range [...]string{"Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto"} {
		if v, ok := p.In.Header[name]; ok {
			p.Out.Header[name] = v
		}
	}
	p.Out.Header.Del("Proxy-Authorization")
}

// roundTripper sends requests to endpoints.
type roundTripper struct{ *Server }

// RoundTrip implements http.RoundTripper.
func (t roundTripper) RoundTrip(out *http.Request) (*http.Response, error) {
	x := exchangeOf(out.Context())
	body := &requestBody{exchange: x, body: out.Body}
	if out.Body != nil && out.Body != http.NoBody {
		out.Body = body
	}
	for {
		address, refusal := x.pick(out)
		if refusal != nil {
			return nil, refusedError{refusal}
		}
		out.URL.Host = hostOf(address)
		res, err := t.transport(x.target.Transport).RoundTrip(out)
		if err == nil {
			x.answered(out.Context(), res)
			return res, nil
		}
		refusal, again := x.attemptFailed(out.Context(), err, !body.touched())
		if !again {
			if refusal == nil {
				return nil, err // the caller is gone
			}
			return nil, refusedError{refusal}
		}
	}
}

// pick begins an attempt.
func (x *exchange) pick(out *http.Request) (address string, refusal *policy.Refusal) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.server.now()
	if refusal = x.call.Pick(now, rand.Uint64(), &x.attempt); refusal != nil {
		return "", refusal
	}
	x.sentAt = now
	address = x.attempt.Endpoint.Address()
	if x.trace != nil {
		if parent := x.trace.StartAttempt(now, address, x.call.Attempts()); parent != "" {
			out.Header.Set("Traceparent", parent)
		}
	}
	x.arm()
	return address, nil
}

// attemptFailed says what an attempt without an answer means, and whether
// another endpoint may be tried: only one that was never reached.
func (x *exchange) attemptFailed(ctx context.Context, err error, unsent bool) (refusal *policy.Refusal, again bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	endpoint := x.attempt.Endpoint.Address()
	var refused refusedError
	var connect *connectError
	switch {
	case errors.As(context.Cause(ctx), &refused):
		return refused.Refusal, false
	case x.in.Context().Err() != nil:
		return nil, false
	case errors.As(err, &connect):
		refusal = x.call.Refuse(connect.reason, endpoint, fmt.Sprintf("endpoint %s can't be reached: %s", endpoint, connect.why))
		if !unsent || x.asked.noRetry || x.call.Attempts() >= maxTransparent || !x.call.Untried() {
			return refusal, false
		}
		x.finish(policy.Refused(refusal), refusal.Message)
		return nil, true
	}
	return x.call.Refuse(policy.ConnectionLost, endpoint, fmt.Sprintf("the connection to endpoint %s was lost in mid-call: %v", endpoint, err)), false
}

// finish ends the attempt. x.mu is held.
func (x *exchange) finish(r policy.Result, message string) {
	if x.attempt.Endpoint == nil {
		return
	}
	now := x.server.now()
	x.call.Finish(&x.attempt, now, r, rand.Uint64())
	if x.trace != nil {
		x.trace.EndAttempt(now, r, message)
	}
}

// answered takes the head of the answer. Its body ends the exchange.
func (x *exchange) answered(ctx context.Context, res *http.Response) {
	x.mu.Lock()
	defer x.mu.Unlock()
	result := policy.Result{Code: x.call.Method().Policy().HTTP.Code(res.StatusCode)}
	upgraded := res.StatusCode == http.StatusSwitchingProtocols
	if upgraded {
		x.client.upgraded()
	}
	if upgraded || strings.HasPrefix(res.Header.Get("Content-Type"), "text/event-stream") {
		x.call.MarkStream()
		x.arm()
	}
	body := &answerBody{exchange: x, ctx: ctx, body: res.Body, result: result}
	res.Body = body
	if rw, ok := body.body.(io.ReadWriter); ok && upgraded {
		res.Body = &upgradedBody{answerBody: body, writer: rw}
	}
}

// explain adds what outrigger-explain asks for.
func explain(res *http.Response) error {
	if x := exchangeOf(res.Request.Context()); x != nil && x.asked.explain {
		x.explanation(res.Header)
	}
	return nil
}

func (x *exchange) explanation(h http.Header) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.attempt.Endpoint != nil {
		h.Set("Outrigger-Endpoint", x.attempt.Endpoint.Address())
	}
	attempts, spent := 0, x.server.now()-x.start
	if x.known {
		attempts = x.call.Attempts()
	}
	if x.sentAt != 0 {
		spent = x.sentAt - x.start
	}
	h.Set("Outrigger-Attempts", strconv.Itoa(attempts))
	h.Set("Outrigger-Policy-Time-Us", strconv.FormatInt(spent.Microseconds(), 10))
}

// failed implements httputil.ReverseProxy's ErrorHandler.
func (s *Server) failed(w http.ResponseWriter, r *http.Request, err error) {
	x := exchangeOf(r.Context())
	var refused refusedError
	if errors.As(err, &refused) {
		x.refuse(w, refused.Refusal)
		return
	}
	if x.in.Context().Err() != nil {
		x.end(policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "the caller closed its connection")
		panic(http.ErrAbortHandler)
	}
	x.refuse(w, x.call.Refuse(policy.Protocol, "", err.Error()))
}

// refuse answers for the upstream.
func (x *exchange) refuse(w http.ResponseWriter, refusal *policy.Refusal) {
	if x.asked.explain {
		x.explanation(w.Header())
	}
	x.end(policy.Refused(refusal), refusal.Message)
	writeRefusal(w, refusal)
}

func writeRefusal(w http.ResponseWriter, refusal *policy.Refusal) {
	h := w.Header()
	h.Set("Content-Type", policy.ProblemType)
	h.Set("Outrigger-Reason", refusal.Reason.String())
	if seconds := refusal.RetryAfterSeconds(); seconds != "" {
		h.Set("Retry-After", seconds)
	}
	w.WriteHeader(policy.HTTPStatus(refusal.Code()))
	_, _ = w.Write(refusal.Problem()) // who does not read it is gone
}

// end closes the books, once.
func (x *exchange) end(r policy.Result, message string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.over {
		return
	}
	x.over = true
	if x.timer != nil {
		x.timer.Stop()
	}
	now := x.server.now()
	record := policy.Record{
		Method: x.in.URL.Path, Authority: x.in.Host, Peer: peerName(x.client),
		Code: r.Code, Reason: r.Reason, Message: message, Start: x.start, End: now,
		RequestBytes: x.bytesUp, ResponseBytes: x.bytesDown,
	}
	if e := x.attempt.Endpoint; e != nil {
		record.Endpoint = e.Address()
		x.finish(r, message)
	}
	if x.known {
		record.Service, record.Method, record.Attempts = x.target.Service.Name(), x.call.Method().Name(), x.call.Attempts()
		x.call.End(now, r, rand.Uint64())
	}
	if x.trace != nil {
		record.TraceID = x.trace.TraceID()
		x.trace.End(now, &record)
	}
	if o := x.server.options.Observer; o != nil {
		o.CallEnded(&record)
	}
}

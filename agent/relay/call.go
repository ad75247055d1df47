package relay

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// maxTransparent bounds how many endpoints see a call that none of them
// processed.
const maxTransparent = 4

// deadlineSlack is how much before its deadline a caller's reset still means
// that it is over.
const deadlineSlack = 20 * time.Millisecond

// call is one call: a leg to the app and, one after another, legs to
// endpoints. Its methods are called by the readers of both connections, by the
// timer wheel and by whoever connects.
type call struct {
	relay *Relay
	born  policy.Instant // when its headers came
	down  leg
	first leg // the up leg of the first attempt

	mu        sync.Mutex
	req       request
	policy    policy.Call
	attempt   policy.Attempt
	transport Transport // how the service's endpoints are connected
	up        *leg      // the present attempt's
	queuedAt  *upstream // where it waits for a connection
	known     bool      // a service was found: policy is in use
	answered  bool      // response headers went downstream
	over      bool
	status    int  // HTTP status of the answer
	grpc      bool // the answer is gRPC
	timer     timer
	trace     policy.Trace
	parent    string         // traceparent for the present attempt
	sentAt    policy.Instant // when the headers went upstream; only for outrigger-explain
	requests  messageCounter
	responses messageCounter
	bytesUp   uint64
	bytesDown uint64
}

// begin routes and admits the call and sends it on its way. end says that the
// request has no body.
func (c *call) begin(b *batch, tooBig, end bool) {
	r := c.relay
	r.calls.Add(1)
	r.active.Add(1)
	c.timer = timer{shard: c.down.id/2 + c.down.conn.serial, owner: c}
	c.first = leg{call: c, source: &c.down, fin: end}
	c.first.keep = !c.req.noRetry && r.buffered.Load() < r.limits.BufferedBytes/2
	c.up = &c.first

	c.mu.Lock()
	defer c.mu.Unlock()
	if c.req.method == "CONNECT" {
		c.refuse(b, &policy.Refusal{Reason: policy.NoRoute, Message: "CONNECT inside HTTP/2 is not supported: use CONNECT of HTTP/1.1, or send requests to this port directly"})
		return
	}
	target, why := r.table.Load().Find(Query{Authority: c.req.authority, Path: c.req.path, Service: c.req.service, Tunnel: c.tunnel()})
	if target == nil {
		c.refuse(b, &policy.Refusal{Reason: policy.NoRoute, Message: why})
		return
	}
	method := c.req.path
	if !c.req.grpc {
		method, _, _ = strings.Cut(method, "?")
	}
	service := target.Service
	c.transport = target.Transport
	refusal := c.policy.Begin(service.Method(method), b.now, c.req.timeout, rand.Uint64())
	c.known = true
	if t := r.tracer; t != nil {
		c.trace = t.StartCall(b.now, c.req.traceparent, c.req.tracestate, service.Name(), method)
	}
	switch {
	case tooBig:
		refusal = c.policy.Refuse(policy.RequestTooLarge, "", fmt.Sprintf("the request's header list is longer than %d bytes", r.limits.HeaderList))
	case c.req.deferred && refusal == nil:
		refusal = c.policy.Refuse(policy.DeferOff, "", "outrigger-defer: deferring calls is not supported by this version")
	}
	if refusal != nil {
		c.refuse(b, refusal)
		return
	}
	c.dispatch(b)
	c.rearm(b)
}

// tunnel returns where the caller asked to be connected before it spoke HTTP/2;
// empty: nowhere.
func (c *call) tunnel() string {
	if d, ok := c.down.conn.side.(*downConn); ok {
		return d.tunnel
	}
	return ""
}

// dispatch picks an endpoint and hands the call to it: at once, or as soon as
// a connection has room. c.mu is held.
func (c *call) dispatch(b *batch) {
	for {
		if refusal := c.policy.Pick(b.now, rand.Uint64(), &c.attempt); refusal != nil {
			c.refuse(b, refusal)
			return
		}
		endpoint := c.attempt.Endpoint
		c.parent = c.req.traceparent
		if c.trace != nil {
			c.parent = c.trace.StartAttempt(b.now, endpoint.Address(), c.policy.Attempts())
		}
		refusal := c.relay.upstreamOf(endpoint, c.transport).take(b, c)
		if refusal == nil {
			return
		}
		if !c.elsewhere() {
			c.refuse(b, refusal)
			return
		}
		c.finishAttempt(b, policy.Refused(refusal), refusal.Message)
	}
}

// elsewhere reports whether an attempt that never reached its endpoint goes to
// another one.
func (c *call) elsewhere() bool {
	return !c.req.noRetry && c.policy.Attempts() < maxTransparent && c.policy.Untried()
}

// connectFailed tells a call that waited for a connection that there is none.
func (c *call) connectFailed(b *batch, u *upstream, refuse func(c *call) *policy.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.queuedAt != u {
		return
	}
	c.queuedAt = nil
	refusal := refuse(c)
	if !c.elsewhere() {
		c.refuse(b, refusal)
		return
	}
	c.finishAttempt(b, policy.Refused(refusal), refusal.Message)
	c.dispatch(b)
	c.rearm(b)
}

// repeat sends the call to another endpoint: the present one provably did not
// process it. It reports whether that was possible. c.mu is held.
func (c *call) repeat(b *batch, why string) bool {
	old := c.up
	if c.answered || c.req.noRetry || c.policy.Attempts() >= maxTransparent || old.conn == nil {
		return false
	}
	old.conn.mu.Lock()
	if !old.keep {
		old.conn.mu.Unlock()
		return false
	}
	next := &leg{call: c, source: &c.down, keep: true, queue: old.queue, repaid: max(old.sent, old.repaid), fin: old.fin, trailers: old.trailers}
	old.queue, old.trailers = nil, nil
	old.conn.mu.Unlock()
	c.up = next
	c.finishAttempt(b, policy.Result{Code: policy.Unavailable, Reason: policy.Draining}, why)
	c.dispatch(b)
	c.rearm(b)
	return true
}

func (c *call) finishAttempt(b *batch, r policy.Result, message string) {
	if c.attempt.Endpoint == nil {
		return
	}
	c.policy.Finish(&c.attempt, b.now, r, rand.Uint64())
	if c.trace != nil {
		c.trace.EndAttempt(b.now, r, message)
	}
}

// data takes DATA that came in on one of the call's legs.
func (c *call) data(b *batch, l *leg, p []byte, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		b.owe(l, len(p))
		return
	}
	c.policy.Touch(b.now)
	if l == &c.down {
		c.requestData(b, p, end)
	} else if l == c.up {
		c.responseData(b, l, p, end)
	}
}

func (c *call) requestData(b *batch, p []byte, end bool) {
	c.bytesUp += uint64(len(p))
	if c.req.grpc {
		if c.requests.count(p); c.requests.whole > 1 {
			c.policy.MarkStream()
		}
	}
	if up := c.up; up.keep && up.conn != nil && c.bytesUp > uint64(c.relay.limits.ReplayBytes) {
		up.conn.mu.Lock()
		up.commit()
		up.conn.mu.Unlock()
	}
	c.up.send(b, p, end)
}

func (c *call) responseData(b *batch, l *leg, p []byte, end bool) {
	if !c.answered {
		c.broke(b, "DATA before HEADERS")
		return
	}
	c.bytesDown += uint64(len(p))
	if c.grpc {
		if c.responses.count(p); c.responses.whole > 1 {
			c.policy.MarkStream()
		}
	}
	c.down.send(b, p, end)
	if end {
		// A gRPC answer ends with trailers; the caller's library says so too.
		code := c.policy.Method().Policy().HTTP.Code(c.status)
		if c.req.grpc {
			code = codeFromHTTP(c.status)
		}
		c.end(b, policy.Result{Code: code}, "the answer ended without grpc-status")
	}
}

// requestTrailers ends the request with a header block.
func (c *call) requestTrailers(b *batch, fields []hpack.HeaderField) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.up.sendTrailers(b, fields)
	}
}

// response takes a header block that came in on an up leg.
func (c *call) response(b *batch, l *leg, list *fieldList, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || l != c.up {
		return
	}
	c.policy.Touch(b.now)
	if list.tooBig() {
		c.broke(b, fmt.Sprintf("the answer's header list is longer than %d bytes", list.limit))
		return
	}
	var res response
	if why := res.parse(list); why != "" {
		c.broke(b, why)
		return
	}
	switch {
	case res.status == 0 && !c.answered, res.status != 0 && c.answered:
		c.broke(b, "header blocks in the wrong order")
	case c.answered && !end:
		c.broke(b, "trailers that do not end the answer")
	case c.answered:
		c.down.sendTrailers(b, list.fields)
		c.answerEnded(b, &res)
	case res.status == 101 || res.status < 200 && end:
		c.broke(b, fmt.Sprintf("an interim answer that HTTP/2 does not know (%d)", res.status))
	case res.status < 200:
		c.writeDown(b, list.fields, false)
	default:
		c.startAnswer(b, l, &res, list.fields, end)
	}
}

// startAnswer forwards the final response headers. From here on the call can't
// be sent again.
func (c *call) startAnswer(b *batch, l *leg, res *response, fields []hpack.HeaderField, end bool) {
	c.answered, c.status, c.grpc = true, res.status, res.grpc
	l.conn.mu.Lock()
	l.commit()
	l.conn.mu.Unlock()
	if c.req.explain {
		fields = append(fields, c.explanation()...)
	}
	c.down.conn.mu.Lock()
	c.down.source = l
	c.down.conn.mu.Unlock()
	c.writeDown(b, fields, end)
	if end {
		c.answerEnded(b, res)
	}
}

// writeDown sends a header block to the app.
func (c *call) writeDown(b *batch, fields []hpack.HeaderField, end bool) {
	d := c.down.conn
	d.mu.Lock()
	defer d.mu.Unlock()
	if c.down.removed {
		return
	}
	d.writeHeaders(b, c.down.id, fields, end)
	if end {
		d.sentFin(b, &c.down)
	}
}

// answerEnded records the upstream's own answer.
func (c *call) answerEnded(b *batch, res *response) {
	code := res.code
	switch {
	case res.coded:
	case !c.req.grpc:
		code = c.policy.Method().Policy().HTTP.Code(c.status)
	default:
		code = codeFromHTTP(c.status)
	}
	c.end(b, policy.Result{Code: code}, res.message)
}

// broke ends a call whose endpoint broke HTTP/2. c.mu is held.
func (c *call) broke(b *batch, why string) {
	endpoint := c.attempt.Endpoint.Address()
	c.refuse(b, c.policy.Refuse(policy.Protocol, endpoint, "endpoint "+endpoint+" broke HTTP/2: "+why))
}

// abort ends one leg whose peer broke the protocol on it.
func (c *call) abort(b *batch, l *leg, code errCode, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.reset(b, code)
	switch {
	case c.over:
	case l == &c.down:
		c.end(b, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "the caller broke HTTP/2: "+why)
	case l == c.up:
		c.broke(b, why)
	}
}

// peerReset takes a RST_STREAM; the leg is off its connection already.
func (c *call) peerReset(b *batch, l *leg, code errCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
	case l == &c.down:
		if left, ok := c.policy.Remaining(b.now); ok && left < deadlineSlack {
			c.suspect(b) // the caller's own timer was a moment faster than ours
		}
		c.end(b, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "the caller reset the stream: "+code.String())
	case l == c.up:
		message := "the endpoint reset the stream: " + code.String()
		if code == codeRefusedStream && c.repeat(b, message) {
			return
		}
		// Passed on as it came: the caller's library knows what it means.
		c.down.reset(b, code)
		c.end(b, policy.Result{Code: codeFromReset(code)}, message)
	}
}

// codeFromReset maps a RST_STREAM as gRPC over HTTP/2 says (section Errors).
func codeFromReset(code errCode) policy.Code {
	switch code {
	case codeRefusedStream:
		return policy.Unavailable
	case codeCancel:
		return policy.Canceled
	case codeEnhanceYourCalm:
		return policy.ResourceExhausted
	case codeInadequateSecurity:
		return policy.PermissionDenied
	}
	return policy.Internal
}

// connectionLost tells the call that the connection of an up leg is over.
// untouched says that the endpoint provably did not process it.
func (c *call) connectionLost(b *batch, l *leg, untouched bool, why string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || l != c.up || untouched && c.repeat(b, why) {
		return
	}
	endpoint := c.attempt.Endpoint.Address()
	c.refuse(b, c.policy.Refuse(policy.ConnectionLost, endpoint, fmt.Sprintf("the connection to endpoint %s was lost in mid-call: %s", endpoint, why)))
}

// callerGone ends a call whose app closed its connection.
func (c *call) callerGone(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.end(b, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, "the caller closed its connection")
	}
}

// drain ends a call that outlived the drain of the agent.
func (c *call) drain(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if !c.known {
		c.refuse(b, &policy.Refusal{Reason: policy.Draining, Message: "the agent is shutting down"})
		return
	}
	refusal := c.policy.Refuse(policy.Draining, "", "the agent is shutting down and the call did not end in time")
	refusal.RetryAfter = drainRetryAfter
	c.refuse(b, refusal)
}

// expire implements timed: something may be due.
func (c *call) expire(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	if c.looksLikeStream() {
		c.policy.MarkStream()
	}
	if refusal := c.policy.Expire(b.now, &c.attempt); refusal != nil {
		c.suspect(b)
		c.refuse(b, refusal)
		return
	}
	c.rearm(b)
}

// suspect asks whether the endpoint still lives, where nothing was heard of it
// since the call began. c.mu is held.
func (c *call) suspect(b *batch) {
	if up, ok := c.upConn(); ok {
		up.suspect(b, c.policy.Start())
	}
}

// upConn returns the endpoint's connection, where the call has one. c.mu is
// held.
func (c *call) upConn() (*upConn, bool) {
	if c.up.conn == nil {
		return nil, false
	}
	up, ok := c.up.conn.side.(*upConn)
	return up, ok
}

// looksLikeStream judges at a unary timeout what no descriptor tells: a unary
// caller closes its side with its one message, a unary server answers headers,
// message and trailers in one go. A message that is still under way either way
// is a slow unary call.
func (c *call) looksLikeStream() bool {
	if !c.req.grpc {
		return false
	}
	c.down.conn.mu.Lock()
	closed := c.down.finReceived
	c.down.conn.mu.Unlock()
	return !closed && c.requests.between() || c.answered && c.responses.between()
}

// rearm sets the timer to what falls due next. c.mu is held.
func (c *call) rearm(b *batch) {
	if c.over {
		return
	}
	if due := c.policy.Expiry(&c.attempt); due != 0 {
		c.relay.wheel.arm(&c.timer, due)
	}
}

// end closes the books. The down leg may still have bytes to deliver. c.mu is
// held.
func (c *call) end(b *batch, r policy.Result, message string) {
	c.over = true
	c.relay.wheel.cancel(&c.timer)
	if u := c.queuedAt; u != nil {
		c.queuedAt = nil
		u.leave(c)
	}
	up := c.up
	up.reset(b, codeCancel) // nothing to an answer that came whole
	if up.conn != nil {
		up.conn.mu.Lock()
		up.dropQueue()
		up.conn.mu.Unlock()
	}
	endpoint := ""
	if e := c.attempt.Endpoint; e != nil {
		endpoint = e.Address()
		c.finishAttempt(b, r, message)
	}
	if c.known {
		c.policy.End(b.now, r, rand.Uint64())
	}
	c.relay.stats.bytesUp.Add(c.bytesUp)
	c.relay.stats.bytesDown.Add(c.bytesDown)
	c.record(b, r, message, endpoint)
	c.relay.active.Add(-1)
}

package relay

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// deadlineSlack is how much before its deadline a caller's reset still means
// that it is over.
const deadlineSlack = 20 * time.Millisecond

// call is one call: a leg to the app and attempts, each with a leg to an
// endpoint. Its methods are called by the readers of all those connections, by
// the timer wheel and by whoever connects.
type call struct {
	relay *Relay
	born  policy.Instant // when its headers came
	down  leg
	first attempt

	mu        sync.Mutex
	req       request
	policy    policy.Call
	transport Transport   // how the service's endpoints are connected
	main      *attempt    // carries the request, or did so last
	live      []*attempt  // under way
	inline    [2]*attempt // what live begins with
	winner    *attempt    // the one whose answer goes downstream
	known     bool        // a service was found: policy is in use
	admitted  bool
	answered  bool // response headers went downstream
	over      bool
	status    int  // HTTP status of the answer
	grpc      bool // the answer is gRPC
	timer     timer
	trace     policy.Trace
	cached    *cached        // its part in a cache; nil: none
	deferral  *deferral      // it is to be kept for later; nil: it is not
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
	c.first.leg = leg{call: c, source: &c.down, fin: end}
	c.first.keep = !c.req.noRetry && r.buffered.Load() < r.limits.BufferedBytes/2
	c.main, c.live = &c.first, c.inline[:0]

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
	m := service.Method(method)
	hash, hashed := m.Hash(c.down.conn.peer, &c.req, c.req.hashKey)
	c.policy.Begin(m, b.now, policy.Arrival{
		Hash: hash, Hashed: hashed, Timeout: c.req.timeout, Criticality: c.req.criticality, Metadata: &c.req, NoRetry: c.req.noRetry, Owner: c,
		Idempotent: !c.req.grpc && idempotentMethod(c.req.method), Once: !c.req.grpc && !idempotentMethod(c.req.method)})
	c.known = true
	if t := r.tracer; t != nil {
		c.trace = t.StartCall(b.now, c.req.traceparent, c.req.tracestate, service.Name(), method)
	}
	switch {
	case tooBig:
		c.refuse(b, c.policy.Refuse(policy.RequestTooLarge, "", fmt.Sprintf("the request's header list is longer than %d bytes", r.limits.HeaderList)))
	case c.req.deferred:
		c.postpone(b)
		c.rearm(b)
	default:
		if !c.gather(b) {
			c.admit(b)
			c.traceFault(b)
		}
		c.rearm(b)
	}
}

// admit lets the call in, refuses it, or leaves it waiting. c.mu is held.
func (c *call) admit(b *batch) {
	if c.admitted || c.deferral != nil {
		return
	}
	admission := c.policy.Admit(b.now, rand.Uint64())
	b.wake(c.policy.Woken())
	switch {
	case admission.Refusal != nil:
		c.refuse(b, admission.Refusal)
	case !admission.Wait:
		c.admitted = true
		c.dispatch(b, c.main)
	}
}

// traceFault shows an injected fault in the call's span.
func (c *call) traceFault(b *batch) {
	if c.over || c.trace == nil || c.policy.Fault() == (policy.Fault{}) {
		return
	}
	c.trace.Event(b.now, "FAULT_INJECTED: "+c.policy.Fault().String())
}

// Wake implements policy.Waker, for shells that are not the relay.
func (c *call) Wake() {
	b := newBatch()
	b.now = c.relay.now()
	c.woken(b)
	b.flush()
}

// woken asks again for a call that waited to be admitted.
func (c *call) woken(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.over {
		c.admit(b)
		c.rearm(b)
	}
}

// tunnel returns where the caller asked to be connected before it spoke HTTP/2;
// empty: nowhere.
func (c *call) tunnel() string {
	if d, ok := c.down.conn.side.(*downConn); ok {
		return d.tunnel
	}
	return ""
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
	} else if a := c.attemptOn(l); a != nil {
		c.responseData(b, a, p, end)
	} else {
		b.owe(l, len(p))
	}
}

func (c *call) requestData(b *batch, p []byte, end bool) {
	c.bytesUp += uint64(len(p))
	if c.req.grpc {
		if c.requests.count(p); c.requests.whole > 1 {
			c.isStream(b)
		}
	}
	switch {
	case c.deferral != nil:
		c.collect(b, p, end)
		return
	case c.cached != nil && c.cached.gathering:
		c.gathered(b, p, end)
		return
	}
	if up := c.main; up.keep && up.conn != nil && c.bytesUp > uint64(c.relay.limits.ReplayBytes) {
		up.conn.mu.Lock()
		up.commit()
		up.conn.mu.Unlock()
		c.policy.Overflowed()
	}
	c.main.send(b, p, end)
}

func (c *call) responseData(b *batch, a *attempt, p []byte, end bool) {
	if a.head != nil {
		c.release(b, a)
	}
	if c.winner != a {
		c.broke(b, a, "DATA before HEADERS")
		return
	}
	c.bytesDown += uint64(len(p))
	if c.grpc {
		if c.responses.count(p); c.responses.whole > 1 {
			c.isStream(b)
		}
	}
	c.recordBody(p)
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

// isStream notes that the call is a stream: from now on other limits hold, which
// nothing may have been armed for. c.mu is held.
func (c *call) isStream(b *batch) {
	if !c.policy.IsStream() {
		c.policy.MarkStream()
		c.rearm(b)
	}
}

// requestTrailers ends the request with a header block.
func (c *call) requestTrailers(b *batch, fields []hpack.HeaderField) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over {
		return
	}
	c.main.sendTrailers(b, fields)
	switch {
	case c.deferral != nil:
		c.handOverWhole(b)
		c.rearm(b)
	case c.cached != nil && c.cached.gathering:
		c.lookWhenWhole(b)
		c.rearm(b)
	}
}

// broke ends an attempt whose endpoint broke HTTP/2. c.mu is held.
func (c *call) broke(b *batch, a *attempt, why string) {
	endpoint := a.address()
	refusal := c.policy.Refuse(policy.Protocol, endpoint, "endpoint "+endpoint+" broke HTTP/2: "+why)
	if !c.failed(b, a, policy.Ending{Result: policy.Refused(refusal)}, refusal.Message) {
		c.refuse(b, refusal)
	}
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
	default:
		if a := c.attemptOn(l); a != nil {
			c.broke(b, a, why)
		}
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
	default:
		a := c.attemptOn(l)
		if a == nil {
			return
		}
		message := "the endpoint reset the stream: " + code.String()
		ending := policy.Ending{Result: policy.Result{Code: codeFromReset(code)}}
		if code == codeRefusedStream {
			ending.Unprocessed, ending.Reason = true, policy.Draining
		} else {
			c.policy.Doubt()
		}
		if !c.failed(b, a, ending, message) {
			if c.keepFailed(b, failure{result: policy.Result{Code: ending.Code}, message: message}) {
				return
			}
			// Passed on as it came: the caller's library knows what it means.
			c.down.reset(b, code)
			c.end(b, policy.Result{Code: codeFromReset(code)}, message)
		}
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
	a := c.attemptOn(l)
	if c.over || a == nil {
		return
	}
	endpoint := a.address()
	refusal := c.policy.Refuse(policy.ConnectionLost, endpoint, fmt.Sprintf("the connection to endpoint %s was lost in mid-call: %s", endpoint, why))
	ending := policy.Ending{Result: policy.Refused(refusal), Unprocessed: untouched}
	if untouched {
		ending.Reason = policy.Draining // no fault of the endpoint's
	}
	if !c.failed(b, a, ending, why) {
		c.refuse(b, refusal)
	}
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
	if c.deferral == nil && c.looksLikeStream() {
		c.policy.MarkStream()
	}
	if refusal := c.policy.Expire(b.now, &c.main.policy); refusal != nil {
		c.suspect(b)
		c.refuse(b, refusal)
		return
	}
	if c.deferral != nil {
		c.expireDeferral(b)
		return
	}
	if c.expireAttempts(b); c.over || c.deferral != nil {
		return
	}
	c.releaseDue(b)
	if x := c.cached; x != nil && x.gathering && x.until != 0 && b.now >= x.until {
		c.policy.MarkStream()
		c.pass(b)
	}
	switch c.policy.Due(b.now, c.whole()) {
	case policy.Resume:
		c.admit(b)
	case policy.Another:
		next := c.main
		if !next.pristine() || slices.Contains(c.live, next) {
			next = c.copyOf(next) // a hedge
		}
		c.dispatch(b, next)
	}
	c.rearm(b)
}

// expireAttempts ends the attempts whose own time is over.
func (c *call) expireAttempts(b *batch) {
	for _, a := range append(make([]*attempt, 0, len(c.live)), c.live...) {
		if refusal := c.policy.ExpireAttempt(b.now, &a.policy); refusal != nil {
			c.suspectOf(b, a)
			if !c.failed(b, a, policy.Ending{Result: policy.Refused(refusal)}, refusal.Message) {
				c.refuse(b, refusal)
				return
			}
		}
	}
}

// suspect asks whether the endpoints still live, where nothing was heard of
// them since the call began. c.mu is held.
func (c *call) suspect(b *batch) {
	for _, a := range c.live {
		c.suspectOf(b, a)
	}
}

func (c *call) suspectOf(b *batch, a *attempt) {
	if a.conn == nil {
		return
	}
	if up, ok := a.conn.side.(*upConn); ok {
		up.suspect(b, a.policy.Start())
	}
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
	due := c.policy.Expiry(&c.main.policy)
	for _, a := range c.live {
		if a != c.main {
			if d := c.policy.Expiry(&a.policy); d != 0 && (due == 0 || d < due) {
				due = d
			}
		}
	}
	for _, a := range c.live {
		if a.head != nil && (due == 0 || a.heldUntil < due) {
			due = a.heldUntil
		}
	}
	if x := c.cached; x != nil && x.gathering && x.until != 0 && (due == 0 || x.until < due) {
		due = x.until
	}
	if d := c.deferral; d != nil && d.until != 0 && (due == 0 || d.until < due) {
		due = d.until
	}
	if due != 0 {
		c.relay.wheel.arm(&c.timer, due)
	}
}

// end closes the books. The down leg may still have bytes to deliver. c.mu is
// held.
func (c *call) end(b *batch, r policy.Result, message string) {
	c.over = true
	c.relay.wheel.cancel(&c.timer)
	endpoint := c.main.address()
	if c.winner != nil {
		endpoint = c.winner.address()
	}
	for len(c.live) > 0 {
		a := c.live[len(c.live)-1]
		a.reset(b, codeCancel) // nothing to an answer that came whole
		c.policy.Settle(&a.policy, b.now, r, rand.Uint64())
		c.forget(b, a, r, message)
		a.discard()
	}
	c.main.discard()
	c.leaveCache(b)
	if c.known {
		b.wake(c.policy.End(b.now, r, rand.Uint64()))
	}
	c.relay.stats.bytesUp.Add(c.bytesUp)
	c.relay.stats.bytesDown.Add(c.bytesDown)
	c.record(b, r, message, endpoint)
	c.relay.active.Add(-1)
}

package forward

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// begin routes the request.
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
	safe := idempotent(r)
	m := target.Service.Method(r.URL.Path)
	hash, hashed := m.Hash(peerName(x.client), headers(r.Header), x.asked.hashKey)
	x.call.Begin(m, x.start, policy.Arrival{
		Hash: hash, Hashed: hashed, Timeout: x.asked.timeout, Criticality: x.asked.criticality, Metadata: headers(r.Header), NoRetry: x.asked.noRetry, Idempotent: safe, Owner: x})
	p := x.call.Method().Policy()
	x.repeatable = safe || p.Idempotent && r.Header.Get("Upgrade") == ""
	x.keeps = x.repeatable && !x.asked.noRetry && (p.Retry.MaxAttempts > 1 || p.Hedge.MaxAttempts > 1)
	if t := s.options.Tracer; t != nil {
		x.trace = t.StartCall(x.start, r.Header.Get("Traceparent"), r.Header.Get("Tracestate"), target.Service.Name(), r.URL.Path)
	}
	if x.asked.deferred {
		return x.call.Refuse(policy.NotDeferrable, "", "outrigger-defer: only unary gRPC calls over HTTP/2 can be kept for later; an http task may be what you want")
	}
	return nil
}

// enter waits until the policies let the request in. It returns why they don't;
// err says that the caller is gone.
func (x *exchange) enter() (refusal *policy.Refusal, err error) {
	for {
		admission, woken := x.admit()
		policy.Wake(woken)
		if !admission.Wait {
			return admission.Refusal, nil
		}
		select {
		case <-x.signal:
		case <-x.ctx.Done():
			return nil, context.Cause(x.ctx)
		}
	}
}

// admit asks once. woken are the calls that this one's arrival moved.
func (x *exchange) admit() (admission policy.Admission, woken []*policy.Waiter) {
	x.mu.Lock()
	defer x.mu.Unlock()
	now := x.server.now()
	if refusal := x.call.Expire(now, nil); refusal != nil && now > x.start {
		return policy.Admission{Refusal: refusal}, nil
	}
	admission = x.call.Admit(now, rand.Uint64())
	woken = x.call.Woken()
	if fault := x.call.Fault(); x.trace != nil && !x.faulted && fault != (policy.Fault{}) {
		x.faulted = true
		x.trace.Event(now, "FAULT_INJECTED: "+fault.String())
	}
	if admission.Wait {
		x.arm()
	}
	return admission, woken
}

// Wake implements policy.Waker: whoever waits for the exchange looks again.
func (x *exchange) Wake() {
	select {
	case x.signal <- struct{}{}:
	default: // it is going to look in any case
	}
}

// arm waits for what falls due next. x.mu is held.
func (x *exchange) arm() {
	if x.over {
		return
	}
	due := x.call.Expiry(nil)
	for _, a := range x.live {
		if d := x.call.Expiry(&a.policy); d != 0 && (due == 0 || d < due) {
			due = d
		}
	}
	if due == 0 {
		return
	}
	wait := max(due-x.server.now(), 0)
	if x.timer == nil {
		x.timer = time.AfterFunc(wait, x.tick)
	} else {
		x.timer.Reset(wait)
	}
}

// tick is called when something may be due. Until there is an answer the
// request's own goroutine sees to it; that is busy with the body afterwards.
func (x *exchange) tick() {
	x.mu.Lock()
	defer x.mu.Unlock()
	switch {
	case x.over:
		return
	case x.winner == nil:
		x.Wake()
		return
	}
	now := x.server.now()
	refusal := x.call.Expire(now, &x.winner.policy)
	if refusal == nil {
		refusal = x.call.ExpireAttempt(now, &x.winner.policy)
	}
	if refusal != nil {
		x.cancel(refusedError{refusal})
		return
	}
	x.call.Due(now, false) // a hedge comes too late
	x.arm()
}

// refusedError carries a refusal through net/http.
type refusedError struct{ *policy.Refusal }

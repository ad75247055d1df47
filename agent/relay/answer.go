package relay

import (
	"fmt"
	"math/rand/v2"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// This file is an answer's way from an attempt to the app: it is the call's, or
// the call goes on without it.

// response takes a header block that came in on an up leg.
func (c *call) response(b *batch, l *leg, list *fieldList, end bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	a := c.attemptOn(l)
	if c.over || a == nil {
		return
	}
	c.policy.Touch(b.now)
	if list.tooBig() {
		c.broke(b, a, fmt.Sprintf("the answer's header list is longer than %d bytes", list.limit))
		return
	}
	var res response
	if why := res.parse(list); why != "" {
		c.broke(b, a, why)
		return
	}
	c.loadReported(b, a, &res)
	answered := c.winner == a
	switch {
	case a.head != nil && res.status == 0 && end:
		c.heldTrailers(b, a, &res, list)
	case a.head != nil:
		c.broke(b, a, "header blocks in the wrong order")
	case res.status == 0 && !answered, res.status != 0 && answered:
		c.broke(b, a, "header blocks in the wrong order")
	case answered && !end:
		c.broke(b, a, "trailers that do not end the answer")
	case answered:
		c.down.sendTrailers(b, list.fields)
		c.recordEnd(b, c.codeOf(&res), list.fields)
		c.answerEnded(b, &res)
	case res.status == 101 || res.status < 200 && end:
		c.broke(b, a, fmt.Sprintf("an interim answer that HTTP/2 does not know (%d)", res.status))
	case res.status < 200:
		c.writeDown(b, list.fields, false)
	default:
		c.startAnswer(b, a, &res, list.fields, end)
	}
}

// loadReported takes what the endpoint reports of its load in headers or
// trailers, where calls are balanced by that. They go on to the app as they are.
func (c *call) loadReported(b *batch, a *attempt, res *response) {
	if res.load == (policy.LoadReportHeaders{}) || !c.policy.WantsLoad() {
		return
	}
	if r, ok := res.load.Parse(); ok {
		c.policy.ReportLoad(&a.policy, b.now, r)
	}
}

// startAnswer takes the final response headers: the call goes on without them,
// or holds them for a moment, or forwards them.
func (c *call) startAnswer(b *batch, a *attempt, res *response, fields []hpack.HeaderField, end bool) {
	c.status, c.grpc = res.status, res.grpc
	if c.failedAnswer(b, a, res, fields, end) {
		return
	}
	if !end && res.grpc && res.status == 200 && (c.policy.MayRepeat() || c.cached != nil || c.mayKeep()) {
		a.hold(b, fields)
		return
	}
	c.forwardHead(b, a, fields, end)
	if end {
		c.answerEnded(b, res)
	}
}

// forwardHead sends the final response headers to the app. From here on the
// call can't be sent again.
func (c *call) forwardHead(b *batch, a *attempt, fields []hpack.HeaderField, end bool) {
	c.recordHead(fields)
	c.answered, c.winner = true, a
	c.policy.Answered()
	for len(c.live) > 1 {
		other := c.live[0]
		if other == a {
			other = c.live[1]
		}
		c.abandon(b, other)
	}
	c.commit()
	if c.req.explain {
		fields = append(fields, c.explanation()...)
	}
	c.down.conn.mu.Lock()
	c.down.source = &a.leg
	c.down.conn.mu.Unlock()
	c.writeDown(b, fields, end)
}

// heldTrailers takes the trailers of an answer whose headers are held: a gRPC
// error whose server sent headers before it. Nothing went out yet, so the call
// may go on without it.
func (c *call) heldTrailers(b *batch, a *attempt, res *response, list *fieldList) {
	if c.failedAnswer(b, a, res, list.fields, true) {
		return
	}
	c.release(b, a)
	c.down.sendTrailers(b, list.fields)
	c.recordEnd(b, c.codeOf(res), list.fields)
	c.answerEnded(b, res)
}

// failedAnswer takes an answer that is a failure at its head, and reports
// whether the call goes on without it. One that is whole, a gRPC error without
// a message, ends its attempt; another, an HTTP error, may have a body to pass
// on. fields are the block that tells.
func (c *call) failedAnswer(b *batch, a *attempt, res *response, fields []hpack.HeaderField, end bool) bool {
	code := c.codeOf(res)
	if code == policy.OK || !end && res.grpc && c.status == 200 {
		return false
	}
	ending := policy.Ending{Result: policy.Result{Code: code}, Pushback: res.pushback()}
	ending.Committed = !c.main.keep && !c.main.pristine()
	if !res.coded {
		c.policy.Doubt()
	}
	verdict := c.policy.Judge(&a.policy, b.now, ending, rand.Uint64())
	if verdict.Action == policy.Return {
		if !ending.Failed() || !c.standsIn(b, ending.Result) {
			return c.keepAnswered(b, a, res, fields)
		}
	}
	c.policy.Settle(&a.policy, b.now, ending.Result, rand.Uint64())
	c.forget(b, a, ending.Result, res.message)
	a.cut(b)
	if verdict.Action == policy.Return {
		c.answerKept(b)
	} else {
		c.goOn(b, a, verdict)
	}
	return true
}

// commit gives up the request's copy. c.mu is held.
func (c *call) commit() {
	if conn := c.main.conn; conn != nil {
		conn.mu.Lock()
		defer conn.mu.Unlock()
	}
	c.main.commit()
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
	c.end(b, policy.Result{Code: c.codeOf(res)}, res.message)
}

// codeOf returns the gRPC status that an answer's headers or trailers stand
// for.
func (c *call) codeOf(res *response) policy.Code {
	switch {
	case res.coded:
		return res.code
	case !c.req.grpc:
		return c.policy.Method().Policy().HTTP.Code(c.status)
	}
	return codeFromHTTP(c.status)
}

package relay

import (
	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// emptyMessage is a gRPC message without bytes: with protobuf, the empty value of
// any type.
var emptyMessage [messagePrefixLen]byte

// answerDeferred tells the caller that its call is kept for later, as task id.
// c.mu is held.
func (c *call) answerDeferred(b *batch, id string) {
	fields := append(make([]hpack.HeaderField, 0, 8), hpack.HeaderField{Name: ":status", Value: "200"}, hpack.HeaderField{Name: "content-type", Value: c.req.Get("content-type")})
	if c.req.explain {
		fields = append(fields, c.explanation()...)
	}
	c.answered, c.grpc, c.status = true, true, 200
	c.dropSource()
	c.writeDown(b, fields, false)
	c.bytesDown += messagePrefixLen
	c.responses.count(emptyMessage[:])
	c.down.send(b, emptyMessage[:], false)
	c.down.sendTrailers(b, []hpack.HeaderField{{Name: "grpc-status", Value: "0"}, {Name: taskIDKey, Value: id, Sensitive: true}})
	c.deferral.task = id
	event, result, message := "DEFERRED", policy.Result{}, ""
	if f := c.deferral.failed; f != nil {
		event, result.Reason, message = "DEFERRED_ON_FAILURE", f.result.Reason, "kept for later: "+f.message
	}
	if c.trace != nil {
		c.trace.Event(b.now, event)
	}
	c.end(b, result, message)
}

// unkept answers a call that can't be kept for later. c.mu is held.
func (c *call) unkept(b *batch, why *policy.Refusal) {
	c.policy.Method().Service().CountDeferral(policy.DeferRefused)
	c.giveUp(b, why)
}

// giveUp answers a call that is not kept for later with why, or as it failed.
// c.mu is held.
func (c *call) giveUp(b *batch, why *policy.Refusal) {
	if f := c.deferral.failed; f != nil {
		c.giveFailure(b, f, why)
		return
	}
	c.refuse(b, why)
}

// dropSource says that the answer is the agent's own: nobody gets credit for it.
func (c *call) dropSource() {
	c.down.conn.mu.Lock()
	defer c.down.conn.mu.Unlock()
	c.down.source = nil
}

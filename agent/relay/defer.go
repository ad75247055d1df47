package relay

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// This file is a call's way to the task executor: it is gathered, handed over
// whole, and answered once it is stored. Calls take that way because their
// caller asks for it, or because they failed (deferfailed.go).

// Deferrer keeps calls for later. Safe for concurrent use.
type Deferrer interface {
	// Defer stores a unary call. It must not block. done is called exactly once,
	// from any goroutine and as soon as Defer likes, with the task's id once the
	// store has committed it, or with why it is not kept: a reason (such as
	// TASK_QUEUE_FULL or TASK_STORE), a message, and RetryAfter where waiting
	// helps. The call's slices are the Deferrer's from then on.
	Defer(call DeferredCall, done func(id string, refused *policy.Refusal))
}

// DeferredCall is a unary gRPC call that is to be made later.
type DeferredCall struct {
	// Service is the service's name; of one that DIAL leads to, the authority.
	Service string
	// Method is "/pkg.Service/Method".
	Method string
	// Metadata is what an endpoint would have got, in order, values of "-bin"
	// keys in base64 as they came; without what holds for one hop, describes the
	// message's encoding, or is for the agent (grpc-timeout, outrigger-*), and
	// without traceparent.
	Metadata []policy.Field
	// Message is the request, without its length prefix and not compressed.
	Message []byte
	// IdempotencyKey is outrigger-idempotency-key; empty: the caller sent none.
	IdempotencyKey string
	// Traceparent is the caller's; empty: it sent none.
	Traceparent string
}

const (
	// taskIDKey names the task: in the trailers of a call that was kept, and in
	// the metadata of each attempt that the executor makes of it later.
	taskIDKey = "outrigger-task-id"
	// openBeforeDeferral is how long after its message a unary request may take
	// to end before it counts as a stream's.
	openBeforeDeferral = time.Second
	// openAfterFailing is how long a call that has failed waits for its message: one
	// that comes later is a stream's, whose caller waits to hear of the failure.
	openAfterFailing = 100 * time.Millisecond
	// storePatience is how long the store may take where the caller's deadline
	// does not say less.
	storePatience = 10 * time.Second
	// deferRetryAfter is the advice to callers where waiting helps: about what a
	// burst, or a disk that stalls, takes.
	deferRetryAfter = time.Second
)

// deferral is what a call has beside the others that is kept for later.
type deferral struct {
	failed  *failure // nil: at its caller's request
	storing bool     // it was handed over
	// until is when a request that stands open after its message counts as a
	// stream's, and then when the store has taken too long. Zero: neither runs.
	until policy.Instant
	task  string // its id, once it is kept
}

// postpone begins to gather a call that is to be kept at its caller's request.
// c.mu is held.
func (c *call) postpone(b *batch) {
	service := c.policy.Method().Service()
	var why *policy.Refusal
	switch {
	case !c.req.grpc:
		why = c.notDeferrable("outrigger-defer: only unary gRPC calls can be kept for later")
	case c.policy.Method().Policy().Defer.Mode == policy.DeferNever:
		why = c.policy.Refuse(policy.DeferOff, "", fmt.Sprintf(
			"outrigger-defer: %s keeps no calls for later; write defer: {mode: ON_REQUEST} in its policy, or leave outrigger-defer out", service.Name()))
	default:
		why = c.cannotDefer()
	}
	if why != nil {
		service.CountDeferral(policy.DeferRefused)
		c.refuse(b, why)
		return
	}
	c.policy.Postpone()
	c.deferral = &deferral{}
	if refusal := c.policy.Expire(b.now, nil); refusal != nil {
		c.refuse(b, refusal) // its deadline was over when it came
		return
	}
	c.handOverWhole(b)
}

// cannotDefer says why a gRPC call can't be kept, as far as its headers and the
// relay tell; nil: it can.
func (c *call) cannotDefer() *policy.Refusal {
	contentType, encoding := c.req.Get("content-type"), c.req.Get(encodingKey)
	kind, _, _ := strings.Cut(contentType, ";")
	switch {
	case c.relay.deferrer == nil:
		return c.policy.Refuse(policy.DeferOff, "", "calls can't be kept for later: tasks are not configured; write a tasks block")
	case c.req.method != "POST":
		return c.notDeferrable("only unary gRPC calls can be kept for later, and their method is POST, not " + c.req.method)
	case kind != "application/grpc" && kind != "application/grpc+proto":
		return c.unimplemented(fmt.Sprintf("content-type %q can't be kept for later; want application/grpc or application/grpc+proto", contentType))
	case encoding != "" && encoding != "identity" && encoding != "gzip":
		return c.unimplemented(fmt.Sprintf("grpc-encoding %q can't be kept for later; want gzip or identity", encoding))
	case c.crowded():
		refusal := c.policy.Refuse(policy.ConcurrencyLimit, "", fmt.Sprintf(
			"the agent holds %d bytes of calls already, and keeps no more for later", c.relay.buffered.Load()))
		refusal.RetryAfter = deferRetryAfter
		return refusal
	}
	return nil
}

// crowded reports whether so much is held that calls are better not gathered.
func (c *call) crowded() bool { return c.relay.buffered.Load() > c.relay.limits.BufferedBytes/2 }

func (c *call) notDeferrable(message string) *policy.Refusal {
	return c.policy.Refuse(policy.NotDeferrable, "", message)
}

func (c *call) unimplemented(message string) *policy.Refusal {
	refusal := c.notDeferrable(message)
	refusal.Status = policy.Unimplemented
	return refusal
}

// collect takes DATA of a request that is to be kept. Its sender gets credit at
// once: what is gathered is bounded here. c.mu is held.
func (c *call) collect(b *batch, p []byte, end bool) {
	main := c.main
	main.enqueue(p)
	main.repaid += len(p)
	main.fin = main.fin || end
	b.owe(main.source, len(p))
	c.handOverWhole(b)
	c.rearm(b)
}

// handOverWhole goes on as far as the request is here: it refuses what can't be
// kept, and hands over what is whole. c.mu is held.
func (c *call) handOverWhole(b *batch) {
	main, limit := c.main, c.relay.limits.ReplayBytes
	switch {
	case c.bytesUp > uint64(limit):
		c.unkept(b, c.policy.Refuse(policy.RequestTooLarge, "", fmt.Sprintf("the request is longer than the %d bytes that a call may have to be kept for later", limit)))
	case c.requests.whole > 1 || c.requests.whole == 1 && !c.requests.between():
		c.unkept(b, c.notDeferrable("the request has more than one message: streams can't be kept for later"))
	case main.fin:
		c.handOver(b)
	case c.crowded():
		c.unkept(b, c.cannotDefer())
	case c.requests.whole == 1:
		c.deferral.until = b.now + openBeforeDeferral
	case c.deferral.failed != nil && c.deferral.until == 0:
		c.deferral.until = b.now + openAfterFailing
	}
}

// handOver gives a call that is whole to the store, once no lock is held.
func (c *call) handOver(b *batch) {
	var body []byte
	if c.main.queue != nil {
		body = c.main.queue.b
	}
	message, why := c.messageOf(body)
	if why != nil {
		c.unkept(b, why)
		return
	}
	c.main.discard()
	h := &handover{call: c, service: c.policy.Method().Service(), counts: policy.DeferredOnRequest, deferred: DeferredCall{
		Service: c.policy.Method().Service().Name(), Method: c.req.path, Metadata: c.metadataLater(), Message: message,
		IdempotencyKey: c.req.idempotencyKey, Traceparent: c.req.traceparent}}
	if c.deferral.failed != nil {
		h.counts = policy.DeferredOnFailure
	}
	h.held = int64(len(message))
	c.relay.buffered.Add(h.held)
	c.deferral.storing, c.deferral.until = true, b.now+storePatience
	b.handovers = append(b.handovers, h)
}

// metadataLater returns the metadata that the call is to be made with.
func (c *call) metadataLater() []policy.Field {
	kept := make([]policy.Field, 0, len(c.req.fields))
	for i := range c.req.fields {
		f := &c.req.fields[i]
		switch f.Name {
		case "te", "host", "content-length", "grpc-timeout", encodingKey, "grpc-accept-encoding", previousAttempts, "traceparent":
			continue
		}
		if f.Name[0] != ':' && !strings.HasPrefix(f.Name, metadataPrefix) {
			kept = append(kept, policy.Field{Name: f.Name, Value: f.Value})
		}
	}
	return kept
}

// handover is a call in the hands of the store. It outlives a caller that goes
// away: the store may still keep the call then.
type handover struct {
	call     *call
	service  *policy.Service
	counts   policy.Deferral // what it is once it is kept
	deferred DeferredCall
	held     int64 // bytes that count as buffered until the store is done
	over     atomic.Bool
}

// begin asks the store, unless the caller left meanwhile. No lock is held.
func (h *handover) begin() {
	c := h.call
	c.mu.Lock()
	gone := c.over
	c.mu.Unlock()
	if gone {
		c.relay.buffered.Add(-h.held)
		return
	}
	deferred := h.deferred
	h.deferred = DeferredCall{}
	c.relay.deferrer.Defer(deferred, h.done)
}

// done takes what the store says.
func (h *handover) done(id string, refused *policy.Refusal) {
	if h.over.Swap(true) {
		return
	}
	c := h.call
	r := c.relay
	r.buffered.Add(-h.held)
	if refused != nil {
		own := *refused // the store may give the same to others
		refused = &own
		if own.Service == "" {
			refused.Service = h.service.Name()
		}
		h.counts = policy.DeferRefused
	}
	h.service.CountDeferral(h.counts)
	b := newBatch()
	b.now = r.now()
	c.stored(b, id, refused)
	r.relieve(b)
	b.flush()
}

// stored answers a call by what its store said, unless it is over.
func (c *call) stored(b *batch, id string, refused *policy.Refusal) {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.over:
	case refused != nil:
		c.giveUp(b, refused)
	default:
		c.answerDeferred(b, id)
	}
}

// expireDeferral ends the wait for the rest of a request, or for the store.
// c.mu is held.
func (c *call) expireDeferral(b *batch) {
	d := c.deferral
	switch {
	case d.until == 0 || b.now < d.until:
		c.rearm(b)
	case d.storing:
		refusal := c.policy.Refuse(policy.TaskStore, "", fmt.Sprintf(
			"the task store did not say within %v whether it keeps the call; it may yet do so: ask again with the same outrigger-idempotency-key", storePatience))
		refusal.RetryAfter = deferRetryAfter
		c.giveUp(b, refusal)
	default:
		c.unkept(b, c.notDeferrable("the request stays open: streams can't be kept for later"))
	}
}

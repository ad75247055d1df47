package relay

import (
	"strings"
	"time"

	"golang.org/x/net/http2/hpack"

	"github.com/outrigger-rpc/outrigger/policy"
)

// This file is a call's part in its service's cache: the request is gathered
// before it goes anywhere, looked up, and either answered from what is kept, or
// sent, and its answer recorded on the way down.

// cached is what a call with a cache has beside the others.
type cached struct {
	cache *policy.Cache
	part  policy.CacheCall
	// request is how long the longest request is that is looked up.
	request   int
	gathering bool // the request is not whole yet
	// until is when a request that stands open after its message counts as a
	// stream's. Zero: no whole message came yet.
	until     policy.Instant
	following bool           // another call fetches the same
	observe   bool           // what is kept is not given
	method    *policy.Method // of a refresh, until it begins
	recording *policy.Answer
}

// gather holds a call back whose answer may be kept, until its request is here.
// It reports false where there is no cache for it.
func (c *call) gather(b *batch) bool {
	cache := c.policy.Cache()
	if cache == nil || !c.req.grpc || c.req.method != "POST" {
		return false
	}
	p := &c.policy.Method().Policy().Cache
	entry := p.MaxEntryBytes
	if entry <= 0 {
		entry = policy.DefaultCacheEntry
	}
	c.cached = &cached{cache: cache, request: entry, gathering: true, observe: p.Mode == policy.Observe}
	c.cached.part.Owner = c
	c.lookWhenWhole(b)
	return true
}

// gathered takes DATA of a request that is held back. Its sender gets credit at
// once: what is gathered is bounded here.
func (c *call) gathered(b *batch, p []byte, end bool) {
	main := c.main
	main.enqueue(p)
	main.repaid += len(p)
	main.fin = main.fin || end
	b.owe(main.source, len(p))
	switch {
	case main.fin:
		c.lookWhenWhole(b)
	case c.policy.IsStream() || int(c.bytesUp) > c.cached.request:
		c.pass(b)
	case c.requests.whole == 1:
		c.cached.until = b.now + openAfterMessage
	}
	c.rearm(b)
}

// openAfterMessage is how long after its message a unary request may take to
// end: libraries that don't end it in the same frame do so right after.
const openAfterMessage = 10 * time.Millisecond

// pass sends a request past the cache that is too long for it, or a stream's.
func (c *call) pass(b *batch) {
	c.cached = nil
	c.admit(b)
}

// lookWhenWhole looks the request up once it is here to its end.
func (c *call) lookWhenWhole(b *batch) {
	x, main := c.cached, c.main
	if !main.fin {
		return
	}
	x.gathering = false
	var body []byte
	if main.queue != nil {
		body = main.queue.b
	}
	method := c.policy.Method()
	key := method.Policy().Cache.Key(method.Name(), c.req.all, body)
	switch found := x.cache.Lookup(&x.part, key, b.now, policy.ParseCacheControl(c.req.all("cache-control"))); {
	case x.observe:
		if found == policy.Follow {
			c.leaveCache(b)
		}
	case found == policy.Hit || found == policy.Stale:
		c.answerKept(b)
		return
	case found == policy.Refresh:
		c.refresh(b)
		c.answerKept(b)
		return
	case found == policy.Follow:
		x.following = true
		return
	case found == policy.Absent:
		c.refuse(b, c.policy.Refuse(policy.NotCached, "", "the caller wants an answer from the cache only, and none is kept"))
		return
	}
	c.admit(b)
}

// all returns the values of a header, joined by commas.
func (r *request) all(name string) string {
	value, found := "", false
	for i := range r.fields {
		switch f := &r.fields[i]; {
		case f.Name != name:
		case !found:
			value, found = f.Value, true
		default:
			value += "," + f.Value
		}
	}
	return value
}

// answerKept answers from what is kept. c.mu is held.
func (c *call) answerKept(b *batch) {
	for len(c.live) > 0 {
		c.abandon(b, c.live[0])
	}
	kept := c.cached.part.Answer
	fields := append(make([]hpack.HeaderField, 0, len(kept.Header)+6), hpack.HeaderField{Name: ":status", Value: "200"})
	for _, f := range kept.Header {
		fields = append(fields, hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	if c.req.explain {
		fields = append(fields, c.explanation()...)
		fields = append(fields, hpack.HeaderField{Name: "outrigger-cache", Value: c.cached.part.Found.String()})
	}
	trailers := make([]hpack.HeaderField, 0, len(kept.Trailer)+1)
	for _, f := range kept.Trailer {
		trailers = append(trailers, hpack.HeaderField{Name: f.Name, Value: f.Value})
	}
	c.answered, c.grpc, c.status = true, true, 200
	c.dropSource()
	c.writeDown(b, fields, false)
	c.bytesDown += uint64(len(kept.Body))
	c.responses.count(kept.Body)
	c.down.send(b, kept.Body, false)
	c.down.sendTrailers(b, trailers)
	if c.trace != nil {
		c.trace.Event(b.now, "CACHE_"+c.cached.part.Found.String())
	}
	c.end(b, policy.Result{}, "")
}

// recordHead begins to record an answer that may be kept.
func (c *call) recordHead(fields []hpack.HeaderField) {
	if x := c.cached; x != nil && !x.gathering && (x.part.Found == policy.Miss || x.observe) {
		x.recording = &policy.Answer{Header: copyFields(fields)}
	}
}

// recordBody records DATA of it.
func (c *call) recordBody(p []byte) {
	x := c.cached
	if x == nil || x.recording == nil {
		return
	}
	if len(x.recording.Body)+len(p) > x.request {
		x.recording = nil
		return
	}
	x.recording.Body = append(x.recording.Body, p...)
}

// recordEnd reports what an endpoint answered in the end: whether it is kept is
// the cache's to say.
func (c *call) recordEnd(b *batch, code policy.Code, trailers []hpack.HeaderField) {
	x := c.cached
	if x == nil || x.gathering {
		return
	}
	answer := x.recording
	if code != policy.OK || answer != nil && c.responses.whole != 1 {
		answer = nil
	}
	var control policy.CacheControl
	if answer != nil {
		answer.Trailer = copyFields(trailers)
		control = policy.ParseCacheControl(fieldNamed(answer.Header, "cache-control"))
	}
	b.wakeCached(x.cache.Store(&x.part, b.now, answer, control))
	c.cached = nil
}

// copyFields takes over what an answer from the cache needs of a header list.
func copyFields(fields []hpack.HeaderField) []policy.Field {
	kept := make([]policy.Field, 0, len(fields))
	for i := range fields {
		if name := fields[i].Name; name != ":status" && !strings.HasPrefix(name, metadataPrefix) {
			kept = append(kept, policy.Field{Name: name, Value: fields[i].Value})
		}
	}
	return kept
}

func fieldNamed(fields []policy.Field, name string) string {
	for _, f := range fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// standsIn reports whether something is kept that answers in place of what can't
// be had: answerKept gives it. c.mu is held.
func (c *call) standsIn(b *batch, r policy.Result) bool {
	x := c.cached
	switch {
	case x == nil || c.answered:
		return false
	case x.gathering || x.following || !r.Failed() && r.Reason != policy.BreakerOpen && r.Reason != policy.NoEndpoints && r.Reason != policy.AllUnhealthy:
		c.leaveCache(b)
		return false
	}
	b.wakeCached(x.cache.Fail(&x.part, b.now))
	if x.part.Answer == nil || x.observe {
		c.cached = nil
		return false
	}
	return true
}

// leaveCache gives up the call's part: its caller is gone, or its time is over.
func (c *call) leaveCache(b *batch) {
	x := c.cached
	c.cached = nil
	if x == nil || x.gathering {
		return
	}
	if next := x.cache.Leave(&x.part, b.now); next != nil {
		b.wakeCached([]*policy.CacheCall{next})
	}
}

// wakeCached notes calls that waited for another one's answer.
func (b *batch) wakeCached(parts []*policy.CacheCall) {
	for _, part := range parts {
		if c, ok := part.Owner.(*call); ok {
			b.fetched = append(b.fetched, c)
		}
	}
}

// fetched goes on with a call that waited for another one's answer.
func (c *call) fetched(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.over || c.cached == nil || !c.cached.following {
		return
	}
	c.cached.following = false
	if c.cached.part.Answer != nil {
		c.answerKept(b)
		return
	}
	c.admit(b)
	c.rearm(b)
}

// refresh sends the same request once more in the background: nobody waits for
// its answer but the cache.
func (c *call) refresh(b *batch) {
	r := c.relay
	next := &call{relay: r, born: b.now, req: c.req, transport: c.transport}
	next.req.explain = false
	next.req.timeout = -1
	next.req.criticality = policy.Sheddable
	next.down = leg{call: next, conn: r.nobody, removed: true, finReceived: true}
	next.timer = timer{shard: c.timer.shard + 1, owner: next}
	next.first.leg = leg{call: next, source: nil, keep: !c.req.noRetry}
	next.main, next.live = &next.first, next.inline[:0]
	next.cached = &cached{cache: c.cached.cache, part: c.cached.part.Refresh(), request: c.cached.request, method: c.policy.Method()}
	next.cached.part.Owner = next
	if c.main.queue != nil {
		next.first.enqueue(c.main.queue.b)
	}
	next.first.fin, next.first.trailers = true, c.main.trailers
	r.calls.Add(1)
	r.active.Add(1)
	b.refreshes = append(b.refreshes, next)
}

// beginRefresh starts a refresh, once the call that asked for it is answered.
func (c *call) beginRefresh(b *batch) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := c.cached.method
	hash, hashed := m.Hash("", &c.req, c.req.hashKey)
	c.policy.Begin(m, b.now, policy.Arrival{Hash: hash, Hashed: hashed, Timeout: policy.NoTimeout, Criticality: c.req.criticality, Metadata: &c.req, NoRetry: c.req.noRetry, Owner: c})
	c.known = true
	if t := c.relay.tracer; t != nil {
		c.trace = t.StartCall(b.now, "", "", m.Service().Name(), m.Name())
	}
	c.admit(b)
	c.rearm(b)
}

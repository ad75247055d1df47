package interceptors

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/policy"
)

// kept is a unary call's part in its service's cache. Answers are kept by
// Client, so that those whose ClientConns authorize differently share none.
// Calls with credentials of their own (grpc.PerRPCCredentials) go past the
// cache, as do messages that are no proto.Message: what they send is not known
// here.
type kept struct {
	cache   *policy.Cache
	part    policy.CacheCall
	unary   *unary
	observe bool        // what is kept is not given
	fetched bool        // part came back; unary.mu guards it
	header  metadata.MD // of the answer that may be kept
	trailer metadata.MD
}

// refreshTimeout bounds a call in the background where its policy has no
// timeout.
const refreshTimeout = 30 * time.Second

// deterministic makes the same bytes of equal messages.
var deterministic = proto.MarshalOptions{Deterministic: true}

// cached answers from the cache where it can. It waits for another call that
// fetches the same; now is the time afterwards.
func (u *unary) cached(now *policy.Instant, err *error) (answered bool) {
	cache := u.call.Cache()
	request, ok := u.request.(proto.Message)
	if _, both := u.reply.(proto.Message); cache == nil || !ok || !both || u.authorizes() {
		return false
	}
	body, failed := deterministic.Marshal(request)
	if failed != nil {
		return false // grpc-go will say the same
	}
	m := u.call.Method()
	p := &m.Policy().Cache
	k := &kept{cache: cache, unary: u, observe: p.Mode == policy.Observe}
	k.part.Owner = k
	found := cache.Lookup(&k.part, p.Key(u.client.name+m.Name(), u.all, body), *now, policy.ParseCacheControl(u.all("cache-control")))
	switch {
	case k.observe && found == policy.Follow:
		wakeCached(cache.Leave(&k.part, *now))
		return false
	case found == policy.Bypass, k.observe && found != policy.Miss && found != policy.Refresh:
		return false
	case k.observe, found == policy.Miss:
		u.record(k)
		return false
	case found == policy.Refresh:
		u.refresh(k)
	case found == policy.Absent:
		*err = u.refusedNow(u.call.Refuse(policy.NotCached, "", "the caller wants an answer from the cache only, and none is kept"))
		return true
	case found == policy.Follow:
		if u.follows(k) {
			*now = u.client.now()
			if k.part.Answer == nil {
				u.record(k) // it fetches for itself
				return false
			}
			break
		}
		*err = u.answer()
		return true
	}
	*err = k.give()
	return true
}

// authorizes reports whether the call has credentials of its own.
func (u *unary) authorizes() bool {
	for _, o := range u.options {
		if _, ok := o.(grpc.PerRPCCredsCallOption); ok {
			return true
		}
	}
	return false
}

// all returns the values of outgoing metadata, joined by commas.
func (l *life) all(name string) string {
	return strings.Join(metadata.ValueFromOutgoingContext(l.ctx, name), ",")
}

// record makes the call report what it gets.
func (u *unary) record(k *kept) {
	u.kept = k
	u.add(grpc.Header(&k.header), grpc.Trailer(&k.trailer))
}

// follows waits for the call that fetches the same, and reports whether it
// came to an end before this one's caller or time did.
func (u *unary) follows(k *kept) bool {
	u.mu.Lock()
	for !k.fetched && !u.over {
		u.park(u.client.now())
		now := u.client.now()
		if k.fetched {
			break
		}
		if u.ctx.Err() != nil {
			u.abandoned(now)
		} else if r := u.call.Expire(now, nil); r != nil {
			u.refuse(r)
		}
	}
	over := u.over
	u.mu.Unlock()
	if over {
		wakeCached(k.cache.Leave(&k.part, u.client.now()))
	}
	return !over
}

// wakeCached tells calls that waited for another one's answer.
func wakeCached(parts ...*policy.CacheCall) {
	for _, part := range parts {
		if part == nil {
			continue
		}
		if k, ok := part.Owner.(*kept); ok {
			k.unary.mu.Lock()
			k.fetched = true
			k.unary.rouse()
			k.unary.mu.Unlock()
		}
	}
}

// report tells the cache what the call came to, and answers from it where a
// kept answer may stand in for a failure.
func (u *unary) report() (given bool, err error) {
	k, now := u.kept, u.client.now()
	r := u.result
	switch {
	case u.refusal == nil && u.won != nil && u.won.err == nil:
		if u.won.apart != nil {
			u.won.apart.giveTo(u)
			u.won.apart = nil
		}
		answer := k.answer()
		var control policy.CacheControl
		if answer != nil {
			control = policy.ParseCacheControl(strings.Join(k.header.Get("cache-control"), ","))
		}
		wakeCached(k.cache.Store(&k.part, now, answer, control)...)
		return true, nil
	case r.Failed() || r.Reason == policy.BreakerOpen || r.Reason == policy.NoEndpoints || r.Reason == policy.AllUnhealthy:
		wakeCached(k.cache.Fail(&k.part, now)...)
		if k.part.Answer != nil && !k.observe {
			u.event("CACHE_" + k.part.Found.String())
			return true, k.give()
		}
	case u.refusal != nil || u.won == nil:
		wakeCached(k.cache.Leave(&k.part, now))
	default:
		wakeCached(k.cache.Store(&k.part, now, nil, policy.CacheControl{})...) // an answer, and none to keep
	}
	return false, nil
}

// answer is what the call got, as it is kept. nil: it can't be.
func (k *kept) answer() *policy.Answer {
	m, ok := k.unary.reply.(proto.Message)
	if !ok {
		return nil
	}
	body, err := deterministic.Marshal(m)
	if err != nil {
		return nil
	}
	return &policy.Answer{Header: fields(k.header), Trailer: fields(k.trailer), Body: body}
}

func fields(md metadata.MD) []policy.Field {
	var out []policy.Field
	for name, values := range md {
		for _, v := range values {
			out = append(out, policy.Field{Name: name, Value: v})
		}
	}
	return out
}

func fromFields(all []policy.Field) metadata.MD {
	md := make(metadata.MD, len(all))
	for _, f := range all {
		md[f.Name] = append(md[f.Name], f.Value)
	}
	return md
}

// give makes what is kept the call's answer.
func (k *kept) give() error {
	u, answer := k.unary, k.part.Answer
	u.refusal, u.result = nil, policy.Result{}
	u.ended = u.client.now()
	m, ok := u.reply.(proto.Message)
	if !ok {
		return status.Errorf(codes.Internal, "the reply is a %T, which is no proto.Message", u.reply)
	}
	if err := proto.Unmarshal(answer.Body, m); err != nil {
		u.result.Code = policy.Internal
		return status.Errorf(codes.Internal, "what is kept is not a reply of %s: %v", u.method, err)
	}
	for _, o := range u.options {
		switch o := o.(type) {
		case grpc.HeaderCallOption:
			*o.HeaderAddr = fromFields(answer.Header)
		case grpc.TrailerCallOption:
			*o.TrailerAddr = fromFields(answer.Trailer)
		}
	}
	return nil
}

// refusedNow refuses a call that was not asked about yet.
func (u *unary) refusedNow(r *policy.Refusal) error {
	u.mu.Lock()
	u.refuse(r)
	u.mu.Unlock()
	return u.refused(r)
}

// refresh fetches in the background what its caller got a stale answer to. It
// ends by its timeout, or with the ClientConn.
func (u *unary) refresh(k *kept) {
	m := u.call.Method()
	d := m.Policy().Timeout
	if d <= 0 {
		d = refreshTimeout
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(u.ctx), d)
	next := &unary{method: u.method, request: proto.Clone(u.request.(proto.Message)), reply: u.reply.(proto.Message).ProtoReflect().New().Interface(), cc: u.cc, invoke: u.invoke}
	next.client, next.door, next.ctx, next.balanced, next.waits = u.client, next, ctx, u.balanced, u.waits
	for _, o := range u.options {
		switch o.(type) {
		case grpc.HeaderCallOption, grpc.TrailerCallOption, grpc.PeerCallOption, grpc.OnFinishCallOption:
		default:
			next.options = append(next.options, o)
		}
	}
	part := &kept{cache: k.cache, part: k.part.Refresh(), unary: next}
	part.part.Owner = part
	go func() {
		defer cancel()
		now := next.client.now()
		next.begin(m, now, policy.Arrival{Metadata: next, Criticality: policy.Sheddable})
		next.prepareOptions()
		next.record(part)
		next.run(now)
		_ = next.answer() // the cache has heard of it
		next.end()
	}()
}

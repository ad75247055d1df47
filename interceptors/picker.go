package interceptors

import (
	"fmt"
	"math/rand/v2"
	"strconv"

	"google.golang.org/grpc/balancer"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	endpoints "github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// failing is a picker for a ClientConn whose name can't be resolved.
type failing struct{ err error }

// Pick implements balancer.Picker.
func (f failing) Pick(balancer.PickInfo) (balancer.PickResult, error) {
	return balancer.PickResult{}, f.err
}

// picker knows the connections as they were at one moment.
type picker struct {
	connections *connections
	client      *Client
	foreign     *endpoints.Picker
	set         *endpoints.Set
	conns       map[*endpoints.Endpoint]conn
	overall     connectivity.State
	problem     error
}

// Pick implements balancer.Picker. For a call of the Client the core picks; for
// any other the balancing policy alone does.
func (p *picker) Pick(info balancer.PickInfo) (balancer.PickResult, error) {
	if p.client.service.Endpoints() != p.set {
		p.connections.catchUp()
	}
	if p.overall == connectivity.Connecting {
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	if a, ok := info.Ctx.Value(attemptKey{}).(*attempt); ok && a.life.client.service == p.client.service {
		return a.pick(p)
	}
	return p.pickForeign()
}

// pickForeign serves an RPC that is none of the Client's, such as a health
// check.
func (p *picker) pickForeign() (balancer.PickResult, error) {
	e := p.foreign.Pick(p.set, endpoints.Ask{Now: p.client.now(), Rnd: rand.Uint64()})
	if e == nil {
		return balancer.PickResult{}, p.none()
	}
	c, known := p.conns[e]
	switch {
	case !known || c.state != connectivity.Ready && c.failed == nil:
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	case c.state != connectivity.Ready:
		return balancer.PickResult{}, c.failed
	}
	e.Begin()
	return balancer.PickResult{SubConn: c.sub, Done: func(info balancer.DoneInfo) {
		// How long it took says nothing: it may be a stream.
		now := p.client.now()
		e.End(now, 0, status.Code(info.Err) == codes.Unavailable)
		if p.foreign.Reports() {
			if r, ok := loadReport(info.Trailer); ok {
				p.foreign.Report(e, now, r)
			}
		}
	}}, nil
}

// none says why there is no endpoint.
func (p *picker) none() error {
	if p.problem != nil {
		return fmt.Errorf("name resolver error: %w", p.problem)
	}
	return fmt.Errorf("service %s has no endpoint to take the call", p.client.service.Name())
}

// errOver is for an attempt that nobody waits for any more.
var errOver = status.Error(codes.Canceled, "the attempt is over")

// pick chooses the attempt's endpoint and waits for its connection: grpc-go
// asks again whenever the connections change. It also asks again where an
// endpoint provably did nothing with the attempt, which then is the core's to
// decide on.
func (a *attempt) pick(p *picker) (balancer.PickResult, error) {
	l := a.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if a.judged || l.over {
		return balancer.PickResult{}, errOver
	}
	now := l.client.now()
	if a.sent && !a.again(now) {
		return balancer.PickResult{}, errOver
	}
	if !a.core.Live() {
		if l.waits && p.overall == connectivity.TransientFailure && p.set.Len() > 0 {
			return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
		}
		if r := l.call.Pick(now, rand.Uint64(), &a.core); r != nil {
			if p.problem != nil && r.Reason == policy.NoEndpoints {
				r.Message += ": " + p.problem.Error()
			}
			a.refusal = r
			return balancer.PickResult{}, status.Error(codes.Code(r.Code()), r.Message)
		}
		a.began(now)
	}
	c, known := p.conns[a.core.Endpoint]
	switch {
	case !known:
		// New since this picker: the next one knows it.
		p.connections.catchUp()
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	case c.state == connectivity.Ready:
		a.sent = true
		return a.found(c.sub), nil
	case c.failed == nil || l.waits:
		return balancer.PickResult{}, balancer.ErrNoSubConnAvailable
	}
	address := a.core.Endpoint.Address()
	a.refusal, a.unreached = l.call.Refuse(policy.ConnectFailed, address, fmt.Sprintf("endpoint %s can't be reached: %v", address, c.failed)), true
	return balancer.PickResult{}, status.Error(codes.Unavailable, a.refusal.Message)
}

// found is the result of a pick.
func (a *attempt) found(sub balancer.SubConn) balancer.PickResult {
	result := balancer.PickResult{SubConn: sub}
	l := a.life
	if !l.repeats {
		if l.call.WantsLoad() {
			result.Done = a.heard
		}
		return result
	}
	if a.number == 1 && l.alarm != nil {
		result.Done = l.alarm.done
	} else {
		result.Done = a.heard
	}
	if n := l.counted - 1; n > 0 {
		result.Metadata = metadata.Pairs(previousHeader, strconv.Itoa(n))
	}
	return result
}

// again ends, in the core, what grpc-go sends again by itself, and reports
// whether it goes on.
func (a *attempt) again(now policy.Instant) bool {
	l := a.life
	address := a.core.Endpoint.Address()
	a.sent = false
	l.counted--
	e := policy.Ending{Result: policy.Result{Code: policy.Unavailable, Reason: policy.Draining}, Unprocessed: true}
	verdict := l.call.Finish(&a.core, now, e, rand.Uint64())
	if verdict.Action == policy.Again && verdict.At <= now {
		return true
	}
	a.judged = true // a retry, which waits, is another attempt
	l.arm(now)
	if verdict.Action == policy.Return {
		a.refusal = l.call.Refuse(policy.ConnectionLost, address, fmt.Sprintf("endpoint %s took none of the call before its connection ended", address))
		l.decide(a, policy.Refused(a.refusal), now)
	}
	return false
}

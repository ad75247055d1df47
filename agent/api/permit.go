package api

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// defaultLease is how long a permit may be out that has no other limit, and
	// maxLease the most that a caller may ask for.
	defaultLease = 30 * time.Second
	maxLease     = time.Hour
	// reportGrace is how long after a timeout the report of what it cut off may
	// be under way.
	reportGrace = time.Second
	// lookAgain is how soon a permit is looked at again that the core found not
	// due when it was.
	lookAgain = time.Millisecond
)

// standing is how far a permit is.
type standing uint8

const (
	over    standing = iota
	waiting          // to be let in
	held             // out: its report is due
	pausing          // its attempt failed, and the next begins later
)

// permit is one call's life as a caller of the API lives it: from the request
// for a permit to the report after which nothing follows. Its holder's lock
// guards it.
type permit struct {
	holder  *holder
	slot    uint32
	serial  uint64 // of the attempt under way
	call    policy.Call
	attempt policy.Attempt

	standing standing
	waited   bool // it was in a queue, whose other users may still know it
	noRetry  bool
	host     string        // whom it was given to; only of unary permits
	lease    time.Duration // what the caller asked for; 0: nothing
	limit    policy.Instant
	patience time.Duration // how long the caller waits for a slot; negative: as the policy says
	queued   policy.Instant
	renewed  policy.Instant // when the lease began

	due   policy.Instant
	place int // in the holder's list of what falls due

	// Where the answer goes: to the tag on the holder's stream, or to reply.
	tag   uint64
	reply chan answer
	next  *permit // in the holder's list of spare ones
}

// answer is what an operation comes to: a permit, a refusal, or neither where
// nothing follows.
type answer struct {
	permit  *outriggerv1.Permit
	refusal *policy.Refusal
}

// round is what one handling of operations shares: the time, and whom its ends
// let in. They are asked once the lock is given back, since most of them have
// other holders.
type round struct {
	now   policy.Instant
	woken []*policy.Waiter
}

// Wake implements policy.Waker: a slot may have come free.
func (p *permit) Wake() {
	t := p.holder.table
	r := round{now: t.now()}
	p.look(&r)
	t.wake(&r)
}

// look asks for a call that waits whether it may go on.
func (p *permit) look(r *round) {
	h := p.holder
	h.mu.Lock()
	defer h.mu.Unlock()
	if p.standing == waiting {
		p.admit(r)
		h.nudge()
	}
}

// begin takes the call's arrival.
func (p *permit) begin(r *round, service *policy.Service, q *outriggerv1.AcquireRequest) {
	method := q.GetMethod()
	if method == "" {
		method = "/"
	}
	arrival := policy.Arrival{
		Timeout: policy.NoTimeout, Criticality: criticalities[q.GetCriticality()], NoRetry: q.GetNoRetry(), Idempotent: q.GetIdempotent(), Owner: p,
	}
	if q.GetTimeout() != nil {
		arrival.Timeout = q.GetTimeout().AsDuration()
	}
	if m := q.GetMetadata(); len(m) > 0 {
		arrival.Metadata = metadata(m)
	}
	p.patience = -1
	if q.GetWait() != nil {
		p.patience = q.GetWait().AsDuration()
	}
	p.lease, p.noRetry = min(q.GetLease().AsDuration(), maxLease), arrival.NoRetry
	p.waited, p.queued, p.limit = false, 0, 0
	p.call.Begin(service.Method(method), r.now, arrival)
	rules := p.call.Method().Policy()
	if arrival.Timeout >= 0 {
		p.limit = r.now + arrival.Timeout
	}
	most := rules.Timeout
	if p.call.IsStream() {
		most = rules.Stream.MaxDuration
	}
	if most > 0 {
		p.limit = sooner(p.limit, r.now+most)
	}
	if q.GetMetadata()["outrigger-defer"] == "true" {
		p.refuse(r, p.call.Refuse(policy.NotDeferrable, "", "outrigger-defer: what a permit is for can't be kept for later; submit a task instead"))
		return
	}
	p.admit(r)
}

// metadata is what a caller says of its call.
type metadata map[string]string

// Get returns the value of a name, or "".
func (m metadata) Get(name string) string { return m[name] }

// sooner returns the earlier of two instants; zero is never.
func sooner(a, b policy.Instant) policy.Instant {
	if a == 0 || b != 0 && b < a {
		return b
	}
	return a
}

// admit asks whether the call is let in, for the first time or again.
func (p *permit) admit(r *round) {
	admission := p.call.Admit(r.now, rand.Uint64())
	r.woken = append(r.woken, p.call.Woken()...)
	switch {
	case admission.Refusal != nil:
		p.refuse(r, admission.Refusal)
	case admission.Wait:
		p.wait(r)
	default:
		p.try(r)
	}
}

// wait keeps a call that is not let in yet, for as long as its caller would.
func (p *permit) wait(r *round) {
	due := p.call.Expiry(nil)
	if fault := p.call.Fault(); p.patience >= 0 && r.now >= p.call.Start()+fault.Delay {
		// It is in a queue, and no injected delay holds it.
		if p.queued == 0 {
			p.queued = r.now
		}
		if r.now-p.queued >= p.patience {
			p.refuse(r, p.impatience())
			return
		}
		due = sooner(due, p.queued+p.patience)
	}
	if !p.waited || p.standing != waiting {
		p.standing, p.waited = waiting, true
		p.holder.expect(p)
	}
	p.arm(max(due, r.now+lookAgain))
}

// impatience is the answer to a caller that waits no longer.
func (p *permit) impatience() *policy.Refusal {
	name := p.call.Method().Service().Name()
	refusal := p.call.Refuse(policy.ConcurrencyLimit, "", fmt.Sprintf("%s has no free slot now, and the caller does not wait for one", name))
	if p.patience > 0 {
		refusal = p.call.Refuse(policy.QueueTimeout, "", fmt.Sprintf("%s had no free slot within the %v that the caller waits for one", name, p.patience))
	}
	refusal.Policy = "concurrency"
	refusal.RetryAfter = p.call.Method().Policy().Concurrency.QueueTimeout
	if refusal.RetryAfter == 0 {
		refusal.RetryAfter = policy.DefaultQueueTimeout
	}
	return refusal
}

// try begins an attempt: the permit is out from here on. Of a resource there is
// nothing to pick.
func (p *permit) try(r *round) {
	var refusal *policy.Refusal
	if p.call.Method().Service().Resource() {
		refusal = p.call.Send(r.now, rand.Uint64(), &p.attempt)
	} else {
		refusal = p.call.Pick(r.now, rand.Uint64(), &p.attempt)
	}
	if refusal != nil {
		p.refuse(r, refusal)
		return
	}
	p.holder.hand(p)
	p.standing, p.renewed = held, r.now
	p.arm(p.lapse())
	p.holder.give(r.now, p)
}

// lapse is when a permit that is out counts as failed.
func (p *permit) lapse() policy.Instant {
	end := policy.Instant(0)
	if p.limit != 0 {
		end = p.limit + reportGrace
	}
	if d := p.call.Method().Policy().PerTryTimeout; d > 0 && !p.call.IsStream() {
		end = sooner(end, p.attempt.Start()+d+reportGrace)
	}
	lease := p.lease
	if lease == 0 {
		if lease = maxLease; end == 0 {
			lease = defaultLease
		}
	}
	return sooner(end, p.renewed+lease)
}

// renew begins the lease anew.
func (p *permit) renew(r *round, lease time.Duration) {
	if lease > 0 {
		p.lease = min(lease, maxLease)
	}
	p.renewed = r.now
	p.call.Touch(r.now)
	p.arm(p.lapse())
}

// report takes how the attempt ended. followed says that the caller would make
// another one.
func (p *permit) report(r *round, q *outriggerv1.ReportRequest, followed bool) {
	end := r.now
	if q.GetLatency() != nil {
		end = min(end, p.attempt.Start()+q.GetLatency().AsDuration())
	}
	ending := p.ending(r.now, q)
	ending.Committed = q.GetFinal() || !followed
	p.holder.note(p.serial, wasReported)
	if l := q.GetLoadReport(); l != nil && p.call.WantsLoad() {
		p.call.ReportLoad(&p.attempt, end, balancer.LoadReport{
			QPS: l.GetRpsFractional(), EPS: l.GetEps(), ApplicationUtilization: l.GetApplicationUtilization(), CPUUtilization: l.GetCpuUtilization(),
		})
	}
	verdict := p.call.Finish(&p.attempt, end, ending, rand.Uint64())
	if verdict.Action != policy.Again {
		p.end(r, ending.Result)
		p.deliver(answer{})
		return
	}
	p.standing = pausing
	p.holder.expect(p)
	p.arm(verdict.At)
	if verdict.At <= r.now {
		p.resume(r)
	}
}

// ending says what a report means to the core.
func (p *permit) ending(now policy.Instant, q *outriggerv1.ReportRequest) policy.Ending {
	e := policy.Ending{Result: policy.Result{Code: policy.Code(q.GetCode())}}
	if d := q.GetPushback(); d != nil {
		// None at all is not the same as 0, which is "at once".
		if e.Pushback = max(d.AsDuration(), 1); d.AsDuration() < 0 {
			e.Pushback = policy.NoMore
		}
	}
	switch {
	case q.GetProgress() == outriggerv1.Progress_UNREACHED:
		e.Unreached, e.Reason = true, policy.ConnectFailed
	case q.GetProgress() == outriggerv1.Progress_UNPROCESSED:
		e.Unprocessed, e.Reason = true, policy.Draining
	case q.GetProgress() == outriggerv1.Progress_LOST:
		e.Reason = policy.ConnectionLost
	case e.Code == policy.Canceled:
		e.Reason = policy.CallerCanceled
	case e.Code == policy.DeadlineExceeded:
		// Whose deadline it was the caller can't tell: it has them all in one.
		if refusal := p.expired(now); refusal != nil {
			e.Reason = refusal.Reason
		}
	}
	return e
}

// expired returns the refusal of what is over at now, or nil: the call, else
// the attempt.
func (p *permit) expired(now policy.Instant) *policy.Refusal {
	if p.limit != 0 && p.limit < now {
		now = p.limit // what ended the call is what was over first
	}
	if refusal := p.call.Expire(now, &p.attempt); refusal != nil {
		return refusal
	}
	return p.call.ExpireAttempt(now, &p.attempt)
}

// overdue handles what has fallen due.
func (p *permit) overdue(r *round) {
	switch p.standing {
	case waiting:
		if refusal := p.call.Expire(r.now, nil); refusal != nil {
			p.refuse(r, refusal)
			return
		}
		p.admit(r)
	case pausing:
		p.resume(r)
	case held:
		p.lose(r)
	}
}

// resume begins the attempt that was planned.
func (p *permit) resume(r *round) {
	switch refusal := p.call.Expire(r.now, nil); {
	case refusal != nil:
		p.refuse(r, refusal)
	case p.call.Due(r.now, true) == policy.Another:
		p.try(r)
	default:
		p.arm(r.now + lookAgain)
	}
}

// lose ends a call whose permit was not reported in time.
func (p *permit) lose(r *round) {
	refusal := p.expired(r.now)
	if refusal == nil {
		address := ""
		if p.attempt.Endpoint != nil {
			address = p.attempt.Endpoint.Address()
		}
		refusal = p.call.Refuse(policy.Timeout, address, fmt.Sprintf("the permit was not reported within its lease of %v", r.now-p.renewed))
	}
	result := policy.Refused(refusal)
	p.holder.note(p.serial, hasLapsed)
	p.call.Settle(&p.attempt, r.now, result, rand.Uint64())
	p.end(r, result)
}

// abandon ends a call whose caller is gone.
func (p *permit) abandon(r *round) {
	given := policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}
	if p.standing == held {
		p.holder.note(p.serial, wasGivenUp)
		p.call.Settle(&p.attempt, r.now, given, rand.Uint64())
	}
	p.end(r, given)
}

// refuse ends a call with a refusal, and says so.
func (p *permit) refuse(r *round, refusal *policy.Refusal) {
	p.end(r, policy.Refused(refusal))
	p.deliver(answer{refusal: refusal})
}

// end records the call and takes the permit out of its holder's hands.
func (p *permit) end(r *round, result policy.Result) {
	r.woken = append(r.woken, p.call.End(r.now, result, rand.Uint64())...)
	p.standing = over
	p.holder.release(p)
}

// attemptsLeft says how many attempts may follow at most.
func (p *permit) attemptsLeft() uint32 {
	rules := p.call.Method().Policy()
	if p.noRetry || p.call.IsStream() || rules.Retry.Mode != policy.Enforce {
		return 0
	}
	return uint32(max(rules.Retry.MaxAttempts-p.call.Previous()-1, 0))
}

package api

import (
	"container/heap"
	"fmt"
	"sync"

	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// remembered is how many of its latest permits a holder knows the end of.
const remembered = 1024

// fate is how a permit ended.
type fate uint8

const (
	wasReported fate = iota + 1
	hasLapsed
	wasGivenUp
)

// ended is a permit that is over.
type ended struct {
	serial uint64
	fate   fate
}

// holder is whom permits are given to: a Guard stream, or all callers of
// Acquire together. Its lock guards its permits; no two holders' locks are ever
// held at once.
type holder struct {
	table  *permits
	number uint32
	shared bool // all callers of Acquire

	mu        sync.Mutex
	seal      *seal
	serial    uint64    // of the latest permit
	slots     []*permit // nil: free
	freeSlots []uint32
	spare     *permit
	due       dueList
	expected  map[uint64]*permit // whose answer comes later, by tag
	past      []ended            // by serial modulo remembered
	gone      bool

	// Answers for the stream, and those with a permit in them that may be used
	// again. room is signalled when out was taken.
	out  []*outriggerv1.GuardAnswer
	used []*outriggerv1.GuardAnswer
	room *sync.Cond
	wake chan struct{}
}

func newHolder(t *permits, number uint32, shared bool) *holder {
	h := &holder{table: t, number: number, shared: shared, seal: newSeal(t.key), expected: make(map[uint64]*permit), wake: make(chan struct{}, 1)}
	h.room = sync.NewCond(&h.mu)
	return h
}

// acquire begins a call, or says why not. reply is where the answer goes; nil:
// to the tag.
func (h *holder) acquire(r *round, q *outriggerv1.AcquireRequest, tag uint64, reply chan answer, host string) *permit {
	service, refusal := h.table.admit(h, q)
	if refusal != nil {
		h.answer(tag, reply, answer{refusal: refusal})
		return nil
	}
	p := h.spare
	if p == nil {
		p = &permit{holder: h}
	} else {
		h.spare, p.next = p.next, nil
	}
	if n := len(h.freeSlots); n > 0 {
		p.slot, h.freeSlots = h.freeSlots[n-1], h.freeSlots[:n-1]
	} else {
		p.slot = uint32(len(h.slots))
		h.slots = append(h.slots, nil)
	}
	h.slots[p.slot] = p
	p.place, p.tag, p.reply, p.host = nowhere, tag, reply, host
	p.begin(r, service, q)
	return p
}

// report takes the end of an attempt. With neither tag nor reply nothing
// follows it, and nobody hears of a mistake in it.
func (h *holder) report(r *round, q *outriggerv1.ReportRequest, tag uint64, reply chan answer, host string) *permit {
	p, refusal := h.find(q.GetPermitId(), host)
	if refusal != nil {
		h.answer(tag, reply, answer{refusal: refusal})
		return nil
	}
	p.tag, p.reply = tag, reply
	p.report(r, q, tag != 0 || reply != nil)
	return p
}

// renew makes a lease longer.
func (h *holder) renew(r *round, q *outriggerv1.GuardRenewal) {
	p, refusal := h.find(q.GetPermitId(), "")
	if refusal == nil {
		p.renew(r, q.GetLease().AsDuration())
	}
	h.answer(q.GetTag(), nil, answer{refusal: refusal})
}

// cancel gives up what is still waited for under a tag.
func (h *holder) cancel(r *round, tag uint64) {
	p := h.expected[tag]
	if p == nil {
		return
	}
	name := p.call.Method().Service().Name()
	p.abandon(r)
	h.answer(tag, nil, answer{refusal: &policy.Refusal{Reason: policy.CallerCanceled, Service: name, Message: "the caller gave up before its permit came"}})
}

// find returns the permit that is out under an id, or says what is wrong with
// the id.
func (h *holder) find(id []byte, host string) (*permit, *policy.Refusal) {
	k, ok := h.seal.open(id)
	switch {
	case !ok:
		return nil, mistake(policy.InvalidArgument, fmt.Sprintf("a permit_id has %d bytes; this one has %d", idSize, len(id)))
	case !h.table.issued(k.holder):
		return nil, neverGiven(id)
	case k.holder != h.number:
		return nil, mistake(policy.PermissionDenied, fmt.Sprintf("permit %x is somebody else's: report it where it was acquired, on the same stream or by Report after Acquire", id))
	case k.serial == 0 || k.serial > h.serial || int(k.slot) >= len(h.slots):
		return nil, neverGiven(id)
	}
	p := h.slots[k.slot]
	if p == nil || p.serial != k.serial || p.standing != held {
		return nil, h.epitaph(id, k.serial)
	}
	if p.host != host {
		return nil, mistake(policy.PermissionDenied, fmt.Sprintf("permit %x was acquired from another address, %s", id, p.host))
	}
	return p, nil
}

// epitaph says how a permit ended.
func (h *holder) epitaph(id []byte, serial uint64) *policy.Refusal {
	how := fmt.Sprintf("is over: it was reported, or its lease ended, more than %d permits ago", remembered)
	if i := serial % remembered; i < uint64(len(h.past)) && h.past[i].serial == serial {
		switch h.past[i].fate {
		case wasReported:
			how = "was reported already"
		case hasLapsed:
			how = "was not reported within its lease: it counted as failed, and what it held is free"
		case wasGivenUp:
			how = "was given up by its caller"
		}
	}
	return mistake(policy.FailedPrecondition, fmt.Sprintf("permit %x %s", id, how))
}

func neverGiven(id []byte) *policy.Refusal {
	return mistake(policy.NotFound, fmt.Sprintf("permit %x was never given: ids come from Acquire and Guard, and an agent that was started anew knows none of those before", id))
}

// mistake is the answer to an operation that is wrong.
func mistake(code policy.Code, message string) *policy.Refusal {
	return &policy.Refusal{Status: code, Message: message}
}

// note remembers how the permit of a serial ended.
func (h *holder) note(serial uint64, f fate) {
	i := serial % remembered
	for uint64(len(h.past)) <= i {
		h.past = append(h.past, ended{})
	}
	h.past[i] = ended{serial, f}
}

// hand makes the permit one that may be reported.
func (h *holder) hand(p *permit) {
	h.serial++
	p.serial = h.serial
	if p.tag != 0 && len(h.expected) > 0 {
		delete(h.expected, p.tag)
	}
}

// expect remembers that the permit's answer comes later.
func (h *holder) expect(p *permit) {
	if p.tag != 0 {
		h.expected[p.tag] = p
	}
}

// release takes back a permit that is over.
func (h *holder) release(p *permit) {
	p.disarm()
	if p.tag != 0 && len(h.expected) > 0 && h.expected[p.tag] == p {
		delete(h.expected, p.tag)
	}
	h.slots[p.slot] = nil
	h.freeSlots = append(h.freeSlots, p.slot)
	h.table.left()
	if !p.waited && !h.shared {
		// Whom a queue knew must not become another call: an End that was under
		// way may still name it.
		p.next, h.spare = h.spare, p
	}
}

// arm sets when something falls due for the permit.
func (p *permit) arm(due policy.Instant) {
	h := p.holder
	p.due = due
	if p.place == nowhere {
		heap.Push(&h.due, p)
	} else {
		heap.Fix(&h.due, p.place)
	}
	h.table.alarm.set(due)
}

func (p *permit) disarm() {
	if p.place != nowhere {
		heap.Remove(&p.holder.due, p.place)
	}
}

// expire handles what has fallen due, and returns when the next thing does.
func (h *holder) expire(r *round) policy.Instant {
	h.mu.Lock()
	defer h.mu.Unlock()
	for len(h.due) > 0 && h.due[0].due <= r.now {
		p := h.due[0]
		p.overdue(r)
		if p.place != nowhere && p.due <= r.now {
			p.arm(r.now + lookAgain) // whatever it was, it must not hold the others up
		}
	}
	h.nudge()
	if len(h.due) == 0 {
		return 0
	}
	return h.due[0].due
}

// leave gives up every permit: their caller is gone.
func (h *holder) leave(r *round) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.gone = true
	for _, p := range h.slots {
		if p != nil {
			p.tag = 0
			p.abandon(r)
		}
	}
	h.room.Broadcast()
}

// busy is how many permits are out or waited for.
func (h *holder) busy() int { return len(h.slots) - len(h.freeSlots) }

// give answers with the permit that is out now.
func (h *holder) give(now policy.Instant, p *permit) {
	if p.reply != nil {
		method := p.call.Method()
		v := &outriggerv1.Permit{Service: method.Service().Name(), Method: text(method.Name()), Lease: &durationpb.Duration{}}
		h.fill(now, v, p)
		p.reply <- answer{permit: v}
		return
	}
	var a *outriggerv1.GuardAnswer
	if n := len(h.used); n > 0 {
		a, h.used = h.used[n-1], h.used[:n-1]
	} else {
		a = &outriggerv1.GuardAnswer{Permit: &outriggerv1.Permit{Lease: &durationpb.Duration{}}}
	}
	a.Tag = p.tag
	h.fill(now, a.GetPermit(), p)
	h.out = append(h.out, a)
}

// take returns the answers that are due, in to, whose own may be used again.
func (h *holder) take(to []*outriggerv1.GuardAnswer) []*outriggerv1.GuardAnswer {
	h.mu.Lock()
	defer h.mu.Unlock()
	for i, a := range to {
		if a.GetPermit() != nil && len(h.used) < maxBatch {
			h.used = append(h.used, a)
		}
		to[i] = nil
	}
	out := h.out
	h.out = to[:0]
	h.room.Signal()
	return out
}

// fill writes what the caller is told of a permit.
func (h *holder) fill(now policy.Instant, v *outriggerv1.Permit, p *permit) {
	v.Id = h.seal.append(v.GetId()[:0], permitID{h.number, p.slot, p.serial})
	v.Endpoint = ""
	if e := p.attempt.Endpoint; e != nil {
		v.Endpoint = e.Address()
	}
	setDuration(v.GetLease(), int64(p.due-now))
	v.Timeout, v.TryTimeout = nil, nil
	if p.limit != 0 {
		v.Timeout = durationpb.New(p.limit - now)
	}
	if d := p.call.Method().Policy().PerTryTimeout; d > 0 && !p.call.IsStream() {
		v.TryTimeout = durationpb.New(d)
	}
	v.Attempt, v.AttemptsLeft, v.PreviousAttempts = uint32(p.call.Attempts()), p.attemptsLeft(), uint32(p.call.Previous())
}

func setDuration(d *durationpb.Duration, nanos int64) {
	d.Seconds, d.Nanos = nanos/1e9, int32(nanos%1e9)
}

// deliver answers the operation that the permit's call waits with.
func (p *permit) deliver(a answer) { p.holder.answer(p.tag, p.reply, a) }

// answer answers an operation: at reply, or under its tag, or not at all.
func (h *holder) answer(tag uint64, reply chan answer, a answer) {
	switch {
	case reply != nil:
		reply <- a // it has room for the one answer
	case tag != 0:
		g := &outriggerv1.GuardAnswer{Tag: tag}
		if a.refusal != nil {
			g.Refusal = showRefusal(a.refusal)
		}
		h.out = append(h.out, g)
	}
}

// nudge tells the stream that there are answers, or that it may end.
func (h *holder) nudge() {
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

func showRefusal(r *policy.Refusal) *outriggerv1.Refusal {
	v := &outriggerv1.Refusal{
		Code: int32(r.Code()), Reason: r.Reason.String(), Message: text(r.Message), Service: text(r.Service), Endpoint: r.Endpoint, Policy: r.Policy,
	}
	if r.RetryAfter > 0 {
		v.RetryDelay = durationpb.New(r.RetryAfter)
	}
	return v
}

package api

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// maxPermits bounds the permits that are out or waited for, of all callers
	// together, and maxOfStream those of one stream: at most about 1 KiB each.
	maxPermits  = 65536
	maxOfStream = 16384
	// maxGuards bounds the Guard streams.
	maxGuards = 64
	// drainRetryAfter is the advice to callers whose agent shuts down: about
	// what a restart takes.
	drainRetryAfter = time.Second
	// servicesFor is how long the services are known by name before the agent is
	// asked again.
	servicesFor = 100 * time.Millisecond
)

// permits is every permit that is out or waited for, by holder.
type permits struct {
	server *Server
	now    func() policy.Instant
	key    []byte
	alarm  alarm

	outstanding atomic.Int64
	draining    atomic.Bool
	drained     broadcast // a permit of a draining server is over
	latest      atomic.Uint32
	directory   atomic.Pointer[directory]

	mu      sync.Mutex
	holders map[uint32]*holder // by number
	callers *holder            // those of Acquire
}

// directory is the services by name, as they were at an instant.
type directory struct {
	at     policy.Instant
	byName map[string]*policy.Service
}

func newPermits(s *Server) *permits {
	t := &permits{server: s, now: s.now, key: newKey(), holders: make(map[uint32]*holder)}
	t.alarm.now, t.alarm.ring = s.now, t.expire
	t.callers = t.add(true)
	return t
}

func (t *permits) add(shared bool) *holder {
	h := newHolder(t, t.latest.Add(1), shared)
	t.holders[h.number] = h
	return h
}

// issued reports whether there has been a holder of that number.
func (t *permits) issued(number uint32) bool { return number != 0 && number <= t.latest.Load() }

// join makes a holder for a stream.
func (t *permits) join() (*holder, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.draining.Load() {
		return nil, refusalError(t.drainRefusal(""))
	}
	if len(t.holders) > maxGuards {
		return nil, status.Errorf(codes.ResourceExhausted, "%d Guard streams are open already, and no more are allowed; one stream carries the permits of a whole process", maxGuards)
	}
	return t.add(false), nil
}

// leave frees what a holder has.
func (t *permits) leave(h *holder) {
	t.mu.Lock()
	delete(t.holders, h.number)
	t.mu.Unlock()
	r := round{now: t.now()}
	h.leave(&r)
	t.wake(&r)
}

// all returns the holders, in no order.
func (t *permits) all() []*holder {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]*holder, 0, len(t.holders))
	for _, h := range t.holders {
		all = append(all, h)
	}
	return all
}

// wake asks those again whom ends let in, in the order in which they were let
// in. No holder's lock may be held.
func (t *permits) wake(r *round) {
	for i := 0; i < len(r.woken); i++ {
		switch owner := r.woken[i].Owner.(type) {
		case *permit:
			owner.look(r)
		case policy.Waker: // a call through the relay
			owner.Wake()
		}
	}
	clear(r.woken)
	r.woken = r.woken[:0]
}

// expire handles what has fallen due, of every holder.
func (t *permits) expire() {
	r := round{now: t.now()}
	next := policy.Instant(0)
	for _, h := range t.all() {
		next = sooner(next, h.expire(&r))
	}
	t.wake(&r)
	if next != 0 {
		t.alarm.set(next)
	}
}

// admit returns the service that a permit is asked for, and counts the permit,
// or says why there is none.
func (t *permits) admit(h *holder, q *outriggerv1.AcquireRequest) (*policy.Service, *policy.Refusal) {
	service, refusal := t.service(q.GetService())
	if refusal != nil {
		return nil, refusal
	}
	n := t.outstanding.Add(1) // before draining is looked at: a drain sees the one or the other
	switch {
	case t.draining.Load():
		refusal = t.drainRefusal(service.Name())
	case !h.shared && h.busy() >= maxOfStream:
		refusal = tooMany(service.Name(), maxOfStream, "of this stream")
	case n > maxPermits:
		refusal = tooMany(service.Name(), maxPermits, "of all callers")
	default:
		return service, nil
	}
	t.left()
	return nil, refusal
}

// left counts a permit that is over.
func (t *permits) left() {
	t.outstanding.Add(-1)
	if t.draining.Load() {
		t.drained.signal()
	}
}

func tooMany(service string, n int, of string) *policy.Refusal {
	return &policy.Refusal{
		Reason: policy.ConcurrencyLimit, Service: service, Policy: "permits", RetryAfter: policy.DefaultQueueTimeout,
		Message: fmt.Sprintf("%d permits %s are out or waited for already, and the agent keeps no more; report those that are done with", n, of),
	}
}

func (t *permits) drainRefusal(service string) *policy.Refusal {
	return &policy.Refusal{Reason: policy.Draining, Service: service, Message: "the agent is shutting down", RetryAfter: drainRetryAfter}
}

// service returns a service by its name. The agent is asked at most every
// servicesFor, but for names that are not known.
func (t *permits) service(name string) (*policy.Service, *policy.Refusal) {
	d := t.directory.Load()
	if now := t.now(); d == nil || now-d.at > servicesFor || d.byName[name] == nil {
		d = &directory{at: now, byName: make(map[string]*policy.Service)}
		for _, s := range t.server.agent.Services() {
			d.byName[s.Name()] = s
		}
		t.directory.Store(d)
	}
	if s := d.byName[name]; s != nil {
		return s, nil
	}
	_, err := t.server.services(name)
	return nil, mistake(policy.NotFound, status.Convert(err).Message())
}

// drain refuses new permits, ends the streams that have none, and waits for
// those that are out until ctx ends.
func (t *permits) drain(ctx context.Context) error {
	t.draining.Store(true)
	for {
		next := t.drained.next() // before the look: none goes unseen
		for _, h := range t.all() {
			h.nudge()
		}
		n := t.outstanding.Load()
		if n == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d permits were not reported", n)
		case <-next:
		}
	}
}

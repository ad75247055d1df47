package interceptors

import (
	"context"
	"math/rand/v2"
	"sync"

	"github.com/outrigger-rpc/outrigger/policy"
)

// door is what a call comes through: it knows what is sent and how an answer
// reads. Every method but send is called under the life's lock.
type door interface {
	// start begins an attempt in the core, or leaves that to the balancer.
	start(a *attempt, now policy.Instant) *policy.Refusal
	// send sends an attempt and returns once it is over.
	send(a *attempt)
	// judge says how an attempt ended that was sent.
	judge(a *attempt) policy.Ending
	// ready reports whether the request can be sent beside an attempt under way.
	ready() bool
	// overrun hears, after the call was decided, that the alarm rang.
	overrun(now policy.Instant)
}

// life drives one call through the core. The goroutine that called runs it
// (run); hedges have goroutines of their own; the alarm rings on another. What
// they share is under mu.
//
// An attempt that another one overtook, or whose time is over, is judged at
// once and cancelled; when its goroutine returns there is nothing left to say.
type life struct {
	client   *Client
	door     door
	ctx      context.Context // the caller's
	deadline policy.Instant  // the caller's; 0: none
	balanced bool            // the balancer picks
	waits    bool            // the caller waits for a connection (grpc.WaitForReady)
	repeats  bool            // there may be a retry or a hedge
	severs   bool            // an attempt may have to be cancelled before the caller's context is
	deferred bool            // the caller asks for it to be kept for later

	mu      sync.Mutex
	call    policy.Call
	first   attempt
	later   []*attempt // the attempts after it
	counted int        // attempts that an endpoint may have processed
	alarm   *alarm     // nil: nothing falls due but the caller's deadline
	alarmAt policy.Instant
	wake    chan struct{} // of room for one; nil until somebody waits
	parked  bool          // the caller's goroutine waits on wake
	over    bool          // what follows is the call's
	won     *attempt      // whose answer it is; nil: none
	refusal *policy.Refusal
	result  policy.Result
	ended   policy.Instant // when it was over

	hedges sync.WaitGroup
}

// begin takes the arrival of a unary call.
func (l *life) begin(m *policy.Method, now policy.Instant, a policy.Arrival) {
	l.arrive(m, now, a)
	p := m.Policy()
	retries := !a.NoRetry && p.Retry.MaxAttempts > 1 && p.Retry.Mode != policy.Off
	hedges := !a.NoRetry && p.Hedge.MaxAttempts > 1 && p.Hedge.Mode != policy.Off
	l.repeats = retries || hedges
	l.severs = hedges || p.Timeout > 0 || p.PerTryTimeout > 0
}

// arrive takes the arrival of any call.
func (l *life) arrive(m *policy.Method, now policy.Instant, a policy.Arrival) {
	a.Timeout = allowance(l.ctx)
	a.Owner = l
	if a.Timeout >= 0 {
		l.deadline = now + a.Timeout
	}
	// Calls drive what falls due of the endpoints: a Client has no goroutine for
	// that, and without calls nobody waits for an endpoint to come back.
	m.Service().Sweep(now, rand.Uint64())
	l.call.Begin(m, now, a)
}

// run makes the call, which arrived just now. Afterwards the call wants its end.
func (l *life) run(now policy.Instant) {
	if !l.admit(now) {
		return
	}
	l.attempt(l.next(), now)
	for a := l.follow(); a != nil; a = l.follow() {
		l.attempt(a, l.client.now())
	}
	if l.later != nil {
		l.hedges.Wait()
	}
}

// admit lets the call in, waiting where it has to.
func (l *life) admit(now policy.Instant) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if refusal := l.notDeferrable(); refusal != nil {
		l.refuse(refusal)
		return false
	}
	for {
		admission := l.call.Admit(now, rand.Uint64())
		if moved := l.call.Woken(); moved != nil {
			l.mu.Unlock()
			policy.Wake(moved)
			l.mu.Lock()
		}
		if admission.Refusal != nil {
			l.refuse(admission.Refusal)
			return false
		}
		if !admission.Wait {
			if l.alarm == nil && (l.severs || l.repeats) {
				l.alarm = takeAlarm(l)
			}
			return true
		}
		l.park(now)
		now = l.client.now()
		if l.ctx.Err() != nil {
			l.abandoned(now)
			return false
		}
		if r := l.call.Expire(now, nil); r != nil {
			l.refuse(r)
			return false
		}
	}
}

// park waits until something is to be looked at. l.mu is held, and not while it
// waits.
func (l *life) park(now policy.Instant) {
	if l.wake == nil {
		l.wake = make(chan struct{}, 1)
	}
	if l.alarm == nil {
		l.alarm = takeAlarm(l)
	}
	l.parked = true
	l.arm(now)
	var gone <-chan struct{}
	if l.call.InFlight() == 0 {
		gone = l.ctx.Done() // attempts under way end with it by themselves
	}
	l.mu.Unlock()
	select {
	case <-l.wake:
	case <-gone:
	}
	l.mu.Lock()
	l.parked = false
}

// rouse wakes the caller's goroutine, or keeps it from waiting next. l.mu is
// held.
func (l *life) rouse() {
	if l.wake == nil {
		l.wake = make(chan struct{}, 1)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// follow waits, on the caller's goroutine, until the call is over or an attempt
// is to be sent from here.
func (l *life) follow() *attempt {
	l.mu.Lock()
	defer l.mu.Unlock()
	for !l.over {
		now := l.client.now()
		if l.look(now) {
			return l.add(true)
		}
		if l.over {
			break
		}
		if l.call.InFlight() == 0 && l.ctx.Err() != nil {
			l.abandoned(now)
			break
		}
		l.park(now)
	}
	return nil
}

// look asks the core what is over and what is due, and reports whether another
// attempt is. l.mu is held.
func (l *life) look(now policy.Instant) (another bool) {
	if r := l.call.Expire(now, l.current()); r != nil {
		l.each(func(a *attempt) {
			if a.core.Live() {
				l.call.Settle(&a.core, now, policy.Refused(r), rand.Uint64())
			}
		})
		l.refuse(r)
		return false
	}
	l.each(func(a *attempt) {
		if l.over || a.judged {
			return
		}
		if r := l.call.ExpireAttempt(now, &a.core); r != nil {
			a.refusal = r
			a.sever()
			l.conclude(a, policy.Ending{Result: policy.Refused(r)}, now)
		}
	})
	return !l.over && l.call.Due(now, l.door.ready()) == policy.Another
}

// current returns the last attempt under way, or nil.
func (l *life) current() *policy.Attempt {
	var last *policy.Attempt
	l.each(func(a *attempt) {
		if a.core.Live() {
			last = &a.core
		}
	})
	return last
}

// each visits the attempts in the order in which they were made.
func (l *life) each(visit func(*attempt)) {
	if l.first.life != nil {
		visit(&l.first)
	}
	for _, a := range l.later {
		visit(a)
	}
}

// conclude tells the core how an attempt ended and does what follows. l.mu is
// held.
func (l *life) conclude(a *attempt, e policy.Ending, now policy.Instant) {
	if a.judged || l.over {
		return
	}
	a.judged = true
	if !a.core.Live() {
		// It never went out. What else is under way may do better.
		if l.call.InFlight() == 0 {
			l.decide(a, e.Result, now)
		}
		return
	}
	if e.Unreached || e.Unprocessed {
		l.counted--
	}
	switch l.verdict(a, e, now) {
	case policy.Return:
		l.decide(a, e.Result, now)
	case policy.Again:
		if l.parked {
			l.rouse()
		}
		l.arm(now)
	case policy.Await:
		l.arm(now) // a failure may bring the next hedge on
	}
}

// verdict asks what follows an attempt. Where the head of an answer is here and
// its body is not, the attempt goes on if the answer is the call's.
func (l *life) verdict(a *attempt, e policy.Ending, now policy.Instant) policy.Action {
	if a.response == nil {
		return l.call.Finish(&a.core, now, e, rand.Uint64()).Action
	}
	verdict := l.call.Judge(&a.core, now, e, rand.Uint64())
	if a.lingers = verdict.Action == policy.Return; a.lingers {
		l.call.Answered() // no hedge is due any more while the answer is read
	} else {
		l.call.Settle(&a.core, now, e.Result, rand.Uint64())
	}
	return verdict.Action
}

// decide makes an attempt's answer the call's. The others are given up. l.mu is
// held.
func (l *life) decide(a *attempt, r policy.Result, now policy.Instant) {
	l.won, l.refusal, l.result = a, a.refusal, r
	l.finished(now)
}

// refuse makes a refusal the call's answer. l.mu is held.
func (l *life) refuse(r *policy.Refusal) {
	l.refusal, l.result = r, policy.Refused(r)
	l.finished(l.client.now())
}

// abandoned ends a call whose caller is gone. l.mu is held.
func (l *life) abandoned(now policy.Instant) {
	if r := l.late(now); r != nil {
		l.refuse(r)
		return
	}
	l.result = policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}
	l.finished(now)
}

// late returns what ends a call whose caller's deadline is over, or nil where
// it is not. The context's clock and ours are read one after the other.
func (l *life) late(now policy.Instant) *policy.Refusal {
	if l.ctx.Err() != context.DeadlineExceeded {
		return nil
	}
	return l.call.Expire(max(now, l.deadline), l.current())
}

// finished gives up every attempt whose answer nobody waits for any more.
func (l *life) finished(now policy.Instant) {
	l.over, l.ended = true, now
	l.first.giveUp(now)
	for _, a := range l.later {
		a.giveUp(now)
	}
	if l.parked {
		l.rouse()
	}
}

// end records the call, once nothing of it is under way.
func (l *life) end() {
	l.mu.Lock()
	if l.alarm != nil {
		l.alarm.release(l.alarmAt != 0)
		l.alarm = nil
	}
	woken := l.call.End(l.ended, l.result, rand.Uint64())
	l.mu.Unlock()
	policy.Wake(woken)
}

// Wake implements policy.Waker.
func (l *life) Wake() {
	l.mu.Lock()
	l.rouse()
	l.mu.Unlock()
}

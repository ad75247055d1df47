// Package breaker is a circuit breaker: it stops calls to what keeps failing,
// and finds out by few probes when it is back.
//
//	         failures reach a threshold
//	CLOSED ─────────────────────────────▶ OPEN ◀──┐
//	   ▲                                    │      │ a probe fails or expires
//	   │ HalfOpenProbes probes succeed      │ open time is over
//	   └───────────────────────── HALF_OPEN ◀┘─────┘
//
// Each call asks Acquire and reports its end:
//
//	permit, refusal, ok := b.Acquire(now, rand.Uint64())
//	if !ok { return refusal }
//	…
//	b.Report(permit, now, breaker.Failure, latency, rand.Uint64())
//
// The package reads no clock and starts no goroutine: the open time is over
// when a call comes that asks for it. While the breaker is closed, Acquire and
// a successful Report take no lock.
package breaker

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// Instant is a monotonic time since an origin of the caller's choice; all
// instants given to one breaker share that origin.
type Instant = time.Duration

// State is what a breaker does with calls.
type State uint8

// The states.
const (
	// Closed lets every call through.
	Closed State = iota
	// Open refuses every call.
	Open
	// HalfOpen lets a fixed number of probes through.
	HalfOpen
)

// String returns the state's public name.
func (s State) String() string {
	switch s {
	case Closed:
		return "CLOSED"
	case Open:
		return "OPEN"
	case HalfOpen:
		return "HALF_OPEN"
	}
	return "UNKNOWN"
}

// Outcome is what a call's end says of the server.
type Outcome uint8

// The outcomes.
const (
	Success Outcome = iota
	Failure
	// Ignored says nothing of the server: the caller gave up, or is to blame.
	// It counts for nothing and frees its probe.
	Ignored
)

// Permit is what Acquire gives and Report takes. The zero value stands for no
// breaker; to report it does nothing.
type Permit struct {
	generation uint32
	probe      uint32
	kind       permitKind
}

type permitKind uint8

const (
	noPermit permitKind = iota
	closedPermit
	probePermit
	refusedPermit // OBSERVE: Enforce would have refused the call
)

// WouldRefuse reports whether the call goes through only because the breaker
// observes.
func (p Permit) WouldRefuse() bool { return p.kind == refusedPermit }

// Refusal says why a call was not let through.
type Refusal struct {
	State State
	// Reason is why the breaker is in that state, in plain words.
	Reason string
	// RetryAfter is when to try again: when the open time is over, or when the
	// probe in flight expires. Zero: not known.
	RetryAfter time.Duration
}

// Transition is a change of state.
type Transition struct {
	From, To State
	At       Instant
	// Reason says why, in plain words.
	Reason string
	// OpenUntil is when the open time is over; zero unless To is Open, or when
	// an operator opened it for as long as it takes.
	OpenUntil Instant
}

// Breaker is one circuit breaker. Safe for concurrent use. Make it with New.
type Breaker struct {
	// word is generation<<2 | state: what the closed path reads. Every change
	// of state makes a new generation; results of an older one are discarded.
	word        atomic.Uint64
	options     atomic.Pointer[Options]
	window      atomic.Pointer[window] // nil while no rate is asked for
	used        atomic.Bool            // asked for since the set last looked
	_           [32]byte
	consecutive atomic.Int32
	_           [60]byte

	refused     atomic.Uint64
	wouldRefuse atomic.Uint64
	transitions atomic.Uint64

	onTransition func(Transition)

	mu        sync.Mutex // everything below, and every change of word
	reason    string     // of the present state
	since     Instant
	openUntil Instant
	forced    bool // an operator opened it
	repeats   int  // how often it opened without a calm while between
	lastOpen  time.Duration
	probes    []probe
	succeeded int // probes of this generation
	nextProbe uint32
}

type probe struct {
	id  uint32
	due Instant // when it counts as failed
}

// New returns a closed breaker. onTransition, which may be nil, hears of every
// change of state after it; it must not block. Options that Validate refuses
// are a programming error and panic.
func New(o Options, onTransition func(Transition)) *Breaker {
	b := &Breaker{onTransition: onTransition}
	b.Update(o)
	return b
}

// Update changes the options. The state stays; counts stay unless the window
// changed its length.
func (b *Breaker) Update(o Options) {
	if err := o.Validate(); err != nil {
		panic(err)
	}
	o = o.withDefaults()
	b.mu.Lock()
	defer b.mu.Unlock()
	old := b.options.Load()
	b.options.Store(&o)
	switch {
	case !o.rates():
		b.window.Store(nil)
	case b.window.Load() == nil || old.Window != o.Window:
		b.window.Store(newWindow(o.Window))
	}
}

func unpack(word uint64) (generation uint32, s State) { return uint32(word >> 2), State(word & 3) }

// Acquire lets a call through or says why not. rnd is a fresh uniform random
// number.
func (b *Breaker) Acquire(now Instant, rnd uint64) (Permit, Refusal, bool) { // budget with Report: 15 ns, 0 allocs
	if generation, s := unpack(b.word.Load()); s == Closed {
		return Permit{generation: generation, kind: closedPermit}, Refusal{}, true
	}
	return b.acquireSlow(now, rnd)
}

func (b *Breaker) acquireSlow(now Instant, rnd uint64) (Permit, Refusal, bool) {
	o := b.options.Load()
	if o.Mode == Off {
		return Permit{}, Refusal{}, true
	}
	b.mu.Lock()
	var changes []Transition
	generation, s := unpack(b.word.Load())
	if s == HalfOpen && b.expireProbes(now, rnd, o, &changes) {
		generation, s = unpack(b.word.Load())
	}
	if s == Open && !b.forced && now >= b.openUntil {
		b.change(HalfOpen, now, "the open time is over: probing", 0, &changes)
		generation, s = unpack(b.word.Load())
	}
	var refusal Refusal
	permit := Permit{generation: generation, kind: closedPermit}
	switch {
	case s == Closed: // another call closed it meanwhile
	case s == HalfOpen && len(b.probes) < o.HalfOpenProbes:
		b.nextProbe++
		permit.kind, permit.probe = probePermit, b.nextProbe
		b.probes = append(b.probes, probe{b.nextProbe, now + o.ProbeTimeout})
	default:
		permit.kind = refusedPermit
		refusal = b.refusal(s, now)
	}
	b.mu.Unlock()
	b.tell(changes)
	if permit.kind != refusedPermit {
		return permit, Refusal{}, true
	}
	if o.Mode == Observe {
		b.wouldRefuse.Add(1)
		return permit, Refusal{}, true
	}
	b.refused.Add(1)
	return Permit{}, refusal, false
}

// refusal says why state s refuses at now. b.mu is held.
func (b *Breaker) refusal(s State, now Instant) Refusal {
	r := Refusal{State: s, Reason: b.reason}
	if s == HalfOpen {
		r.Reason = fmt.Sprintf("%d of %d probes are in flight", len(b.probes), b.options.Load().HalfOpenProbes)
		for i, p := range b.probes {
			if wait := p.due - now; i == 0 || wait < r.RetryAfter {
				r.RetryAfter = wait
			}
		}
		// The probe answers long before it expires, if it answers at all.
		r.RetryAfter = min(r.RetryAfter, halfOpenRetry)
	} else if !b.forced {
		r.RetryAfter = b.openUntil - now
	}
	return r
}

// halfOpenRetry is the advice to calls that come while a probe is in flight.
const halfOpenRetry = time.Second

// expireProbes fails the probe that was never reported; the breaker opens
// again. b.mu is held.
func (b *Breaker) expireProbes(now Instant, rnd uint64, o *Options, changes *[]Transition) bool {
	for _, p := range b.probes {
		if now >= p.due {
			b.open(now, rnd, o, fmt.Sprintf("a probe did not end within %v", o.ProbeTimeout), changes)
			return true
		}
	}
	return false
}

// Stands reports whether the breaker is still in the state in which it gave the
// permit: what a call that goes on by it ends with counts. The zero Permit stands.
func (b *Breaker) Stands(p Permit) bool {
	generation, _ := unpack(b.word.Load())
	return p.kind == noPermit || p.generation == generation
}

// Blocks reports whether Acquire would refuse a call now. It changes nothing;
// a balancer steers by it.
func (b *Breaker) Blocks(now Instant) bool {
	if _, s := unpack(b.word.Load()); s == Closed {
		return false
	}
	return b.options.Load().Mode == Enforce && b.WouldBlock(now)
}

// WouldBlock is Blocks as if the breaker enforced, whatever its mode but OFF.
func (b *Breaker) WouldBlock(now Instant) bool {
	_, s := unpack(b.word.Load())
	if s == Closed {
		return false
	}
	o := b.options.Load()
	if o.Mode == Off {
		return false
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	switch _, s = unpack(b.word.Load()); s {
	case Open:
		return b.forced || now < b.openUntil
	case HalfOpen:
		for _, p := range b.probes {
			if now >= p.due {
				return true // it opens again at the next Acquire
			}
		}
		return len(b.probes) >= o.HalfOpenProbes
	}
	return false
}

// Report says how a call that got a permit ended, how long it took, and when.
// A result from before the last change of state changes nothing.
func (b *Breaker) Report(p Permit, now Instant, outcome Outcome, latency time.Duration, rnd uint64) {
	switch p.kind {
	case closedPermit:
		if outcome != Ignored {
			b.reportClosed(p, now, outcome == Failure, latency, rnd)
		}
	case probePermit:
		b.reportProbe(p, now, outcome, rnd)
	}
}

func (b *Breaker) reportClosed(p Permit, now Instant, failed bool, latency time.Duration, rnd uint64) {
	if generation, s := unpack(b.word.Load()); generation != p.generation || s != Closed {
		return
	}
	o := b.options.Load()
	slow := false
	if w := b.window.Load(); w != nil {
		slow = o.SlowRate > 0 && latency >= o.SlowerThan
		w.add(now, rnd, failed, slow)
	}
	if !failed {
		if b.consecutive.Load() != 0 {
			b.consecutive.Store(0)
		}
		if !slow {
			return
		}
	}
	b.judge(p, now, failed, rnd, o)
}

// judge opens the breaker when a threshold is reached.
func (b *Breaker) judge(p Permit, now Instant, failed bool, rnd uint64, o *Options) {
	if o.Mode == Off {
		return
	}
	reason := ""
	if failed {
		if n := b.consecutive.Add(1); o.ConsecutiveFailures > 0 && int(n) >= o.ConsecutiveFailures {
			reason = fmt.Sprintf("%d failures in a row", n)
		}
	}
	if w := b.window.Load(); reason == "" && w != nil {
		reason = o.judgeRates(w.read(now))
	}
	if reason == "" {
		return
	}
	var changes []Transition
	b.mu.Lock()
	if generation, s := unpack(b.word.Load()); generation == p.generation && s == Closed {
		if now-b.since > b.lastOpen {
			b.repeats = 0 // it was calm for longer than it was open
		}
		b.open(now, rnd, o, reason, &changes)
	}
	b.mu.Unlock()
	b.tell(changes)
}

// judgeRates says which rate was reached, or nothing.
func (o *Options) judgeRates(t totals) string {
	if t.calls < uint64(o.MinimumCalls) {
		return ""
	}
	share := func(n uint64) float64 { return float64(n) / float64(t.calls) }
	if s := share(t.failures); o.FailureRate > 0 && s >= o.FailureRate {
		return fmt.Sprintf("%.0f %% of %d calls in %v failed, the limit is %.0f %%", 100*s, t.calls, o.Window, 100*o.FailureRate)
	}
	if s := share(t.slow); o.SlowRate > 0 && s >= o.SlowRate {
		return fmt.Sprintf("%.0f %% of %d calls in %v took %v or longer, the limit is %.0f %%", 100*s, t.calls, o.Window, o.SlowerThan, 100*o.SlowRate)
	}
	return ""
}

func (b *Breaker) reportProbe(p Permit, now Instant, outcome Outcome, rnd uint64) {
	var changes []Transition
	b.mu.Lock()
	generation, s := unpack(b.word.Load())
	if generation == p.generation && s == HalfOpen && b.takeProbe(p.probe) {
		o := b.options.Load()
		switch outcome {
		case Failure:
			b.open(now, rnd, o, "a probe failed", &changes)
		case Success:
			if b.succeeded++; b.succeeded >= o.HalfOpenProbes {
				b.close(now, fmt.Sprintf("%d of %d probes succeeded", b.succeeded, o.HalfOpenProbes), &changes)
			}
		}
	}
	b.mu.Unlock()
	b.tell(changes)
}

// takeProbe frees a probe's slot; false: it has none any more. b.mu is held.
func (b *Breaker) takeProbe(id uint32) bool {
	for i, p := range b.probes {
		if p.id == id {
			b.probes = append(b.probes[:i], b.probes[i+1:]...)
			return true
		}
	}
	return false
}

// open opens the breaker for the next length of time. b.mu is held.
func (b *Breaker) open(now Instant, rnd uint64, o *Options, reason string, changes *[]Transition) {
	d := o.OpenFor
	for i := 0; i < b.repeats && d < o.MaxOpenFor; i++ {
		d *= 2
	}
	d = min(d, o.MaxOpenFor)
	b.repeats++
	spread := 2*float64(rnd>>11)/(1<<53) - 1 // uniform in [-1, 1)
	d += time.Duration(float64(d) * o.Jitter * spread)
	b.lastOpen = d
	b.change(Open, now, reason, now+d, changes)
}

// close closes the breaker and forgets what was counted. b.mu is held.
func (b *Breaker) close(now Instant, reason string, changes *[]Transition) {
	b.consecutive.Store(0)
	if o := b.options.Load(); o.rates() {
		b.window.Store(newWindow(o.Window))
	}
	b.change(Closed, now, reason, 0, changes)
}

// change makes a new generation. b.mu is held.
func (b *Breaker) change(to State, now Instant, reason string, openUntil Instant, changes *[]Transition) {
	generation, from := unpack(b.word.Load())
	b.word.Store(uint64(generation+1)<<2 | uint64(to))
	b.reason, b.since, b.openUntil = reason, now, openUntil
	b.probes, b.succeeded = b.probes[:0], 0
	b.forced = false
	if from != to {
		b.transitions.Add(1)
		*changes = append(*changes, Transition{From: from, To: to, At: now, Reason: reason, OpenUntil: openUntil})
	}
}

func (b *Breaker) tell(changes []Transition) {
	if b.onTransition == nil {
		return
	}
	for _, t := range changes {
		b.onTransition(t)
	}
}

// ForceOpen opens the breaker until ForceClose or Reset.
func (b *Breaker) ForceOpen(now Instant) {
	b.force(func(changes *[]Transition) {
		b.change(Open, now, "opened by an operator", 0, changes)
		b.forced = true
	})
}

// ForceClose closes the breaker now. It goes on to protect: the next failures
// can open it again, for as long as they would have.
func (b *Breaker) ForceClose(now Instant) {
	b.force(func(changes *[]Transition) { b.close(now, "closed by an operator", changes) })
}

// Reset makes the breaker as new: closed, nothing counted, no growth of the
// open time. Its totals stay.
func (b *Breaker) Reset(now Instant) {
	b.force(func(changes *[]Transition) {
		b.repeats, b.lastOpen = 0, 0
		b.close(now, "reset by an operator", changes)
	})
}

func (b *Breaker) force(do func(*[]Transition)) {
	var changes []Transition
	b.mu.Lock()
	do(&changes)
	b.mu.Unlock()
	b.tell(changes)
}

// Snapshot is a breaker at one moment.
type Snapshot struct {
	State State
	Mode  Mode
	// Reason is why it is in that state; empty for one that never changed.
	Reason string
	// Since is when it got into the state.
	Since Instant
	// OpenUntil is when the open time is over. Zero: it is not open, or an
	// operator opened it.
	OpenUntil Instant
	// Forced: an operator opened it.
	Forced bool
	// ConsecutiveFailures in a row so far.
	ConsecutiveFailures int
	// Calls, Failures and SlowCalls are what the window holds; zero without a
	// rate.
	Calls, Failures, SlowCalls uint64
	// Refused calls so far; WouldRefuse counts those under OBSERVE.
	Refused, WouldRefuse uint64
	// Transitions so far.
	Transitions    uint64
	ProbesInFlight int
}

// Snapshot reads the breaker. An open time that is over shows as OPEN until a
// call comes to probe.
func (b *Breaker) Snapshot(now Instant) Snapshot {
	b.mu.Lock()
	defer b.mu.Unlock()
	_, state := unpack(b.word.Load())
	s := Snapshot{
		State: state, Mode: b.options.Load().Mode, Reason: b.reason, Since: b.since, OpenUntil: b.openUntil, Forced: b.forced,
		ConsecutiveFailures: int(b.consecutive.Load()),
		Refused:             b.refused.Load(), WouldRefuse: b.wouldRefuse.Load(), Transitions: b.transitions.Load(),
		ProbesInFlight: len(b.probes),
	}
	if w := b.window.Load(); w != nil {
		t := w.read(now)
		s.Calls, s.Failures, s.SlowCalls = t.calls, t.failures, t.slow
	}
	return s
}

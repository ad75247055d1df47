package policy

import (
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Limiter bounds the calls in flight (a bulkhead) and keeps those beyond the
// bound waiting for a while, the most critical in front:
//
//	place, turn, woken := l.Enter(&w, now, Critical, deadline)
//	switch place {
//	case Waiting: …until l.Due(&w), or until somebody's Enter, Leave or Update returns &w; then l.Look(&w, now)
//	case Turned:  …refuse the call: turn says why
//	}
//	woken = l.Leave(&w, now, latency, overload)
//
// Who gets woken waiters tells their calls to Look; it must do so, since
// nobody else hears of them.
//
// # Waiting
//
// A call may wait QueueTimeout, and never beyond its own deadline. Once the
// queue was not empty for QueueTimeout (at least 100 ms) it is overloaded: none
// may wait longer than a twentieth of QueueTimeout (at least 5 ms, and twice
// the time in which a slot comes free), the youngest goes first, and SHEDDABLE
// calls do not wait at all (Nichols and Jacobson, "Controlling Queue Delay",
// 2012; Maurer, "Fail at Scale", 2015). A call whose turn would
// come after its deadline, by the pace at which slots came free, is turned away
// at once. A full queue lets a more critical call in for the youngest of the
// least critical ones.
//
// # Observe
//
// Under OBSERVE the limiter runs a shadow of itself: it decides the same on the
// same arrivals and ends, and every call goes at once. A call that would have
// waited stands in the shadow's queue while it is under way, and takes a slot
// there when its turn comes; one that would have been turned away counts
// nowhere. An adaptive limit learns less so: it can't hold calls back to see
// how fast they get, and may come out too high.
//
// Safe for concurrent use. While nobody waits, Enter and Leave take no lock.
// Make it with NewLimiter.
type Limiter struct {
	// word is the bound, how many are inside, and whether somebody waits: then
	// only who has the lock lets calls in.
	word     atomic.Uint64
	_        [56]byte
	gradient atomic.Pointer[gradient] // nil: the bound is fixed
	policy   atomic.Pointer[ConcurrencyPolicy]
	_        [48]byte

	refused, wouldRefuse, timedOut, shed atomic.Uint64

	mu    sync.Mutex // what follows, every change of the bound and of somebodyWaits
	queue queue
}

// The parts of Limiter.word.
const (
	insideShift   = 31
	oneInside     = 1 << insideShift
	boundMask     = oneInside - 1
	somebodyWaits = 1 << 62
	maxBound      = math.MaxInt32
)

func boundOf(word uint64) int  { return int(word & boundMask) }
func insideOf(word uint64) int { return int(word >> insideShift & boundMask) }

// NewLimiter returns a limiter with nobody inside.
func NewLimiter(p ConcurrencyPolicy) *Limiter {
	l := &Limiter{}
	l.Update(p)
	return l
}

// Update changes what is asked for and returns the waiters whose place changed.
// Who is inside and who waits stays. A lower bound throws nobody out; a higher
// one lets waiters in at the next Enter or Leave. OBSERVE lets all who wait go;
// OFF, and no bound, lets them go and forgets them. An adaptive limit keeps
// what it learned.
func (l *Limiter) Update(p ConcurrencyPolicy) (woken []*Waiter) {
	if p.QueueTimeout <= 0 {
		p.QueueTimeout = DefaultQueueTimeout
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.policy.Store(&p)
	l.queue.timeout = p.QueueTimeout
	g := l.gradient.Load()
	switch {
	case !p.On():
		l.gradient.Store(nil)
		l.setBound(0)
		for w := l.queue.next(0); w != nil; w = l.queue.next(0) {
			w.place = Outside
			if !w.ghost {
				woken = w.appendTo(woken)
			}
		}
		l.word.And(^uint64(somebodyWaits))
		return woken
	case !p.Adaptive:
		l.gradient.Store(nil)
		l.setBound(p.MaxInFlight)
	case g != nil:
		l.setBound(g.resize(p.MaxInFlight))
	default:
		g = newGradient(p.MaxInFlight)
		l.gradient.Store(g)
		l.setBound(g.bound())
	}
	if p.Mode == Observe {
		for _, w := range l.queue.dues {
			if !w.ghost {
				w.ghost = true
				woken = w.appendTo(woken)
			}
		}
	}
	return woken
}

// setBound changes the bound. l.mu is held.
func (l *Limiter) setBound(n int) {
	for {
		word := l.word.Load()
		if l.word.CompareAndSwap(word, word&^boundMask|uint64(min(n, maxBound))) {
			return
		}
	}
}

// Enter asks for a slot. It lets the call in, keeps it waiting, or turns it
// away and says why; where there is no bound the call stays Outside. w must be
// outside. deadline is when the call is over anyway, 0 for never. Those woken
// are other waiters whose place changed: one displaced by this call, or whose
// wait was found to be over.
func (l *Limiter) Enter(w *Waiter, now Instant, crit Criticality, deadline Instant) (Place, Turn, []*Waiter) { // budget with Leave: 15 ns, 0 allocs
	w.refused = false
	if deadline == 0 || deadline > now {
		for {
			word := l.word.Load()
			if word&somebodyWaits != 0 || insideOf(word) >= boundOf(word) {
				break
			}
			if l.word.CompareAndSwap(word, word+oneInside) {
				w.place = Inside
				return Inside, Turn{}, nil
			}
		}
	}
	return l.enterFull(w, now, crit, deadline)
}

// cause says why somebody was turned away at the door.
type cause uint8

const (
	noCause      cause = iota
	full               // no place to wait
	sheddable          // SHEDDABLE under overload
	tooLate            // its turn would come after its deadline
	deadlineOver       // it came after its deadline
)

// door is what stood at the door when somebody came.
type door struct {
	cause                          cause
	inside, bound, waiting, places int
	wait, retryAfter               time.Duration
}

func (l *Limiter) enterFull(w *Waiter, now Instant, crit Criticality, deadline Instant) (Place, Turn, []*Waiter) {
	p := l.policy.Load()
	word := l.word.Load()
	if boundOf(word) == 0 {
		return Outside, Turn{}, nil
	}
	d := door{places: max(p.MaxQueue, 0), retryAfter: codelInterval}
	var woken []*Waiter
	switch {
	case deadline != 0 && deadline <= now:
		d.cause = deadlineOver
	case d.places == 0 && word&somebodyWaits == 0 && insideOf(word) >= boundOf(word):
		d.cause = full
	default:
		l.mu.Lock()
		if boundOf(l.word.Load()) == 0 { // turned off meanwhile
			l.mu.Unlock()
			return Outside, Turn{}, nil
		}
		p = l.policy.Load()
		woken = l.grant(now, l.expire(now)) // Update may have made room
		if l.queue.len() > 0 || !l.take() {
			woken = l.wait(w, now, crit.class(), deadline, p, &d, woken)
		} else {
			w.place = Inside
		}
		place := w.seen() // it may be let in as soon as the lock is gone
		l.calm()
		l.mu.Unlock()
		if d.cause == noCause {
			return place, Turn{}, woken
		}
	}
	d.inside, d.bound = insideOf(word), boundOf(word)
	w.place = Turned
	if d.cause != full {
		l.shed.Add(1)
	}
	if p.Mode == Observe {
		l.wouldRefuse.Add(1)
		w.refused, w.ghost = true, true
		return Inside, Turn{}, woken
	}
	l.refused.Add(1)
	w.turn = d.turn()
	return Turned, w.turn, woken
}

// take takes a slot if one is free; else newcomers have to come to the lock
// from now on. l.mu is held and nobody waits.
func (l *Limiter) take() bool {
	for {
		word := l.word.Load()
		if insideOf(word) < boundOf(word) {
			if l.word.CompareAndSwap(word, word+oneInside) {
				return true
			}
		} else if l.word.CompareAndSwap(word, word|somebodyWaits) {
			return false
		}
	}
}

// calm lets newcomers in without the lock again once nobody waits. l.mu is
// held.
func (l *Limiter) calm() {
	if l.queue.len() == 0 && l.word.Load()&somebodyWaits != 0 {
		l.word.And(^uint64(somebodyWaits))
	}
}

// wait puts w into the queue, or says in d why not. All slots are taken, and
// l.mu is held.
func (l *Limiter) wait(w *Waiter, now Instant, class int, deadline Instant, p *ConcurrencyPolicy, d *door, woken []*Waiter) []*Waiter {
	q := &l.queue
	d.places, d.waiting, d.retryAfter = max(p.MaxQueue, 0), q.len(), q.retryAfter()
	switch d.wait = q.wait(class, now); {
	case d.places == 0:
		d.cause = full
	case class == Sheddable.class() && q.overloaded(now):
		d.cause = sheddable
	case deadline != 0 && now+d.wait >= deadline:
		d.cause = tooLate
	}
	if d.cause != noCause {
		return woken
	}
	var loser *Waiter
	if d.waiting >= d.places {
		if loser = q.least(class); loser == nil {
			d.cause = full
			return woken
		}
	}
	w.place, w.queued, w.ghost, w.class = Waiting, true, p.Mode == Observe, uint8(class)
	w.entered, w.due = now, now+q.patience(now)
	if deadline != 0 {
		w.due = min(w.due, deadline)
	}
	q.add(w, now)
	if loser != nil { // after that: a queue that is empty for no time is not calm
		q.remove(loser)
		loser.turn = Turn{ConcurrencyLimit, "a more critical call took its place in the queue, which is full", d.retryAfter}
		l.shed.Add(1)
		woken = l.turnAway(loser, woken)
	}
	return woken
}

// turnAway marks a waiter that was taken out of the queue. l.mu is held.
func (l *Limiter) turnAway(w *Waiter, woken []*Waiter) []*Waiter {
	w.place = Turned
	if w.ghost {
		l.wouldRefuse.Add(1)
		return woken
	}
	l.refused.Add(1)
	return w.appendTo(woken)
}

// expire turns away those whose wait is over at now. l.mu is held.
func (l *Limiter) expire(now Instant) (woken []*Waiter) {
	for w := l.queue.over(now); w != nil; w = l.queue.over(now) {
		woken = l.timeOut(w, now, woken)
	}
	return woken
}

func (l *Limiter) timeOut(w *Waiter, now Instant, woken []*Waiter) []*Waiter {
	w.turn = Turn{Reason: QueueTimeout, RetryAfter: l.queue.retryAfter()}
	w.due = min(w.due, now)
	l.queue.shed(w)
	l.timedOut.Add(1)
	return l.turnAway(w, woken)
}

// grant lets in whose turn it is. l.mu is held, and nobody's wait is over.
func (l *Limiter) grant(now Instant, woken []*Waiter) []*Waiter {
	for l.queue.len() > 0 {
		// Somebody waits, so that nobody else adds to those inside.
		if word := l.word.Load(); insideOf(word) >= boundOf(word) {
			break
		}
		l.word.Add(oneInside)
		w := l.queue.next(now)
		w.place = Inside
		if !w.ghost {
			woken = w.appendTo(woken)
		}
	}
	return woken
}

// Look returns where a waiter stands now. A wait that is over at now turns it
// away with QueueTimeout.
func (l *Limiter) Look(w *Waiter, now Instant) (Place, Turn) {
	if !w.queued {
		if p := w.seen(); p != Turned {
			return p, Turn{}
		}
		return Turned, w.turn
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.place == Waiting && now >= w.due {
		l.queue.remove(w)
		l.timeOut(w, now, nil)
		l.calm()
	}
	p := w.seen()
	if p != Turned {
		return p, Turn{}
	}
	if w.turn.Message == "" {
		w.turn.Message = fmt.Sprintf("no slot came free within %v", w.due-w.entered)
	}
	return Turned, w.turn
}

// Due returns when a waiter's wait is over at the latest. It does not change
// while it waits; should overload end the wait earlier, it is among those woken.
// Zero: it does not wait.
func (l *Limiter) Due(w *Waiter) Instant {
	if !w.queued {
		return 0
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.seen() != Waiting {
		return 0
	}
	return w.due
}

// Leave ends a call's stay wherever it stands: inside it gives the slot back,
// waiting it leaves the queue, else nothing happens. latency is how long the
// call took from when it was let in; zero and below: it never went out, and
// says nothing of the server. overload: it failed in a way that says too much
// load, like a timeout, RESOURCE_EXHAUSTED or a failed connection; its latency,
// whatever it is, then says nothing. Of calls that held no slot neither counts.
// Those woken are other waiters whose place changed.
func (l *Limiter) Leave(w *Waiter, now Instant, latency time.Duration, overload bool) (woken []*Waiter) {
	if w.queued {
		return l.leaveQueue(w, now, latency, overload)
	}
	place := w.place
	w.place = Outside
	if place != Inside {
		w.ghost, w.turn = false, Turn{}
		return nil
	}
	word := l.word.Add(^uint64(oneInside - 1))
	g := l.gradient.Load()
	over := g != nil && g.sample(now, latency, overload)
	if !over && word&somebodyWaits == 0 {
		return nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.freed(now, g, over)
}

// leaveQueue is Leave for who was in the queue.
func (l *Limiter) leaveQueue(w *Waiter, now Instant, latency time.Duration, overload bool) (woken []*Waiter) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if w.place == Waiting {
		l.queue.remove(w)
		if now >= w.due {
			l.timeOut(w, now, nil)
		}
	}
	place := w.place
	w.refused = w.ghost && place == Turned
	w.place, w.queued, w.ghost, w.turn = Outside, false, false, Turn{}
	if place != Inside {
		l.calm()
		return nil
	}
	l.word.Add(^uint64(oneInside - 1))
	g := l.gradient.Load()
	return l.freed(now, g, g != nil && g.sample(now, latency, overload))
}

// freed hands on a slot that came free at now, after the bound was set anew if
// a window of the gradient is over. l.mu is held.
func (l *Limiter) freed(now Instant, g *gradient, over bool) (woken []*Waiter) {
	if over && g == l.gradient.Load() {
		l.setBound(g.settle(now, insideOf(l.word.Load())))
	}
	woken = l.expire(now)
	if l.queue.len() > 0 {
		l.queue.freed(now)
	}
	woken = l.grant(now, woken)
	l.calm()
	return woken
}

// turn says why somebody was turned away at the door.
func (d *door) turn() Turn {
	t := Turn{Reason: ConcurrencyLimit, RetryAfter: d.retryAfter}
	switch {
	case d.cause == deadlineOver:
		t.Reason, t.Message = QueueTimeout, "the call's deadline was over when it came to the limit"
	case d.cause == tooLate:
		t.Reason = QueueTimeout
		t.Message = fmt.Sprintf("%d calls wait; its turn would come in about %v, after its deadline", d.waiting, d.wait)
	case d.cause == sheddable:
		t.Message = fmt.Sprintf("SHEDDABLE calls do not wait under overload: %d calls wait, and the queue was not empty for long", d.waiting)
	case d.places == 0:
		t.Message = fmt.Sprintf("%d calls are in flight, the limit is %d, and none may wait", d.inside, d.bound)
	default:
		t.Message = fmt.Sprintf("%d calls are in flight, the limit is %d; %d wait, the limit is %d", d.inside, d.bound, d.waiting, d.places)
	}
	return t
}

// LimiterSnapshot is a limiter at one moment. Under OBSERVE it is the shadow's.
type LimiterSnapshot struct {
	// Limit is the bound now. Zero: there is none.
	Limit int
	// InFlight and Waiting are calls at this moment.
	InFlight, Waiting int
	// Refused calls so far, for whatever cause; WouldRefuse counts those under
	// OBSERVE.
	Refused, WouldRefuse uint64
	// TimedOut of both waited until their wait was over; Shed were displaced by
	// a more critical call, were SHEDDABLE under overload, or would have missed
	// their deadline. The rest found no place to wait.
	TimedOut, Shed uint64
	// LIFO: the queue is overloaded, the youngest goes first.
	LIFO bool
}

// Snapshot reads the limiter. Waits that are over at now count as over.
func (l *Limiter) Snapshot(now Instant) LimiterSnapshot {
	l.mu.Lock()
	defer l.mu.Unlock()
	word := l.word.Load()
	s := LimiterSnapshot{
		Limit: boundOf(word), InFlight: insideOf(word), Waiting: l.queue.len(),
		Refused: l.refused.Load(), WouldRefuse: l.wouldRefuse.Load(), TimedOut: l.timedOut.Load(), Shed: l.shed.Load(),
	}
	patience := l.queue.patience(now)
	for _, w := range l.queue.dues {
		if w.due > now && w.entered+patience > now {
			continue
		}
		s.Waiting--
		s.TimedOut++
		if w.ghost {
			s.WouldRefuse++
		} else {
			s.Refused++
		}
	}
	s.LIFO = s.Waiting > 0 && l.queue.overloaded(now)
	return s
}

package policy

import (
	"container/heap"
	"time"
)

// The controlled delay of the queue, after Nichols and Jacobson, "Controlling
// Queue Delay" (2012), in the form of Maurer, "Fail at Scale" (2015): a queue
// that was not empty for an interval is no burst but a load that does not go
// away by waiting.
const (
	// codelInterval is how long the queue may be in use before that is overload,
	// or QueueTimeout if that is longer: then slots are expected to come free
	// seldom.
	codelInterval = 100 * time.Millisecond
	// codelTarget is the shortest that the wait is cut to under overload, and
	// codelShare what is left of a longer QueueTimeout: 5 ms of the usual 100 ms.
	codelTarget = 5 * time.Millisecond
	codelShare  = 20
	// paceSamples is how many slots must have come free in a busy time before
	// their pace says when somebody's turn comes.
	paceSamples = 8
)

// Place is where a call stands at a Limiter.
type Place uint8

// The places.
const (
	// Outside, the zero value: it holds nothing there.
	Outside Place = iota
	// Inside: it may go, and holds a slot until Leave.
	Inside
	// Waiting: it waits for a slot.
	Waiting
	// Turned: it was turned away, and must be refused.
	Turned
)

// String returns the place's name.
func (p Place) String() string {
	switch p {
	case Outside:
		return "OUTSIDE"
	case Inside:
		return "INSIDE"
	case Waiting:
		return "WAITING"
	case Turned:
		return "TURNED"
	}
	return "UNKNOWN"
}

// Turn says why a call was turned away. The zero value: it was not.
type Turn struct {
	// Reason is ConcurrencyLimit or QueueTimeout.
	Reason Reason
	// Message says it in plain words, with the figures.
	Message string
	// RetryAfter is when to come again: about when those that wait will be
	// gone, 100 ms to 1 s.
	RetryAfter time.Duration
}

// Waiter is one call's place at a Limiter. The zero value is outside. It must
// not be copied from Enter until Leave, and what is asked of a Limiter about
// one waiter must not be asked by two goroutines at once.
type Waiter struct {
	// Owner is the shell's: set before Enter, it leads from a woken waiter to
	// its call.
	Owner any

	place   Place // guarded by the limiter's lock if queued
	queued  bool  // it was put into the queue since Enter
	refused bool  // OBSERVE: Enforce would have turned it away
	ghost   bool  // OBSERVE: wherever it stands, its call is under way
	class   uint8
	entered Instant
	due     Instant
	turn    Turn

	// Links of the queue that it waits in.
	next, prev *Waiter
	at         int // in dues
	self       [1]*Waiter
}

// WouldRefuse reports whether the call went through only because the limiter
// observes. It is known at Leave and stays until the next Enter.
func (w *Waiter) WouldRefuse() bool { return w.refused }

// seen is the place that the call's shell is told: a ghost goes.
func (w *Waiter) seen() Place {
	if w.ghost {
		return Inside
	}
	return w.place
}

// appendTo appends w to those woken; alone, it costs no allocation.
func (w *Waiter) appendTo(woken []*Waiter) []*Waiter {
	if woken == nil {
		return w.self[:1:1]
	}
	return append(woken, w)
}

// queue holds the waiters of a Limiter, under its lock.
//
// The order: of two waiters the more critical one goes first. Among equals the
// one that came first does while the queue is calm, and the one that came last
// under overload (Maurer's adaptive LIFO), since the first is the likelier one
// to be given up by its caller.
type queue struct {
	lines   [numClasses]line
	dues    dues
	timeout time.Duration // QueueTimeout
	// since is when the busy time began: when somebody had to wait after the
	// queue was empty. Overload goes on over an empty queue until nobody was shed
	// for an interval; shedAt is when somebody last was.
	since, shedAt Instant
	// lastFree, pace and frees measure how long apart slots come free in this
	// busy time while somebody waits.
	lastFree Instant
	pace     time.Duration
	frees    int
}

// line is the waiters of one class, by age.
type line struct {
	oldest, youngest *Waiter
	length           int
}

func (q *queue) len() int { return len(q.dues) }

func (q *queue) interval() time.Duration { return max(codelInterval, q.timeout) }

// overloaded reports whether the queue was not empty for the last interval.
// What is over at now must have been taken out.
func (q *queue) overloaded(now Instant) bool {
	return len(q.dues) > 0 && now-q.since > q.interval()
}

// patience is how long a call may wait, as things are now. Under overload that
// is little, but enough for a slot to come free meanwhile: else nobody who
// waits would get one.
func (q *queue) patience(now Instant) time.Duration {
	if q.overloaded(now) {
		return min(q.timeout, max(q.timeout/codelShare, codelTarget, 2*q.pace))
	}
	return q.timeout
}

// add puts w at the end of its line. w.due and w.class are set.
func (q *queue) add(w *Waiter, now Instant) {
	if len(q.dues) == 0 {
		q.lastFree = now
		if q.shedAt == 0 || now-q.shedAt > q.interval() {
			q.since, q.shedAt, q.pace, q.frees = now, 0, 0, 0
		}
	}
	if w.self[0] != w { // not written again: who woke it last may still read it
		w.self[0] = w
	}
	l := &q.lines[w.class]
	w.prev, w.next = l.youngest, nil
	if l.youngest != nil {
		l.youngest.next = w
	} else {
		l.oldest = w
	}
	l.youngest = w
	l.length++
	heap.Push(&q.dues, w)
}

// remove takes w out.
func (q *queue) remove(w *Waiter) {
	l := &q.lines[w.class]
	if w.prev != nil {
		w.prev.next = w.next
	} else {
		l.oldest = w.next
	}
	if w.next != nil {
		w.next.prev = w.prev
	} else {
		l.youngest = w.prev
	}
	w.next, w.prev = nil, nil
	l.length--
	heap.Remove(&q.dues, w.at)
}

// over takes out one waiter whose wait is over at now; nil: there is none. It
// is over when it is due, and under overload when it lasted too long for that.
func (q *queue) over(now Instant) *Waiter {
	if len(q.dues) == 0 {
		return nil
	}
	if w := q.dues[0]; w.due <= now {
		q.remove(w)
		return w
	}
	if !q.overloaded(now) {
		return nil
	}
	patience := q.patience(now)
	for class := range q.lines {
		if w := q.lines[class].oldest; w != nil && w.entered+patience <= now {
			q.remove(w)
			return w
		}
	}
	return nil
}

// next takes out the waiter whose turn it is; nil: nobody waits.
func (q *queue) next(now Instant) *Waiter {
	lifo := q.overloaded(now)
	for class := range q.lines {
		w := q.lines[class].oldest
		if w == nil {
			continue
		}
		if lifo {
			w = q.lines[class].youngest
		}
		q.remove(w)
		return w
	}
	return nil
}

// shed notes when the wait of w was over, who was just taken out, if that was
// under overload.
func (q *queue) shed(w *Waiter) {
	if w.due-q.since > q.interval() {
		q.shedAt = max(q.shedAt, w.due)
	}
}

// least returns the youngest of the least critical waiters if they are less
// critical than class; nil: nobody is.
func (q *queue) least(class int) *Waiter {
	for c := numClasses - 1; c > class; c-- {
		if w := q.lines[c].youngest; w != nil {
			return w
		}
	}
	return nil
}

// freed notes that a slot came free at now while somebody waited.
func (q *queue) freed(now Instant) {
	gap := max(now-q.lastFree, 0)
	q.lastFree = now
	if q.frees++; q.frees == 1 {
		q.pace = gap
		return
	}
	q.pace += (gap - q.pace) / paceSamples
}

// wait estimates how long a call of that class that comes at now would wait:
// until slots came free for all who go before it. Zero while too little is
// known.
func (q *queue) wait(class int, now Instant) time.Duration {
	if q.frees < paceSamples {
		return 0
	}
	if !q.overloaded(now) {
		class++ // its elders go first
	}
	ahead := 0
	for _, l := range q.lines[:class] {
		ahead += l.length
	}
	return time.Duration(ahead) * q.pace
}

// retryAfter is when those who wait will be gone at the pace of now.
func (q *queue) retryAfter() time.Duration {
	return min(max(time.Duration(len(q.dues))*q.pace, codelInterval), time.Second)
}

// dues is a heap of waiters by the end of their wait.
type dues []*Waiter

func (d dues) Len() int           { return len(d) }
func (d dues) Less(i, j int) bool { return d[i].due < d[j].due }
func (d dues) Swap(i, j int) {
	d[i], d[j] = d[j], d[i]
	d[i].at, d[j].at = i, j
}

// Push is for container/heap.
func (d *dues) Push(x any) {
	w := x.(*Waiter)
	w.at = len(*d)
	*d = append(*d, w)
}

// Pop is for container/heap.
func (d *dues) Pop() any {
	last := len(*d) - 1
	w := (*d)[last]
	(*d)[last] = nil
	*d = (*d)[:last]
	return w
}

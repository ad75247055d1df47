package balancer

import (
	"math/bits"
	"sync"
	"sync/atomic"
)

// Condition is what is known of an endpoint's fitness to take calls. Several
// owners have a word in it who don't know each other: who connects to it, who
// checks its health, who watches its failures, who drains it. Each word stands
// until its owner takes it back; the condition is the strongest that stands.
type Condition uint32

// The conditions, from fit to unfit.
const (
	// Ready is the zero value: an endpoint is trusted until it disappoints.
	Ready Condition = iota
	// Connecting: no connection stands now; one is being made or waits for
	// its backoff.
	Connecting
	// Unhealthy: an active health check says no.
	Unhealthy
	// Ejected: its calls failed too often.
	Ejected
	// Draining: an operator or the discovery source asked for no new calls.
	Draining
)

// String returns the condition's public name.
func (c Condition) String() string {
	switch c {
	case Ready:
		return "READY"
	case Connecting:
		return "CONNECTING"
	case Unhealthy:
		return "UNHEALTHY"
	case Ejected:
		return "EJECTED"
	case Draining:
		return "DRAINING"
	}
	return "UNKNOWN"
}

// owner is one who may object to calls, from the weakest word to the strongest.
type owner uint8

const (
	connection owner = iota
	health
	outliers
	discovery
	operator
	owners // how many there are
)

func (o owner) bit() uint32 { return 1 << o }

// barring are the owners whose word holds even where no other endpoint is left.
const barring = 1<<discovery | 1<<operator

// conditions are what the owners' objections are called.
var conditions = [owners]Condition{Connecting, Unhealthy, Ejected, Draining, Draining}

// objection is what one owner says against calls to the endpoint.
type objection struct {
	reason string
	since  Instant
}

// fitness is what the owners say, published as one value.
type fitness struct {
	objections [owners]objection
	standing   uint32 // the bits of those that stand
	ready      Instant
	until      Instant // of the ejection
}

// word is the part of an Endpoint that its owners write.
type word struct {
	standing atomic.Uint32 // fitness.standing: all that a pick looks at
	line     atomic.Pointer[line]
	mu       sync.Mutex // orders the owners
	fitness  atomic.Pointer[fitness]
	// ramp is when the endpoint became fit the last time: slow start counts
	// from there. Zero: not known yet; the first pick that asks sets it.
	ramp atomic.Int64
}

// say lets an owner object, or take its objection back. now is zero where the
// owner knows no time.
func (e *Endpoint) say(o owner, objects bool, reason string, now, until Instant) {
	w := &e.word
	if old := w.fitness.Load(); old.standing&o.bit() == 0 && !objects {
		return // as nearly always
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	next := *w.fitness.Load()
	before := next.standing
	if objects {
		since := now
		if before&o.bit() != 0 {
			since = next.objections[o].since // for that long already, if for another reason
		}
		next.objections[o] = objection{reason, since}
		next.standing |= o.bit()
	} else {
		next.objections[o] = objection{}
		next.standing &^= o.bit()
	}
	if o == outliers {
		next.until = until
	}
	if before != 0 && next.standing == 0 {
		w.ramp.Store(int64(now))
	}
	if o == connection && !objects {
		e.reported.begin()
	}
	if next.standing&^barring == 0 && before&^barring != 0 {
		next.ready = now
	}
	w.fitness.Store(&next)
	if before == next.standing {
		return
	}
	w.standing.Store(next.standing)
	if l := w.line.Load(); l != nil {
		l.changes.Add(1) // after the word itself: whoever counts it sees that too
	}
}

// SetConnected is the word of whoever connects to the endpoint: whether a
// connection stands, and if none does why not, in a few plain words.
func (e *Endpoint) SetConnected(ok bool, reason string, now Instant) {
	e.say(connection, !ok, reason, now, 0)
}

// SetHealthy is the word of the active health check: whether the endpoint
// passes, and if not why, in a few plain words.
func (e *Endpoint) SetHealthy(ok bool, reason string, now Instant) {
	e.say(health, !ok, reason, now, 0)
}

// Eject is the word of outlier detection: the endpoint is out of rotation,
// as things stand until an instant. It stays out until Restore.
func (e *Endpoint) Eject(reason string, now, until Instant) {
	e.say(outliers, true, reason, now, until)
}

// Restore takes Eject back.
func (e *Endpoint) Restore(now Instant) { e.say(outliers, false, "", now, 0) }

// EjectedUntil returns when the ejection is to end; zero: there is none.
func (e *Endpoint) EjectedUntil() Instant { return e.word.fitness.Load().until }

// SetDraining is the word of an operator: no new calls to the endpoint, or let
// them come again. Calls in flight are not touched.
func (e *Endpoint) SetDraining(on bool) { e.say(operator, on, "drained by an operator", 0, 0) }

// SetTerminating is the word of discovery: the endpoint is about to go and
// takes no new calls, or it is to stay. Calls in flight are not touched.
func (e *Endpoint) SetTerminating(on bool) {
	e.say(discovery, on, "terminating, by discovery", 0, 0)
}

// Condition returns the strongest condition, the reason in plain words (empty
// when ready) and since when. A drain has no time of its own: since is then
// that of the condition below it.
func (e *Endpoint) Condition() (c Condition, reason string, since Instant) {
	f := e.word.fitness.Load()
	since = f.ready
	if below := f.standing &^ barring; below != 0 {
		since = f.objections[bits.Len32(below)-1].since
	}
	if f.standing == 0 {
		return Ready, "", since
	}
	strongest := bits.Len32(f.standing) - 1
	return conditions[strongest], f.objections[strongest].reason, since
}

// Fit reports whether the endpoint takes new calls gladly: nobody objects.
func (e *Endpoint) Fit() bool { return e.word.standing.Load() == 0 }

// Barred reports whether the endpoint must not get new calls even where no
// other is left: an operator drained it, or discovery says that it terminates.
func (e *Endpoint) Barred() bool { return e.word.standing.Load()&barring != 0 }

// Drained reports whether an operator drained the endpoint.
func (e *Endpoint) Drained() bool { return e.word.standing.Load()&operator.bit() != 0 }

package balancer

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
)

// Outliers takes endpoints of one service out of rotation that do worse than
// they should, for a while: passive health, made of the calls alone (Envoy's
// outlier detection, gRFC A50). Safe for concurrent use; an attempt that is no
// cause for an ejection takes no lock. Make it with NewOutliers; an endpoint
// belongs to one at most.
type Outliers struct {
	options atomic.Pointer[OutlierOptions] // with defaults; nil: off
	set     atomic.Pointer[Set]            // the newest seen
	due     atomic.Int64                   // Sweep has nothing to do before; 0: at once
	full    atomic.Bool                    // no further one may go, until the next Sweep or snapshot
	told    func(e Ejection, out bool)     // hears who goes and comes; nil: nobody

	mu      sync.Mutex
	out     []Ejection // members of set, in the order in which they went
	judgeAt Instant    // 0: the interval has not begun
	stats   OutlierSnapshot
	samples []sample // of judge, kept for its memory
}

// Ejection is an endpoint that is out of rotation, or would be.
type Ejection struct {
	Endpoint *Endpoint
	Cause    Cause
	// Reason is the cause in plain words, with its figures.
	Reason string
	// Since and Until are when it went and when it comes back, at the next
	// Sweep.
	Since, Until Instant
	// Repeats is how many ejections count for its length, itself included.
	Repeats int
	// Observed says that it would be out: ObserveOnly keeps it in.
	Observed bool
}

// OutlierSnapshot is what outlier detection has done so far.
type OutlierSnapshot struct {
	// Ejected counts the ejections by cause; WouldEject those that ObserveOnly
	// kept from happening.
	Ejected, WouldEject [NumCauses]uint64
	// Bounded counts how often MaxEjected kept endpoints in. While no other may
	// go, several failures in a row count once.
	Bounded uint64
	// Out lists who is out now, or would be, in the order in which they went.
	Out []Ejection
}

// NewOutliers returns detection without a past. told, which may be nil, hears of
// each endpoint that goes out, or would, and of each that is back; it must not
// block, and not ask the Outliers anything.
func NewOutliers(o OutlierOptions, told func(e Ejection, out bool)) *Outliers {
	d := &Outliers{told: told}
	d.Update(o)
	return d
}

// Update changes the options. Who is out stays until its time is over; the
// next Sweep brings conditions in line with ObserveOnly, and lets everyone back
// where the options ask for nothing any more.
func (o *Outliers) Update(options OutlierOptions) {
	o.mu.Lock()
	defer o.mu.Unlock()
	var next *OutlierOptions
	if options.On() {
		options = options.withDefaults()
		next = &options
	}
	o.options.Store(next)
	o.judgeAt = 0
	o.full.Store(false)
	o.due.Store(0)
}

// Observe takes note of a finished attempt. set is the service's present
// snapshot: once it is a new one, the bound is kept over its members. Failures
// in a row eject at once. rnd is a fresh uniform random number.
func (o *Outliers) Observe(set *Set, e *Endpoint, now Instant, a Attempt, rnd uint64) {
	p := o.options.Load()
	if p == nil || a.Outcome == Ignored {
		return
	}
	if o.set.Load() != set {
		o.meet(set, now)
	}
	r := &e.record
	if int64(now-a.Took) < r.from.Load() {
		return
	}
	if a.Outcome != LocalFailure && r.localInRow.Load() != 0 {
		r.localInRow.Store(0)
	}
	switch a.Outcome {
	case Success:
		if r.inRow.Load() != 0 {
			r.inRow.Store(0)
		}
		if p.judges() {
			r.succeeded(p.LatencyFactor > 0, a)
		}
	case Failure, LocalFailure:
		if p.judges() {
			r.failures.Add(1)
		}
		cause, row, most := CauseFailures, &r.inRow, p.ConsecutiveFailures
		if a.Outcome == LocalFailure && p.ConsecutiveLocal > 0 {
			cause, row, most = CauseLocal, &r.localInRow, p.ConsecutiveLocal
		}
		if most > 0 && int(row.Add(1)) >= most && !o.full.Load() && !e.Barred() {
			o.trip(set, e, now, cause, most, rnd)
		}
	}
}

func (r *record) succeeded(timed bool, a Attempt) {
	r.successes.Add(1)
	switch {
	case !timed:
	case a.Stream:
		r.untimed.Add(1)
	default:
		r.logs.Add(log2(a.Took))
	}
}

// meet looks at a snapshot that is new.
func (o *Outliers) meet(set *Set, now Instant) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.settle(set, now)
}

// trip ejects an endpoint that failed too often in a row.
func (o *Outliers) trip(set *Set, e *Endpoint, now Instant, cause Cause, most int, rnd uint64) {
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.options.Load()
	if p == nil || e.record.from.Load() == never {
		return // another attempt was faster
	}
	o.settle(set, now)
	reason := fmt.Sprintf("%d failures in a row", most)
	if cause == CauseLocal {
		reason = fmt.Sprintf("%d attempts in a row without an answer", most)
	}
	o.eject(p, e, now, cause, reason, rnd)
}

// eject takes an endpoint out unless the bound is reached. o.mu is held, and
// settle was called.
func (o *Outliers) eject(p *OutlierOptions, e *Endpoint, now Instant, cause Cause, reason string, rnd uint64) {
	if !o.member(e) {
		return // it left meanwhile
	}
	if len(o.out) >= p.allowed(o.eligible()) {
		o.full.Store(true)
		o.stats.Bounded++
		return
	}
	r := &e.record
	r.repeats -= int(min(int64((now-r.back)/p.Interval), int64(r.repeats))) // what calm has taken back
	if p.lasts(r.repeats) < p.MaxEjectFor {
		r.repeats++
	}
	lasts := p.lasts(r.repeats)
	until := now + lasts + Instant(below(rnd, uint64(lasts/10)+1))
	r.restart(never)
	gone := Ejection{Endpoint: e, Cause: cause, Reason: reason, Since: now, Until: until, Repeats: r.repeats, Observed: p.ObserveOnly}
	if p.ObserveOnly {
		o.stats.WouldEject[cause]++
	} else {
		o.stats.Ejected[cause]++
		e.Eject(reason, now, until)
	}
	o.out = append(o.out, gone)
	o.tell(&gone, true)
}

func (o *Outliers) tell(e *Ejection, out bool) {
	if o.told != nil {
		o.told(*e, out)
	}
}

// settle brings who is out in line with the snapshot and the time. o.mu is
// held.
func (o *Outliers) settle(set *Set, now Instant) {
	if known := o.set.Load(); known != set && (known == nil || set.generation >= known.generation) {
		o.set.Store(set)
		o.full.Store(false)
		o.forget(now)
		o.keepBound(now)
	}
	o.restore(now, func(g *Ejection) bool { return g.Until <= now })
}

// restore lets those back that are meant.
func (o *Outliers) restore(now Instant, meant func(*Ejection) bool) {
	o.out = slices.DeleteFunc(o.out, func(g Ejection) bool {
		if !meant(&g) {
			return false
		}
		g.Endpoint.record.back = now
		g.Endpoint.record.restart(now)
		if !g.Observed {
			g.Endpoint.Restore(now)
		}
		o.tell(&g, false)
		return true
	})
}

// forget lets go of those that left the snapshot or were drained: the first
// are nobody's, the second get no calls anyway and would count for others'
// bound.
func (o *Outliers) forget(now Instant) {
	if len(o.out) == 0 {
		return
	}
	members := make(map[*Endpoint]bool, o.set.Load().Len())
	for _, e := range o.set.Load().All() {
		members[e] = true
	}
	o.restore(now, func(g *Ejection) bool {
		if !members[g.Endpoint] {
			g.Endpoint.record.repeats = 0
			return true
		}
		return g.Endpoint.Barred()
	})
}

// keepBound lets those back first that would be back first anyway, as long as
// too many are out.
func (o *Outliers) keepBound(now Instant) {
	p := o.options.Load()
	if p == nil || len(o.out) == 0 {
		return
	}
	for allowed := p.allowed(o.eligible()); len(o.out) > allowed; {
		first := o.out[0]
		for _, g := range o.out {
			if g.Until < first.Until {
				first = g
			}
		}
		o.restore(now, func(g *Ejection) bool { return g.Endpoint == first.Endpoint })
	}
}

// eligible counts the endpoints that may get calls.
func (o *Outliers) eligible() (n int) {
	for _, e := range o.set.Load().All() {
		if !e.Barred() {
			n++
		}
	}
	return n
}

func (o *Outliers) member(e *Endpoint) bool { return slices.Contains(o.set.Load().All(), e) }

// Sweep does what time asks for: it judges rates and latency once an interval
// and lets those back whose time is over. It returns when to call it again;
// zero: not before the options change. Called early it costs a few loads. rnd
// is a fresh uniform random number.
func (o *Outliers) Sweep(set *Set, now Instant, rnd uint64) (next Instant) {
	if due := Instant(o.due.Load()); due != 0 && now < due && o.set.Load() == set {
		return due
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	p := o.options.Load()
	o.settle(set, now)
	if p == nil {
		o.restore(now, func(*Ejection) bool { return true })
		return 0
	}
	o.full.Store(false) // who comes back makes room, and so does one that is drained no more
	o.forget(now)
	o.keepBound(now)
	o.conform(p, now)
	switch {
	case o.judgeAt == 0:
		o.judgeAt = now + p.Interval
	case now >= o.judgeAt:
		o.judgeAt = now + p.Interval
		if p.judges() {
			o.judge(p, now, rnd)
		}
	}
	// Who goes from now on comes back EjectFor later at the earliest.
	next = min(o.judgeAt, now+p.EjectFor)
	for i := range o.out {
		next = min(next, o.out[i].Until)
	}
	o.due.Store(int64(next))
	return next
}

// conform brings conditions in line with ObserveOnly.
func (o *Outliers) conform(p *OutlierOptions, now Instant) {
	for i := range o.out {
		g := &o.out[i]
		if g.Observed == p.ObserveOnly {
			continue
		}
		if g.Observed = p.ObserveOnly; g.Observed {
			g.Endpoint.Restore(now)
		} else {
			g.Endpoint.Eject(g.Reason, now, g.Until)
		}
		o.tell(g, true)
	}
}

// Snapshot returns what was done so far and who is out.
func (o *Outliers) Snapshot() OutlierSnapshot {
	o.mu.Lock()
	defer o.mu.Unlock()
	s := o.stats
	s.Out = slices.Clone(o.out)
	return s
}

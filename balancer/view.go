package balancer

import "math"

// view is a plan with who is fit: all that a pick needs. It is immutable but
// for its pools' turns.
type view struct {
	set     *Set
	plan    *plan
	changes uint64  // of fitness, when it was made
	reach   uint64  // how many plans there were before
	asOf    Instant // the time that its weights are of; zero: not known
	due     Instant // when weights are to be looked up again
	loads   []load  // by tier
	locals  []float64
	shares  []share
}

// share is a group and up to which number calls are its.
type share struct {
	upTo  uint64
	group *group
}

// of reports whether the view is of the set or of one that came after it.
func (v *view) of(set *Set) bool {
	return v.set == set || v.set.line == set.line && v.set.generation > set.generation
}

// current reports whether nothing has changed since the view was made.
func (v *view) current() bool { return v.changes == v.set.line.changes.Load() }

// at notes the time that weights are of.
func (v *view) at(now Instant, o *Options) {
	v.asOf, v.due = now, math.MaxInt64
	switch {
	case !o.LoadReports.On:
	case now == 0:
		v.due = 1 // the first pick that knows the time looks
	default:
		v.due = now + o.LoadReports.WeightUpdatePeriod
	}
}

// reweighed returns the view with the weights of now. Nothing else has changed.
func (v *view) reweighed(o *Options, now Instant) *view {
	next := *v
	next.at(now, o)
	next.shares = make([]share, len(v.shares))
	for i, s := range v.shares {
		next.shares[i] = share{s.upTo, s.group.reweighed(o, now)}
	}
	return &next
}

// newView looks who is fit. before may be nil; now is zero where it is not
// known, and weights by reports are then those of before.
func newView(set *Set, o *Options, before *view, now Instant) *view {
	v := &view{set: set, changes: set.line.changes.Load()} // before the words: what changes meanwhile is seen next time
	if now == 0 && before != nil {
		now = before.asOf
	}
	v.at(now, o)
	switch {
	case before == nil:
		v.plan = newPlan(set, o, nil)
	case before.set == set:
		v.plan = before.plan.follow(o)
	default:
		v.plan = newPlan(set, o, before.plan)
	}
	if before != nil {
		v.reach = before.reach
		if v.plan != before.plan {
			v.reach++
		}
	}
	counts := make([]headcount, len(v.plan.tiers))
	for i, t := range v.plan.tiers {
		counts[i] = count(t.whole.members).of(t.size)
	}
	v.loads = loads(counts, o.PanicThreshold)
	v.locals = make([]float64, len(v.loads))
	upTo := 0.0
	for i, t := range v.plan.tiers {
		if v.loads[i].share <= 0 {
			continue
		}
		against := ^uint32(0)
		switch n := counts[i]; {
		case n.fit > 0 && !v.loads[i].panicked:
		case n.connected > 0:
			against = barring | connection.bit()
		default:
			against = barring
		}
		zones, shares := t.split(against, o, v.loads[i].panicked)
		for z, pool := range zones {
			if shares[z] <= 0 {
				continue
			}
			pool.prepare(o)
			g := newGroup(pool, against, o, now)
			if len(g.usable) == 0 {
				continue // it changed since it was counted, and will be counted again
			}
			upTo += v.loads[i].share * shares[z]
			v.shares = append(v.shares, share{fraction(upTo), g})
			if len(zones) > 1 && z == t.local {
				v.locals[i] = shares[z]
			}
		}
	}
	if n := len(v.shares); n > 0 {
		v.shares[n-1].upTo = math.MaxUint64
	}
	return v
}

// fraction maps [0, 1] to all numbers.
func fraction(f float64) uint64 {
	if f >= 1 {
		return math.MaxUint64
	}
	return uint64(f * (1 << 63) * 2)
}

// split returns the pools that the tier's calls are divided among, and their
// shares.
func (t *tier) split(against uint32, o *Options, panicked bool) ([]*pool, []float64) {
	whole := []*pool{t.whole}
	if t.zones == nil || panicked {
		return whole, []float64{1}
	}
	zones, fit := make([]capacity, len(t.zones)), 0
	for i, z := range t.zones {
		for _, e := range z.members {
			w := float64(e.Spec().Weight)
			zones[i].all += w
			if e.word.standing.Load()&against == 0 {
				zones[i].fit += w
				if i == t.local {
					fit++
				}
			}
		}
	}
	if float64(fit)*100 < o.MinZonePercent*float64(len(t.zones[t.local].members)) {
		return whole, []float64{1}
	}
	shares := zoneShares(zones, t.local)
	if shares == nil {
		return whole, []float64{1}
	}
	return t.zones, shares
}

// group returns the group that a number belongs to.
func (v *view) group(number uint64) *group {
	for i := range v.shares {
		if number <= v.shares[i].upTo {
			return v.shares[i].group
		}
	}
	return nil
}

// resort finds an endpoint where the group that was chosen has none that takes
// the call: a fit one, of the earliest priority; then one that is connected;
// then any that may be tried at all. Where there is a subset it looks as far as
// that may reach first, and then down its order for what may come next.
func (v *view) resort(rnd uint64, a *Ask) *Endpoint {
	objections := [...]uint32{^uint32(0), barring | connection.bit(), barring}
	for _, against := range objections {
		for _, t := range v.plan.tiers {
			if e := search(t.whole.members, rnd, against, a); e != nil {
				return e
			}
			if e := t.next(against, reachLimit*t.size, a); e != nil {
				return e
			}
		}
	}
	for _, against := range objections {
		for _, t := range v.plan.tiers {
			if e := t.next(against, -1, a); e != nil {
				return e
			}
		}
	}
	return nil
}

// search returns the first endpoint from a random place on that nobody of
// against objects to and that is not excluded.
func search(endpoints []*Endpoint, rnd uint64, against uint32, a *Ask) *Endpoint {
	g := group{usable: endpoints, against: against}
	return g.scan(rnd, a)
}

package balancer

// Snapshot is how a picker spreads calls at a moment.
type Snapshot struct {
	// Panicking says that of some priority so few endpoints are fit that calls
	// are spread over all that are connected; see Options.PanicThreshold.
	Panicking bool
	// Priorities are in their order.
	Priorities []PriorityShare
}

// PriorityShare is one priority's part in a Snapshot.
type PriorityShare struct {
	Priority uint32
	// Endpoints is how many are used: with a subset, its members and those
	// that stand in for some of them.
	Endpoints int
	// Fit is how many of them are fit.
	Fit int
	// Share is the part of all calls that the priority gets, 0 to 1.
	Share float64
	// Local is the part of those that stays in the caller's zone, 0 to 1. Zero
	// too where zones are not told apart.
	Local float64
	// Panicking says that fitness is not believed here.
	Panicking bool
}

// Snapshot returns how calls are spread over the set now.
func (p *Picker) Snapshot(set *Set) Snapshot {
	var s Snapshot
	p.Prepare(set)
	v := p.view.Load()
	if v == nil || !v.of(set) {
		return s // nothing was ever there
	}
	for i, t := range v.plan.tiers {
		s.Priorities = append(s.Priorities, PriorityShare{
			Priority: t.priority, Endpoints: len(t.whole.members), Fit: count(t.whole.members).fit,
			Share: v.loads[i].share, Local: v.locals[i], Panicking: v.loads[i].panicked,
		})
		s.Panicking = s.Panicking || v.loads[i].panicked
	}
	return s
}

// Members returns the endpoints of the set that calls go to now: all, or the
// subset of each priority with those that stand in for some of it. Only those
// are worth a health check. See Reach for when they change.
func (p *Picker) Members(set *Set) []*Endpoint {
	p.Prepare(set)
	v := p.view.Load()
	if v == nil || !v.of(set) {
		return nil
	}
	var all []*Endpoint
	for _, t := range v.plan.tiers {
		all = append(all, t.whole.members...)
	}
	return all
}

// Reach returns a number that is another one whenever Members may be others, of
// the set or of one that came after it. It costs a few loads as long as nothing
// changed, and is zero without a subset.
func (p *Picker) Reach(set *Set) uint64 {
	if p.options.Subset <= 0 {
		return 0
	}
	p.Prepare(set)
	if v := p.view.Load(); v != nil {
		return v.reach
	}
	return 0
}

package balancer

import (
	"cmp"
	"slices"
)

// plan is what a picker makes of a set: subset, priorities, zones, rings and
// tables. It is written under Picker.mu, and never changed once a view has it.
type plan struct {
	tiers []*tier // by priority
}

// tier is one priority.
type tier struct {
	priority uint32
	size     int         // how many endpoints its calls are meant for
	order    []*Endpoint // all of the priority in rendezvous order; nil: there is no subset
	whole    *pool
	zones    []*pool // one for each zone; nil: they are not told apart
	local    int     // the caller's zone among them
}

// newPlan makes a plan. Turns go on where they stood in the one before, which
// may be nil.
func newPlan(set *Set, o *Options, before *plan) *plan {
	p := &plan{}
	groups := make(map[uint32][]*Endpoint)
	for _, e := range set.endpoints {
		priority := e.Spec().Priority
		groups[priority] = append(groups[priority], e)
	}
	for priority, members := range groups {
		t := &tier{priority: priority, size: len(members)}
		if o.Subset > 0 && o.Subset < len(members) {
			t.size, t.order = o.Subset, rendezvous(members, o.Identity)
			members = t.reach()
		}
		t.use(members, o)
		p.tiers = append(p.tiers, t)
	}
	slices.SortFunc(p.tiers, func(a, b *tier) int { return cmp.Compare(a.priority, b.priority) })
	for _, t := range p.tiers {
		t.takeOver(before, o)
	}
	return p
}

// follow returns the plan for who is fit now: the same one, unless a subset
// reaches another way.
func (p *plan) follow(o *Options) *plan {
	next := p
	for i, t := range p.tiers {
		if t.order == nil {
			continue
		}
		members := t.reach()
		if slices.Equal(members, t.whole.members) {
			continue
		}
		if next == p {
			next = &plan{tiers: slices.Clone(p.tiers)}
		}
		other := &tier{priority: t.priority, size: t.size, order: t.order}
		other.use(members, o)
		other.takeOver(p, o)
		next.tiers[i] = other
	}
	return next
}

// use makes the pools of the endpoints that calls go to.
func (t *tier) use(members []*Endpoint, o *Options) {
	t.whole = &pool{members: members}
	if o.Policy == PeakEWMA {
		for _, e := range members {
			e.latency.decay.Store(int64(o.Decay))
		}
	}
	if !o.ZoneAware || o.Zone == "" {
		return
	}
	zones := make(map[string]*pool)
	for _, e := range members {
		zone := e.Spec().Zone
		z := zones[zone]
		if z == nil {
			z = &pool{zone: zone}
			zones[zone] = z
			t.zones = append(t.zones, z)
		}
		z.members = append(z.members, e)
	}
	t.local = slices.IndexFunc(t.zones, func(z *pool) bool { return z.zone == o.Zone })
	if len(t.zones) < 2 || t.local < 0 {
		t.zones = nil
	}
}

// takeOver lets turns go on.
func (t *tier) takeOver(before *plan, o *Options) {
	for _, now := range append([]*pool{t.whole}, t.zones...) {
		now.turns.Store(o.Identity)
	}
	if before == nil {
		return
	}
	for _, old := range before.tiers {
		if old.priority != t.priority {
			continue
		}
		t.whole.turns.Store(old.whole.turns.Load())
		for _, now := range t.zones {
			for _, was := range old.zones {
				if was.zone == now.zone {
					now.turns.Store(was.turns.Load())
				}
			}
		}
	}
}

// prepare makes the ring or the table, where the pool is in use.
func (p *pool) prepare(o *Options) {
	switch {
	case len(p.members) == 0:
	case o.Policy == RingHash && p.ring == nil:
		p.ring = newRing(p.members, o.RingSize)
	case o.Policy == Maglev && p.table == nil:
		p.table = newTable(p.members, o.TableSize)
	}
}

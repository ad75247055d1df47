package balancer

import (
	"cmp"
	"slices"
)

// plan is what a picker makes of a set, whoever is fit: subset, priorities,
// zones, rings and tables. It is written under Picker.mu.
type plan struct {
	tiers []*tier // by priority
}

// tier is one priority.
type tier struct {
	priority uint32
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
		p.tiers = append(p.tiers, newTier(priority, subset(members, o), o))
	}
	slices.SortFunc(p.tiers, func(a, b *tier) int { return cmp.Compare(a.priority, b.priority) })
	for _, t := range p.tiers {
		t.takeOver(before, o)
	}
	if o.Policy == PeakEWMA {
		for _, t := range p.tiers {
			for _, e := range t.whole.members {
				e.latency.decay.Store(int64(o.Decay))
			}
		}
	}
	return p
}

func newTier(priority uint32, members []*Endpoint, o *Options) *tier {
	t := &tier{priority: priority, whole: &pool{members: members}}
	if !o.ZoneAware || o.Zone == "" {
		return t
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
	return t
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

// subset returns the endpoints that this process uses: those whose hash with
// its identity is the highest (rendezvous hashing, Thaler and Ravishankar,
// 1998). So one that comes or goes changes at most one of a process's, and other
// processes use others.
func subset(members []*Endpoint, o *Options) []*Endpoint {
	if o.Subset <= 0 || o.Subset >= len(members) {
		return members
	}
	identity := scramble(o.Identity)
	ranked := slices.Clone(members)
	slices.SortFunc(ranked, func(a, b *Endpoint) int { return cmp.Compare(scramble(b.hash^identity), scramble(a.hash^identity)) })
	chosen := make(map[*Endpoint]bool, o.Subset)
	for _, e := range ranked[:o.Subset] {
		chosen[e] = true
	}
	return slices.DeleteFunc(slices.Clone(members), func(e *Endpoint) bool { return !chosen[e] })
}

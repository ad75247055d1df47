package balancer

import (
	"slices"
	"sync/atomic"
)

// pool is endpoints that calls are spread over by one algorithm: a priority's,
// or those of one zone in it. It depends on the set alone, not on who is fit:
// hashes must not move when one falls ill.
type pool struct {
	members []*Endpoint
	zone    string
	ring    *ring  // of RING_HASH, else nil
	table   *table // of MAGLEV, else nil

	_     [64]byte
	turns atomic.Uint64 // of ROUND_ROBIN and WEIGHTED_ROUND_ROBIN, taken so far
	_     [56]byte
}

// group is a pool and those of its members that are usable now.
type group struct {
	pool   *pool
	usable []*Endpoint
	// against are the owners whose objection keeps an endpoint out. All of
	// them, but for those that are not believed.
	against uint32
	lots    *lots // of the usable, where their weights count and differ
	weights []uint32
	weight  float64 // sum of the usable's

	// load is what meanLoad remembers.
	load struct {
		_         [64]byte
		left, sum atomic.Int64
		_         [48]byte
	}
}

// newGroup returns the pool's members that nobody of against objects to.
func newGroup(pool *pool, against uint32, o *Options, now Instant) *group {
	g := &group{pool: pool, against: against}
	g.usable = make([]*Endpoint, 0, len(pool.members))
	for _, e := range pool.members {
		if e.word.standing.Load()&against == 0 {
			g.usable = append(g.usable, e)
		}
	}
	if o.Policy != RoundRobin {
		g.weigh(weightsOf(g.usable, o, now), o)
	}
	return g
}

// weightsOf returns the endpoints' weights: what they report, or what their
// specs say.
func weightsOf(endpoints []*Endpoint, o *Options, now Instant) []uint32 {
	if o.LoadReports.On {
		if weights := reportedWeights(endpoints, now, &o.LoadReports); weights != nil {
			return weights
		}
	}
	weights := make([]uint32, len(endpoints))
	for i, e := range endpoints {
		weights[i] = e.Spec().Weight
	}
	return weights
}

func (g *group) weigh(weights []uint32, o *Options) {
	g.weights = weights
	for _, w := range weights {
		g.weight += float64(w)
	}
	if !o.Policy.Hashes() {
		g.lots = newLots(weights)
	}
}

// reweighed returns the group with the weights of now: the same where they have
// not changed.
func (g *group) reweighed(o *Options, now Instant) *group {
	weights := weightsOf(g.usable, o, now)
	if slices.Equal(weights, g.weights) {
		return g
	}
	next := &group{pool: g.pool, usable: g.usable, against: g.against}
	next.weigh(weights, o)
	return next
}

// takes reports whether the endpoint takes this call. It may have become unfit
// since the group was made.
func (g *group) takes(e *Endpoint, a *Ask) bool {
	return e.word.standing.Load()&g.against == 0 && (a.Excluded == nil || !a.Excluded(e))
}

// tries is how often a choice that met an endpoint which doesn't take the call
// is made again before the endpoints are looked through in order, which favours
// the neighbours of those.
const tries = 4

// byTurn returns the next endpoint in turn, by weight where lots are given. One
// that doesn't take the call loses its turn to the next of the whole sequence.
func (p *Picker) byTurn(g *group, a *Ask) *Endpoint {
	n := uint64(len(g.usable))
	turn := uint64(0)
	rnd := a.Rnd
	for range tries + int(min(n, tries)) {
		turn = g.pool.turns.Add(1) - 1
		i := 0
		if g.lots != nil {
			i = g.lots.turn(turn)
		} else if n > 1 {
			i = int(turn % n)
		}
		if e := g.usable[i]; g.takes(e, a) {
			if rnd = scramble(rnd); n == 1 || !p.holdsBack(e, a.Now, rnd) {
				return e
			}
		}
	}
	return g.scan(turn*0x9e3779b97f4a7c15, a)
}

// draw returns the index of an endpoint that chance chose, by weight; negative:
// none takes the call.
func (p *Picker) draw(g *group, a *Ask, rnd uint64) int {
	n := uint64(len(g.usable))
	for range tries {
		var i int
		if g.lots != nil {
			i = g.lots.draw(rnd)
		} else {
			i = int(below(rnd, n))
		}
		rnd = scramble(rnd)
		if e := g.usable[i]; g.takes(e, a) && !p.holdsBack(e, a.Now, rnd) {
			return i
		}
	}
	return g.find(rnd, a)
}

// byChance returns any endpoint.
func (p *Picker) byChance(g *group, a *Ask) *Endpoint {
	if i := p.draw(g, a, a.Rnd); i >= 0 {
		return g.usable[i]
	}
	return nil
}

// byLoad draws some endpoints and returns the one that would cost the call the
// least.
func (p *Picker) byLoad(g *group, a *Ask) *Endpoint {
	best := p.draw(g, a, a.Rnd)
	if best < 0 || len(g.usable) == 1 {
		return g.at(best)
	}
	rnd, decay := a.Rnd, float64(p.options.Decay)
	cost, known := 0.0, false
	for range p.options.Choices - 1 {
		next := best
		for range tries { // as many choices as are asked for, not one twice
			rnd = scramble(rnd ^ saltChoice)
			if next = p.draw(g, a, rnd); next != best {
				break
			}
		}
		if next == best {
			continue
		}
		if !known {
			cost, known = p.cost(g, best, a.Now, decay), true
		}
		if c := p.cost(g, next, a.Now, decay); c < cost {
			best, cost = next, c
		}
	}
	return g.usable[best]
}

// cost is what LEAST_REQUEST and PEAK_EWMA compare.
func (p *Picker) cost(g *group, i int, now Instant, decay float64) float64 {
	e := g.usable[i]
	cost := float64(e.inFlight.Load())
	if p.options.Policy == PeakEWMA {
		cost = e.latency.estimate(now, decay, e.inFlight.Load())
	}
	if g.lots != nil {
		cost /= float64(g.weights[i])
	}
	return cost
}

// at returns the usable endpoint of an index; nil of a negative one.
func (g *group) at(i int) *Endpoint {
	if i < 0 {
		return nil
	}
	return g.usable[i]
}

// find returns the index of the first endpoint from a random place on that
// takes the call; negative: none does.
func (g *group) find(rnd uint64, a *Ask) int {
	n := len(g.usable)
	if n == 0 {
		return -1
	}
	i := int(below(rnd, uint64(n)))
	for range n {
		if g.takes(g.usable[i], a) {
			return i
		}
		if i++; i == n {
			i = 0
		}
	}
	return -1
}

// scan returns the first endpoint from a random place on that takes the call,
// or nil.
func (g *group) scan(rnd uint64, a *Ask) *Endpoint { return g.at(g.find(rnd, a)) }

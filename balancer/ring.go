package balancer

import (
	"math"
	"math/bits"
)

// ring is consistent hashing (Karger et al., 1997): every endpoint has points
// on a circle, as ketama's by weight, and a hash is of the endpoint whose point
// is next. When an endpoint comes or goes only what is between its points and
// those before them moves. Points depend on addresses and weights alone, so
// that agents agree.
type ring struct {
	points []point
	// first is, by a hash's high bits, the first point that can be next.
	first []int32
	shift uint8
}

// point is a place on the ring, and whose it is.
type point struct {
	at     uint32
	member int32
}

// newRing makes a ring of about so many points; zero: DefaultRingPoints an
// endpoint.
func newRing(members []*Endpoint, size int) *ring {
	if size <= 0 {
		size = DefaultRingPoints * len(members)
	}
	size = min(size, MaxRingSize)
	var total float64
	for _, e := range members {
		total += float64(e.Spec().Weight)
	}
	counts, all := make([]int, len(members)), 0
	for i, e := range members {
		counts[i] = max(int(math.Round(float64(size)*float64(e.Spec().Weight)/total)), 1)
		all += counts[i]
	}
	width := bits.Len(uint(all))
	r := &ring{points: make([]point, all), first: make([]int32, 1<<width+1), shift: uint8(32 - width)}
	// The points are uniform: sorted into as many heaps there is about one in
	// each, and what is left to sort is next to nothing.
	r.each(members, counts, func(p point) { r.first[p.at>>r.shift+1]++ })
	for i := range 1 << width {
		r.first[i+1] += r.first[i]
	}
	filled := make([]int32, 1<<width)
	r.each(members, counts, func(p point) {
		heap := p.at >> r.shift
		i := r.first[heap] + filled[heap]
		filled[heap]++
		for ; i > r.first[heap] && p.before(r.points[i-1], members); i-- {
			r.points[i] = r.points[i-1]
		}
		r.points[i] = p
	})
	return r
}

// each calls f with every point, in no order.
func (r *ring) each(members []*Endpoint, counts []int, f func(point)) {
	for i, e := range members {
		h := e.hash
		for range counts[i] {
			h = scramble(h)
			f(point{uint32(h >> 32), int32(i)})
		}
	}
}

func (p point) before(q point, members []*Endpoint) bool {
	if p.at != q.at {
		return p.at < q.at
	}
	return members[p.member].hash < members[q.member].hash
}

// next returns the index of the point that a hash belongs to.
func (r *ring) next(hash uint64) int {
	at := uint32(hash >> 32)
	i := int(r.first[at>>r.shift])
	for i < len(r.points) && r.points[i].at < at {
		i++
	}
	if i == len(r.points) {
		return 0
	}
	return i
}

// walk bounds how many points a call goes on past endpoints that don't take it,
// before they are gone through in order.
const walk = 256

// byRing returns the next endpoint on the ring that takes the call, and has
// room for it where loads are bounded.
func (p *Picker) byRing(g *group, a *Ask) *Endpoint {
	r := g.pool.ring
	room := math.Inf(1) // for each unit of weight
	if p.options.BoundedLoad > 0 {
		room = p.options.BoundedLoad * g.meanLoad()
	}
	i, last := r.next(a.Hash), int32(-1)
	var resort *Endpoint
	for range min(walk, len(r.points)) {
		if m := r.points[i].member; m != last {
			last = m
			if e := g.pool.members[m]; g.takes(e, a) {
				if !e.full(room) {
					return e
				}
				if resort == nil {
					resort = e
				}
			}
		}
		if i++; i == len(r.points) {
			i = 0
		}
	}
	if resort != nil {
		return resort
	}
	return g.scan(a.Hash, a)
}

// full reports whether one more call would be beyond the endpoint's room.
func (e *Endpoint) full(room float64) bool {
	return !math.IsInf(room, 1) && float64(e.inFlight.Load()+1) > math.Ceil(room*float64(e.Spec().Weight))
}

// meanLoad returns how many calls are in flight for each unit of weight, one
// more counted. They are summed up once in as many picks as there are
// endpoints: meanwhile the mean moves by less than a call an endpoint.
func (g *group) meanLoad() float64 {
	l := &g.load
	if l.left.Add(-1) <= 0 {
		l.left.Store(int64(len(g.usable)))
		var sum int64
		for _, e := range g.usable {
			sum += e.inFlight.Load()
		}
		l.sum.Store(sum)
	}
	return float64(l.sum.Load()+1) / g.weight
}

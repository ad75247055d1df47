package balancer

import (
	"math/bits"
	"sync/atomic"
)

// Policy names an algorithm.
type Policy uint8

// The algorithms. Every one skips endpoints that are not fit as long as it
// finds a fit one.
const (
	// LeastRequest, the zero value, draws two endpoints and takes the one with
	// fewer calls in flight per weight: the power of two choices
	// (Mitzenmacher, 2001). It needs no coordination and steers away from a
	// slow endpoint by itself.
	LeastRequest Policy = iota
	// RoundRobin takes the endpoints in turn.
	RoundRobin
	// Random takes any endpoint with equal chance.
	Random
)

// String returns the policy's public name.
func (p Policy) String() string {
	switch p {
	case LeastRequest:
		return "LEAST_REQUEST"
	case RoundRobin:
		return "ROUND_ROBIN"
	case Random:
		return "RANDOM"
	}
	return "UNKNOWN"
}

// Excluded says which endpoints a pick must not return: those that this call
// has tried, or whose breaker is open. nil excludes none. It may be asked
// several times about one endpoint.
type Excluded func(*Endpoint) bool

// Picker is one algorithm with its state. Safe for concurrent use.
type Picker struct {
	policy Policy
	next   atomic.Uint64
}

// NewPicker returns a picker for the policy.
func NewPicker(policy Policy) *Picker { return &Picker{policy: policy} }

// Policy returns the algorithm's name.
func (p *Picker) Policy() Policy { return p.policy }

// Pick returns an endpoint of the set. It prefers fit endpoints; where none of
// those not excluded is fit it returns an unfit one, since trying is the only
// way to learn that it is back, but never a drained one. It returns nil when
// nothing is left. rnd is a fresh uniform random number.
//
// Pick does not count the attempt: call Begin on the endpoint once it is sent.
func (p *Picker) Pick(set *Set, rnd uint64, excluded Excluded) *Endpoint {
	n := uint64(len(set.endpoints))
	switch n {
	case 0:
		return nil
	case 1:
		e := set.endpoints[0]
		if e.Barred() || excluded != nil && excluded(e) {
			return nil
		}
		return e
	}
	switch p.policy {
	case RoundRobin:
		return p.inTurn(set, excluded)
	case Random:
		return set.draw(rnd, excluded)
	default:
		return set.leastRequest(rnd, excluded)
	}
}

// inTurn gives the next fit endpoint its turn. One that is not fit loses its
// turn to the next in line of the whole sequence, so that the others go on
// sharing evenly.
func (p *Picker) inTurn(set *Set, excluded Excluded) *Endpoint {
	n := uint64(len(set.endpoints))
	for range n {
		if e := set.endpoints[(p.next.Add(1)-1)%n]; e.Fit() && (excluded == nil || !excluded(e)) {
			return e
		}
	}
	// None is fit, or turns were taken by others meanwhile.
	return set.scan(p.next.Add(1)-1, excluded)
}

// leastRequest draws two endpoints and returns the less loaded one.
func (s *Set) leastRequest(rnd uint64, excluded Excluded) *Endpoint {
	a := s.draw(rnd, excluded)
	b := s.draw(scramble(rnd), excluded)
	if a == b && a != nil {
		b = s.draw(scramble(scramble(rnd)), excluded) // two choices, not one twice
	}
	if a == b || a == nil {
		return b
	}
	// Fit is compared too: one of the two may be the scan's last resort.
	if fa, fb := a.Fit(), b.Fit(); fa != fb {
		if fa {
			return a
		}
		return b
	}
	// a.load/a.weight <= b.load/b.weight without a division. One is added so
	// that weights count among idle endpoints too.
	la := uint64(a.inFlight.Load()+1) * uint64(b.spec.Weight)
	lb := uint64(b.inFlight.Load()+1) * uint64(a.spec.Weight)
	if la <= lb {
		return a
	}
	return b
}

// draws is how often a draw that met an unfit endpoint is repeated before the
// endpoints are looked through in order, which favours the neighbours of unfit
// ones.
const draws = 4

// draw returns a fit endpoint by chance.
func (s *Set) draw(rnd uint64, excluded Excluded) *Endpoint {
	n := uint64(len(s.endpoints))
	for range draws {
		if e := s.endpoints[below(rnd, n)]; e.Fit() && (excluded == nil || !excluded(e)) {
			return e
		}
		rnd = scramble(rnd)
	}
	return s.scan(below(rnd, n), excluded)
}

// scramble makes the next random number of one (SplitMix64, Steele et al.,
// 2014).
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// scan returns the first fit endpoint from start on, else the first that may
// be tried at all, else nil.
func (s *Set) scan(start uint64, excluded Excluded) *Endpoint {
	n := uint64(len(s.endpoints))
	i := start % n
	var resort *Endpoint
	for range n {
		e := s.endpoints[i]
		if excluded == nil || !excluded(e) {
			if e.Fit() {
				return e
			}
			if resort == nil && !e.Barred() {
				resort = e
			}
		}
		if i++; i == n {
			i = 0
		}
	}
	return resort
}

// below maps a uniform 64-bit number to [0, n) (Lemire, 2019; the bias is
// under n/2^64).
func below(rnd, n uint64) uint64 {
	hi, _ := bits.Mul64(rnd, n)
	return hi
}

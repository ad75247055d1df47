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
		return set.scan(p.next.Add(1)-1, excluded)
	case Random:
		return set.scan(below(rnd, n), excluded)
	default:
		return set.leastRequest(rnd, excluded)
	}
}

// leastRequest draws two different endpoints and returns the less loaded one.
// When either is out of the question, the scan finds the next best from there:
// a fair enough draw, and still two choices.
func (s *Set) leastRequest(rnd uint64, excluded Excluded) *Endpoint {
	n := uint64(len(s.endpoints))
	i := below(rnd, n)
	j := below(bits.RotateLeft64(rnd, 32)*0x9e3779b97f4a7c15, n-1)
	if j >= i {
		j++
	}
	a := s.scan(i, excluded)
	b := s.scan(j, excluded)
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

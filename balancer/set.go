// Package balancer chooses the endpoint that a call goes to.
//
// An Endpoint carries the live counters of one address, and what its owners say
// of its fitness. A Set is an immutable snapshot of a service's endpoints; a
// change of membership makes a new Set around the same endpoints, so that
// counters outlive it. A Picker holds one algorithm's own small state and picks
// from the Set it is given:
//
//	set, gone := set.With(specs)
//	picker := balancer.NewPicker(balancer.Options{Policy: balancer.PeakEWMA})
//	e := picker.Pick(set, balancer.Ask{Now: now, Rnd: rand.Uint64()})
//	e.Begin()
//	…
//	e.End(now, took, failed)
//
// Outliers watches how attempts end, and ejects endpoints that do worse than
// they should.
//
// The package starts no goroutine and reads no clock; time and random numbers
// are arguments. Picks wait for no lock, but for the first ones on a new set
// while tables are made from it (see Picker.Prepare).
package balancer

import "sync/atomic"

// Set is an immutable snapshot of a service's endpoints. The zero value is
// empty. Safe for concurrent use.
type Set struct {
	endpoints  []*Endpoint
	line       *line
	generation uint64 // how many changes it is from the first of its line
}

// line is what the successive sets of one service share.
type line struct {
	// changes counts the changes of the endpoints' fitness, so that a pick
	// sees with one load whether what was derived from it still holds.
	changes atomic.Uint64
}

// NewSet returns a snapshot of the endpoints in the order given. The slice is
// copied. An endpoint belongs to one line of sets, that of the last NewSet that
// it was given to and those that With made from it.
func NewSet(endpoints []*Endpoint) *Set {
	s := &Set{endpoints: append([]*Endpoint(nil), endpoints...), line: &line{}}
	for _, e := range s.endpoints {
		e.word.line.Store(s.line)
	}
	return s
}

// Len returns the number of endpoints, fit or not.
func (s *Set) Len() int { return len(s.endpoints) }

// All returns the endpoints in order. The slice must not be changed.
func (s *Set) All() []*Endpoint { return s.endpoints }

// Find returns the endpoint with that address, or nil.
func (s *Set) Find(address string) *Endpoint {
	for _, e := range s.endpoints {
		if e.address == address {
			return e
		}
	}
	return nil
}

// With returns a set for the specs: an endpoint whose address stays is taken
// over with its counters, its condition and its new weight, zone and priority;
// the others are new. An address that comes twice counts as it came first. The
// second result lists the endpoints that are no longer in it. Where nothing
// changed the set is the same. Call it on the last set of a line only: a line
// does not fork.
func (s *Set) With(specs []Spec) (next *Set, gone []*Endpoint) {
	old := make(map[string]*Endpoint, len(s.endpoints))
	for _, e := range s.endpoints {
		old[e.address] = e
	}
	next = &Set{endpoints: make([]*Endpoint, 0, len(specs)), line: s.line, generation: s.generation + 1}
	if next.line == nil {
		next.line = &line{}
	}
	seen := make(map[string]bool, len(specs))
	same := s.line != nil
	for _, spec := range specs {
		if seen[spec.Address] {
			continue
		}
		seen[spec.Address] = true
		spec = spec.withDefaults()
		e := old[spec.Address]
		if e == nil {
			e = NewEndpoint(spec)
			e.word.line.Store(next.line)
		} else if e.Spec() != spec {
			e.spec.Store(&spec)
			same = false
		}
		i := len(next.endpoints)
		same = same && i < len(s.endpoints) && s.endpoints[i] == e
		next.endpoints = append(next.endpoints, e)
	}
	if same && len(next.endpoints) == len(s.endpoints) {
		return s, nil
	}
	for _, e := range s.endpoints {
		if !seen[e.address] {
			gone = append(gone, e)
		}
	}
	return next, gone
}

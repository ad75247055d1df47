// Package balancer chooses the endpoint that a call goes to.
//
// An Endpoint carries the live counters of one address. A Set is an immutable
// snapshot of a service's endpoints; a change of membership makes a new Set
// around the same endpoints, so that counters outlive it. A Picker holds one
// algorithm's own small state and picks from the Set it is given:
//
//	set := balancer.NewSet(endpoints)
//	picker := balancer.NewPicker(balancer.LeastRequest)
//	e := picker.Pick(set, rand.Uint64(), nil)
//
// Outliers watches how attempts end, and ejects endpoints that do worse than
// they should.
//
// The package starts no goroutine and reads no clock; random numbers are
// arguments. Neither a pick nor the end of an attempt waits for a lock, but for
// the attempt that ejects its endpoint.
package balancer

// Set is an immutable snapshot of a service's endpoints. The zero value is
// empty. Safe for concurrent use.
type Set struct {
	endpoints  []*Endpoint
	generation uint64 // how many changes it is from the first of its line
}

// NewSet returns a snapshot of the endpoints in the order given. The slice is
// copied.
func NewSet(endpoints []*Endpoint) *Set {
	return &Set{endpoints: append([]*Endpoint(nil), endpoints...)}
}

// Len returns the number of endpoints, fit or not.
func (s *Set) Len() int { return len(s.endpoints) }

// All returns the endpoints in order. The slice must not be changed.
func (s *Set) All() []*Endpoint { return s.endpoints }

// Find returns the endpoint with that address, or nil.
func (s *Set) Find(address string) *Endpoint {
	for _, e := range s.endpoints {
		if e.spec.Address == address {
			return e
		}
	}
	return nil
}

// With returns a set for the specs: an endpoint whose spec is unchanged is
// taken over with its counters, the others are new. A new one at an address
// that was drained is drained too: that was an operator's word on the address.
// The second result lists the endpoints that are no longer in it.
func (s *Set) With(specs []Spec) (next *Set, gone []*Endpoint) {
	old := make(map[Spec]*Endpoint, len(s.endpoints))
	drained := make(map[string]bool)
	for _, e := range s.endpoints {
		old[e.spec] = e
		if e.Barred() {
			drained[e.spec.Address] = true
		}
	}
	next = &Set{endpoints: make([]*Endpoint, 0, len(specs)), generation: s.generation + 1}
	for _, spec := range specs {
		if spec.Weight == 0 {
			spec.Weight = 1
		}
		e := old[spec]
		if e == nil {
			e = NewEndpoint(spec)
			e.SetDraining(drained[spec.Address])
		}
		delete(old, spec)
		next.endpoints = append(next.endpoints, e)
	}
	for _, e := range s.endpoints {
		if old[e.spec] == e {
			gone = append(gone, e)
		}
	}
	return next, gone
}

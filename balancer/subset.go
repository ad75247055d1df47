package balancer

import (
	"cmp"
	"slices"
	"strings"
)

// A subset is the first Options.Subset endpoints of a priority in an order that
// is this process's own. Where some of them are not fit it reaches on down the
// order, by one for each, until as many are fit as it is to have. So calls have
// the endpoints that they are meant to have whoever falls ill, which endpoints
// stand in does not depend on chance, and each goes as soon as the one that it
// stands in for is back.
//
// It reaches no further than reachLimit times its size, those aside that are
// drained or terminate: when everything is down, each process knows its own
// part of it, and not every process all.

// reachLimit is how many times its size a subset reaches at most.
const reachLimit = 2

// rendezvous returns the endpoints in the order in which this process uses
// them: by their hashes with its identity (rendezvous hashing, Thaler and
// Ravishankar, 1998). So one that comes or goes moves the others by one place at
// most, and other processes have other orders.
func rendezvous(members []*Endpoint, identity uint64) []*Endpoint {
	identity = scramble(identity)
	order := slices.Clone(members)
	slices.SortFunc(order, func(a, b *Endpoint) int {
		return cmp.Or(cmp.Compare(scramble(b.hash^identity), scramble(a.hash^identity)), strings.Compare(a.address, b.address))
	})
	return order
}

// reach returns the endpoints that the subset has now: its members, fit or not,
// and those that stand in for them.
func (t *tier) reach() []*Endpoint {
	var asked, fit int // those that may get calls; those that are fit
	met := func(e *Endpoint) (barred bool) {
		standing := e.word.standing.Load()
		if standing&barring != 0 {
			return true
		}
		asked++
		if standing == 0 {
			fit++
		}
		return false
	}
	members := slices.Clone(t.order[:t.size])
	for _, e := range members {
		met(e)
	}
	for _, e := range t.order[t.size:] {
		if fit >= t.size || asked >= reachLimit*t.size {
			break
		}
		if !met(e) {
			members = append(members, e)
		}
	}
	return members
}

// next returns the first endpoint in the subset's order that nobody of against
// objects to and that is not excluded; of the first so many that may get calls,
// where most is not negative. nil: there is none.
func (t *tier) next(against uint32, most int, a *Ask) *Endpoint {
	for _, e := range t.order {
		standing := e.word.standing.Load()
		switch {
		case standing&barring != 0:
			continue
		case most == 0:
			return nil
		case standing&against == 0 && (a.Excluded == nil || !a.Excluded(e)):
			return e
		}
		most--
	}
	return nil
}

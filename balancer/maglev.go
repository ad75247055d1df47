package balancer

import (
	"cmp"
	"slices"
)

// table is Maglev hashing (Eisenbud et al., "Maglev: A Fast and Reliable
// Software Network Load Balancer", NSDI 2016, 3.4): the endpoints take turns in
// claiming the slots that each likes best of those left, so that each gets its
// share of them to one slot, and when one comes or goes few others change hands.
type table struct {
	slots []int32 // whose each is
}

// tableSizes are primes, about a factor of two apart.
var tableSizes = [...]int{251, 509, 1021, 2039, 4093, 8191, 16381, 32749, MaxTableSize, 131071, 262139, 524287, 1048573}

// tableSize returns a prime that is at least the size asked for; zero: 100 times
// the endpoints, as the paper says.
func tableSize(asked, endpoints int) int {
	if asked <= 0 {
		asked = 100 * endpoints
	}
	asked = max(min(asked, MaxTableSize), endpoints+1)
	for _, prime := range tableSizes {
		if prime >= asked {
			return prime
		}
	}
	return tableSizes[len(tableSizes)-1]
}

// newTable makes a table of at least so many slots. An endpoint whose share is
// less than a slot may have none.
func newTable(members []*Endpoint, size int) *table {
	n := tableSize(size, len(members))
	t := &table{slots: make([]int32, n)}
	for i := range t.slots {
		t.slots[i] = -1
	}
	// In the order of their hashes, so that agents with other lists agree.
	order := make([]int32, len(members))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(a, b int32) int { return cmp.Compare(members[a].hash, members[b].hash) })
	weights := make([]uint32, len(order))
	for i, m := range order {
		weights[i] = members[m].Spec().Weight
	}
	l := newLots(weights)
	// Each endpoint goes through all slots from its own offset by its own skip.
	type claim struct{ at, skip int }
	claims := make([]claim, len(order))
	for i, m := range order {
		h := members[m].hash
		claims[i] = claim{int(below(h, uint64(n))), int(below(scramble(h), uint64(n-1))) + 1}
	}
	stride := goldenStride(uint64(n))
	for turn := range n {
		i := turn % len(order)
		if l != nil {
			// Every number of the lots at even distances, in the order that
			// spreads each endpoint's turns.
			k := uint64(turn) * stride % uint64(n)
			i = l.of(uint64((float64(k) + 0.5) / float64(n) * float64(l.total)))
		}
		c := &claims[i]
		for t.slots[c.at] >= 0 {
			if c.at += c.skip; c.at >= n {
				c.at -= n
			}
		}
		t.slots[c.at] = order[i]
	}
	return t
}

// probes is how many slots are tried before the endpoints are gone through in
// order.
const probes = 16

// byTable returns the endpoint of the hash's slot, or of the next probe that
// takes the call. What is of other endpoints stays with them.
func (p *Picker) byTable(g *group, a *Ask) *Endpoint {
	t := g.pool.table
	hash := a.Hash
	for range probes {
		if e := g.pool.members[t.slots[below(hash, uint64(len(t.slots)))]]; g.takes(e, a) {
			return e
		}
		hash = scramble(hash)
	}
	return g.scan(hash, a)
}

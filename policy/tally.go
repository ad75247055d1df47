package policy

import (
	"sync/atomic"
	"time"
)

const (
	tallySlices  = 10
	tallyStripes = 8
	// A slot's word is the number of its slice and, in the low bits, the count.
	// A stripe's count stays at the most that fits: 16 million a slice.
	tallyCountBits = 24
	tallyMost      = 1<<tallyCountBits - 1
)

// tally counts the events of a sliding time, in slices. Each stripe counts for
// itself, so that cores don't share a cache line; readers add them up. A slot
// says in the same word what it counts and for which slice, so an event is
// never counted in a slice that it is not of.
type tally struct {
	slice   time.Duration
	stripes [tallyStripes]tallyStripe
}

type tallyStripe struct {
	slots [tallySlices]atomic.Uint64
	_     [128 - tallySlices*8]byte
}

// newTally returns a tally of the length. Slices are at least 10 ms: so the
// numbers of all that there can be fit in a slot.
func newTally(length time.Duration) *tally {
	return &tally{slice: max(length/tallySlices, 10*time.Millisecond)}
}

// number is that of the slice that now is in. The first one is 1: a slot that
// was never used holds 0.
func (t *tally) number(now Instant) uint64 { return uint64(now/t.slice) + 1 }

// add counts an event. One of a slice that is over in its stripe is left out.
func (t *tally) add(now Instant, rnd uint64) {
	n := t.number(now)
	slot := &t.stripes[rnd%tallyStripes].slots[n%tallySlices]
	for {
		old := slot.Load()
		next := old + 1
		switch held := old >> tallyCountBits; {
		case held < n:
			next = n<<tallyCountBits | 1
		case held > n || old&tallyMost == tallyMost:
			return
		}
		if slot.CompareAndSwap(old, next) {
			return
		}
	}
}

// read adds up the slices from the one that now is in, backwards.
func (t *tally) read(now Instant) (total uint64) {
	n := t.number(now)
	for i := range t.stripes {
		for j := range t.stripes[i].slots {
			word := t.stripes[i].slots[j].Load()
			if held := word >> tallyCountBits; held+tallySlices > n && held <= n {
				total += word & tallyMost
			}
		}
	}
	return total
}

// scramble makes the next random number of one (SplitMix64, Steele et al.,
// 2014): draws from one number that are to be independent of each other.
func scramble(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

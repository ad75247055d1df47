package sla

import (
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"
)

// counters count calls from many goroutines at once. They only grow: whoever
// reads them takes differences. That is why a call is one addition to one
// counter (the bucket of its latency among those of its outcome), which a
// reader sees or doesn't see, but never sees half of; only the sum of latencies
// stands beside it.
type counters struct {
	stripes []stripe
}

// stripe is the part of the counters that some goroutines count in. Blocks are
// made at their first use.
type stripe struct {
	timed   [numTimed][numBlocks]atomic.Pointer[block]
	waited  atomic.Uint64 // ns, modulo 2^64
	untimed [numOutcomes]atomic.Uint64
	_       [24]byte // to a multiple of cache lines
}

// block holds the counters of successive buckets, modulo 2^32: a difference is
// taken each second in which anything is counted, so that 32 bits are plenty.
type block [blockLen]atomic.Uint32

// maxStripes bounds memory on large machines.
const maxStripes = 8

func newCounters() *counters {
	n := 1
	for n < 2*runtime.GOMAXPROCS(0) && n < maxStripes {
		n *= 2
	}
	return &counters{stripes: make([]stripe, n)}
}

// stripe returns the calling goroutine's stripe. It goes by where the
// goroutine's stack lies, which is stable and costs next to nothing; the same
// stripe then mostly stays in one core's cache. Measured with one addition:
// 1 ns over an unstriped counter, where the runtime's random generator costs
// 4 ns and moves the line to another core each time, and sync.Pool 6 ns.
func (c *counters) stripe() *stripe {
	var here byte
	// Stacks are at least 2 KiB apart; Fibonacci hashing spreads the rest.
	h := uint64(uintptr(unsafe.Pointer(&here))>>11) * 0x9e3779b97f4a7c15
	return &c.stripes[int(h>>32)&(len(c.stripes)-1)]
}

func (s *stripe) record(o Outcome, latency time.Duration) {
	bucket := bucketOf(latency)
	p := &s.timed[o][bucket>>blockBits]
	b := p.Load()
	if b == nil {
		b = allocate(p)
	}
	b[bucket&(blockLen-1)].Add(1)
	s.waited.Add(uint64(clampWait(latency)))
}

//go:noinline
func allocate(p *atomic.Pointer[block]) *block {
	p.CompareAndSwap(nil, new(block))
	return p.Load()
}

// reading is what counters stood at, and with it where the next difference
// begins. latency holds all calls since the start.
type reading struct {
	timed   [numTimed]uint64
	untimed [numOutcomes]uint64
	waited  uint64 // ns, modulo 2^64
	latency Histogram
}

// calls returns how many calls had the outcome.
func (r *reading) calls(o Outcome) uint64 {
	n := r.untimed[o]
	if int(o) < numTimed {
		n += r.timed[o]
	}
	return n
}

// kind says which of a histogram's two parts a block of counts belongs to.
type kind uint8

const (
	answered kind = iota
	unanswered
)

// outcomes are those whose calls are of the kind.
func (k kind) outcomes() []Outcome {
	if k == answered {
		return answeredOutcomes
	}
	return unansweredOutcomes
}

var (
	answeredOutcomes   = []Outcome{Success, Failure}
	unansweredOutcomes = []Outcome{Unavailable}
)

// change is what was counted between a reading and now, but for the buckets.
type change struct {
	calls  [numOutcomes]uint64
	waited uint64 // ns
}

func (c *change) empty() bool { return c.calls == [numOutcomes]uint64{} }

func (c *change) add(other change) {
	for o, n := range other.calls {
		c.calls[o] += n
	}
	c.waited += other.waited
}

// since returns what was counted since the reading. each gets the buckets of
// it, block by block in order, those of answered calls first; a block in which
// nothing was counted is left out, and none is valid after each returns. The
// reading is brought up to date if advance is set.
func (c *counters) since(last *reading, advance bool, each func(k kind, i int, counts *[blockLen]uint64)) change {
	var out change
	for o := range last.untimed {
		var n uint64
		for i := range c.stripes {
			n += c.stripes[i].untimed[o].Load()
		}
		out.calls[o] = n - last.untimed[o]
		if advance {
			last.untimed[o] = n
		}
	}
	var timed [numTimed]uint32
	var counts [blockLen]uint64
	for _, k := range []kind{answered, unanswered} {
		before := &last.latency.answered
		if k == unanswered {
			before = &last.latency.unanswered
		}
		for i := range numBlocks {
			if c.sum(k, i, before.blocks[i], &counts, &timed) {
				each(k, i, &counts)
				if advance {
					before.addBlock(i, &counts)
				}
			}
		}
	}
	for o, n := range timed {
		d := uint64(n - uint32(last.timed[o]))
		out.calls[o] += d
		if advance {
			last.timed[o] += d
		}
	}
	var waited uint64
	for i := range c.stripes {
		waited += c.stripes[i].waited.Load()
	}
	out.waited = waited - last.waited
	if advance {
		last.waited = waited
		last.latency.waited += float64(out.waited)
	}
	return out
}

// sum adds up block i of one kind over all stripes, less what it stood at
// before, and reports whether anything is left. timed collects the sums by
// outcome. Everything is modulo 2^32, which differences survive.
func (c *counters) sum(k kind, i int, before *[blockLen]uint64, counts *[blockLen]uint64, timed *[numTimed]uint32) bool {
	var sums [blockLen]uint32
	found := false
	for s := range c.stripes {
		for _, o := range k.outcomes() {
			b := c.stripes[s].timed[o][i].Load()
			if b == nil {
				continue
			}
			found = true
			var all uint32
			for j := range b {
				n := b[j].Load()
				sums[j] += n
				all += n
			}
			timed[o] += all
		}
	}
	if !found {
		return false
	}
	changed := false
	for j, n := range sums {
		if before != nil {
			n -= uint32(before[j])
		}
		counts[j] = uint64(n)
		changed = changed || n != 0
	}
	return changed
}

package sla

import (
	"encoding/binary"
	"time"
)

// tier is a ring of closed slices of one width.
type tier struct {
	width time.Duration
	keep  int // how many slices, the open one included, make up the span
}

// tiers serve the windows: each span is made of slices of its own tier, and of
// finer ones for what its tier's open slice holds so far. A tier's slices are
// merged from those of the tier before, which therefore must reach back at
// least one width of it; the widths divide each other.
var tiers = [...]tier{
	{time.Second, 10},      // 10 s
	{10 * time.Second, 6},  // 1 min
	{30 * time.Second, 10}, // 5 min
	{5 * time.Minute, 12},  // 1 h
}

func (t tier) span() time.Duration { return t.width * time.Duration(t.keep) }

// number returns the number of the tier's slice that holds now.
func (t tier) number(now Instant) int64 { return int64(now / t.width) }

// slice is what was counted in a closed interval. Its buckets are packed, since
// most are empty and most counts are small.
type slice struct {
	number int64
	change change
	packed []byte
}

// rings hold the closed slices of all tiers. The zero value has none.
type rings [len(tiers)][]slice

// at returns the slot for the slice of that number, with whatever is in it.
func (r *rings) at(tier int, number int64) *slice {
	if r[tier] == nil {
		r[tier] = make([]slice, tiers[tier].keep)
	}
	return &r[tier][number%int64(tiers[tier].keep)]
}

// rollUp merges what lies in finer slices into coarser ones: all whose time
// ended as the finest tier's open slice moved from number from to number to.
func (r *rings) rollUp(from, to int64) {
	start, now := Instant(from)*tiers[0].width, Instant(to)*tiers[0].width
	for k := 1; k < len(tiers); k++ {
		number := tiers[k].number(start)
		if number == tiers[k].number(now) {
			return
		}
		var all Histogram
		var sum change
		r.collect(k-1, Instant(number)*tiers[k].width, Instant(number+1)*tiers[k].width, &all, &sum)
		if sum.empty() {
			continue
		}
		s := r.at(k, number)
		p := packer{to: s.packed[:0]}
		p.histogram(&all)
		s.number, s.change, s.packed = number, sum, p.to
	}
}

// collect adds up the tier's closed slices that lie within from and to.
func (r *rings) collect(tier int, from, to Instant, into *Histogram, sum *change) {
	width := tiers[tier].width
	for i := range r[tier] {
		s := &r[tier][i]
		if start := Instant(s.number) * width; start >= from && start+width <= to {
			unpack(s.packed, into)
			into.waited += float64(s.change.waited)
			sum.add(s.change)
		}
	}
}

// The packed form of buckets is the counts of the answered calls and then of the
// unanswered ones, in order, as varints. A zero stands for a run of empty
// buckets, whose length follows; a run of length zero ends either part.

// packer appends the packed form.
type packer struct {
	to    []byte
	kind  kind
	next  int // the block that comes next
	empty uint64
}

// put appends block i of the kind. Blocks come in order; some may be left out.
func (p *packer) put(k kind, i int, counts *[blockLen]uint64) {
	if k != p.kind {
		p.end()
	}
	p.empty += uint64((i - p.next) * blockLen)
	p.next = i + 1
	for _, n := range counts {
		if n == 0 {
			p.empty++
			continue
		}
		if p.empty > 0 {
			p.to = binary.AppendUvarint(append(p.to, 0), p.empty)
			p.empty = 0
		}
		p.to = binary.AppendUvarint(p.to, n)
	}
}

// end closes the part of the present kind.
func (p *packer) end() {
	p.to = append(p.to, 0, 0)
	p.kind, p.next, p.empty = p.kind+1, 0, 0
}

// histogram appends the whole of h.
func (p *packer) histogram(h *Histogram) {
	for k, t := range []*tally{&h.answered, &h.unanswered} {
		for i, counts := range t.blocks {
			if counts != nil {
				p.put(kind(k), i, counts)
			}
		}
	}
	p.finish()
}

// finish closes what is open.
func (p *packer) finish() {
	for p.kind <= unanswered {
		p.end()
	}
}

// unpack adds the packed counts to h.
func unpack(packed []byte, h *Histogram) {
	t, bucket := &h.answered, 0
	for len(packed) > 0 {
		n, size := binary.Uvarint(packed)
		packed = packed[size:]
		if n > 0 {
			t.add(bucket, n)
			bucket++
			continue
		}
		run, size := binary.Uvarint(packed)
		packed = packed[size:]
		if run == 0 {
			t, bucket = &h.unanswered, 0
			continue
		}
		bucket += int(run)
	}
}

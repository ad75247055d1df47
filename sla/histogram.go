package sla

import (
	"iter"
	"math"
	"time"
)

// Histogram is a distribution of latencies from 1 µs to 1 h, exact to 1 %, in
// at most 32 KiB whatever it is given. Latencies outside of that range count at
// the nearer end.
//
// It keeps two kinds apart: the time to an answer, and the time that was waited
// without getting one.
//
// The zero value is empty and ready for use. It is a plain value, not safe for
// concurrent use. A copy shares its counters with the original: copy to hand
// over, and Clone to go on with both.
type Histogram struct {
	answered   tally
	unanswered tally
	// waited is the sum of all latencies in nanoseconds. A float64 is exact for
	// the first 104 days of it and never overflows, as an integer would after a
	// few days of a hundred thousand calls in flight.
	waited float64
}

// tally counts by bucket.
type tally struct {
	blocks [numBlocks]*[blockLen]uint64
	n      uint64
}

// Record counts a call that was answered after d.
func (h *Histogram) Record(d time.Duration) {
	h.answered.add(bucketOf(d), 1)
	h.waited += float64(clampWait(d))
}

// RecordUnanswered counts a call that was given up after d without an answer.
func (h *Histogram) RecordUnanswered(d time.Duration) {
	h.unanswered.add(bucketOf(d), 1)
	h.waited += float64(clampWait(d))
}

// clampWait bounds what one call adds to the sum.
func clampWait(d time.Duration) time.Duration { return min(max(d, 0), Longest) }

// Merge adds all that other counted. Merging is associative and commutative.
func (h *Histogram) Merge(other *Histogram) {
	h.answered.merge(&other.answered)
	h.unanswered.merge(&other.unanswered)
	h.waited += other.waited
}

// Clone returns a copy that shares nothing with h.
func (h *Histogram) Clone() Histogram {
	var c Histogram
	c.Merge(h)
	return c
}

// Count returns how many calls were counted, answered or not.
func (h *Histogram) Count() uint64 { return h.answered.n + h.unanswered.n }

// Unanswered returns how many of the calls got no answer.
func (h *Histogram) Unanswered() uint64 { return h.unanswered.n }

// Sum returns the time that was waited for all calls, answered or not, at most
// the 292 years that a Duration can hold. SumSeconds has no such bound.
func (h *Histogram) Sum() time.Duration {
	if h.waited >= math.MaxInt64 {
		return math.MaxInt64
	}
	return time.Duration(h.waited)
}

// SumSeconds returns the time that was waited for all calls, in seconds.
func (h *Histogram) SumSeconds() float64 { return h.waited / float64(time.Second) }

// Mean returns how long a call was waited for on average, answered or not; 0 of
// no calls. It comes from the sum of latencies, not from buckets.
func (h *Histogram) Mean() time.Duration {
	if h.Count() == 0 {
		return 0
	}
	return time.Duration(h.waited / float64(h.Count()))
}

// Max returns the longest latency, to 1 %; 0 of no calls.
func (h *Histogram) Max() time.Duration { return h.Quantile(1) }

// Quantile returns the latency that the share q of calls did not exceed, within
// 1 %: the one of rank ⌈q·n⌉ among all n calls in order, known as nearest rank.
// q is clamped to 0..1; of no calls the answer is 0.
//
// A call without an answer ranks after every call with one. If the rank falls
// on such a call the result is how long it was waited for, but no less than the
// slowest answer took: a lower bound of what can't be known. Were calls that
// timed out left out, an outage would improve percentiles; were they ranked by
// the time they took, refusals within microseconds would.
func (h *Histogram) Quantile(q float64) time.Duration {
	bucket, _ := h.quantile(q)
	if bucket < 0 {
		return 0
	}
	return middle(bucket)
}

// quantile returns the bucket that q's rank falls on, and whether it fell on a
// call without an answer. The bucket of no calls is -1.
func (h *Histogram) quantile(q float64) (bucket int, unanswered bool) {
	n := h.Count()
	if n == 0 {
		return -1, false
	}
	rank := rankOf(q, n)
	if rank <= h.answered.n {
		return h.answered.find(rank), false
	}
	bucket = h.unanswered.find(rank - h.answered.n)
	if h.answered.n > 0 {
		bucket = max(bucket, h.answered.find(h.answered.n))
	}
	return bucket, true
}

// rankOf returns the nearest rank of q among n, from 1 to n.
func rankOf(q float64, n uint64) uint64 {
	if !(q > 0) { // NaN too
		return 1
	}
	if q >= 1 {
		return n
	}
	// 0.07 × 100 is a little more than 7 in binary: what is that close to a
	// whole number is meant to be it.
	x := q * float64(n)
	rank := uint64(math.Ceil(x - x*1e-12))
	return min(max(rank, 1), n)
}

// Within returns how many calls were answered within d. Calls that fall into the
// same bucket as d are taken to be; it is at most 1.6 % wide.
func (h *Histogram) Within(d time.Duration) uint64 {
	if d < 0 {
		return 0
	}
	var n uint64
	last := bucketOf(d)
	for bucket, count := range h.answered.all() {
		if bucket > last {
			break
		}
		n += count
	}
	return n
}

// Buckets yields, for each bucket with answered calls in it and in ascending
// order, the bucket's upper edge (exclusive) and the number of those calls. With
// Unanswered in the bucket +Inf it makes an exporter's cumulative histogram.
func (h *Histogram) Buckets() iter.Seq2[time.Duration, uint64] {
	return func(yield func(time.Duration, uint64) bool) {
		for bucket, n := range h.answered.all() {
			if _, high := edges(bucket); !yield(high, n) {
				return
			}
		}
	}
}

func (t *tally) add(bucket int, n uint64) {
	t.block(bucket >> blockBits)[bucket&(blockLen-1)] += n
	t.n += n
}

func (t *tally) addBlock(i int, counts *[blockLen]uint64) {
	to := t.block(i)
	for j, n := range counts {
		to[j] += n
		t.n += n
	}
}

func (t *tally) merge(other *tally) {
	for i, from := range other.blocks {
		if from != nil {
			t.addBlock(i, from)
		}
	}
}

// block returns the i-th block, which it makes if there is none yet.
func (t *tally) block(i int) *[blockLen]uint64 {
	if t.blocks[i] == nil {
		t.blocks[i] = new([blockLen]uint64)
	}
	return t.blocks[i]
}

// find returns the bucket that holds the call of that rank, from 1 to t.n.
func (t *tally) find(rank uint64) int {
	var seen uint64
	for bucket, n := range t.all() {
		if seen += n; seen >= rank {
			return bucket
		}
	}
	return -1
}

// all yields the buckets with calls in them, in order.
func (t *tally) all() iter.Seq2[int, uint64] {
	return func(yield func(int, uint64) bool) {
		for i, block := range t.blocks {
			if block == nil {
				continue
			}
			for j, n := range block {
				if n > 0 && !yield(i<<blockBits+j, n) {
					return
				}
			}
		}
	}
}

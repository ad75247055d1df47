package sla

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// within1Percent is the promise of every latency that this package gives.
func within1Percent(got, exact time.Duration) bool {
	return math.Abs(float64(got-exact)) <= 0.01*float64(exact)
}

func TestQuantilesAreWithin1Percent(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Given answered and unanswered calls of any latencies.
		answered := rapid.SliceOfN(anyLatency(), 0, 200).Draw(t, "answered")
		unanswered := rapid.SliceOfN(anyLatency(), 0, 20).Draw(t, "unanswered")
		var h Histogram
		for _, d := range answered {
			h.Record(d)
		}
		for _, d := range unanswered {
			h.RecordUnanswered(d)
		}
		// When a quantile is asked for.
		q := rapid.Float64Range(0, 1).Draw(t, "q")
		got := h.Quantile(q)
		// Then it is the call of nearest rank, unanswered ones ranking last.
		if exact := exactQuantile(answered, unanswered, q); !within1Percent(got, exact) {
			t.Fatalf("Quantile(%v) = %v, exactly %v", q, got, exact)
		}
	})
}

func exactQuantile(answered, unanswered []time.Duration, q float64) time.Duration {
	answered, unanswered = slices.Sorted(slices.Values(answered)), slices.Sorted(slices.Values(unanswered))
	n := len(answered) + len(unanswered)
	if n == 0 {
		return 0
	}
	rank := max(int(math.Ceil(q*float64(n)-1e-9)), 1)
	if rank <= len(answered) {
		return answered[rank-1]
	}
	d := unanswered[rank-len(answered)-1]
	if len(answered) > 0 {
		d = max(d, answered[len(answered)-1])
	}
	return d
}

func TestQuantileOfKnownLatencies(t *testing.T) {
	var h Histogram
	for ms := 1; ms <= 100; ms++ {
		h.Record(time.Duration(ms) * time.Millisecond)
	}
	for _, c := range []struct {
		q    float64
		want time.Duration
	}{
		{math.NaN(), time.Millisecond},
		{-1, time.Millisecond},
		{0, time.Millisecond},
		{0.01, time.Millisecond},
		{0.07, 7 * time.Millisecond}, // 0.07 × 100 > 7 in binary
		{0.5, 50 * time.Millisecond},
		{0.501, 51 * time.Millisecond},
		{0.95, 95 * time.Millisecond},
		{0.99, 99 * time.Millisecond},
		{1, 100 * time.Millisecond},
		{2, 100 * time.Millisecond},
	} {
		if got := h.Quantile(c.q); !within1Percent(got, c.want) {
			t.Errorf("Quantile(%v) = %v, want %v", c.q, got, c.want)
		}
	}
	if got := h.Mean(); got != 50500*time.Microsecond {
		t.Errorf("Mean() = %v", got)
	}
	if got := h.Sum(); got != 5050*time.Millisecond {
		t.Errorf("Sum() = %v", got)
	}
	if got := h.Within(30 * time.Millisecond); got != 30 {
		t.Errorf("Within(30ms) = %d", got)
	}
}

func TestAnEmptyHistogram(t *testing.T) {
	var h Histogram
	if h.Count() != 0 || h.Sum() != 0 || h.Mean() != 0 || h.Max() != 0 || h.Quantile(0.5) != 0 || h.Within(time.Hour) != 0 {
		t.Errorf("an empty histogram isn't all zero")
	}
}

func TestUnansweredCallsDontVanishFromPercentiles(t *testing.T) {
	for _, c := range []struct {
		name   string
		waited time.Duration
		want   time.Duration
	}{
		{"timeouts are as long as was waited", 3 * time.Second, 3 * time.Second},
		{"quick refusals are no quicker than the slowest answer", 10 * time.Microsecond, 20 * time.Millisecond},
	} {
		t.Run(c.name, func(t *testing.T) {
			// Given 94 answers within 20 ms and 6 calls without one.
			var h Histogram
			for range 94 {
				h.Record(20 * time.Millisecond)
			}
			for range 6 {
				h.RecordUnanswered(c.waited)
			}
			// Then p94 is an answer, and p95 isn't.
			if got := h.Quantile(0.94); !within1Percent(got, 20*time.Millisecond) {
				t.Errorf("p94 = %v", got)
			}
			if got := h.Quantile(0.95); !within1Percent(got, c.want) {
				t.Errorf("p95 = %v, want %v", got, c.want)
			}
			if h.Count() != 100 || h.Unanswered() != 6 || h.Within(Longest) != 94 {
				t.Errorf("%d calls, %d unanswered, %d within an hour", h.Count(), h.Unanswered(), h.Within(Longest))
			}
		})
	}
}

func TestSumNeitherOverflowsNorGoesBack(t *testing.T) {
	h := Histogram{waited: math.MaxInt64}
	h.Record(time.Hour)
	if h.Sum() != math.MaxInt64 {
		t.Errorf("Sum() = %d", h.Sum())
	}
	h = Histogram{}
	h.Record(-time.Second)
	if h.Sum() != 0 {
		t.Errorf("a negative latency made the sum %v", h.Sum())
	}
}

func TestBucketsAddUpToTheAnswered(t *testing.T) {
	var h Histogram
	for _, d := range []time.Duration{time.Hour, time.Millisecond, time.Millisecond, 0} {
		h.Record(d)
	}
	h.RecordUnanswered(time.Second)
	var counts []uint64
	var before time.Duration
	for upper, n := range h.Buckets() {
		if upper <= before {
			t.Errorf("%v comes after %v", upper, before)
		}
		before = upper
		counts = append(counts, n)
	}
	if !slices.Equal(counts, []uint64{1, 2, 1}) {
		t.Errorf("counts are %v", counts)
	}
}

func TestMergeIsAssociativeAndCommutative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := anyHistogram(t, "a"), anyHistogram(t, "b"), anyHistogram(t, "c")
		left := merged(merged(a, b), c)
		right := merged(a, merged(b, c))
		swapped := merged(c, merged(b, a))
		if !equal(left, right) || !equal(left, swapped) {
			t.Fatal("the order of merging made a difference")
		}
		if left.Count() != a.Count()+b.Count()+c.Count() {
			t.Fatalf("%d calls", left.Count())
		}
	})
}

func TestACloneSharesNothing(t *testing.T) {
	var h Histogram
	h.Record(time.Second)
	c := h.Clone()
	h.Record(time.Second)
	c.Record(time.Minute)
	if h.Count() != 2 || c.Count() != 2 || h.Max() > 2*time.Second {
		t.Errorf("%d and %d calls, longest %v", h.Count(), c.Count(), h.Max())
	}
}

func anyHistogram(t *rapid.T, label string) *Histogram {
	var h Histogram
	for _, d := range rapid.SliceOfN(anyLatency(), 0, 50).Draw(t, label) {
		h.Record(d)
	}
	for _, d := range rapid.SliceOfN(anyLatency(), 0, 5).Draw(t, label+" unanswered") {
		h.RecordUnanswered(d)
	}
	return &h
}

func merged(a, b *Histogram) *Histogram {
	c := a.Clone()
	c.Merge(b)
	return &c
}

// equal compares counts and sums, not which blocks were made.
func equal(a, b *Histogram) bool {
	return sameTally(&a.answered, &b.answered) && sameTally(&a.unanswered, &b.unanswered) && a.waited == b.waited
}

func sameTally(a, b *tally) bool {
	for i := range numBlocks {
		var x, y [blockLen]uint64
		if a.blocks[i] != nil {
			x = *a.blocks[i]
		}
		if b.blocks[i] != nil {
			y = *b.blocks[i]
		}
		if x != y {
			return false
		}
	}
	return a.n == b.n
}

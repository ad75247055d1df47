package sla

import (
	"math"
	"sync"
	"sync/atomic"
	"time"
)

// Spans returns the spans that a Recorder's windows cover, shortest first:
// 10 s, 1 min, 5 min and 1 h.
func Spans() []time.Duration {
	spans := make([]time.Duration, len(tiers))
	for i, t := range tiers {
		spans[i] = t.span()
	}
	return spans
}

// Options say how a Recorder works.
type Options struct {
	// Start is when recording begins, which bounds what a window can cover.
	// Zero: at the origin of all instants.
	Start Instant
}

// Recorder counts calls and their latencies in sliding windows. Safe for
// concurrent use. Make it with NewRecorder.
//
// It costs less than 1 KiB until the first call, then as much as the range of
// its latencies asks for. After an hour on two cores that is about 15 KiB at a
// call a second, 42 KiB at 500 a second over four octaves with some failing, and
// 115 KiB at 500 a second over every latency from 1 µs to 1 h (TestMemory). The
// ceiling, each bucket of each outcome in use in each slice, is about 435 KiB,
// and 100 KiB more on four cores and up (TestMemoryCeiling). The error budget
// adds 24 bytes for each hour with calls, at most 52 KiB.
type Recorder struct {
	// end is when the open slice of the finest tier ends; math.MinInt64 before
	// the first call. Once it is anything else, counters are there.
	end      atomic.Int64
	counters *counters
	_        [48]byte // what follows is written while others record

	mu    sync.Mutex
	start Instant
	open  int64   // number of the open slice in the finest tier
	last  reading // where the open slice began
	rings rings
	hours hours
}

// Totals are what a Recorder counted over some time.
type Totals struct {
	// Span is the time that the totals really cover, up to the moment of asking.
	// It is shorter than what was asked for by up to a tenth (a sixth of 1 min):
	// windows move slice by slice, and nothing older than asked for is counted.
	// In a Recorder that is younger it is the age. Zero in Lifetime's totals.
	Span time.Duration
	// Calls is the sum of the four below.
	Calls       uint64
	Successes   uint64
	Failures    uint64
	Unavailable uint64
	Excluded    uint64
	// Latency is of all calls but the excluded and those recorded without one.
	Latency Histogram
}

// Counted returns how many calls an SLA goes by: all but those excluded.
func (t *Totals) Counted() uint64 { return t.Calls - t.Excluded }

// Answered returns how many calls got an answer.
func (t *Totals) Answered() uint64 { return t.Successes + t.Failures }

// NewRecorder returns a Recorder that has counted nothing.
func NewRecorder(o Options) *Recorder {
	r := &Recorder{start: max(o.Start, 0)}
	r.end.Store(math.MinInt64)
	return r
}

// Record counts a call that ended now with the outcome, after latency. The
// latency of an Excluded call is not looked at; an outcome that isn't one of the
// four is taken for Excluded.
//
// It never waits for another goroutine, but for one case: the first calls after
// a second or more without any wait while one of them closes the slice from
// before, some microseconds. Otherwise the first call of each second closes the
// slice while the others go on.
//
// Each call is counted exactly once. The slice that it is counted in may differ
// from the one that now lies in by how long closing takes, or by how far apart
// the clocks of callers are: a call that comes in late or while a slice is being
// closed counts in a neighbouring slice, and leaves the window with that one.
func (r *Recorder) Record(now Instant, o Outcome, latency time.Duration) {
	if o >= Excluded {
		r.RecordUntimed(now, Excluded)
		return
	}
	if int64(now) >= r.end.Load() {
		r.turn(now)
	}
	r.counters.stripe().record(o, latency)
}

// RecordUntimed counts a call whose duration says nothing of how fast the
// service answers, as that of a stream. It is otherwise like Record.
func (r *Recorder) RecordUntimed(now Instant, o Outcome) {
	if int64(now) >= r.end.Load() {
		r.turn(now)
	}
	r.counters.stripe().untimed[min(o, Excluded)].Add(1)
}

// turn closes the open slice on behalf of Record, unless another goroutine is
// at it and what is recorded meanwhile may as well count in the old slice.
//
//go:noinline
func (r *Recorder) turn(now Instant) {
	if !r.mu.TryLock() {
		// After a gap the old slice is out of date by more than one, and a
		// call that counted there could be too old for a window at once. The
		// same goes for the first call, whose counters don't exist yet.
		if end := r.end.Load(); end != math.MinInt64 && Instant(end) > now-tiers[0].width {
			return
		}
		r.mu.Lock()
	}
	defer r.mu.Unlock()
	if r.counters == nil {
		r.counters = newCounters()
		r.open = tiers[0].number(max(now, 0))
		r.end.Store(int64(Instant(r.open+1) * tiers[0].width))
		return
	}
	r.advance(now)
}

// advance closes the open slice if now lies beyond it. r.mu is held, and
// something was recorded before.
func (r *Recorder) advance(now Instant) {
	number := tiers[0].number(now)
	if number <= r.open {
		return
	}
	// Calls from here on may fall on either side of the reading below: they
	// are counted once in any case.
	slot := r.rings.at(0, r.open)
	p := packer{to: slot.packed[:0]}
	change := r.counters.since(&r.last, true, p.put)
	p.finish()
	slot.number, slot.change, slot.packed = r.open, change, p.to
	r.hours.add(Instant(r.open)*tiers[0].width, change)
	r.rings.rollUp(r.open, number)
	r.open = number
	r.end.Store(int64(Instant(number+1) * tiers[0].width))
}

// Read returns what was counted in the window of that span before now. A span
// that isn't one of Spans is taken for the next longer one, or the longest.
func (r *Recorder) Read(now Instant, span time.Duration) Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	totals, _, _ := r.read(now, span)
	return totals
}

// read is Read; it returns now as the Recorder sees it and what the open slice
// counted so far, too. r.mu is held.
func (r *Recorder) read(now Instant, span time.Duration) (Totals, Instant, change) {
	k := 0
	for k < len(tiers)-1 && tiers[k].span() < span {
		k++
	}
	now = max(now, 0)
	if r.counters != nil {
		r.advance(now)
		// now may be a little older than what others recorded.
		now = max(now, Instant(r.open)*tiers[0].width)
	}

	from := Instant(tiers[k].number(now)-int64(tiers[k].keep)+1) * tiers[k].width
	totals := Totals{Span: max(now-max(from, r.start, 0), 0)}
	if r.counters == nil {
		return totals, now, change{}
	}
	var sum change
	for ; k >= 0; k-- {
		open := Instant(tiers[k].number(now)) * tiers[k].width
		r.rings.collect(k, from, open, &totals.Latency, &sum)
		from = open
	}
	open := r.counters.since(&r.last, false, totals.Latency.add)
	totals.Latency.waited += float64(open.waited)
	sum.add(open)
	totals.set(sum.calls)
	return totals, now, open
}

// Lifetime returns what was counted since the Recorder was made. None of its
// figures ever decreases.
func (r *Recorder) Lifetime() Totals {
	r.mu.Lock()
	defer r.mu.Unlock()
	var totals Totals
	if r.counters == nil {
		return totals
	}
	totals.Latency = r.last.latency.Clone()
	open := r.counters.since(&r.last, false, totals.Latency.add)
	totals.Latency.waited += float64(open.waited)
	for o := range open.calls {
		open.calls[o] += r.last.calls(Outcome(o))
	}
	totals.set(open.calls)
	return totals
}

func (t *Totals) set(calls [numOutcomes]uint64) {
	t.Successes, t.Failures = calls[Success], calls[Failure]
	t.Unavailable, t.Excluded = calls[Unavailable], calls[Excluded]
	t.Calls = t.Successes + t.Failures + t.Unavailable + t.Excluded
}

// add counts a block of one kind.
func (h *Histogram) add(k kind, i int, counts *[blockLen]uint64) {
	if k == answered {
		h.answered.addBlock(i, counts)
	} else {
		h.unanswered.addBlock(i, counts)
	}
}

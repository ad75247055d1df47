package sla

import (
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

func TestRecordDoesNotAllocate(t *testing.T) {
	r := NewRecorder(Options{})
	for o := Success; o <= Excluded; o++ {
		r.Record(0, o, ms)
		if n := testing.AllocsPerRun(1000, func() { r.Record(0, o, ms); r.RecordUntimed(0, o) }); n != 0 {
			t.Errorf("%v: %v allocations", o, n)
		}
	}
}

func TestMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	// logUniform draws from all of low..high's octaves alike.
	logUniform := func(low, octaves int) time.Duration {
		d := time.Duration(1) << (low + rng.IntN(octaves))
		return d + time.Duration(rng.Int64N(int64(d)))
	}
	for _, c := range []struct {
		name   string
		record func(r *Recorder, now Instant)
		most   int // bytes
	}{
		{"no call", func(*Recorder, Instant) {}, 1 << 10},
		{"one call a second, 4 ms to 32 ms", func(r *Recorder, now Instant) {
			r.Record(now, Success, logUniform(22, 3))
		}, 24 << 10},
		{"500 calls a second, 1 ms to 16 ms, a few fail", func(r *Recorder, now Instant) {
			for i := range 500 {
				o := Success
				if i%100 == 0 {
					o = Outcome(1 + i/100%2)
				}
				r.Record(now, o, logUniform(20, 4))
			}
		}, 64 << 10},
		{"every latency there is, 500 a second", func(r *Recorder, now Instant) {
			for range 500 {
				r.Record(now, Success, logUniform(10, 32))
			}
		}, 160 << 10},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := NewRecorder(Options{})
			for s := range 3700 {
				c.record(r, Instant(s)*time.Second)
			}
			got := sizeOf(r)
			t.Logf("%.1f KiB", float64(got)/1024)
			if got > c.most {
				t.Errorf("%d bytes, want at most %d", got, c.most)
			}
		})
	}
}

// The most that anything can make of a Recorder: each bucket of each outcome in
// each slice, at 100,000 calls a second. Traffic can't do that, as it would hold
// millions of hour-long calls in flight.
func TestMemoryCeiling(t *testing.T) {
	r := NewRecorder(Options{})
	count := func(now, elapsed Instant) {
		r.Record(now, Success, ms)
		perSecond := 100_000 / numTimed / numBuckets / len(r.counters.stripes)
		for s := range r.counters.stripes {
			for o := range r.counters.stripes[s].timed {
				for bucket := range numBuckets {
					b := allocate(&r.counters.stripes[s].timed[o][bucket>>blockBits])
					b[bucket&(blockLen-1)].Add(uint32(perSecond * int(elapsed/time.Second)))
				}
			}
		}
	}
	// An hour in the steps that its coarser slices are made of, and then second
	// by second until the finer ones are full too.
	var now Instant
	for ; now < time.Hour; now += 30 * time.Second {
		count(now, 30*time.Second)
	}
	for ; now < time.Hour+100*time.Second; now += time.Second {
		count(now, time.Second)
	}
	got := sizeOf(r)
	t.Logf("%.1f KiB", float64(got)/1024)
	if most := 350<<10 + len(r.counters.stripes)*(25<<10); got > most {
		t.Errorf("%d bytes, want at most %d", got, most)
	}
}

// sizeOf returns how many bytes the recorder holds on to.
func sizeOf(r *Recorder) int {
	n := int(unsafe.Sizeof(*r)) + cap(r.hours)*int(unsafe.Sizeof(hour{}))
	for _, ring := range r.rings {
		n += cap(ring) * int(unsafe.Sizeof(slice{}))
		for i := range ring {
			n += cap(ring[i].packed)
		}
	}
	for _, t := range []*tally{&r.last.latency.answered, &r.last.latency.unanswered} {
		for _, b := range t.blocks {
			if b != nil {
				n += int(unsafe.Sizeof(*b))
			}
		}
	}
	if r.counters == nil {
		return n
	}
	n += len(r.counters.stripes) * int(unsafe.Sizeof(stripe{}))
	for s := range r.counters.stripes {
		for o := range r.counters.stripes[s].timed {
			for i := range r.counters.stripes[s].timed[o] {
				if b := r.counters.stripes[s].timed[o][i].Load(); b != nil {
					n += int(unsafe.Sizeof(*b))
				}
			}
		}
	}
	return n
}

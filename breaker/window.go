package breaker

import (
	"sync/atomic"
	"time"
)

const (
	windowSlices  = 10
	windowStripes = 8
)

// window counts the calls of a sliding time. Each stripe counts for itself, so
// that cores don't share a cache line; readers add them up.
type window struct {
	slice   time.Duration
	stripes [windowStripes]stripe
}

type stripe struct {
	slices [windowSlices]slice
	_      [64]byte
}

// slice is one tenth of the window. epoch says which: counts of an older epoch
// are over.
type slice struct {
	epoch    atomic.Int64
	calls    atomic.Uint32
	failures atomic.Uint32
	slow     atomic.Uint32
}

// totals are the counts of the whole window.
type totals struct{ calls, failures, slow uint64 }

func newWindow(length time.Duration) *window {
	return &window{slice: max(length/windowSlices, 1)}
}

// add counts a call. A call that meets another one's turn of the slice in the
// same instant may be counted in neither epoch; that is at most one per stripe
// and slice.
func (w *window) add(now Instant, rnd uint64, failed, slow bool) {
	epoch := int64(now/w.slice) + 1 // 0 is the epoch of a slice never used
	s := &w.stripes[rnd%windowStripes].slices[epoch%windowSlices]
	if old := s.epoch.Load(); old != epoch {
		if old > epoch {
			return // a call that ended long ago
		}
		if s.epoch.CompareAndSwap(old, epoch) {
			s.calls.Store(0)
			s.failures.Store(0)
			s.slow.Store(0)
		}
	}
	s.calls.Add(1)
	if failed {
		s.failures.Add(1)
	}
	if slow {
		s.slow.Add(1)
	}
}

// read adds up what the window holds at now.
func (w *window) read(now Instant) (t totals) {
	epoch := int64(now/w.slice) + 1
	for i := range w.stripes {
		for j := range w.stripes[i].slices {
			s := &w.stripes[i].slices[j]
			if e := s.epoch.Load(); e > epoch-windowSlices && e <= epoch {
				t.calls += uint64(s.calls.Load())
				t.failures += uint64(s.failures.Load())
				t.slow += uint64(s.slow.Load())
			}
		}
	}
	return t
}

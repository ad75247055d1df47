package sla

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func TestNoCallIsLostWhileSlicesTurn(t *testing.T) {
	// Given goroutines that record while time flies, each with a clock a little
	// off, so that every few calls end a slice.
	const goroutines, each = 16, 5000
	r := NewRecorder(Options{})
	var clock atomic.Int64
	var writers, readers sync.WaitGroup
	for g := range goroutines {
		writers.Go(func() {
			for i := range each {
				now := Instant(clock.Add(int64(7*ms))) - time.Duration(g)*ms
				switch {
				case i%100 == 0:
					r.RecordUntimed(now, Failure)
				case i%10 == 0:
					r.Record(now, Unavailable, time.Duration(i)*time.Microsecond)
				default:
					r.Record(now, Success, time.Duration(i)*time.Microsecond)
				}
			}
		})
	}
	// And a reader that looks all the time.
	done := make(chan struct{})
	readers.Go(func() {
		var before Totals
		for {
			select {
			case <-done:
				return
			default:
			}
			// Then totals never go back,
			got := r.Lifetime()
			if got.Calls < before.Calls || got.Successes < before.Successes || got.Failures < before.Failures ||
				got.Unavailable < before.Unavailable || got.Latency.Count() < before.Latency.Count() || got.Latency.Sum() < before.Latency.Sum() {
				t.Errorf("from %+v to %+v", before, got)
			}
			// and what they count agrees within itself.
			if got.Latency.Count() != got.Calls-got.Failures || got.Latency.Unanswered() != got.Unavailable {
				t.Errorf("%d latencies, %d unanswered: %+v", got.Latency.Count(), got.Latency.Unanswered(), got)
			}
			before = got
			r.Read(Instant(clock.Load()), time.Minute)
			runtime.Gosched()
		}
	})
	writers.Wait()
	close(done)
	readers.Wait()
	// And in the end each call was counted once, in the windows too: all of it
	// took less than an hour.
	now := Instant(clock.Load())
	for name, got := range map[string]Totals{"lifetime": r.Lifetime(), "1 h": r.Read(now, time.Hour)} {
		if got.Calls != goroutines*each || got.Failures != goroutines*each/100 || got.Unavailable != goroutines*each*9/100 {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestCallsAfterAGapAreInTheWindow(t *testing.T) {
	// Given a Recorder that was used an hour ago.
	for range 200 {
		r := NewRecorder(Options{})
		r.Record(time.Second, Success, ms)
		// When many goroutines record at once.
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { r.Record(2*time.Hour, Success, ms) })
		}
		wg.Wait()
		// Then none of them counts in the slice of an hour ago.
		if got := r.Read(2*time.Hour, 10*time.Second); got.Calls != 8 {
			t.Fatalf("%d calls in the window", got.Calls)
		}
	}
}

func TestFirstCallsAtOnce(t *testing.T) {
	for range 200 {
		r := NewRecorder(Options{})
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() { r.Record(time.Second, Success, ms) })
		}
		wg.Wait()
		if got := r.Lifetime(); got.Calls != 8 {
			t.Fatalf("%d calls", got.Calls)
		}
	}
}

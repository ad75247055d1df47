package sla

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// latencies are of a service with a median of 8 ms and a tail.
var latencies = func() (l [1024]time.Duration) {
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range l {
		l[i] = time.Duration(float64(8*time.Millisecond) * (0.5 + rng.ExpFloat64()))
	}
	return l
}()

// budget: 20 ns, 0 allocs
func BenchmarkRecord(b *testing.B) {
	r := NewRecorder(Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Record(time.Second, Success, latencies[i&1023])
	}
}

// budget: 30 ns, 0 allocs
func BenchmarkRecord64Goroutines(b *testing.B) {
	r := NewRecorder(Options{})
	var seed atomic.Int64
	b.ReportAllocs()
	b.SetParallelism(32) // × GOMAXPROCS: 64 on the two cores that budgets are for
	b.RunParallel(func(pb *testing.PB) {
		for i := int(seed.Add(37)); pb.Next(); i++ {
			r.Record(time.Second, Success, latencies[i&1023])
		}
	})
}

// The clock moves by 10 µs a call: a slice is closed every 100,000 calls.
// budget: 25 ns, 0 allocs
func BenchmarkRecordWithTimePassing(b *testing.B) {
	r := NewRecorder(Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Record(time.Duration(i)*10*time.Microsecond, Success, latencies[i&1023])
	}
}

// One turn of the clock: what the first call of each second pays.
// budget: 20 µs
func BenchmarkTurn(b *testing.B) {
	r := NewRecorder(Options{})
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		r.Record(time.Duration(i)*time.Second, Success, latencies[i&1023])
	}
}

// A report over the longest window of a service that was busy throughout.
// budget: 100 µs
func BenchmarkReport(b *testing.B) {
	r := NewRecorder(Options{})
	for i := range 3600 * 100 {
		r.Record(time.Duration(i)*10*time.Millisecond, Success, latencies[i&1023])
	}
	targets := DefaultTargets()
	b.ReportAllocs()
	for b.Loop() {
		r.Report(time.Hour, time.Hour, targets)
	}
}

// budget: 1 µs, 0 allocs
func BenchmarkQuantile(b *testing.B) {
	var h Histogram
	for _, d := range latencies {
		h.Record(d)
	}
	b.ReportAllocs()
	for b.Loop() {
		h.Quantile(0.99)
	}
}

package store

import (
	"context"
	"fmt"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// inEach runs a benchmark in each database that there is.
func inEach(b *testing.B, bench func(b *testing.B, s *shelf)) {
	b.Run("SQLite", func(b *testing.B) { bench(b, open(b, inFile(b))) })
	b.Run("PostgreSQL", func(b *testing.B) {
		if server == nil {
			b.Skip(absent)
		}
		bench(b, open(b, inServer(b)))
	})
}

var aBody = []byte(strings.Repeat("x", 200))

func aJob() New { return New{Kind: "echo", Queue: "default", Priority: 2, MaxAttempts: 3, Body: aBody} }

// budget: 2,000 a second on SQLite, each on disk.
func BenchmarkInsertBy64(b *testing.B) {
	inEach(b, func(b *testing.B, s *shelf) {
		var left atomic.Int64
		left.Store(int64(b.N))
		b.ResetTimer()
		var all sync.WaitGroup
		for range 64 {
			all.Go(func() {
				for left.Add(-1) >= 0 {
					if _, err := s.Insert(context.Background(), []New{aJob()}); err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "inserts/s")
	})
}

// budget: p50 3 ms.
func BenchmarkInsertAlone(b *testing.B) {
	inEach(b, func(b *testing.B, s *shelf) {
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			begun := time.Now()
			if _, err := s.Insert(context.Background(), []New{aJob()}); err != nil {
				b.Fatal(err)
			}
			took = append(took, time.Since(begun))
		}
		reportQuantiles(b, took)
	})
}

func reportQuantiles(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds())/1000, "p99-ms")
}

// budget: p50 5 ms when idle.
func BenchmarkInsertToStart(b *testing.B) {
	inEach(b, func(b *testing.B, s *shelf) {
		started := make(chan time.Time, 1)
		s.start(16, func(_ context.Context, j Job) {
			started <- time.Now()
			s.finish(j, Completed(nil))
		})
		took := make([]time.Duration, 0, b.N)
		for b.Loop() {
			time.Sleep(5 * time.Millisecond) // idle again
			begun := time.Now()
			if _, err := s.Insert(context.Background(), []New{aJob()}); err != nil {
				b.Fatal(err)
			}
			took = append(took, (<-started).Sub(begun))
		}
		reportQuantiles(b, took)
	})
}

// budget: 1,500 a second on SQLite, 4,000 on PostgreSQL.
func BenchmarkRun(b *testing.B) {
	for _, workers := range []int{16, 64, 256} {
		b.Run(strconv.Itoa(workers), func(b *testing.B) {
			inEach(b, func(b *testing.B, s *shelf) {
				for n := 0; n < b.N; n += 1000 {
					s.insert(slices.Repeat([]New{aJob()}, min(1000, b.N-n))...)
				}
				var left atomic.Int64
				left.Store(int64(b.N))
				done := make(chan struct{})
				b.ResetTimer()
				s.start(workers, func(_ context.Context, j Job) {
					s.finish(j, Completed([]byte("done")))
					if left.Add(-1) == 0 {
						close(done)
					}
				})
				<-done
				b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
			})
		})
	}
}

// residentMiB is the process's memory, by Linux.
func residentMiB() float64 {
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kb, _ := strconv.ParseFloat(strings.Fields(rest)[0], 64)
			return kb / 1024
		}
	}
	return 0
}

// TestAMillionWait measures a store in which a million jobs wait; it takes minutes,
// and runs where OUTRIGGER_MILLION says how many.
func TestAMillionWait(t *testing.T) {
	million, _ := strconv.Atoi(os.Getenv("OUTRIGGER_MILLION"))
	if million == 0 {
		t.Skip("OUTRIGGER_MILLION says how many")
	}
	everywhere(t, func(t *testing.T, s *shelf) {
		s.deaf = true
		measureInserts := func(what string) {
			var took []time.Duration
			for range 300 {
				begun := time.Now()
				s.insert(New{Queue: "bulk"})
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			begun := time.Now()
			var all sync.WaitGroup
			var left atomic.Int64
			left.Store(6400)
			for range 64 {
				all.Go(func() {
					for left.Add(-1) >= 0 {
						s.insert(New{Queue: "bulk", Body: aBody})
					}
				})
			}
			all.Wait()
			t.Logf("%s: insert alone p50 %v, by 64 %.0f/s", what, took[len(took)/2], 6400/time.Since(begun).Seconds())
		}
		measureInserts("empty")
		begun := time.Now()
		for n := 0; n < million; n += 1000 {
			jobs := slices.Repeat([]New{aJob()}, 1000)
			for i := range jobs {
				j := &jobs[i]
				j.Queue = "bulk"
				j.Facts.Tenant = "a"
				switch i % 4 {
				case 0:
					j.RunAt = time.Now().Add(time.Hour)
				case 1:
					j.Tags = []string{"common", fmt.Sprint("t", i)}
				case 2:
					j.Facts.Parent = 42
				case 3:
					j.Kind, j.Pending = "chain", true
				}
			}
			s.insert(jobs...)
		}
		t.Logf("filled with %d in %v", million, time.Since(begun))
		s.insert(New{Queue: "rare", Kind: "rare", Tags: []string{"rare"}})
		measureInserts("full")
		for _, l := range []struct {
			what string
			f    Filter
		}{
			{"all", Filter{}}, {"kind", Filter{Kind: "echo"}}, {"rare kind", Filter{Kind: "rare"}}, {"queue", Filter{Queue: "bulk"}}, {"rare queue", Filter{Queue: "rare"}},
			{"state", Filter{States: []State{Available}}}, {"scheduled", Filter{States: []State{Scheduled}}}, {"rare state", Filter{States: []State{Discarded}}},
			{"states", Filter{States: []State{Available, Scheduled, Retryable, Running}}}, {"tag", Filter{Tag: "common"}}, {"some tag", Filter{Tag: "t1"}}, {"rare tag", Filter{Tag: "rare"}},
			{"parent", Filter{Parent: 42}}, {"no parent", Filter{Parent: 43}}, {"kind and state", Filter{Kind: "rare", States: []State{Available}}}, {"queue and rare state", Filter{Queue: "bulk", States: []State{Discarded}}},
		} {
			l.f.Limit = 100
			var took []time.Duration
			for range 5 {
				begun := time.Now()
				if _, err := s.List(t.Context(), l.f); err != nil {
					t.Fatal(err)
				}
				took = append(took, time.Since(begun))
			}
			slices.Sort(took)
			t.Logf("list by %s: %v", l.what, took[2])
		}
		begun = time.Now()
		if _, err := s.Queues(t.Context(), []string{"bulk", "rare"}); err != nil {
			t.Fatal(err)
		}
		t.Logf("queues: %v", time.Since(begun))
		begun = time.Now()
		if _, err := s.Overdue(t.Context(), time.Now(), 500); err != nil {
			t.Fatal(err)
		}
		t.Logf("overdue: %v", time.Since(begun))

		// Ten of another tenant behind them all.
		var tenth time.Time
		var others, all atomic.Int64
		done := make(chan struct{})
		if err := s.Start(t.Context(), Work{Queues: map[string]int{"bulk": 16}, Kinds: []string{"echo"}, Do: func(_ context.Context, j Job) {
			n := all.Add(1)
			if j.Facts.Tenant == "b" && others.Add(1) == 10 {
				tenth = time.Now()
				t.Logf("the tenth of tenant b began as number %d", n)
			}
			s.finish(j, Completed(nil))
			if n == 20000 {
				close(done)
			}
		}}); err != nil {
			t.Fatal(err)
		}
		begun = time.Now()
		bs := make([]New, 10)
		for i := range bs {
			bs[i] = New{Queue: "bulk", Facts: Facts{Tenant: "b"}}
		}
		s.insert(bs...)
		<-done
		t.Logf("tenant b's tenth after %v; 20,000 ran at %.0f/s", tenth.Sub(begun), 20000/time.Since(begun).Seconds())
		debug.FreeOSMemory() // what filling it took
		before := residentMiB()
		measureInserts("while it runs")
		t.Logf("RSS %.0f MiB, %.0f MiB under load", before, residentMiB())
	})
}

package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

type place0 struct {
	*Store
	t     testing.TB
	moved chan Moved
}

func openSQLite(t testing.TB, path string) *place0 {
	t.Helper()
	p := &place0{t: t, moved: make(chan Moved, 10000)}
	s, err := Open(t.Context(), Options{SQLite: &SQLite{Path: path}, Lease: 2 * time.Second, Name: "test", Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Moved: func(m Moved) {
			select {
			case p.moved <- m:
			default:
			}
		}})
	if err != nil {
		t.Fatal(err)
	}
	p.Store = s
	return p
}

func (p *place0) stop() {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := p.Stop(ctx); err != nil {
		p.t.Error(err)
	}
	if err := p.Close(); err != nil {
		p.t.Error(err)
	}
}

func TestAJobIsKeptRunAndDone(t *testing.T) {
	p := openSQLite(t, filepath.Join(t.TempDir(), "tasks.db"))
	defer p.stop()
	done := make(chan Job, 10)
	if err := p.Start(t.Context(), Work{Queues: map[string]int{"default": 4}, Kinds: []string{"echo"}, Do: func(ctx context.Context, j Job) {
		if err := p.Finish(ctx, Held{j.ID, j.Attempt}, Completed(j.Body), nil); err != nil {
			t.Error(err)
		}
		done <- j
	}}); err != nil {
		t.Fatal(err)
	}
	in, err := p.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", Body: []byte("hello"), MaxAttempts: 3, Tags: []string{"a"}, Facts: Facts{Tenant: "t1"}}})
	if err != nil {
		t.Fatal(err)
	}
	select {
	case j := <-done:
		if j.ID != in[0].Job.ID || string(j.Body) != "hello" || j.Attempt != 1 || j.Facts.Tenant != "t1" {
			t.Fatalf("%+v", j)
		}
	case <-time.After(5 * time.Second):
		t.Fatal("it did not run")
	}
	j, err := p.Get(t.Context(), in[0].Job.ID)
	if err != nil || j.State != Done || string(j.Output) != "hello" || j.EndedAt.IsZero() {
		t.Fatalf("%+v %v", j, err)
	}
	for _, f := range []Filter{{}, {States: []State{Done}}, {Kind: "echo"}, {Queue: "default"}, {Tag: "a"}} {
		list, err := p.List(t.Context(), f)
		if err != nil || len(list) != 1 || list[0].ID != j.ID || list[0].Body != nil || list[0].Tags[0] != "a" {
			t.Fatalf("%+v: %+v %v", f, list, err)
		}
	}
	if n, err := p.Purge(t.Context(), PurgeFilter{}); err != nil || n != 1 {
		t.Fatal(n, err)
	}
	if _, err := p.Get(t.Context(), in[0].Job.ID); !errors.Is(err, ErrNotFound) {
		t.Fatal(err)
	}
}

func TestALeaseIsFenced(t *testing.T) {
	p := openSQLite(t, filepath.Join(t.TempDir(), "tasks.db"))
	defer p.stop()
	in, err := p.Insert(t.Context(), []New{{Kind: "save", Queue: "save", MaxAttempts: 3}})
	if err != nil {
		t.Fatal(err)
	}
	r := LeaseRequest{Queues: []string{"save"}, Worker: "w1", Max: 5, For: map[string]time.Duration{"save": time.Second}}
	jobs, err := p.Lease(t.Context(), r)
	if err != nil || len(jobs) != 1 || jobs[0].ID != in[0].Job.ID || jobs[0].Attempt != 1 {
		t.Fatal(jobs, err)
	}
	again, err := p.Renew(t.Context(), []Held{{jobs[0].ID, 1}, {jobs[0].ID, 2}}, []time.Time{time.Now().Add(time.Second), time.Now().Add(time.Second)})
	if err != nil || again[0].Until.IsZero() || !again[1].Until.IsZero() {
		t.Fatal(again, err)
	}
	time.Sleep(2500 * time.Millisecond)
	r.Worker = "w2"
	jobs, err = p.Lease(t.Context(), r)
	if err != nil || len(jobs) != 1 || jobs[0].Attempt != 2 {
		t.Fatal(jobs, err)
	}
	if err := p.Finish(t.Context(), Held{jobs[0].ID, 1}, Completed(nil), nil); !errors.Is(err, ErrLost) {
		t.Fatal(err)
	}
	if err := p.Finish(t.Context(), Held{jobs[0].ID, 2}, Completed(nil), nil); err != nil {
		t.Fatal(err)
	}
}

func TestRunAtIsPrecise(t *testing.T) {
	p := openSQLite(t, filepath.Join(t.TempDir(), "tasks.db"))
	defer p.stop()
	done := make(chan time.Time, 10)
	if err := p.Start(t.Context(), Work{Queues: map[string]int{"default": 4}, Kinds: []string{"echo"}, Do: func(ctx context.Context, j Job) {
		now := time.Now()
		_ = p.Finish(ctx, Held{j.ID, j.Attempt}, Completed(j.Body), nil)
		done <- now
	}}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []time.Duration{0, 300 * time.Millisecond, 1500 * time.Millisecond} {
		at := time.Now().Add(d)
		if _, err := p.Insert(t.Context(), []New{{Kind: "echo", Queue: "default", RunAt: at, MaxAttempts: 1}}); err != nil {
			t.Fatal(err)
		}
		t.Logf("%v: %v late", d, (<-done).Sub(at))
	}
}

func BenchmarkInsert64(b *testing.B) {
	p := openSQLite(b, filepath.Join(b.TempDir(), "tasks.db"))
	defer p.stop()
	var wg sync.WaitGroup
	var n atomic.Int64
	b.ResetTimer()
	for range 64 {
		wg.Go(func() {
			for n.Add(1) <= int64(b.N) {
				if _, err := p.Insert(context.Background(), []New{{Kind: "echo", Queue: "default", Body: make([]byte, 200), MaxAttempts: 1}}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "inserts/s")
}

func BenchmarkInsertLone(b *testing.B) {
	p := openSQLite(b, filepath.Join(b.TempDir(), "tasks.db"))
	defer p.stop()
	for b.Loop() {
		if _, err := p.Insert(context.Background(), []New{{Kind: "echo", Queue: "default", Body: make([]byte, 200), MaxAttempts: 1}}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkExecute(b *testing.B) {
	for _, workers := range []int{16, 64} {
		b.Run(fmt.Sprint(workers), func(b *testing.B) {
			p := openSQLite(b, filepath.Join(b.TempDir(), "tasks.db"))
			defer p.stop()
			var jobs []New
			for range b.N {
				jobs = append(jobs, New{Kind: "echo", Queue: "default", Body: make([]byte, 200), MaxAttempts: 1})
			}
			for len(jobs) > 0 {
				n := min(len(jobs), 1000)
				if _, err := p.Insert(context.Background(), jobs[:n]); err != nil {
					b.Fatal(err)
				}
				jobs = jobs[n:]
			}
			var n atomic.Int64
			done := make(chan struct{})
			b.ResetTimer()
			if err := p.Start(context.Background(), Work{Queues: map[string]int{"default": workers}, Kinds: []string{"echo"}, Do: func(ctx context.Context, j Job) {
				if err := p.Finish(ctx, Held{j.ID, j.Attempt}, Completed(nil), nil); err != nil {
					b.Error(err)
				}
				if n.Add(1) == int64(b.N) {
					close(done)
				}
			}}); err != nil {
				b.Fatal(err)
			}
			<-done
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "jobs/s")
		})
	}
}

func BenchmarkStart(b *testing.B) {
	p := openSQLite(b, filepath.Join(b.TempDir(), "tasks.db"))
	defer p.stop()
	started := make(chan time.Time, 1)
	if err := p.Start(context.Background(), Work{Queues: map[string]int{"default": 4}, Kinds: []string{"echo"}, Do: func(ctx context.Context, j Job) {
		started <- time.Now()
		_ = p.Finish(ctx, Held{j.ID, j.Attempt}, Completed(nil), nil)
	}}); err != nil {
		b.Fatal(err)
	}
	var total time.Duration
	for b.Loop() {
		time.Sleep(20 * time.Millisecond)
		at := time.Now()
		if _, err := p.Insert(context.Background(), []New{{Kind: "echo", Queue: "default", MaxAttempts: 1}}); err != nil {
			b.Fatal(err)
		}
		total += (<-started).Sub(at)
	}
	b.ReportMetric(float64(total.Microseconds())/float64(b.N), "µs/start")
}

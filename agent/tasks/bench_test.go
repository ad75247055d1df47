package tasks

import (
	"context"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

type noCalls struct{ n atomic.Int64 }

func (c *noCalls) Call(context.Context, Call) ([]byte, error) { c.n.Add(1); return nil, nil }

// BenchmarkSubmitAndRun has 64 submitters submit calls, which are run beside.
// budget: 2,000 submits a second on SQLite with synchronous FULL.
func BenchmarkSubmitAndRun(b *testing.B) {
	calls := &noCalls{}
	settings := testSettings()
	settings.Queues["default"] = Queue{Workers: 16, Capacity: 1 << 30}
	e, err := New(Options{Settings: settings, Calls: calls})
	if err != nil {
		b.Fatal(err)
	}
	kept, err := store.Open(b.Context(), store.Options{SQLite: &store.SQLite{Path: filepath.Join(b.TempDir(), "tasks.db")}, Moved: e.Moved, Name: "bench"})
	if err != nil {
		b.Fatal(err)
	}
	if err := e.Start(b.Context(), kept); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := e.Stop(context.Background()); err != nil {
			b.Error(err)
		}
		if err := kept.Close(); err != nil {
			b.Error(err)
		}
	})
	spec := grpcTask("message")
	var left atomic.Int64
	left.Store(int64(b.N))
	var all sync.WaitGroup
	began := time.Now()
	for range 64 {
		all.Go(func() {
			for left.Add(-1) >= 0 {
				if _, err := e.SubmitTask(b.Context(), &outriggerv1.SubmitTaskRequest{Task: spec}); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "submits/s")
	for calls.n.Load() < int64(b.N) {
		time.Sleep(time.Millisecond)
	}
	b.ReportMetric(float64(b.N)/time.Since(began).Seconds(), "done/s")
}

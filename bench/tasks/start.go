package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

const (
	starts     = 200
	bareStarts = 20  // each may take a second: its defaults poll
	mostStart  = 5.0 // ms, the median
)

func startPart(b *bench) ([]goals.Goal, error) {
	ctx := context.Background()
	r, err := b.newBare(ctx)
	if err != nil {
		return nil, err
	}
	a, err := b.newAgent(10_000)
	if err != nil {
		return nil, err
	}
	started := make(chan time.Time, 1)
	worker := task.Worker{Logger: slog.New(slog.DiscardHandler), Kinds: map[string]task.Handler{
		appKind: func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			started <- time.Now()
			return nil, nil
		},
	}}
	working, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- worker.Run(working, a.clients[1]) }()
	b.open.add(func() error { stop(); return <-stopped })

	calls, err := a.latency(ctx, emptyCall(), func() (time.Time, error) {
		select {
		case c := <-a.began:
			return c.at, nil
		case <-time.After(10 * time.Second):
			return time.Time{}, errors.New("a grpc task did not begin within 10 s")
		}
	})
	if err != nil {
		return nil, err
	}
	apps, err := a.latency(ctx, emptyApp(), func() (time.Time, error) {
		select {
		case at := <-started:
			return at, nil
		case <-time.After(10 * time.Second):
			return time.Time{}, errors.New("an app task did not begin within 10 s")
		}
	})
	if err != nil {
		return nil, err
	}
	bare, err := r.latency(ctx, bareStarts)
	if err != nil {
		return nil, err
	}
	fmt.Printf("start on %s: from the submit's call until the work begins, one task each %v\n", b.store, idle)
	for _, row := range []struct {
		name string
		took []time.Duration
	}{{"bare River with its defaults", bare}, {"the agent, grpc tasks", calls}, {"the agent, app tasks by a Go worker", apps}} {
		fmt.Printf("  %-36s p50 %7.2f ms  p99 %7.2f ms  of %d\n", row.name, quantile(row.took, 0.5), quantile(row.took, 0.99), len(row.took))
	}
	return []goals.Goal{
		goals.AtMost(quantile(calls, 0.5), mostStart, "submit to start of a grpc task, idle, p50 in ms"),
		goals.AtMost(quantile(apps, 0.5), mostStart, "submit to start of an app's task, idle, p50 in ms"),
	}, nil
}

// latency submits tasks one at a time and returns how long after each submit's call
// its work began.
func (a *agent) latency(ctx context.Context, spec *outriggerv1.TaskSpec, begun func() (time.Time, error)) (took []time.Duration, err error) {
	for range starts {
		time.Sleep(idle)
		at := time.Now()
		if _, err := a.clients[0].Submit(ctx, spec, task.Options{}); err != nil {
			return nil, err
		}
		began, err := begun()
		if err != nil {
			return nil, err
		}
		took = append(took, began.Sub(at))
	}
	return took, nil
}

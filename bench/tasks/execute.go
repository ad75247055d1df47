package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// leastExecuted is how many tasks a second are asked for.
var leastExecuted = map[string]float64{onSQLite: 1500, onPostgres: 4000}

// executor executes n tasks that wait already, and says how long that took.
type executor struct {
	name    string
	fill    func(ctx context.Context, n int) error
	work    func(ctx context.Context, n int) (time.Duration, error)
	figures []float64
}

func (b *bench) executors(ctx context.Context) ([]*executor, error) {
	r, err := b.newBare(ctx)
	if err != nil {
		return nil, err
	}
	alone, err := b.newStore(ctx)
	if err != nil {
		return nil, err
	}
	calls, err := b.newAgent(100_000_000)
	if err != nil {
		return nil, err
	}
	apps, err := b.newAgent(100_000_000)
	if err != nil {
		return nil, err
	}
	worker := task.Worker{Concurrency: bareWorkers, Logger: slog.New(slog.DiscardHandler), Kinds: map[string]task.Handler{
		appKind: func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) { return nil, nil },
	}}
	working, stop := context.WithCancel(ctx)
	stopped := make(chan error, 1)
	go func() { stopped <- worker.Run(working, apps.clients[0]) }()
	b.open.add(func() error { stop(); return <-stopped })
	return []*executor{
		{name: "bare River", fill: func(ctx context.Context, n int) error {
			return batches(n, func(n int) error { return r.insertMany(ctx, n) })
		}, work: r.work},
		{name: "the store alone", fill: func(ctx context.Context, n int) error {
			return batches(n, func(n int) error { return alone.insert(ctx, n) })
		}, work: alone.work},
		calls.executor("the agent, grpc tasks", "default", emptyCall()),
		apps.executor("the agent, app tasks by a Go worker", appKind, emptyApp()),
	}, nil
}

// batches calls insert until there are n.
func batches(n int, insert func(n int) error) error {
	for n > 0 {
		m := min(n, 1000)
		if err := insert(m); err != nil {
			return err
		}
		n -= m
	}
	return nil
}

// executor is the agent's: its queue is paused while it fills.
func (a *agent) executor(name, queue string, spec *outriggerv1.TaskSpec) *executor {
	return &executor{
		name: name,
		fill: func(ctx context.Context, n int) error {
			if err := a.pause(ctx, queue, true); err != nil {
				return err
			}
			return batches(n, func(n int) error { return a.submitMany(ctx, 0, n, spec) })
		},
		work: func(ctx context.Context, n int) (time.Duration, error) {
			at := time.Now()
			if err := a.pause(ctx, queue, false); err != nil {
				return 0, err
			}
			for time.Since(at) < 2*time.Minute {
				open, err := a.unfinished(ctx)
				if err != nil {
					return 0, err
				}
				if !open {
					return time.Since(at), nil
				}
				time.Sleep(20 * time.Millisecond)
			}
			return 0, fmt.Errorf("%d tasks are not done after 2 minutes", n)
		},
	}
}

func executePart(b *bench) ([]goals.Goal, error) {
	ctx := context.Background()
	all, err := b.executors(ctx)
	if err != nil {
		return nil, err
	}
	for range *rounds {
		for _, e := range all {
			if err := e.fill(ctx, *count); err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			took, err := e.work(ctx, *count)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", e.name, err)
			}
			e.figures = append(e.figures, float64(*count)/took.Seconds())
		}
	}
	fmt.Printf("execute on %s: tasks with nothing to do, done a second, %d waiting at once, %d workers, median of %d rounds\n", b.store, *count, bareWorkers, *rounds)
	for _, e := range all {
		fmt.Printf("  %-36s %9.0f /s  %6.2f × bare   rounds: %.0f\n", e.name, median(e.figures), median(e.figures)/median(all[0].figures), e.figures)
	}
	least := leastExecuted[b.store]
	return []goals.Goal{
		goals.AtLeast(median(all[1].figures), least, "the store alone with an empty worker, tasks a second"),
		goals.AtLeast(median(all[2].figures), least, "the agent with calls to an empty server, tasks a second"),
		goals.AtLeast(median(all[3].figures), least, "the agent with an empty worker of an app, tasks a second"),
	}, nil
}

package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	"github.com/outrigger-rpc/outrigger/task"
)

const (
	submitters  = 64
	batchSize   = 100
	leastSubmit = 2000.0 // a second, SQLite with FULL durability
)

// way is one way to have work accepted.
type way struct {
	name string
	// one has each tasks accepted; caller tells one of the submitters from another.
	one     func(ctx context.Context, caller int) error
	each    int // tasks a call
	figures []float64
}

// ways opens each contender on a store of its own. Nothing is executed.
func (b *bench) ways(ctx context.Context) ([]*way, error) {
	bareOne, err := b.newBare(ctx)
	if err != nil {
		return nil, err
	}
	bareMany, err := b.newBare(ctx)
	if err != nil {
		return nil, err
	}
	alone, err := b.newStore(ctx)
	if err != nil {
		return nil, err
	}
	a, err := b.newAgent(100_000_000)
	if err != nil {
		return nil, err
	}
	if err := a.pause(ctx, "default", true); err != nil {
		return nil, err
	}
	spec := emptyCall()
	return []*way{
		{name: "bare River, Insert", each: 1, one: func(ctx context.Context, _ int) error { return bareOne.insert(ctx) }},
		{name: "bare River, InsertMany of 100", each: batchSize, one: func(ctx context.Context, _ int) error { return bareMany.insertMany(ctx, batchSize) }},
		{name: "the store alone", each: 1, one: func(ctx context.Context, _ int) error { return alone.insert(ctx, 1) }},
		{name: "the agent's API, SubmitTask", each: 1, one: func(ctx context.Context, caller int) error {
			_, err := a.clients[caller%len(a.clients)].Submit(ctx, spec, task.Options{})
			return err
		}},
		{name: "the agent's API, SubmitTasks of 100", each: batchSize, one: func(ctx context.Context, caller int) error {
			return a.submitMany(ctx, caller, batchSize, spec)
		}},
	}, nil
}

// rate is how many tasks a second so many submitters have accepted.
func (w *way) rate(submitters int, length time.Duration) (float64, error) {
	ctx, cancel := context.WithTimeout(context.Background(), length+time.Minute)
	defer cancel()
	var accepted atomic.Int64
	var failed atomic.Pointer[error]
	var group sync.WaitGroup
	began := time.Now()
	over := began.Add(length)
	for caller := range submitters {
		group.Go(func() {
			for time.Now().Before(over) && failed.Load() == nil {
				if err := w.one(ctx, caller); err != nil {
					failed.Store(&err)
					return
				}
				accepted.Add(int64(w.each))
			}
		})
	}
	group.Wait()
	if err := failed.Load(); err != nil {
		return 0, fmt.Errorf("%s: %w", w.name, *err)
	}
	return float64(accepted.Load()) / time.Since(began).Seconds(), nil
}

func submitPart(b *bench) ([]goals.Goal, error) {
	ways, err := b.ways(context.Background())
	if err != nil {
		return nil, err
	}
	for range *rounds {
		for _, w := range ways {
			n := submitters
			if w.each > 1 {
				n = 4 // more would only queue
			}
			rate, err := w.rate(n, *length)
			if err != nil {
				return nil, err
			}
			w.figures = append(w.figures, rate)
		}
	}
	fmt.Printf("submit on %s: tasks accepted a second by %d submitters (4 where each call has %d), median of %d rounds of %v\n", b.store, submitters, batchSize, *rounds, *length)
	for _, w := range ways {
		fmt.Printf("  %-36s %9.0f /s  %6.2f × Insert   rounds: %.0f\n", w.name, median(w.figures), median(w.figures)/median(ways[0].figures), w.figures)
	}
	if b.store != onSQLite {
		return nil, nil
	}
	return []goals.Goal{goals.AtLeast(median(ways[3].figures), leastSubmit, "%d submitters through the API, SQLite FULL, tasks a second", submitters)}, nil
}

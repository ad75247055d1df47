package main

import (
	"context"
	"fmt"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
)

const (
	loneSubmits = 100 // a round
	idle        = 10 * time.Millisecond
	mostLone    = 3.0 // ms, the median
)

func lonePart(b *bench) ([]goals.Goal, error) {
	ctx := context.Background()
	all, err := b.ways(ctx)
	if err != nil {
		return nil, err
	}
	ways := []*way{all[0], all[2], all[3]} // those that submit one at a time
	took := make([][]time.Duration, len(ways))
	for range *rounds {
		for i, w := range ways {
			for range loneSubmits {
				time.Sleep(idle)
				at := time.Now()
				if err := w.one(ctx, 0); err != nil {
					return nil, fmt.Errorf("%s: %w", w.name, err)
				}
				took[i] = append(took[i], time.Since(at))
			}
		}
	}
	fmt.Printf("lone on %s: one submit each %v, %d of each in %d rounds\n", b.store, idle, *rounds*loneSubmits, *rounds)
	for i, w := range ways {
		fmt.Printf("  %-36s p50 %7.2f ms  p99 %7.2f ms  p50 %5.2f × Insert\n", w.name, quantile(took[i], 0.5), quantile(took[i], 0.99), quantile(took[i], 0.5)/quantile(took[0], 0.5))
	}
	if b.store != onSQLite {
		return nil, nil
	}
	return []goals.Goal{goals.AtMost(quantile(took[2], 0.5), mostLone, "a lone submit through the API, SQLite FULL, p50 in ms")}, nil
}

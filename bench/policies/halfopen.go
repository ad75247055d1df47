package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/bench/goals"
)

const (
	callers = 200
	// So many probes fail after a while, one more never ends, and the next one
	// succeeds.
	failingProbes = 5
	probeTakes    = 200 * time.Millisecond
	// halfOpenFor bounds it all.
	halfOpenFor = time.Minute
	// between is how long a caller that was refused waits: 200 callers make some
	// 10,000 calls a second.
	between = 20 * time.Millisecond
)

// halfOpen has 200 callers ask at once for an endpoint that is down, until it
// is back.
func halfOpen() (found []goals.Goal, err error) {
	var probes atomic.Int64
	var back atomic.Bool
	ctx, cancel := context.WithTimeout(context.Background(), halfOpenFor)
	defer cancel()
	down := func(ctx context.Context) error {
		switch n := probes.Add(1) - 1; {
		case n == 0: // the call that opens the breaker
			return status.Error(codes.Unavailable, "down")
		case n <= failingProbes:
			time.Sleep(probeTakes)
			return status.Error(codes.Unavailable, "still down")
		case n == failingProbes+1:
			<-ctx.Done()
			return ctx.Err()
		}
		time.Sleep(probeTakes)
		back.Store(true)
		return nil
	}
	var inFlight, most atomic.Int64 // before it is back
	u, err := serve(func(ctx context.Context) error {
		if back.Load() {
			return nil
		}
		n := inFlight.Add(1)
		defer inFlight.Add(-1)
		for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
		}
		return down(ctx)
	})
	if err != nil {
		return nil, err
	}
	defer u.stop()
	ccs, shut, err := throughAgent("timeout: 1s\ncircuit_breaker: {consecutive_failures: 1, open_for: 100ms, max_open_for: 100ms, half_open_probes: 1}", 1, u)
	if err != nil {
		return nil, err
	}
	defer shut()
	call(ctx, ccs[0])
	var refused, answered atomic.Int64
	began := time.Now()
	var group sync.WaitGroup
	for range callers {
		group.Go(func() {
			for ctx.Err() == nil {
				a := call(ctx, ccs[0])
				if good(a) {
					answered.Add(1)
					return
				}
				if a.reason == "BREAKER_OPEN" {
					refused.Add(1)
				}
				time.Sleep(between)
			}
		})
	}
	group.Wait()
	fmt.Printf("half-open: %d callers and half_open_probes: 1; an endpoint whose first %d probes fail, and the next never ends (timeout: 1s)\n", callers, failingProbes)
	fmt.Printf("  after %.1f s: %d calls refused, %d probes reached the endpoint, at most %d in flight at once; %d of %d callers were answered in the end\n",
		time.Since(began).Seconds(), refused.Load(), probes.Load()-1, most.Load(), answered.Load(), callers)
	return []goals.Goal{
		goals.AtMost(float64(most.Load()), 1, "probes in flight at once"),
		goals.AtLeast(float64(answered.Load()), callers, "callers answered in the end, after a probe that never ended"),
	}, nil
}

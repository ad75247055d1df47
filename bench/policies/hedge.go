package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"google.golang.org/grpc"

	"github.com/outrigger-rpc/outrigger/bench/goals"
)

const (
	hedgeRate  = 300 // calls a second, of each
	usualTime  = 2 * time.Millisecond
	slowShare  = 0.05
	slowBy     = 500 * time.Millisecond
	leastFall  = 5.0
	mostExtra  = 0.08
	grpcGoSays = "grpc-go has no hedging: its service config takes no hedgingPolicy (gRFC A6)"
)

// hedger is one policy of second attempts, with upstreams of its own.
type hedger struct {
	name, policy string

	upstreams [2]*upstream
	ccs       []*grpc.ClientConn
	answers   []answer
}

// sent is how many attempts reached the upstreams for each call.
func (h *hedger) sent() float64 {
	return float64(h.upstreams[0].calls.Load()+h.upstreams[1].calls.Load()) / float64(len(h.answers))
}

// slowNowAndThen takes 500 ms longer for one of 20 calls, or until the caller
// goes.
func slowNowAndThen(ctx context.Context) error {
	takes := usualTime
	if rand.Float64() < slowShare { //nolint:gosec // no secret
		takes += slowBy
	}
	select {
	case <-time.After(takes):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// hedge offers the same to all at once. Both endpoints are slow now and then,
// so that a second attempt may meet the same fate.
func hedge() (found []goals.Goal, err error) {
	var open closers
	defer func() { _ = open.close() }()
	running := []*hedger{
		{name: "no hedge"},
		{name: "delay: 20ms", policy: "idempotent: true\nhedge: {delay: 20ms, max_attempts: 2}"},
		{name: "delay_quantile: 0.95", policy: "idempotent: true\nhedge: {delay: 20ms, delay_quantile: 0.95, max_attempts: 2}"},
	}
	for _, h := range running {
		for i := range h.upstreams {
			if h.upstreams[i], err = serve(slowNowAndThen); err != nil {
				return nil, err
			}
			open.add(h.upstreams[i].stop)
		}
		var shut func() error
		if h.ccs, shut, err = throughAgent(h.policy, 1, h.upstreams[:]...); err != nil {
			return nil, err
		}
		open.add(shut)
	}
	var group sync.WaitGroup
	for _, h := range running {
		group.Go(func() { h.answers = offer(h.ccs, hedgeRate, length(), 10*time.Second) })
	}
	group.Wait()
	fmt.Printf("hedge: two endpoints, each %v slower for %.0f %% of its calls; %d calls a second of each row for %d s, all at once\n", slowBy, 100*slowShare, hedgeRate, *seconds)
	fmt.Printf("  %-22s %8s %8s %10s %10s %10s\n", "", "calls", "failed", "p50 ms", "p99 ms", "extra")
	tail := quantile(running[0].answers, 0.99, all)
	for i, h := range running {
		failed := len(h.answers) - count(h.answers, good)
		p99 := quantile(h.answers, 0.99, all)
		fmt.Printf("  %-22s %8d %8d %10.1f %10.1f %9.1f%%\n", h.name, len(h.answers), failed, ms(quantile(h.answers, 0.5, all)), ms(p99), 100*(h.sent()-1))
		if failed > 0 {
			return nil, fmt.Errorf("%s: %d of %d calls failed", h.name, failed, len(h.answers))
		}
		if i > 0 {
			found = append(found,
				goals.AtLeast(float64(tail)/float64(p99), leastFall, "%s: p99 falls by a factor of", h.name),
				goals.AtMost(h.sent()-1, mostExtra, "%s: extra calls, as a share", h.name))
		}
	}
	fmt.Println("  " + grpcGoSays)
	return found, nil
}

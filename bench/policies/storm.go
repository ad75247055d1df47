package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/bench/envoy"
	"github.com/outrigger-rpc/outrigger/bench/goals"
)

const (
	stormRate = 500 // calls a second, of each
	// What Outrigger may send: its default budget is a fifth of the calls and 10 a
	// second over 10 s, which may be spent at once.
	stormShare = 1.2
	stormFloor = 10
	stormLeast = 10 // seconds of the floor
)

// stormer is one way to make calls that retries, with an upstream of its own.
type stormer struct {
	name  string
	about string
	open  func(u *upstream) (ccs []*grpc.ClientConn, shut func() error, err error)

	upstream *upstream
	ccs      []*grpc.ClientConn
	answers  []answer
}

const (
	retryPolicy     = `"methodConfig":[{"name":[{}],"retryPolicy":{"maxAttempts":3,"initialBackoff":"0.025s","maxBackoff":"1s","backoffMultiplier":2,"retryableStatusCodes":["UNAVAILABLE"]}}]`
	retryThrottling = `"retryThrottling":{"maxTokens":10,"tokenRatio":0.1}`
)

func stormers() []*stormer {
	grpcGo := func(config string) func(u *upstream) ([]*grpc.ClientConn, func() error, error) {
		return func(u *upstream) ([]*grpc.ClientConn, func() error, error) {
			return connect(u.address, service, 1, grpc.WithDefaultServiceConfig(config))
		}
	}
	return []*stormer{
		{name: "Outrigger", about: "retry: {max_attempts: 3}, its default budget", open: func(u *upstream) ([]*grpc.ClientConn, func() error, error) {
			return throughAgent("retry: {max_attempts: 3}", 1, u)
		}},
		{name: "grpc-go", about: "retryPolicy: maxAttempts 3", open: grpcGo("{" + retryPolicy + "}")},
		{name: "grpc-go, throttled", about: "the same with retryThrottling: maxTokens 10, tokenRatio 0.1", open: grpcGo("{" + retryPolicy + "," + retryThrottling + "}")},
		{name: "Envoy", about: "retry_on: unavailable, num_retries: 2, its default circuit breaker", open: throughEnvoy},
		{name: "none", about: "no retries", open: grpcGo("{}")},
	}
}

// storm offers the same to all at once while every upstream fails every call.
func storm() (found []goals.Goal, err error) {
	var open closers
	defer func() { _ = open.close() }()
	running := stormers()
	if envoy.Find() == "" {
		fmt.Printf("SKIPPED: Envoy is not installed (%s)\n", envoy.Install)
		running = append(running[:3:3], running[4])
	}
	for _, s := range running {
		if s.upstream, err = serve(func(context.Context) error { return status.Error(codes.Unavailable, "down") }); err != nil {
			return nil, err
		}
		open.add(s.upstream.stop)
		var shut func() error
		if s.ccs, shut, err = s.open(s.upstream); err != nil {
			return nil, fmt.Errorf("%s: %w", s.name, err)
		}
		open.add(shut)
	}
	began := time.Now()
	var group sync.WaitGroup
	for _, s := range running {
		group.Go(func() { s.answers = offer(s.ccs, stormRate, length(), 10*time.Second) })
	}
	group.Wait()
	fmt.Printf("retry storm: every call answered UNAVAILABLE; %d calls a second of each for %d s, all at once (it took %.1f s)\n", stormRate, *seconds, time.Since(began).Seconds())
	fmt.Printf("  %-20s %10s %10s %8s   %s\n", "", "calls", "attempts", "÷ calls", "configured")
	for _, s := range running {
		if failed := count(s.answers, func(a answer) bool { return a.code == codes.Unavailable }); failed != len(s.answers) {
			return nil, fmt.Errorf("%s: %d of %d calls ended otherwise than with UNAVAILABLE", s.name, len(s.answers)-failed, len(s.answers))
		}
		calls, attempts := len(s.answers), s.upstream.calls.Load()
		fmt.Printf("  %-20s %10d %10d %8.2f   %s\n", s.name, calls, attempts, float64(attempts)/float64(calls), s.about)
	}
	calls := float64(len(running[0].answers))
	most := stormShare*calls + stormFloor*float64(max(*seconds, stormLeast))
	return []goals.Goal{goals.AtMost(float64(running[0].upstream.calls.Load()), most, "Outrigger's attempts, of %.1f × calls + %d/s", stormShare, stormFloor)}, nil
}

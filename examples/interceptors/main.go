// Command interceptors shows a Go app with Outrigger's policies and without a
// sidecar: one ClientConn to two servers, one of which fails, gets slow, and is
// mended; then both fail.
//
//	go run ./examples/interceptors
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/interceptors"
	"github.com/outrigger-rpc/outrigger/policy"
)

func main() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "interceptors:", err)
		os.Exit(1)
	}
}

// server answers health checks, which stand for any service.
type server struct {
	healthv1.UnimplementedHealthServer
	address string
	failing atomic.Bool
	delay   atomic.Int64
	calls   atomic.Int64
}

// Check implements the health service.
func (s *server) Check(ctx context.Context, _ *healthv1.HealthCheckRequest) (*healthv1.HealthCheckResponse, error) {
	s.calls.Add(1)
	if s.failing.Load() {
		return nil, status.Error(codes.Unavailable, "out of order")
	}
	select {
	case <-time.After(time.Duration(s.delay.Load())):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return &healthv1.HealthCheckResponse{Status: healthv1.HealthCheckResponse_SERVING}, nil
}

// start serves at an address of outrigger.yaml.
func start(address string) (s *server, stop func(), err error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, nil, err
	}
	s = &server{address: address}
	g := grpc.NewServer()
	healthv1.RegisterHealthServer(g, s)
	go func() { _ = g.Serve(l) }()
	return s, g.Stop, nil
}

func run(ctx context.Context) error {
	// This is all that an app changes: the policies from the file, and
	// DialOptions.
	c, err := config.Load("examples/interceptors/outrigger.yaml")
	if err != nil {
		return err
	}
	greeter := c.Service("greeter")
	service := policy.NewService(greeter.Name, greeter.Settings(), nil)
	service.SetEndpoints(greeter.Endpoints)
	client, err := interceptors.New(interceptors.Options{Service: service})
	if err != nil {
		return err
	}
	cc, err := grpc.NewClient("outrigger:///greeter", append(client.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		return err
	}
	defer cc.Close()

	var servers []*server
	for _, e := range greeter.Endpoints {
		s, stop, err := start(e.Address)
		if err != nil {
			return err
		}
		defer stop()
		servers = append(servers, s)
	}
	app := &app{service: service, client: healthv1.NewHealthClient(cc), a: servers[0], b: servers[1]}
	for _, step := range []func(context.Context) error{app.well, app.oneFails, app.mended, app.oneIsSlow, app.bothFail} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	app.report()
	return nil
}

// app makes calls and knows what they should come to.
type app struct {
	service *policy.Service
	client  healthv1.HealthClient
	a, b    *server
}

// call makes n calls, which all have to be answered.
func (x *app) call(ctx context.Context, n int) error {
	for range n {
		if _, err := x.client.Check(ctx, &healthv1.HealthCheckRequest{}); err != nil {
			return fmt.Errorf("a call failed, and none should: %w", err)
		}
	}
	return nil
}

// action returns how often the policies did something.
func (x *app) action(name string) uint64 {
	for _, a := range x.service.Actions() {
		if a.Label == name {
			return a.Total
		}
	}
	return 0
}

func (x *app) well(ctx context.Context) error {
	// The connections are made now: the first call waits for one, not for both.
	for x.a.calls.Load() == 0 || x.b.calls.Load() == 0 {
		if err := x.call(ctx, 1); err != nil {
			return err
		}
	}
	fmt.Printf("-- both servers are well: %d calls answered, %d by %s, %d by %s\n", x.a.calls.Load()+x.b.calls.Load(), x.a.calls.Load(), x.a.address, x.b.calls.Load(), x.b.address)
	return nil
}

func (x *app) oneFails(ctx context.Context) error {
	x.a.failing.Store(true)
	before := x.a.calls.Load()
	if err := x.call(ctx, 40); err != nil {
		return err
	}
	failed, retries := x.a.calls.Load()-before, x.action("retry")
	fmt.Printf("-- %s fails: 40 calls answered all the same, with %d retries at the other; after %d failures its breaker let it be\n", x.a.address, retries, failed)
	if failed != 5 || retries != 5 {
		return fmt.Errorf("%d attempts failed and %d were made again, and both should be 5", failed, retries)
	}
	return nil
}

func (x *app) mended(ctx context.Context) error {
	x.a.failing.Store(false)
	before, since := x.a.calls.Load(), time.Now()
	for x.a.calls.Load() < before+2 {
		if err := x.call(ctx, 1); err != nil {
			return err
		}
		time.Sleep(10 * time.Millisecond)
	}
	fmt.Printf("-- it is mended: after %.1f s a probe found out, and it gets calls again\n", time.Since(since).Seconds())
	return nil
}

func (x *app) oneIsSlow(ctx context.Context) error {
	x.a.delay.Store(int64(time.Second))
	since, before := time.Now(), x.a.calls.Load()
	for x.a.calls.Load() < before+5 {
		if err := x.call(ctx, 1); err != nil {
			return err
		}
	}
	x.a.delay.Store(0)
	hedges := x.action("hedge")
	fmt.Printf("-- it is slow, 1 s a call: 5 calls that met it were answered by the other, after %d hedges and %.1f s in all\n", hedges, time.Since(since).Seconds())
	if hedges < 5 {
		return fmt.Errorf("%d hedges were sent, and 5 should", hedges)
	}
	return nil
}

func (x *app) bothFail(ctx context.Context) error {
	x.a.failing.Store(true)
	x.b.failing.Store(true)
	for range 20 {
		_, err := x.client.Check(ctx, &healthv1.HealthCheckRequest{})
		var refusal *policy.Refusal
		if errors.As(err, &refusal) && refusal.Reason == policy.BreakerOpen {
			fmt.Printf("-- both fail: %v: %v\n", status.Code(err), refusal)
			return nil
		}
	}
	return errors.New("both servers failed 20 calls, and no breaker opened")
}

func (x *app) report() {
	lifetime := x.service.Recorder().Lifetime()
	fmt.Printf("-- %d calls, %d of them good; p50 %v, p95 %v", lifetime.Calls, lifetime.Successes, lifetime.Latency.Quantile(0.5).Round(10*time.Microsecond), lifetime.Latency.Quantile(0.95).Round(10*time.Microsecond))
	for _, r := range x.service.Refusals() {
		fmt.Printf("; %d refused: %s", r.Total, r.Label)
	}
	fmt.Println()
}

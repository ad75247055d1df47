// Package demo shows what the agent does: three gRPC servers and the agent in
// processes of their own, real calls with and without the agent through the
// same faults, and the report. Every number it prints was measured in that run.
package demo

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/balancer/roundrobin"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/resolver"
	"google.golang.org/grpc/resolver/manual"
)

// perSecond is how many calls each of the two clients starts a second.
const perSecond = 200

// phase is a stretch of the demo: until is its end as a share of the whole.
type phase struct {
	until float64
	title string
	begin func(*stage) error // nil: nothing changes
}

var script = []phase{
	{0.15, "all three servers are well", nil},
	{0.35, "server b becomes slow: 400 ms a call", func(s *stage) error { return s.servers[1].say("slow") }},
	{0.42, "server b is well again", func(s *stage) error { return s.servers[1].say("well") }},
	{0.62, "server c fails every call: INTERNAL", func(s *stage) error { return s.servers[2].say("fail") }},
	{0.70, "server c is well again", func(s *stage) error { return s.servers[2].say("well") }},
	{0.85, "server a is dead: kill -9", func(s *stage) error { return s.servers[0].kill() }},
	{1.00, "server a is back", func(s *stage) error { return s.servers[0].start() }},
}

// Run plays the demo for about d and prints to w.
func Run(ctx context.Context, w io.Writer, d time.Duration) error {
	out := &printer{w: w, begun: time.Now()}
	out.intro(d)
	s, err := newStage(ctx, d)
	if err != nil {
		return err
	}
	defer s.stop()
	out.places(s)

	through, err := connect("passthrough:///"+s.agent.egress, grpc.WithAuthority(serviceName))
	if err != nil {
		return err
	}
	defer through.Close()
	direct, err := connectDirect(s)
	if err != nil {
		return err
	}
	defer direct.Close()

	with, without := newLoad(through), newLoad(direct)
	ctx, end := context.WithCancel(ctx)
	defer end()
	var running sync.WaitGroup
	running.Go(func() { with.run(ctx) })
	running.Go(func() { without.run(ctx) })
	running.Go(func() { s.agent.watchBreakers(ctx, out, s) })
	err = play(ctx, out, s, with, without, d)
	end()
	running.Wait()
	if err != nil {
		return err
	}
	return report(context.WithoutCancel(ctx), out, s, with, without)
}

// play goes through the script, a line of figures each second.
func play(ctx context.Context, out *printer, s *stage, with, without *load, d time.Duration) error {
	start := time.Now()
	out.begun = start
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for _, p := range script {
		out.event("──", "%s", p.title)
		if p.begin != nil {
			if err := p.begin(s); err != nil {
				return fmt.Errorf("%s: %w", p.title, err)
			}
		}
		over := time.NewTimer(time.Until(start.Add(time.Duration(p.until * float64(d)))))
		for waiting := true; waiting; {
			select {
			case <-ctx.Done():
				over.Stop()
				return ctx.Err()
			case <-over.C:
				waiting = false
			case <-tick.C:
				out.second(with.lap(), without.lap())
			}
		}
	}
	return nil
}

// connect opens a client to the target.
func connect(target string, options ...grpc.DialOption) (*grpc.ClientConn, error) {
	return grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())...)
}

// connectDirect opens what an app without a sidecar has: grpc-go's round_robin
// over the three servers.
func connectDirect(s *stage) (*grpc.ClientConn, error) {
	r := manual.NewBuilderWithScheme("demo")
	var addresses []resolver.Address
	for _, server := range s.servers {
		addresses = append(addresses, resolver.Address{Addr: server.address})
	}
	r.InitialState(resolver.State{Addresses: addresses})
	return connect("demo:///greeter", grpc.WithResolvers(r), grpc.WithDefaultServiceConfig(`{"loadBalancingConfig": [{"`+roundrobin.Name+`": {}}]}`))
}

// executable is this program, which the demo starts again as servers and agent.
func executable() (string, error) {
	path, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("demo: can't find this program to start it again: %w", err)
	}
	return path, nil
}

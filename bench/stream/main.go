// Command stream holds one bidirectional stream through the agent for ten
// minutes while everything that could end it happens: the service's unary
// timeout of 3 s is over many times, an operator opens the breaker and closes
// it again, the configuration file changes and is reloaded.
//
//	make test-long-stream
//	go run ./bench/stream -for 1m     # needs bin/outrigger (make build)
//
// A message goes out each second and must be answered. It prints one line and
// exits with 1 if the stream ended, if an answer was wrong or late, or if what
// should have disturbed it did not take place.
package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/bench/memory/sidecar"
)

const (
	pause = time.Second // between messages
	// An answer that takes longer is as good as none.
	patience = 10 * time.Second
	// shortest is how long it takes for each disturbance to happen once.
	shortest = 40 * time.Second
)

var (
	binary   = flag.String("agent", "bin/outrigger", "the agent's binary")
	duration = flag.Duration("for", 10*time.Minute, "how long the stream has to live; at least 40s")
)

func main() {
	flag.Parse()
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "test-long-stream:", err)
		os.Exit(1)
	}
}

func run() error {
	if *duration < shortest {
		return fmt.Errorf("-for %v: want at least %v, in which a reload and an open breaker have their turn", *duration, shortest)
	}
	upstream, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server, served := newServer()
	go func() { _ = server.Serve(upstream) }()
	defer server.Stop()
	agent, err := sidecar.Start(*binary, configuration(upstream.Addr().String(), 0))
	if err != nil {
		return err
	}
	defer agent.Stop()
	calls, err := connect(agent.Egress)
	if err != nil {
		return err
	}
	defer calls.Close()
	control, err := connect(agent.API)
	if err != nil {
		return err
	}
	defer control.Close()

	ctx, cancel := context.WithTimeout(context.Background(), *duration+patience)
	defer cancel()
	d := &disturbance{agent: agent, upstream: upstream.Addr().String(), calls: calls, control: control}
	var disturbed error
	over := make(chan struct{})
	var group sync.WaitGroup
	group.Go(func() { disturbed = d.until(ctx, over) })
	answered, slowest, err := pingPong(ctx, calls)
	close(over)
	group.Wait()
	fmt.Printf("a stream of %v under timeout: 3s: %d messages answered, the slowest after %v; meanwhile %d reloads, the breaker opened %d times (%d of %d unary calls refused) and closed %d times (%d of %d answered)\n",
		*duration, answered, slowest.Round(10*time.Microsecond), d.reloads, d.opened, d.refused, d.opened, d.closed, d.let, d.closed)
	if n := served.Load(); n != 1 && err == nil {
		err = fmt.Errorf("the upstream saw %d streams, want 1", n)
	}
	return errors.Join(err, disturbed, d.incomplete())
}

// pingPong sends a message each pause and has it answered, on one stream.
func pingPong(ctx context.Context, cc *grpc.ClientConn) (answered int, slowest time.Duration, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/stream.Test/Echo")
	if err != nil {
		return 0, 0, err
	}
	late := time.AfterFunc(patience, cancel)
	defer late.Stop()
	tick := time.NewTicker(pause)
	defer tick.Stop()
	for end := time.Now().Add(*duration); time.Now().Before(end); <-tick.C {
		message := fmt.Appendf(nil, "message %d", answered)
		late.Reset(patience)
		sent := time.Now()
		in := new(wrapperspb.BytesValue)
		if err := errors.Join(s.SendMsg(wrapperspb.Bytes(message)), s.RecvMsg(in)); err != nil {
			return answered, slowest, fmt.Errorf("the stream ended: %w", err)
		}
		if !bytes.Equal(in.GetValue(), message) {
			return answered, slowest, fmt.Errorf("sent %q, got %q", message, in.GetValue())
		}
		slowest = max(slowest, time.Since(sent))
		answered++
	}
	return answered, slowest, s.CloseSend()
}

// configuration differs from one turn to the next in what a reload takes over.
func configuration(upstream string, turn int) string {
	return fmt.Sprintf(`
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services:
  - name: stream
    endpoints: {static: [{address: %q}]}
    policy:
      timeout: 3s
      per_try_timeout: 1s
      retry: {max_attempts: %d}
      circuit_breaker: {consecutive_failures: 5, open_for: %ds}
`, upstream, 2+turn%2, 30+turn%2)
}

func connect(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+address, grpc.WithAuthority("stream"), grpc.WithNoProxy(), grpc.WithTransportCredentials(insecure.NewCredentials()))
}

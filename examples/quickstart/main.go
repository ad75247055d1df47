// Command quickstart shows an app behind the agent: two gRPC servers, the agent
// with the configuration beside this file, and a client that calls through it.
//
//	go run ./examples/quickstart
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
)

// The servers of outrigger.yaml: ports that the system gives to no client.
var servers = []string{"127.0.0.1:18151", "127.0.0.1:18152"}

func main() {
	if err := run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, "quickstart:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	for _, address := range servers {
		l, err := net.Listen("tcp", address)
		if err != nil {
			return err
		}
		server := grpc.NewServer()
		healthv1.RegisterHealthServer(server, health.NewServer()) // any service will do
		go func() { _ = server.Serve(l) }()
		defer server.Stop()
	}
	egress, stop, err := startAgent(ctx)
	if err != nil {
		return err
	}
	defer stop()

	// This is all that an app changes: the agent's address, and the service's
	// name as authority.
	cc, err := grpc.NewClient("passthrough:///"+egress, grpc.WithAuthority("greeter"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	for i := range 6 {
		ctx, cancel := context.WithTimeout(metadata.AppendToOutgoingContext(ctx, "outrigger-explain", "true"), 5*time.Second)
		var header metadata.MD
		response, err := healthv1.NewHealthClient(cc).Check(ctx, &healthv1.HealthCheckRequest{}, grpc.Header(&header))
		cancel()
		if err != nil {
			return err
		}
		fmt.Printf("call %d: %v, answered by %s, %s µs spent in the agent\n", i+1, response.GetStatus(), first(header, "outrigger-endpoint"), first(header, "outrigger-policy-time-us"))
	}
	return nil
}

func first(md metadata.MD, key string) string { return strings.Join(md.Get(key), ",") }

// startAgent runs the agent from source. stop lets it drain.
func startAgent(ctx context.Context) (egress string, stop func(), err error) {
	dir, err := os.MkdirTemp("", "quickstart")
	if err != nil {
		return "", nil, err
	}
	binary := dir + "/outrigger"
	if out, err := exec.CommandContext(ctx, "go", "build", "-o", binary, "./cmd/agent").CombinedOutput(); err != nil {
		return "", nil, fmt.Errorf("go build: %w\n%s", err, out)
	}
	cmd := exec.CommandContext(ctx, binary, "run", "-c", "examples/quickstart/outrigger.yaml")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return "", nil, err
	}
	if err := cmd.Start(); err != nil {
		return "", nil, err
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "outrigger: ready egress="); ok {
			egress, _, _ = strings.Cut(rest, " ")
			go func() { _, _ = io.Copy(io.Discard, stderr) }()
			return egress, func() {
				_ = cmd.Process.Signal(os.Interrupt)
				_ = cmd.Wait()
				_ = os.RemoveAll(dir)
			}, nil
		}
		fmt.Fprintln(os.Stderr, lines.Text())
	}
	return "", nil, errors.Join(errors.New("the agent does not start"), cmd.Wait())
}

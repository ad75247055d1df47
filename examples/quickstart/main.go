// Command quickstart shows an app behind the agent: two gRPC servers, the agent
// with the configuration beside this file, and a client that calls through it.
//
//	go run ./examples/quickstart
package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/examples/internal/stage"
)

// The servers of outrigger.yaml: ports that the system gives to no client.
var servers = []string{"127.0.0.1:18151", "127.0.0.1:18152"}

func main() { stage.Main("quickstart", run) }

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
	agent, err := stage.StartAgent(ctx, "examples/quickstart/outrigger.yaml")
	if err != nil {
		return err
	}
	defer agent.Stop()

	// This is all that an app changes: the agent's address, and the service's
	// name as authority.
	cc, err := grpc.NewClient("passthrough:///"+agent.Egress, grpc.WithAuthority("greeter"), grpc.WithTransportCredentials(insecure.NewCredentials()))
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

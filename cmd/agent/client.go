package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
)

const (
	defaultAPI  = "127.0.0.1:7601"
	apiVariable = "OUTRIGGER_API"
	// callTimeout bounds a call to the agent: it is a neighbour.
	callTimeout = 5 * time.Second
	// maxAnswer is above any answer of an agent, which bounds its lists.
	maxAnswer = 64 << 20
	// pageSize is how much of a list is asked for at a time.
	pageSize = 1000
)

// remote is a verb that talks to an agent.
type remote struct {
	address string
	output  output
}

// flags adds what every such verb takes.
func (r *remote) flags(c *cobra.Command) *cobra.Command {
	address := os.Getenv(apiVariable)
	if address == "" {
		address = defaultAPI
	}
	c.Flags().StringVar(&r.address, "api", address, "`ADDR` of the agent's API, host:port or unix:PATH; env "+apiVariable)
	r.output.flag(c)
	return c
}

// call does one short thing with the agent.
func (r *remote) call(c *cobra.Command, do func(context.Context, *grpc.ClientConn) error) error {
	return r.connect(c.Context(), func(ctx context.Context, agent *grpc.ClientConn) error {
		ctx, cancel := context.WithTimeout(ctx, callTimeout)
		defer cancel()
		return do(ctx, agent)
	})
}

// connect does something with the agent for as long as it takes.
func (r *remote) connect(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	target := r.address
	if !strings.HasPrefix(target, "unix:") {
		if _, port, err := net.SplitHostPort(target); err != nil || port == "" {
			return usageError{fmt.Errorf("--api (or %s) is %q; want host:port or unix:PATH", apiVariable, target)}
		}
		target = "passthrough:///" + target
	}
	agent, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithNoProxy(), // grpc_proxy may well be set to the agent itself
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 1.5, MaxDelay: time.Second}, MinConnectTimeout: callTimeout}),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxAnswer)),
		grpc.WithDisableServiceConfig(),
	)
	if err != nil {
		return usageError{fmt.Errorf("--api (or %s) is %q: %w", apiVariable, r.address, err)}
	}
	defer func() { _ = agent.Close() }() // it has nothing left to say
	return r.explain(do(ctx, agent))
}

// explain says a gRPC error in the command line's words.
func (r *remote) explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		if s.Message() == "the agent is ending" {
			return fmt.Errorf("the agent at %s is ending", r.address)
		}
		if strings.Contains(s.Message(), "server preface") {
			return fmt.Errorf("what answers at %s is no agent's API: it does not speak HTTP/2 (the API is at %s by default)", r.address, defaultAPI)
		}
		return fmt.Errorf("no agent answers at %s: is `outrigger run` up? Name another address by --api ADDR or %s (%s)", r.address, apiVariable, cause(s.Message()))
	case codes.DeadlineExceeded:
		return fmt.Errorf("the agent at %s did not answer within %v", r.address, callTimeout)
	case codes.Unimplemented:
		return fmt.Errorf("what answers at %s is no agent, or one of another version (%s)", r.address, s.Message())
	}
	return errors.New(s.Message())
}

// cause takes the innermost reason out of a transport error's message.
func cause(message string) string {
	if i := strings.LastIndex(message, `desc = "`); i >= 0 {
		message = strings.TrimSuffix(message[i+len(`desc = "`):], `"`)
	}
	return strings.TrimPrefix(message, "transport: Error while dialing: ")
}

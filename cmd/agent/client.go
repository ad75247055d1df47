package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

const (
	defaultAPI = "127.0.0.1:7601"
	envAPI     = "OUTRIGGER_API"
	// callTimeout bounds a call to the agent: it is a neighbour.
	callTimeout = 5 * time.Second
)

var errDuration = errors.New("--duration: want 5s to 10m")

// remote is a command that talks to an agent.
type remote struct {
	address, output string
}

// flags adds what every such command takes.
func (r *remote) flags(c *cobra.Command) *cobra.Command {
	address := os.Getenv(envAPI)
	if address == "" {
		address = defaultAPI
	}
	c.Flags().StringVar(&r.address, "api", address, "`ADDR` of the agent's API, host:port or unix:PATH (env "+envAPI+")")
	c.Flags().StringVarP(&r.output, "output", "o", "table", "`FORMAT`: table or json")
	return c
}

// call connects, does something and explains what goes wrong.
func (r *remote) call(ctx context.Context, do func(context.Context, *grpc.ClientConn) error) error {
	if r.output != "table" && r.output != "json" {
		return usageError{fmt.Errorf("-o %q: want table or json", r.output)}
	}
	target := r.address
	if len(target) < 5 || target[:5] != "unix:" {
		target = "passthrough:///" + target
	}
	cc, err := grpc.NewClient(target, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy())
	if err != nil {
		return usageError{fmt.Errorf("--api %q: %w", r.address, err)}
	}
	defer cc.Close()
	return r.explain(do(ctx, cc))
}

// explain says a gRPC error in the command line's words.
func (r *remote) explain(err error) error {
	s, ok := status.FromError(err)
	if err == nil || !ok {
		return err
	}
	switch s.Code() {
	case codes.Unavailable:
		return fmt.Errorf("no agent answers at %s: is `outrigger run` up? Another address: --api ADDR or %s (%s)", r.address, envAPI, s.Message())
	case codes.DeadlineExceeded:
		return fmt.Errorf("the agent at %s did not answer within %v", r.address, callTimeout)
	case codes.Canceled:
		return nil
	case codes.Unimplemented:
		return fmt.Errorf("what answers at %s is no agent, or one of another version: %s", r.address, s.Message())
	}
	return errors.New(s.Message())
}

// json is how messages are printed: proto field names, empty fields too.
var json = protojson.MarshalOptions{UseProtoNames: true, EmitUnpopulated: true, Multiline: true, Indent: "  "}

// print writes a message as JSON, or as a table.
func (r *remote) print(c *cobra.Command, m proto.Message, table func(*table)) error {
	if r.output == "json" {
		text, err := json.Marshal(m)
		if err != nil {
			return err
		}
		fmt.Fprintln(c.OutOrStdout(), string(text))
		return nil
	}
	t := newTable(c.OutOrStdout())
	table(t)
	return t.flush()
}

// limited is the context of one short call.
func limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, callTimeout)
}

package demo

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// The demo's service: one unary method from string to string.
const (
	serviceName = "greeter"
	grpcService = "demo.Greeter"
	method      = "/" + grpcService + "/SayHello"
	// serverHeader says in an answer which server gave it.
	serverHeader = "demo-server"
)

// slowness is how long a slow server takes, workTime how long a well one does.
const (
	slowness = 400 * time.Millisecond
	workTime = 2 * time.Millisecond
)

// Upstream is a server of the demo: it prints where it listens, and does what
// standard input says, a word a line: well, slow, fail. It ends with its input.
func Upstream(ctx context.Context, name string) error {
	address := os.Getenv(envAddress)
	if address == "" {
		address = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", address)
	if err != nil {
		return err
	}
	var mood atomic.Value
	mood.Store("well")
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: grpcService, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "SayHello", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			return hello(ctx, name, mood.Load().(string), in.GetValue())
		}}},
	}, nil)
	fmt.Println(l.Addr())
	go func() {
		lines := bufio.NewScanner(os.Stdin)
		for lines.Scan() {
			mood.Store(lines.Text())
		}
		server.Stop()
	}()
	stopped := context.AfterFunc(ctx, server.Stop)
	defer stopped()
	if err := server.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return err
	}
	_, _ = io.Copy(io.Discard, os.Stdin) // the parent's end of it says when it is over
	return nil
}

// envAddress is where a server that comes back has to listen.
const envAddress = "OUTRIGGER_DEMO_ADDRESS"

func hello(ctx context.Context, name, mood, who string) (*wrapperspb.StringValue, error) {
	if err := grpc.SetHeader(ctx, metadata.Pairs(serverHeader, name)); err != nil {
		return nil, err
	}
	pause := workTime/2 + rand.N(workTime)
	switch mood {
	case "slow":
		pause = slowness
	case "fail":
		return nil, status.Error(codes.Internal, "server "+name+" is broken")
	}
	select {
	case <-time.After(pause):
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
	return wrapperspb.String("hello " + who + ", I am " + name), nil
}

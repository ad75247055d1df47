package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// What the server answers. The attacker writes the same paths by hand.
const (
	serviceName  = "attack.Server"
	echoPath     = "/attack.Server/Echo"     // BytesValue: the same again
	downloadPath = "/attack.Server/Download" // Int64Value: so many bytes
)

// serve is the gRPC server behind the agent, in a process of its own: it says
// on stdout where it listens and ends when stdin does.
func serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	echo := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		return in, decode(in)
	}
	download := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.Int64Value)
		if err := decode(in); err != nil {
			return nil, err
		}
		return wrapperspb.Bytes(make([]byte, in.Value)), nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: serviceName, HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Echo", Handler: echo}, {MethodName: "Download", Handler: download}},
	}, nil)
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		server.Stop()
	}()
	stop := context.AfterFunc(ctx, server.Stop)
	defer stop()
	fmt.Println(listener.Addr())
	return server.Serve(listener)
}

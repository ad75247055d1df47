package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/mem"
)

// What the server answers. The attacker writes the same paths by hand.
const (
	serviceName  = "attack.Server"
	echoPath     = "/attack.Server/Echo"     // the same again
	downloadPath = "/attack.Server/Download" // 1 MiB
)

// serve is the gRPC server behind the agent, in a process of its own: it says
// on stdout where it listens and ends when stdin does.
func serve(ctx context.Context) error {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	echo := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new([]byte)
		return in, decode(in)
	}
	answer := make([]byte, 1<<20)
	download := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		return &answer, decode(new([]byte))
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(raw{}))
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

// raw is a codec that leaves messages as they are: 100 answers of 1 MiB at once
// are to cost the agent something, not the server.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

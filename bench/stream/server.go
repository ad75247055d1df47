package main

import (
	"context"
	"errors"
	"io"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// newServer is the upstream: Unary and Echo answer each message with itself.
// streams counts the calls of Echo.
func newServer() (server *grpc.Server, streams *atomic.Int64) {
	server, streams = grpc.NewServer(), new(atomic.Int64)
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "stream.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			return in, decode(in)
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: func(_ any, s grpc.ServerStream) error {
			streams.Add(1)
			for {
				in := new(wrapperspb.BytesValue)
				if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := s.SendMsg(in); err != nil {
					return err
				}
			}
		}}},
	}, nil)
	return server, streams
}

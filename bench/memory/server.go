package main

import (
	"context"
	"errors"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// newServer answers Unary with what it got, sends on Down until it may no
// longer, and answers once on Wait.
func newServer() *grpc.Server {
	unary := func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		in := new(wrapperspb.BytesValue)
		return in, decode(in)
	}
	down := func(_ any, s grpc.ServerStream) error {
		message := wrapperspb.Bytes(make([]byte, 1<<20))
		for range stalledMessages {
			if err := s.SendMsg(message); err != nil {
				return err
			}
		}
		return nil
	}
	wait := func(_ any, s grpc.ServerStream) error {
		in := new(wrapperspb.BytesValue)
		if err := errors.Join(s.RecvMsg(in), s.SendMsg(in)); err != nil {
			return err
		}
		<-s.Context().Done()
		return nil
	}
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "memory.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Down", ServerStreams: true, Handler: down},
			{StreamName: "Wait", ServerStreams: true, ClientStreams: true, Handler: wait},
		},
	}, nil)
	return server
}

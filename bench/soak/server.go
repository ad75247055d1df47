package main

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// downMessages is how many messages a call of Down is answered with.
const downMessages = 20

// newServer is the upstream: Unary and Echo answer each message with itself,
// Down answers one with many, Up answers many with the number of their bytes,
// Wait answers once and then never again.
func newServer() *grpc.Server {
	server := grpc.NewServer()
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "soak.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: unary}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Echo", ServerStreams: true, ClientStreams: true, Handler: echo},
			{StreamName: "Down", ServerStreams: true, Handler: down},
			{StreamName: "Up", ClientStreams: true, Handler: up},
			{StreamName: "Wait", ServerStreams: true, ClientStreams: true, Handler: wait},
		},
	}, nil)
	return server
}

func unary(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // the signature is grpc.MethodDesc's
	in := new(wrapperspb.BytesValue)
	return in, decode(in)
}

func echo(_ any, s grpc.ServerStream) error {
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
}

func down(_ any, s grpc.ServerStream) error {
	in := new(wrapperspb.BytesValue)
	if err := s.RecvMsg(in); err != nil {
		return err
	}
	for range downMessages {
		if err := s.SendMsg(in); err != nil {
			return err
		}
	}
	return nil
}

func up(_ any, s grpc.ServerStream) error {
	bytes := int64(0)
	for {
		in := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(in); errors.Is(err, io.EOF) {
			return s.SendMsg(wrapperspb.Int64(bytes))
		} else if err != nil {
			return err
		}
		bytes += int64(len(in.GetValue()))
	}
}

func wait(_ any, s grpc.ServerStream) error {
	in := new(wrapperspb.BytesValue)
	if err := errors.Join(s.RecvMsg(in), s.SendMsg(in)); err != nil {
		return err
	}
	<-s.Context().Done()
	return s.Context().Err()
}

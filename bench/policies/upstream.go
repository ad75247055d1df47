package main

import (
	"context"
	"net"
	"sync/atomic"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

const method = "/policies.Test/Call"

// upstream is a server that counts what reaches it.
type upstream struct {
	address  string
	calls    atomic.Int64
	inFlight atomic.Int64
	most     atomic.Int64 // in flight at once

	server *grpc.Server
}

// serve starts an upstream that answers each call with itself, or with the
// error of answer.
func serve(answer func(ctx context.Context) error) (*upstream, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	u := &upstream{address: l.Addr().String(), server: grpc.NewServer()}
	u.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "policies.Test", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Call", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.BytesValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			u.calls.Add(1)
			n := u.inFlight.Add(1)
			defer u.inFlight.Add(-1)
			for was := u.most.Load(); n > was && !u.most.CompareAndSwap(was, n); was = u.most.Load() {
			}
			return in, answer(ctx)
		}}},
	}, nil)
	go func() { _ = u.server.Serve(l) }()
	return u, nil
}

func (u *upstream) stop() error {
	u.server.Stop()
	return nil
}

package stage

import (
	"context"
	"fmt"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// greeter is a server of greeter.proto that can be killed and come back.
type greeter struct {
	name, address string
	server        *grpc.Server // nil: dead
}

// start listens and serves until kill.
func (g *greeter) start() error {
	l, err := net.Listen("tcp", g.address)
	if err != nil {
		return err
	}
	g.server = grpc.NewServer()
	g.server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "greeter.v1.Greeter", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "SayHello", Handler: g.sayHello}},
	}, nil)
	server := g.server
	go func() { _ = server.Serve(l) }() // Stop waits for its end
	return nil
}

// sayHello takes the request for a StringValue, and answers with one: on the
// wire a message with one string as field 1 is the same by any name, so
// nothing needs to be generated for this server.
func (g *greeter) sayHello(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) { //nolint:revive // grpc.MethodHandler is so
	name := new(wrapperspb.StringValue)
	if err := decode(name); err != nil {
		return nil, err
	}
	return wrapperspb.String(fmt.Sprintf("hello %s, this is server %s", name.GetValue(), g.name)), nil
}

// kill breaks every connection off, as the end of a process does.
func (g *greeter) kill() {
	if g.server != nil {
		g.server.Stop()
		g.server = nil
	}
}

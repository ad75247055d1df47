package clients

import (
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"testing"
	"time"

	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// rawCodec passes messages as bytes, so that no client needs generated code.
type rawCodec struct{}

func (rawCodec) Name() string { return "raw" }

func (rawCodec) Marshal(v any) (mem.BufferSlice, error) {
	b, ok := v.(*[]byte)
	if !ok {
		return nil, fmt.Errorf("raw: a %T", v)
	}
	return mem.BufferSlice{mem.SliceBuffer(*b)}, nil
}

func (rawCodec) Unmarshal(data mem.BufferSlice, v any) error {
	b, ok := v.(*[]byte)
	if !ok {
		return fmt.Errorf("raw: a %T", v)
	}
	*b = data.Materialize()
	return nil
}

// startServer serves test.Echo.
func startServer(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(rawCodec{}), grpc.MaxRecvMsgSize(64<<20))
	stream := func(name string, handle func(grpc.ServerStream) error) grpc.StreamDesc {
		return grpc.StreamDesc{StreamName: name, ClientStreams: true, ServerStreams: true, Handler: func(_ any, s grpc.ServerStream) error { return handle(s) }}
	}
	server.RegisterService(&grpc.ServiceDesc{
		ServiceName: "test.Echo", HandlerType: (*any)(nil),
		Streams: []grpc.StreamDesc{stream("Unary", echoOnce), stream("Down", down), stream("Up", up), stream("Bidi", echoAll)},
	}, nil)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

// echoOnce does what the metadata asks for.
func echoOnce(s grpc.ServerStream) error {
	md, _ := metadata.FromIncomingContext(s.Context())
	if v := md.Get("x-echo-bin"); len(v) > 0 {
		s.SetTrailer(metadata.Pairs("x-echo-bin", v[0]))
	}
	if v := md.Get("x-sleep-ms"); len(v) > 0 {
		ms, _ := strconv.Atoi(v[0])
		if err := sleep(s.Context(), time.Duration(ms)*time.Millisecond); err != nil {
			return err
		}
	}
	if v := md.Get("x-code"); len(v) > 0 {
		code, _ := strconv.Atoi(v[0])
		detail, err := anypb.New(wrapperspb.String("detail"))
		if err != nil {
			return err
		}
		return status.FromProto(&spb.Status{Code: int32(code), Message: "as asked: 100 % ü", Details: []*anypb.Any{detail}}).Err()
	}
	var m []byte
	if err := s.RecvMsg(&m); err != nil {
		return err
	}
	return s.SendMsg(&m)
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return status.FromContextError(ctx.Err()).Err()
	}
}

func down(s grpc.ServerStream) error {
	var m []byte
	if err := s.RecvMsg(&m); err != nil {
		return err
	}
	if len(m) == 0 {
		return status.Error(codes.InvalidArgument, "how many?")
	}
	rest := m[1:]
	for range int(m[0]) {
		if err := s.SendMsg(&rest); err != nil {
			return err
		}
	}
	return nil
}

func up(s grpc.ServerStream) error {
	total := 0
	for {
		var m []byte
		err := s.RecvMsg(&m)
		if err == io.EOF {
			answer := []byte(strconv.Itoa(total))
			return s.SendMsg(&answer)
		}
		if err != nil {
			return err
		}
		total += len(m)
	}
}

func echoAll(s grpc.ServerStream) error {
	for {
		var m []byte
		err := s.RecvMsg(&m)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if err := s.SendMsg(&m); err != nil {
			return err
		}
	}
}

package relay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// The test service speaks wrapperspb.BytesValue on every method:
// /test.Echo/Unary answers its request; /test.Echo/Bidi answers each message;
// /test.Echo/Down answers as many messages as the first byte says;
// /test.Echo/Up counts the bytes it got.
type echoServer struct {
	unary func(ctx context.Context, in []byte) ([]byte, error) // nil: echo
	calls atomic.Int64
}

func (s *echoServer) desc() *grpc.ServiceDesc {
	stream := func(handler func(grpc.ServerStream) error) grpc.StreamHandler {
		return func(_ any, ss grpc.ServerStream) error {
			s.calls.Add(1)
			return handler(ss)
		}
	}
	return &grpc.ServiceDesc{
		ServiceName: "test.Echo",
		HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			s.calls.Add(1)
			in := new(wrapperspb.BytesValue)
			if err := dec(in); err != nil {
				return nil, err
			}
			if s.unary == nil {
				return in, nil
			}
			out, err := s.unary(ctx, in.Value)
			return wrapperspb.Bytes(out), err
		}}},
		Streams: []grpc.StreamDesc{
			{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: stream(func(ss grpc.ServerStream) error {
				for {
					in := new(wrapperspb.BytesValue)
					if err := ss.RecvMsg(in); err == io.EOF {
						return nil
					} else if err != nil {
						return err
					}
					if err := ss.SendMsg(in); err != nil {
						return err
					}
				}
			})},
			{StreamName: "Down", ServerStreams: true, Handler: stream(func(ss grpc.ServerStream) error {
				in := new(wrapperspb.BytesValue)
				if err := ss.RecvMsg(in); err != nil {
					return err
				}
				for range int(in.Value[0]) {
					if err := ss.SendMsg(wrapperspb.Bytes(in.Value[1:])); err != nil {
						return err
					}
				}
				return nil
			})},
			{StreamName: "Up", ClientStreams: true, Handler: stream(func(ss grpc.ServerStream) error {
				total := 0
				for {
					in := new(wrapperspb.BytesValue)
					if err := ss.RecvMsg(in); err == io.EOF {
						return ss.SendMsg(wrapperspb.Bytes([]byte(fmt.Sprint(total))))
					} else if err != nil {
						return err
					}
					total += len(in.Value)
				}
			})},
		},
	}
}

// start serves the echo service on loopback until the test ends.
func (s *echoServer) start(t testing.TB, options ...grpc.ServerOption) (address string, server *grpc.Server) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server = grpc.NewServer(options...)
	server.RegisterService(s.desc(), nil)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String(), server
}

// fixture is a relay with one service, "echo".
type fixture struct {
	relay   *Relay
	service *policy.Service
	address string // egress
}

func newFixture(t testing.TB, p policy.Policy, endpoints ...string) *fixture {
	t.Helper()
	return newFixtureWith(t, Options{}, p, endpoints...)
}

func newFixtureWith(t testing.TB, o Options, p policy.Policy, endpoints ...string) *fixture {
	t.Helper()
	service := policy.NewService("echo", policy.Settings{Policy: p}, nil)
	var specs []balancer.Spec
	for _, e := range endpoints {
		specs = append(specs, balancer.Spec{Address: e})
	}
	service.SetEndpoints(specs)
	o.Table = NewTable([]Route{{Target: Target{Service: service}, Authorities: []string{"echo"}}}, nil)
	return newFixtureAround(t, o, service)
}

// newFixtureAround serves a relay whose table has the service.
func newFixtureAround(t testing.TB, o Options, service *policy.Service) *fixture {
	t.Helper()
	o.Origin = time.Now().Add(-time.Second)
	r := New(o)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- r.Serve(l) }()
	t.Cleanup(func() {
		r.Close()
		if err := <-served; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return &fixture{relay: r, service: service, address: l.Addr().String()}
}

func (f *fixture) client(t testing.TB, options ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	options = append([]grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("echo")}, options...)
	cc, err := grpc.NewClient("passthrough:///"+f.address, options...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close() })
	return cc
}

func testContext(t testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func unary(ctx context.Context, cc *grpc.ClientConn, in []byte, options ...grpc.CallOption) ([]byte, error) {
	out := new(wrapperspb.BytesValue)
	err := cc.Invoke(ctx, "/test.Echo/Unary", wrapperspb.Bytes(in), out, options...)
	return out.Value, err
}

// refusalOf returns the ErrorInfo reason of an error, and the RetryInfo delay.
func refusalOf(err error) (reason string, meta map[string]string, retry *durationpb.Duration) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason, meta = d.Reason, d.Metadata
		case *errdetails.RetryInfo:
			retry = d.RetryDelay
		}
	}
	return reason, meta, retry
}

func TestUnaryCallGoesThrough(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)

	got, err := unary(testContext(t), f.client(t), []byte("hello"))

	if err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v; want hello", got, err)
	}
}

func TestAllFourKindsOfStream(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	ctx := testContext(t)
	message := make([]byte, 100_000) // more than one window in sum

	t.Run("server stream", func(t *testing.T) {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.SendMsg(wrapperspb.Bytes(append([]byte{50}, message...))); err != nil {
			t.Fatal(err)
		}
		s.CloseSend()
		for i := range 50 {
			out := new(wrapperspb.BytesValue)
			if err := s.RecvMsg(out); err != nil || len(out.Value) != len(message) {
				t.Fatalf("message %d: %d bytes, %v", i, len(out.Value), err)
			}
		}
		if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != io.EOF {
			t.Fatalf("after the last message: %v, want EOF", err)
		}
	})
	t.Run("client stream", func(t *testing.T) {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true}, "/test.Echo/Up")
		if err != nil {
			t.Fatal(err)
		}
		for range 50 {
			if err := s.SendMsg(wrapperspb.Bytes(message)); err != nil {
				t.Fatal(err)
			}
		}
		s.CloseSend()
		out := new(wrapperspb.BytesValue)
		if err := s.RecvMsg(out); err != nil || string(out.Value) != "5000000" {
			t.Fatalf("got %q, %v; want 5000000", out.Value, err)
		}
	})
	t.Run("both ways", func(t *testing.T) {
		s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
		if err != nil {
			t.Fatal(err)
		}
		for i := range 100 {
			want := fmt.Sprint(i)
			if err := s.SendMsg(wrapperspb.Bytes([]byte(want))); err != nil {
				t.Fatal(err)
			}
			out := new(wrapperspb.BytesValue)
			if err := s.RecvMsg(out); err != nil || string(out.Value) != want {
				t.Fatalf("got %q, %v; want %s", out.Value, err, want)
			}
		}
		s.CloseSend()
		if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != io.EOF {
			t.Fatalf("after half-close: %v, want EOF", err)
		}
	})
}

func TestStatusMessageAndMetadataPass(t *testing.T) {
	upstream := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		grpc.SetHeader(ctx, metadata.Pairs("seen", md.Get("x-user")[0], "blob-bin", string([]byte{0, 1, 255})))
		grpc.SetTrailer(ctx, metadata.Pairs("end", "yes"))
		return nil, status.Error(codes.NotFound, "nobody called ünïcode%")
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x-user", "ann")
	var header, trailer metadata.MD

	_, err := unary(ctx, f.client(t), nil, grpc.Header(&header), grpc.Trailer(&trailer))

	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "nobody called ünïcode%" {
		t.Fatalf("got %v", err)
	}
	all := metadata.Join(header, trailer)
	if all.Get("seen")[0] != "ann" || all.Get("blob-bin")[0] != "\x00\x01\xff" || all.Get("end")[0] != "yes" {
		t.Fatalf("metadata: %v", all)
	}
}

func TestUnknownServiceIsRefusedWithNoRoute(t *testing.T) {
	f := newFixture(t, policy.Policy{})

	_, err := unary(testContext(t), f.client(t, grpc.WithAuthority("nobody")), nil)

	reason, _, _ := refusalOf(err)
	if status.Code(err) != codes.Unimplemented || reason != "NO_ROUTE" {
		t.Fatalf("got %v (reason %q), want UNIMPLEMENTED NO_ROUTE", err, reason)
	}
}

func TestUnreachableEndpointIsRefusedWithConnectFailed(t *testing.T) {
	f := newFixture(t, policy.Policy{}, "127.0.0.1:1")

	_, err := unary(testContext(t), f.client(t), nil)

	reason, meta, _ := refusalOf(err)
	if status.Code(err) != codes.Unavailable || reason != "CONNECT_FAILED" || meta["endpoint"] != "127.0.0.1:1" {
		t.Fatalf("got %v (reason %q, %v)", err, reason, meta)
	}
}

func TestDeadEndpointIsPassedOver(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, "127.0.0.1:1", address)
	cc := f.client(t)

	for i := range 20 {
		if _, err := unary(testContext(t), cc, nil); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

func TestTimeoutEndsAUnaryCall(t *testing.T) {
	upstream := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{Timeout: 50 * time.Millisecond}, address)

	_, err := unary(testContext(t), f.client(t), nil)

	if reason, _, _ := refusalOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "TIMEOUT" {
		t.Fatalf("got %v (reason %q), want DEADLINE_EXCEEDED TIMEOUT", err, reason)
	}
}

func TestTimeoutSparesAStream(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{Timeout: 30 * time.Millisecond}, address)
	s, err := f.client(t).NewStream(testContext(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for range 5 {
		time.Sleep(40 * time.Millisecond)
		if err := s.SendMsg(wrapperspb.Bytes([]byte("x"))); err != nil {
			t.Fatal(err)
		}
		if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestIdleStreamEnds(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{Timeout: 10 * time.Millisecond, Stream: policy.StreamLimits{IdleTimeout: 60 * time.Millisecond}}, address)
	s, err := f.client(t).NewStream(testContext(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}

	err = s.RecvMsg(new(wrapperspb.BytesValue))

	if reason, meta, _ := refusalOf(err); reason != "TIMEOUT" || meta["policy"] != "stream.idle_timeout" {
		t.Fatalf("got %v (reason %q, %v)", err, reason, meta)
	}
}

// TestAStreamsLimitsHoldWithoutAnyOther: a second message says what the call is,
// and nothing was armed for it before.
func TestAStreamsLimitsHoldWithoutAnyOther(t *testing.T) {
	for name, limits := range map[string]policy.StreamLimits{
		"stream.idle_timeout": {IdleTimeout: 60 * time.Millisecond}, "stream.max_duration": {MaxDuration: 60 * time.Millisecond},
	} {
		upstream := &echoServer{}
		address, _ := upstream.start(t)
		f := newFixture(t, policy.Policy{Stream: limits}, address)
		s, err := f.client(t).NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := s.SendMsg(wrapperspb.Bytes([]byte("x"))); err != nil {
				t.Fatal(err)
			}
		}

		for err == nil {
			err = receive(s)
		}

		if reason, meta, _ := refusalOf(err); reason != "TIMEOUT" || meta["policy"] != name {
			t.Fatalf("%s: got %v (reason %q, %v)", name, err, reason, meta)
		}
	}
}

func TestCancelReachesTheUpstream(t *testing.T) {
	cancelled := make(chan struct{})
	upstream := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		close(cancelled)
		return nil, ctx.Err()
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()

	_, err := unary(ctx, f.client(t), nil)

	if status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	select {
	case <-cancelled:
	case <-time.After(5 * time.Second):
		t.Fatal("the upstream never heard of the end")
	}
}

func TestBreakerOpensAndExplains(t *testing.T) {
	upstream := &echoServer{unary: func(context.Context, []byte) ([]byte, error) {
		return nil, status.Error(codes.Unavailable, "down")
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{Breaker: policy.BreakerPolicy{Options: breaker.Reference()}}, address)
	cc := f.client(t)
	ctx := testContext(t)
	for range 5 {
		unary(ctx, cc, nil)
	}

	_, err := unary(ctx, cc, nil)

	reason, meta, retry := refusalOf(err)
	if reason != "BREAKER_OPEN" || meta["service"] != "echo" || retry.AsDuration() < 25*time.Second {
		t.Fatalf("got %v (reason %q, %v, retry %v)", err, reason, meta, retry)
	}
	if n := upstream.calls.Load(); n != 5 {
		t.Fatalf("the upstream saw %d calls, want 5", n)
	}
}

func TestConnectionLostNamesTheEndpoint(t *testing.T) {
	started := make(chan struct{})
	upstream := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		close(started)
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	address, server := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	result := make(chan error, 1)
	go func() {
		_, err := unary(testContext(t), cc, nil)
		result <- err
	}()
	<-started

	server.Stop()

	err := <-result
	if reason, meta, _ := refusalOf(err); reason != "CONNECTION_LOST" && !errors.Is(err, nil) && meta["endpoint"] != address {
		t.Fatalf("got %v (reason %q, %v)", err, reason, meta)
	}
}

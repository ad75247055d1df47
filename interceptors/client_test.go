package interceptors

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers /t.T/Unary by unary and echoes on /t.T/Bidi.
type server struct {
	calls atomic.Int64
	unary func(context.Context) error
}

// connect starts the server and returns a client under the policy.
func (s *server) connect(t *testing.T, p policy.Policy) (*grpc.ClientConn, *policy.Service) {
	t.Helper()
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "t.T", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			s.calls.Add(1)
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if s.unary != nil {
				if err := s.unary(ctx); err != nil {
					return nil, err
				}
			}
			return in, nil
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
			for {
				in := new(wrapperspb.StringValue)
				if err := ss.RecvMsg(in); errors.Is(err, io.EOF) {
					return nil
				} else if err != nil {
					return err
				}
				if err := ss.SendMsg(in); err != nil {
					return err
				}
			}
		}}},
	}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
	client, err := New(Options{Service: service})
	if err != nil {
		t.Fatal(err)
	}
	cc, err := grpc.NewClient("passthrough:///test", append(client.DialOptions(), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return l.Dial() }))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cc.Close(); g.Stop(); <-done })
	return cc, service
}

func call(ctx context.Context, cc *grpc.ClientConn) error {
	return cc.Invoke(ctx, "/t.T/Unary", wrapperspb.String("x"), new(wrapperspb.StringValue))
}

func reasonOf(err error) (reason string, retryAfter time.Duration) {
	for _, d := range status.Convert(err).Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			reason = d.GetReason()
		case *errdetails.RetryInfo:
			retryAfter = d.GetRetryDelay().AsDuration()
		}
	}
	return reason, retryAfter
}

func failing(context.Context) error { return status.Error(codes.Internal, "broken") }

func hanging(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }

func TestBreakerOpensExplainsAndClosesAgain(t *testing.T) {
	o := breaker.Reference()
	o.OpenFor, o.Jitter = 100*time.Millisecond, 0
	s := &server{unary: failing}
	cc, _ := s.connect(t, policy.Policy{Breaker: policy.BreakerPolicy{Options: o}})
	ctx := context.Background()
	for range 5 {
		_ = call(ctx, cc)
	}

	err := call(ctx, cc)

	if reason, retry := reasonOf(err); status.Code(err) != codes.Unavailable || reason != "BREAKER_OPEN" || retry <= 0 || s.calls.Load() != 5 {
		t.Fatalf("got %v (%s, %v), the server saw %d calls", err, reason, retry, s.calls.Load())
	}
	s.unary = nil
	time.Sleep(120 * time.Millisecond)
	if err := call(ctx, cc); err != nil {
		t.Fatalf("the probe: %v", err)
	}
	if err := call(ctx, cc); err != nil {
		t.Fatalf("after it: %v", err)
	}
}

func TestObserveLetsThroughAndCounts(t *testing.T) {
	o := breaker.Reference()
	o.Mode = breaker.Observe
	s := &server{unary: failing}
	cc, service := s.connect(t, policy.Policy{Breaker: policy.BreakerPolicy{Options: o}})
	for range 8 {
		_ = call(context.Background(), cc)
	}
	if b := service.Breakers()[0].Breaker.Snapshot(time.Hour); s.calls.Load() != 8 || b.WouldRefuse != 3 {
		t.Fatalf("the server saw %d calls, %d would have been refused", s.calls.Load(), b.WouldRefuse)
	}
}

func TestTimeoutIsTheServersFault(t *testing.T) {
	s := &server{unary: hanging}
	cc, service := s.connect(t, policy.Policy{Timeout: 30 * time.Millisecond})

	err := call(context.Background(), cc)

	if reason, _ := reasonOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "TIMEOUT" {
		t.Fatalf("got %v (%s)", err, reason)
	}
	if n := service.Recorder().Lifetime().Unavailable; n != 1 {
		t.Fatalf("%d calls count as unavailable, want 1", n)
	}
}

func TestTheCallersOwnEndIsNot(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 1
	s := &server{unary: hanging}
	cc, service := s.connect(t, policy.Policy{Timeout: time.Minute, Breaker: policy.BreakerPolicy{Options: o}})
	short, cancel := context.WithTimeout(context.Background(), 30*time.Millisecond)
	defer cancel()
	if err := call(short, cc); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	gone, leave := context.WithCancel(context.Background())
	time.AfterFunc(30*time.Millisecond, leave)
	if err := call(gone, cc); status.Code(err) != codes.Canceled {
		t.Fatalf("got %v", err)
	}
	if b := service.Breakers()[0].Breaker.Snapshot(time.Hour); b.State != breaker.Closed {
		t.Fatalf("the breaker is %v: %s", b.State, b.Reason)
	}
}

func openBidi(t *testing.T, ctx context.Context, cc *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/t.T/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestAStreamOutlivesUnaryTimeouts(t *testing.T) {
	s := &server{}
	cc, service := s.connect(t, policy.Policy{Timeout: 20 * time.Millisecond})
	stream := openBidi(t, context.Background(), cc)
	for range 3 {
		time.Sleep(30 * time.Millisecond)
		if err := errors.Join(stream.SendMsg(wrapperspb.String("x")), stream.RecvMsg(new(wrapperspb.StringValue))); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v", err)
	}
	if n := service.Recorder().Lifetime().Successes; n != 1 {
		t.Fatalf("%d successes, want 1", n)
	}
}

func TestMaxDurationEndsAStream(t *testing.T) {
	s := &server{}
	cc, _ := s.connect(t, policy.Policy{Stream: policy.StreamLimits{MaxDuration: 50 * time.Millisecond}})
	stream := openBidi(t, context.Background(), cc)

	err := stream.RecvMsg(new(wrapperspb.StringValue))

	if reason, _ := reasonOf(err); reason != "TIMEOUT" {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

func TestAnAbandonedStreamIsCountedOnce(t *testing.T) {
	s := &server{}
	cc, service := s.connect(t, policy.Policy{})
	ctx, cancel := context.WithCancel(context.Background())
	_ = openBidi(t, ctx, cc)

	cancel()

	for range 200 {
		if n := service.Recorder().Lifetime().Excluded; n == 1 {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("got %+v", service.Recorder().Lifetime().Calls)
}

func TestWhatCantBeHonouredIsRefused(t *testing.T) {
	for about, p := range map[string]policy.Policy{
		"scope ENDPOINT": {Breaker: policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: breaker.Reference()}},
		"idle_timeout":   {Stream: policy.StreamLimits{IdleTimeout: time.Minute}},
	} {
		if _, err := New(Options{Service: policy.NewService("s", policy.Settings{Policy: p}, nil)}); err == nil {
			t.Errorf("%s: taken", about)
		}
	}
	if _, err := New(Options{}); err == nil {
		t.Error("no service: taken")
	}
}

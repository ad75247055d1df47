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
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// servers are servers by name that answer /t.T/Unary by unary, with their name
// behind what was asked, and echo on /t.T/Bidi.
type servers struct {
	t         testing.TB
	listeners map[string]*bufconn.Listener
}

type server struct {
	name  string
	calls atomic.Int64
	unary func(ctx context.Context, call int64) error
	stop  func()
}

func newServers(t testing.TB) *servers {
	return &servers{t: t, listeners: make(map[string]*bufconn.Listener)}
}

// start serves under a name. What stands at that name already has to be
// stopped.
func (ss *servers) start(name string, unary func(ctx context.Context, call int64) error) *server {
	s := &server{name: name, unary: unary}
	l := bufconn.Listen(1 << 20)
	ss.listeners[name] = l
	g := grpc.NewServer()
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "t.T", HandlerType: (*any)(nil),
		Methods: []grpc.MethodDesc{{MethodName: "Unary", Handler: func(_ any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			n := s.calls.Add(1)
			in := new(wrapperspb.StringValue)
			if err := decode(in); err != nil {
				return nil, err
			}
			if s.unary != nil {
				if err := s.unary(ctx, n); err != nil {
					return nil, err
				}
			}
			_ = grpc.SetHeader(ctx, metadata.Pairs("served-by", name))
			_ = grpc.SetTrailer(ctx, metadata.Pairs("ended-by", name))
			return wrapperspb.String(in.GetValue() + name), nil
		}}},
		Streams: []grpc.StreamDesc{{StreamName: "Bidi", ServerStreams: true, ClientStreams: true, Handler: func(_ any, ss grpc.ServerStream) error {
			s.calls.Add(1)
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
	s.stop = func() { g.Stop(); <-done }
	ss.t.Cleanup(s.stop)
	return s
}

func (ss *servers) dial(ctx context.Context, address string) (net.Conn, error) {
	l := ss.listeners[address]
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

func specs(addresses ...string) []balancer.Spec {
	var out []balancer.Spec
	for _, a := range addresses {
		out = append(out, balancer.Spec{Address: a})
	}
	return out
}

// connect returns a ClientConn under the policy to the endpoints, which need
// not be there.
func (ss *servers) connect(p policy.Policy, endpoints []string, options ...grpc.DialOption) (*grpc.ClientConn, *policy.Service) {
	ss.t.Helper()
	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
	service.SetEndpoints(specs(endpoints...))
	client, err := New(Options{Service: service})
	if err != nil {
		ss.t.Fatal(err)
	}
	return ss.dialTo("outrigger:///greeter", append(client.DialOptions(), options...)...), service
}

func (ss *servers) dialTo(target string, options ...grpc.DialOption) *grpc.ClientConn {
	ss.t.Helper()
	cc, err := grpc.NewClient(target, append(options, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(ss.dial))...)
	if err != nil {
		ss.t.Fatal(err)
	}
	ss.t.Cleanup(func() { cc.Close() })
	return cc
}

// ask calls and returns who answered.
func ask(ctx context.Context, cc *grpc.ClientConn, options ...grpc.CallOption) (string, error) {
	reply := new(wrapperspb.StringValue)
	err := cc.Invoke(ctx, "/t.T/Unary", wrapperspb.String(""), reply, options...)
	return reply.GetValue(), err
}

func failsWith(code codes.Code) func(context.Context, int64) error {
	return func(context.Context, int64) error { return status.Error(code, "broken") }
}

// hangs holds a call until its caller gives up.
func hangs(ctx context.Context, _ int64) error { <-ctx.Done(); return ctx.Err() }

// failsFirst fails the first n calls.
func failsFirst(n int64, code codes.Code) func(context.Context, int64) error {
	return func(_ context.Context, call int64) error {
		if call <= n {
			return status.Error(code, "broken")
		}
		return nil
	}
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

// eventually waits for what other goroutines bring about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 1000 {
		if ok() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatalf("after 5 s: %s", what)
}

// nothingHeld checks that every attempt was given back.
func nothingHeld(t *testing.T, s *policy.Service) {
	t.Helper()
	for _, e := range s.Endpoints().All() {
		if n := e.InFlight(); n != 0 {
			t.Errorf("%s has %d attempts in flight at the end", e.Address(), n)
		}
	}
}

// actions returns what the policies of a service did, by name.
func actions(s *policy.Service) map[string]uint64 {
	all := make(map[string]uint64)
	for _, a := range s.Actions() {
		all[a.Label] = a.Total
	}
	return all
}

package interceptors

import (
	"context"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/failsafe-go/failsafe-go"
	"github.com/failsafe-go/failsafe-go/circuitbreaker"
	"github.com/failsafe-go/failsafe-go/failsafegrpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/interceptors"
	"github.com/outrigger-rpc/outrigger/policy"
)

// serve echoes on an in-memory connection.
func serve(tb testing.TB) grpc.DialOption {
	l := bufconn.Listen(1 << 20)
	g := grpc.NewServer()
	g.RegisterService(&grpc.ServiceDesc{ServiceName: "t.T", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Unary", Handler: func(_ any, _ context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			in := new(wrapperspb.StringValue)
			return in, decode(in)
		},
	}}}, nil)
	done := make(chan struct{})
	go func() { defer close(done); _ = g.Serve(l) }()
	tb.Cleanup(func() { g.Stop(); <-done })
	return grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) })
}

// dial connects, and sees that calls go through.
func dial(tb testing.TB, target string, options ...grpc.DialOption) *grpc.ClientConn {
	cc, err := grpc.NewClient(target, append(options, serve(tb), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { cc.Close() })
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := cc.Invoke(ctx, "/t.T/Unary", wrapperspb.String("x"), new(wrapperspb.StringValue), grpc.WaitForReady(true)); err != nil {
		tb.Fatal(err)
	}
	return cc
}

// everything asks for all that a call without a fault can be asked for.
func everything() policy.Policy {
	return policy.Policy{
		Timeout: 3 * time.Second, PerTryTimeout: time.Second, Idempotent: true,
		Retry:       policy.RetryPolicy{MaxAttempts: 3, Budget: policy.DefaultBudget()},
		Hedge:       policy.HedgePolicy{Delay: time.Second, MaxAttempts: 2},
		Breaker:     policy.BreakerPolicy{Options: breaker.Reference()},
		Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1000, MaxQueue: 100},
		RateLimit:   policy.RateLimitPolicy{PerSecond: 1e9, Burst: 1e9},
		Throttle:    policy.ThrottlePolicy{Ratio: 2},
	}
}

func outrigger(tb testing.TB, p policy.Policy) *grpc.ClientConn {
	service := policy.NewService("greeter", policy.Settings{Policy: p}, nil)
	service.SetEndpoints([]balancer.Spec{{Address: "a:1"}})
	client, err := interceptors.New(interceptors.Options{Service: service})
	if err != nil {
		tb.Fatal(err)
	}
	return dial(tb, "outrigger:///greeter", client.DialOptions()...)
}

// failsafeGo retries UNAVAILABLE three times behind a breaker that opens after 5
// failures in a row.
func failsafeGo(tb testing.TB) *grpc.ClientConn {
	retry := failsafegrpc.NewRetryPolicyBuilder[*wrapperspb.StringValue]().WithMaxRetries(2).WithBackoff(25*time.Millisecond, time.Second).Build()
	b := circuitbreaker.NewBuilder[*wrapperspb.StringValue]().WithFailureThreshold(5).WithDelay(30 * time.Second).Build()
	var policies []failsafe.Policy[*wrapperspb.StringValue]
	policies = append(policies, retry, b)
	return dial(tb, "passthrough:///a", grpc.WithUnaryInterceptor(failsafegrpc.NewUnaryClientInterceptor(policies...)))
}

var contenders = []struct {
	name    string
	connect func(testing.TB) *grpc.ClientConn
}{
	{"grpc-go", func(tb testing.TB) *grpc.ClientConn { return dial(tb, "passthrough:///a") }},
	{"outrigger, default policy", func(tb testing.TB) *grpc.ClientConn { return outrigger(tb, policy.Default()) }},
	{"outrigger, all policies", func(tb testing.TB) *grpc.ClientConn { return outrigger(tb, everything()) }},
	{"failsafe-go, retry and breaker", failsafeGo},
}

// call is one call with the context that callers have: one with a deadline.
func call(ctx context.Context, cc *grpc.ClientConn) error {
	return cc.Invoke(ctx, "/t.T/Unary", wrapperspb.String("x"), new(wrapperspb.StringValue))
}

func BenchmarkUnary(b *testing.B) {
	for _, c := range contenders {
		b.Run(c.name, func(b *testing.B) {
			cc := c.connect(b)
			ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
			defer cancel()
			b.ReportAllocs()
			for b.Loop() {
				if err := call(ctx, cc); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// TestWhatACallAdds states what each adds to grpc-go, over rounds that take
// turns: the processor's time at both ends, the best round of each, since what
// else the machine does only adds. Allocations are held to their budget; times
// are only told.
func TestWhatACallAdds(t *testing.T) {
	if testing.Short() {
		t.Skip("takes some seconds")
	}
	if raceDetector {
		t.Skip("the race detector allocates too")
	}
	const rounds, calls = 60, 1000
	ctx, cancel := context.WithTimeout(context.Background(), time.Hour)
	defer cancel()
	conns := make([]*grpc.ClientConn, len(contenders))
	allocs := make([]float64, len(contenders))
	best := make([]time.Duration, len(contenders))
	for i, c := range contenders {
		conns[i] = c.connect(t)
		allocs[i] = testing.AllocsPerRun(calls, func() {
			if err := call(ctx, conns[i]); err != nil {
				t.Error(err)
			}
		})
	}
	for range rounds {
		for i, cc := range conns {
			start := cpu(t)
			for range calls {
				if err := call(ctx, cc); err != nil {
					t.Fatal(err)
				}
			}
			if took := (cpu(t) - start) / calls; best[i] == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	for i, c := range contenders {
		t.Logf("%-32s %s of CPU a call, %3.0f allocs (+%v, +%.0f, %.2f × grpc-go)", c.name, best[i], allocs[i], best[i]-best[0], allocs[i]-allocs[0], float64(best[i])/float64(best[0]))
		if added := allocs[i] - allocs[0]; strings.HasPrefix(c.name, "outrigger") && added > 6.5 { // both ends are counted: the server's vary by a fraction
			t.Errorf("%s adds %.1f allocations; the budget is 6", c.name, added)
		}
	}
}

// cpu is the processor's time that the process has used.
func cpu(tb testing.TB) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		tb.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

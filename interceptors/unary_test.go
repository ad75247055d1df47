package interceptors

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// retrying tries three times with next to no pause.
func retrying() policy.Policy {
	return policy.Policy{Retry: policy.RetryPolicy{MaxAttempts: 3, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond, Budget: policy.DefaultBudget()}}
}

func TestARetryGoesToTheOtherEndpoint(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", failsWith(codes.Unavailable))
	ss.start("b", nil)
	cc, service := ss.connect(retrying(), []string{"a", "b"})

	for range 20 {
		if who, err := ask(t.Context(), cc, grpc.WaitForReady(true)); err != nil || who != "b" {
			t.Fatalf("answered by %q, %v", who, err)
		}
	}

	if retries := service.Retries(); retries != uint64(a.calls.Load()) || retries == 0 {
		t.Fatalf("%d retries after %d failures", retries, a.calls.Load())
	}
	nothingHeld(t, service)
}

func TestAttemptsEndAtTheirMostAndTheLastAnswerCounts(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", failsWith(codes.Unavailable))
	cc, service := ss.connect(retrying(), []string{"a"})

	_, err := ask(t.Context(), cc)

	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "broken" || a.calls.Load() != 3 {
		t.Fatalf("%v after %d attempts", err, a.calls.Load())
	}
	nothingHeld(t, service)
}

func TestOtherCodesAreNotTriedAgain(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", failsWith(codes.NotFound))
	cc, _ := ss.connect(retrying(), []string{"a"})

	_, err := ask(t.Context(), cc)

	if status.Code(err) != codes.NotFound || a.calls.Load() != 1 {
		t.Fatalf("%v after %d attempts", err, a.calls.Load())
	}
}

func TestAServerHearsHowManyAttemptsCameBefore(t *testing.T) {
	for about, balanced := range map[string]bool{"balancer": true, "interceptors alone": false} {
		t.Run(about, func(t *testing.T) {
			ss := newServers(t)
			var mu sync.Mutex
			var heard []string
			ss.start("a", func(ctx context.Context, call int64) error {
				md, _ := metadata.FromIncomingContext(ctx)
				mu.Lock()
				heard = append(heard, strings.Join(md.Get("grpc-previous-rpc-attempts"), ","))
				mu.Unlock()
				return failsFirst(2, codes.Unavailable)(ctx, call)
			})
			cc := ss.either(balanced, retrying(), "a")

			if _, err := ask(t.Context(), cc); err != nil {
				t.Fatal(err)
			}

			if want := []string{"", "1", "2"}; !slices.Equal(heard, want) {
				t.Fatalf("got %q, want %q", heard, want)
			}
		})
	}
}

// either connects with the whole bundle, or with the interceptors alone.
func (ss *servers) either(balanced bool, p policy.Policy, endpoint string) *grpc.ClientConn {
	if balanced {
		cc, _ := ss.connect(p, []string{endpoint})
		return cc
	}
	client, err := New(Options{Service: policy.NewService("greeter", policy.Settings{Policy: p}, nil)})
	if err != nil {
		ss.t.Fatal(err)
	}
	return ss.dialTo("passthrough:///"+endpoint, grpc.WithDisableRetry(), grpc.WithUnaryInterceptor(client.Unary()), grpc.WithStreamInterceptor(client.Stream()))
}

func TestPushbackIsObeyed(t *testing.T) {
	retryInfo := func(delay time.Duration) error {
		s, err := status.New(codes.Unavailable, "later").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(delay)})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, tc := range []struct {
		about    string
		trailer  string
		err      error
		attempts int64
	}{
		{"the trailer forbids it", "-1", status.Error(codes.Unavailable, ""), 1},
		{"the trailer can't be read", "soon", status.Error(codes.Unavailable, ""), 1},
		{"the trailer allows it at once", "0", status.Error(codes.Unavailable, ""), 3},
		{"RetryInfo puts it past the caller's deadline", "", retryInfo(time.Hour), 1},
		{"RetryInfo puts it off", "", retryInfo(time.Millisecond), 3},
	} {
		for _, balanced := range []bool{true, false} {
			ss := newServers(t)
			a := ss.start("a", func(ctx context.Context, _ int64) error {
				if tc.trailer != "" {
					_ = grpc.SetTrailer(ctx, metadata.Pairs("grpc-retry-pushback-ms", tc.trailer))
				}
				return tc.err
			})
			cc := ss.either(balanced, retrying(), "a")
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)

			_, err := ask(ctx, cc)

			cancel()
			if status.Code(err) != codes.Unavailable || a.calls.Load() != tc.attempts {
				t.Errorf("%s (balanced: %v): %v after %d attempts, want %d", tc.about, balanced, err, a.calls.Load(), tc.attempts)
			}
		}
	}
}

func TestACallerMayForbidRetries(t *testing.T) {
	ss := newServers(t)
	var seen []string
	a := ss.start("a", func(ctx context.Context, _ int64) error {
		md, _ := metadata.FromIncomingContext(ctx)
		seen = md.Get("outrigger-retry")
		return status.Error(codes.Unavailable, "")
	})
	cc, _ := ss.connect(retrying(), []string{"a"})

	_, _ = ask(metadata.AppendToOutgoingContext(t.Context(), "outrigger-retry", "off"), cc)

	if a.calls.Load() != 1 || seen != nil {
		t.Fatalf("%d attempts; the server saw outrigger-retry: %q", a.calls.Load(), seen)
	}
}

func TestOnlyTheAgentKeepsCallsForLater(t *testing.T) {
	cached := policy.Policy{Idempotent: true, Cache: policy.CachePolicy{TTL: time.Minute}}
	for _, tc := range []struct {
		about  string
		policy policy.Policy
		md     []string
		says   string
	}{
		{"the caller asks", cached, []string{"outrigger-defer", "true"}, "through its egress"},
		{"the policy does", policy.Policy{Defer: policy.DeferPolicy{Mode: policy.DeferOnFailure}}, nil, "defer: {mode: ON_FAILURE}"},
	} {
		ss := newServers(t)
		a := ss.start("a", nil)
		cc, service := ss.connect(tc.policy, []string{"a"})
		ctx := metadata.AppendToOutgoingContext(t.Context(), tc.md...)

		_, err := ask(ctx, cc)
		_, streamed := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/t.T/Bidi")

		for _, err := range []error{err, streamed} {
			if reason, _ := reasonOf(err); status.Code(err) != codes.FailedPrecondition || reason != "NOT_DEFERRABLE" || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%s: %v", tc.about, err)
			}
		}
		if a.calls.Load() != 0 {
			t.Errorf("%s: %d calls were made", tc.about, a.calls.Load())
		}
		nothingHeld(t, service)
	}
}

func TestATryThatHangsIsGivenUpForAnother(t *testing.T) {
	for about, balanced := range map[string]bool{"balancer": true, "interceptors alone": false} {
		t.Run(about, func(t *testing.T) {
			ss := newServers(t)
			a := ss.start("a", func(ctx context.Context, call int64) error {
				if call == 1 {
					return hangs(ctx, call)
				}
				return nil
			})
			p := retrying()
			p.PerTryTimeout, p.Idempotent = 100*time.Millisecond, true
			cc := ss.either(balanced, p, "a")

			if who, err := ask(t.Context(), cc); err != nil || who != "a" {
				t.Fatalf("answered by %q, %v", who, err)
			}
			if a.calls.Load() != 2 {
				t.Fatalf("%d attempts, want 2", a.calls.Load())
			}
		})
	}
}

func TestTimeoutsSayWhich(t *testing.T) {
	for _, tc := range []struct {
		policy policy.Policy
		name   string
	}{
		{policy.Policy{Timeout: 30 * time.Millisecond}, "timeout"},
		{policy.Policy{PerTryTimeout: 30 * time.Millisecond}, "per_try_timeout"},
	} {
		ss := newServers(t)
		ss.start("a", hangs)
		cc, service := ss.connect(tc.policy, []string{"a"})

		_, err := ask(t.Context(), cc)

		var refusal *policy.Refusal
		if !errors.As(err, &refusal) || refusal.Reason != policy.Timeout || refusal.Policy != tc.name || refusal.Endpoint != "a" {
			t.Fatalf("%s: got %v", tc.name, err)
		}
		if reason, _ := reasonOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "TIMEOUT" {
			t.Fatalf("%s: got %v (%s)", tc.name, err, reason)
		}
		if n := service.Recorder().Lifetime().Unavailable; n != 1 || service.Endpoints().All()[0].Failures() != 1 {
			t.Fatalf("%s: %d calls count as unavailable, %d as the endpoint's failures; want 1, 1", tc.name, n, service.Endpoints().All()[0].Failures())
		}
		nothingHeld(t, service)
	}
}

func TestTheCallersOwnEndIsNobodysFault(t *testing.T) {
	o := breaker.Reference()
	o.ConsecutiveFailures = 1
	ss := newServers(t)
	ss.start("a", hangs)
	p := retrying()
	p.Timeout, p.Breaker = time.Minute, policy.BreakerPolicy{Options: o}
	cc, service := ss.connect(p, []string{"a"})

	short, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := ask(short, cc); status.Code(err) != codes.DeadlineExceeded {
		t.Fatalf("got %v", err)
	}
	gone, leave := context.WithCancel(t.Context())
	time.AfterFunc(30*time.Millisecond, leave)
	if _, err := ask(gone, cc); status.Code(err) != codes.Canceled {
		t.Fatalf("got %v", err)
	}

	if b := service.Breakers()[0].Breaker.Snapshot(time.Hour); b.State != breaker.Closed {
		t.Fatalf("the breaker is %v: %s", b.State, b.Reason)
	}
	nothingHeld(t, service)
}

func TestABreakerOpensExplainsAndClosesAgain(t *testing.T) {
	o := breaker.Reference()
	o.OpenFor, o.Jitter = 100*time.Millisecond, 0
	ss := newServers(t)
	a := ss.start("a", failsFirst(5, codes.Internal))
	cc, _ := ss.connect(policy.Policy{Breaker: policy.BreakerPolicy{Options: o}}, []string{"a"})
	for range 5 {
		_, _ = ask(t.Context(), cc)
	}

	_, err := ask(t.Context(), cc)

	if reason, retry := reasonOf(err); status.Code(err) != codes.Unavailable || reason != "BREAKER_OPEN" || retry <= 0 || a.calls.Load() != 5 {
		t.Fatalf("got %v (%s, %v), the server saw %d calls", err, reason, retry, a.calls.Load())
	}
	eventually(t, "no probe goes through", func() bool { _, err := ask(t.Context(), cc); return err == nil })
	if _, err := ask(t.Context(), cc); err != nil {
		t.Fatalf("after it: %v", err)
	}
}

func TestObserveLetsThroughAndCounts(t *testing.T) {
	o := breaker.Reference()
	o.Mode = breaker.Observe
	ss := newServers(t)
	a := ss.start("a", failsWith(codes.Internal))
	cc, service := ss.connect(policy.Policy{Breaker: policy.BreakerPolicy{Options: o}}, []string{"a"})
	for range 8 {
		_, _ = ask(t.Context(), cc)
	}
	if b := service.Breakers()[0].Breaker.Snapshot(time.Hour); a.calls.Load() != 8 || b.WouldRefuse != 3 {
		t.Fatalf("the server saw %d calls, %d would have been refused", a.calls.Load(), b.WouldRefuse)
	}
}

func TestAFallbackAnswersWhereNoEndpointCan(t *testing.T) {
	ss := newServers(t)
	body := string(wrapped("nobody"))
	cc, service := ss.connect(policy.Policy{Fallback: policy.FallbackPolicy{Enabled: true, Body: body}}, nil)
	if who, err := ask(t.Context(), cc); err != nil || who != "nobody" {
		t.Fatalf("got %q, %v", who, err)
	}
	if n := actions(service)["fallback"]; n != 1 {
		t.Fatalf("%d fallbacks", n)
	}

	cc, _ = ss.connect(policy.Policy{Fallback: policy.FallbackPolicy{Enabled: true, Code: policy.NotFound, Message: "none today"}}, nil)
	if _, err := ask(t.Context(), cc); status.Code(err) != codes.NotFound || status.Convert(err).Message() != "none today" {
		t.Fatalf("got %v", err)
	}
}

func wrapped(s string) []byte {
	return append([]byte{1<<3 | 2, byte(len(s))}, s...)
}

func TestOnFinishHearsOfTheCallOnce(t *testing.T) {
	ss := newServers(t)
	ss.start("a", failsFirst(2, codes.Unavailable))
	cc, _ := ss.connect(retrying(), []string{"a"})
	var heard []error

	_, err := ask(t.Context(), cc, grpc.OnFinish(func(err error) { heard = append(heard, err) }))

	if err != nil || len(heard) != 1 || heard[0] != nil {
		t.Fatalf("%v; heard %v", err, heard)
	}
}

func TestALostConnectionIsTriedAgainOnlyWhereThatIsHarmless(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		ss := newServers(t)
		arrived := make(chan struct{}, 1)
		a := ss.start("a", func(ctx context.Context, call int64) error { arrived <- struct{}{}; return hangs(ctx, call) })
		p := retrying()
		p.Idempotent = idempotent
		cc, service := ss.connect(p, []string{"a"})
		b := new(server)
		go func() {
			<-arrived
			if idempotent {
				b = ss.start("b", nil)
				service.SetEndpoints(specs("a", "b"))
			}
			a.stop()
		}()

		_, err := ask(t.Context(), cc)

		if idempotent && (err != nil || b.calls.Load() == 0) || !idempotent && (status.Code(err) != codes.Unavailable || service.Retries() != 0) {
			t.Errorf("idempotent %v: %v, %d retries", idempotent, err, service.Retries())
		}
	}
}

// fakeInvoker answers at once, as the cheapest of servers would.
func fakeInvoker(context.Context, string, any, any, *grpc.ClientConn, ...grpc.CallOption) error {
	return nil
}

// allPolicies asks for all there is, so that a good call pays for all of it.
func allPolicies() policy.Policy {
	p := retrying()
	p.Timeout, p.PerTryTimeout, p.Idempotent = 3*time.Second, time.Second, true
	p.Hedge = policy.HedgePolicy{Delay: time.Second, MaxAttempts: 2}
	p.Breaker = policy.BreakerPolicy{Options: breaker.Reference()}
	p.Concurrency = policy.ConcurrencyPolicy{MaxInFlight: 1000, MaxQueue: 100}
	p.RateLimit = policy.RateLimitPolicy{PerSecond: 1e9, Burst: 1e9}
	p.Throttle = policy.ThrottlePolicy{Ratio: 2}
	return p
}

func unaryCall(tb testing.TB, p policy.Policy) func() {
	client, err := New(Options{Service: policy.NewService("greeter", policy.Settings{Policy: p}, nil)})
	if err != nil {
		tb.Fatal(err)
	}
	intercept, ctx := client.Unary(), context.Background()
	request, reply := wrapperspb.String("x"), new(wrapperspb.StringValue)
	return func() {
		if err := intercept(ctx, "/t.T/Unary", request, reply, nil, fakeInvoker); err != nil {
			tb.Fatal(err)
		}
	}
}

func TestAGoodCallAllocatesLittle(t *testing.T) {
	for about, p := range map[string]policy.Policy{"the default": policy.Default(), "all policies": allPolicies()} {
		if n := testing.AllocsPerRun(1000, unaryCall(t, p)); n > 6 {
			t.Errorf("%s: %v allocations", about, n)
		}
	}
}

func BenchmarkUnaryDefault(b *testing.B) { // budget: 500 ns, 1 alloc
	benchmarkUnary(b, policy.Default())
}

func BenchmarkUnaryAllPolicies(b *testing.B) { // budget: 1.5 µs, 6 allocs
	benchmarkUnary(b, allPolicies())
}

func benchmarkUnary(b *testing.B, p policy.Policy) {
	call := unaryCall(b, p)
	b.ReportAllocs()
	for b.Loop() {
		call()
	}
}

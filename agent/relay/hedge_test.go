package relay

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// hedging is a policy of a second attempt after 20 ms.
func hedging(attempts int) policy.Policy {
	return policy.Policy{Idempotent: true, LoadBalancing: balancer.Options{Policy: balancer.RoundRobin},
		Hedge: policy.HedgePolicy{Delay: 20 * time.Millisecond, MaxAttempts: attempts}, Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{MinPerSecond: 1000}}}
}

// hanging is an echo server whose calls end when their callers do.
func hanging(t *testing.T) (s *echoServer, address string, ended *atomic.Int64) {
	ended = new(atomic.Int64)
	s = &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		ended.Add(1)
		return nil, ctx.Err()
	}}
	address, _ = s.start(t)
	return s, address, ended
}

func TestAHedgeAnswersAndTheSlowAttemptIsCancelled(t *testing.T) {
	slow, first, ended := hanging(t)
	fast := newFailing(0, codes.OK)
	second, _ := fast.start(t)
	f := newFixture(t, hedging(2), first, second)
	cc := f.client(t)

	for range 4 {
		out, err := unary(testContext(t), cc, []byte("hello"))
		if err != nil || string(out) != "hello" {
			t.Fatalf("%q, %v", out, err)
		}
	}

	if fast.calls.Load() != 4 || slow.calls.Load() == 0 {
		t.Fatalf("fast %d, slow %d", fast.calls.Load(), slow.calls.Load())
	}
	waitFor(t, func() bool { return ended.Load() == slow.calls.Load() })
	for _, body := range fast.bodies {
		if body != "hello" {
			t.Fatalf("the hedge carried %q", body)
		}
	}
	for _, e := range f.service.Endpoints().All() {
		if e.InFlight() != 0 || e.Failures() != 0 {
			t.Fatalf("%s: %d in flight, %d failures", e.Address(), e.InFlight(), e.Failures())
		}
	}
}

func TestAHedgeThatFailsLeavesTheFirstAttemptRunning(t *testing.T) {
	slow := &echoServer{unary: func(_ context.Context, in []byte) ([]byte, error) {
		time.Sleep(100 * time.Millisecond)
		return in, nil
	}}
	first, _ := slow.start(t)
	bad := newFailing(1000, codes.Unavailable)
	second, _ := bad.start(t)
	f := newFixture(t, hedging(2), first, second)

	var hedged bool
	for range 4 {
		if _, err := unary(testContext(t), f.client(t), nil); err != nil {
			t.Fatal(err)
		}
		hedged = hedged || bad.calls.Load() > 0
	}
	if !hedged {
		t.Fatal("no hedge was sent")
	}
}

func TestAllAttemptsFailAndTheLastAnswerIsTheCallers(t *testing.T) {
	a, b := newFailing(1000, codes.Unavailable), newFailing(1000, codes.Unavailable)
	slow := a.unary
	a.unary = func(ctx context.Context, in []byte) ([]byte, error) {
		time.Sleep(60 * time.Millisecond)
		return slow(ctx, in)
	}
	first, _ := a.start(t)
	second, _ := b.start(t)
	f := newFixture(t, hedging(2), first, second)

	_, err := unary(testContext(t), f.client(t), nil)

	if status.Code(err) != codes.Unavailable || a.calls.Load()+b.calls.Load() != 2 {
		t.Fatalf("%v after %d + %d attempts", err, a.calls.Load(), b.calls.Load())
	}
}

func TestAFatalAnswerEndsAHedgedCall(t *testing.T) {
	_, first, ended := hanging(t)
	bad := newFailing(1000, codes.PermissionDenied)
	second, _ := bad.start(t)
	f := newFixture(t, hedging(3), first, second)

	for range 2 {
		if _, err := unary(testContext(t), f.client(t), nil); status.Code(err) != codes.PermissionDenied {
			t.Fatal(err)
		}
	}
	waitFor(t, func() bool { return ended.Load() >= 1 })
}

func TestStreamsAreNotHedged(t *testing.T) {
	s := new(echoServer)
	address, _ := s.start(t)
	f := newFixture(t, hedging(3), address)
	stream, err := f.client(t).NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		echo(t, stream, "x")
		time.Sleep(40 * time.Millisecond)
	}
	if s.calls.Load() != 1 {
		t.Fatalf("%d streams", s.calls.Load())
	}
}

// echo has a message answered on the stream.
func echo(t *testing.T, stream grpc.ClientStream, message string) {
	t.Helper()
	out := new(wrapperspb.BytesValue)
	if err := stream.SendMsg(wrapperspb.Bytes([]byte(message))); err != nil {
		t.Fatal(err)
	}
	if err := stream.RecvMsg(out); err != nil || string(out.Value) != message {
		t.Fatalf("%q, %v", out.Value, err)
	}
}

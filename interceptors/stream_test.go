package interceptors

import (
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

func openBidi(ctx context.Context, cc *grpc.ClientConn) (grpc.ClientStream, error) {
	return cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, "/t.T/Bidi")
}

func mustOpen(t *testing.T, ctx context.Context, cc *grpc.ClientConn) grpc.ClientStream {
	t.Helper()
	s, err := openBidi(ctx, cc)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func echo(s grpc.ClientStream) error {
	return errors.Join(s.SendMsg(wrapperspb.String("x")), s.RecvMsg(new(wrapperspb.StringValue)))
}

func finish(t *testing.T, s grpc.ClientStream) {
	t.Helper()
	if err := s.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if err := s.RecvMsg(new(wrapperspb.StringValue)); !errors.Is(err, io.EOF) {
		t.Fatalf("got %v", err)
	}
}

func TestAStreamOutlivesUnaryTimeoutsAndAnOpenBreaker(t *testing.T) {
	ss := newServers(t)
	ss.start("a", failsWith(codes.Internal))
	p := policy.Policy{Timeout: 20 * time.Millisecond, PerTryTimeout: 10 * time.Millisecond, Breaker: policy.BreakerPolicy{Options: breaker.Reference()}}
	cc, service := ss.connect(p, []string{"a"})
	stream := mustOpen(t, t.Context(), cc)
	for range 5 {
		_, _ = ask(t.Context(), cc) // opens the breaker
	}
	if _, err := openBidi(t.Context(), cc); status.Code(err) != codes.Unavailable {
		t.Fatalf("another stream: %v", err)
	}
	for range 3 {
		time.Sleep(30 * time.Millisecond)
		if err := echo(stream); err != nil {
			t.Fatal(err)
		}
	}

	finish(t, stream)

	if n := service.Recorder().Lifetime().Successes; n != 1 {
		t.Fatalf("%d successes, want 1", n)
	}
	nothingHeld(t, service)
}

func TestLimitsOfStreamsEndThem(t *testing.T) {
	for name, limits := range map[string]policy.StreamLimits{
		"stream.max_duration": {MaxDuration: 50 * time.Millisecond},
		"stream.idle_timeout": {IdleTimeout: 50 * time.Millisecond},
	} {
		for _, balanced := range []bool{true, false} {
			ss := newServers(t)
			ss.start("a", nil)
			cc := ss.either(balanced, policy.Policy{Stream: limits}, "a")
			stream := mustOpen(t, t.Context(), cc)
			if err := echo(stream); err != nil {
				t.Fatal(err)
			}

			err := stream.RecvMsg(new(wrapperspb.StringValue))

			var refusal *policy.Refusal
			if !errors.As(err, &refusal) || refusal.Reason != policy.Timeout || refusal.Policy != name {
				t.Errorf("%s: got %v", name, err)
			}
		}
	}
}

func TestAStreamThatMovesIsNotIdle(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	cc, _ := ss.connect(policy.Policy{Stream: policy.StreamLimits{IdleTimeout: 200 * time.Millisecond}}, []string{"a"})
	stream := mustOpen(t, t.Context(), cc)
	for range 10 {
		time.Sleep(40 * time.Millisecond)
		if err := echo(stream); err != nil {
			t.Fatal(err)
		}
	}
	finish(t, stream)
}

func TestAnAbandonedStreamIsCountedOnceAndFreesItsPlace(t *testing.T) {
	ss := newServers(t)
	ss.start("a", nil)
	cc, service := ss.connect(policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1}}, []string{"a"})
	ctx, cancel := context.WithCancel(t.Context())
	_ = mustOpen(t, ctx, cc)
	if _, err := openBidi(t.Context(), cc); status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("beside it: %v", err)
	}

	cancel()

	eventually(t, "it is not recorded", func() bool { return service.Recorder().Lifetime().Excluded == 1 })
	finish(t, mustOpen(t, t.Context(), cc))
	nothingHeld(t, service)
}

func TestAStreamToNowhereIsRefused(t *testing.T) {
	ss := newServers(t)
	cc, service := ss.connect(policy.Policy{}, []string{"a"})

	_, err := openBidi(t.Context(), cc)

	if reason, _ := reasonOf(err); reason != "CONNECT_FAILED" {
		t.Fatalf("got %v (%s)", err, reason)
	}
	nothingHeld(t, service)
}

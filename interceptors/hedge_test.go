package interceptors

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// hedging sends a second attempt soon.
func hedging() policy.Policy {
	return policy.Policy{Idempotent: true, LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}, Hedge: policy.HedgePolicy{Delay: 5 * time.Millisecond, MaxAttempts: 2},
		Retry: policy.RetryPolicy{Budget: policy.BudgetPolicy{Ratio: 1, MinPerSecond: 1000}}}
}

// firstHangs lets the very first call hang, wherever it goes, until its caller
// gives up; ended counts such ends.
func firstHangs(ended *sync.WaitGroup) func(context.Context, int64) error {
	var came atomic.Bool
	ended.Add(1)
	return func(ctx context.Context, call int64) error {
		if came.Swap(true) {
			return nil
		}
		defer ended.Done()
		return hangs(ctx, call)
	}
}

func TestAHedgeAnswersForASlowAttempt(t *testing.T) {
	for about, balanced := range map[string]bool{"balancer": true, "interceptors alone": false} {
		t.Run(about, func(t *testing.T) {
			ss := newServers(t)
			var ended sync.WaitGroup
			unary := firstHangs(&ended)
			a, b := ss.start("a", unary), ss.start("b", unary)
			cc := ss.either(balanced, hedging(), "a")
			if balanced {
				cc, _ = ss.connect(hedging(), []string{"a", "b"})
			}
			var header, trailer metadata.MD
			var from peer.Peer

			who, err := ask(t.Context(), cc, grpc.Header(&header), grpc.Trailer(&trailer), grpc.Peer(&from))

			if err != nil || header.Get("served-by")[0] != who || trailer.Get("ended-by")[0] != who || from.Addr == nil {
				t.Fatalf("answered by %q, %v; header %v, trailer %v, peer %v", who, err, header, trailer, from)
			}
			ended.Wait() // the loser was cancelled
			if n := a.calls.Load() + b.calls.Load(); n != 2 {
				t.Fatalf("%d attempts, want 2", n)
			}
			if balanced && (a.calls.Load() != 1 || b.calls.Load() != 1) {
				t.Fatalf("%d attempts to one endpoint, %d to the other", a.calls.Load(), b.calls.Load())
			}
		})
	}
}

func TestAFastAnswerIsNotHedged(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	p := hedging()
	p.Hedge.Delay = time.Minute
	cc, service := ss.connect(p, []string{"a"})

	for range 10 {
		if _, err := ask(t.Context(), cc); err != nil {
			t.Fatal(err)
		}
	}

	if a.calls.Load() != 10 || actions(service)["hedge"] != 0 {
		t.Fatalf("%d attempts, %d hedges", a.calls.Load(), actions(service)["hedge"])
	}
}

func TestWhatIsNotIdempotentIsNotHedged(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", func(context.Context, int64) error { time.Sleep(30 * time.Millisecond); return nil })
	p := hedging()
	p.Idempotent = false
	cc, _ := ss.connect(p, []string{"a"})

	if _, err := ask(t.Context(), cc); err != nil || a.calls.Load() != 1 {
		t.Fatalf("%v after %d attempts", err, a.calls.Load())
	}
}

func TestAFatalAnswerOfAHedgeIsTheCalls(t *testing.T) {
	ss := newServers(t)
	var ended sync.WaitGroup
	unary := firstHangs(&ended)
	refuses := func(ctx context.Context, call int64) error {
		if err := unary(ctx, call); err != nil {
			return err
		}
		return status.Error(codes.PermissionDenied, "no")
	}
	ss.start("a", refuses)
	ss.start("b", refuses)
	cc, service := ss.connect(hedging(), []string{"a", "b"})

	_, err := ask(t.Context(), cc)

	if status.Code(err) != codes.PermissionDenied {
		t.Fatalf("got %v", err)
	}
	ended.Wait()
	nothingHeld(t, service)
}

// TestManyHedgedCalls: under load, with everything that may race, each caller
// gets its own answer once and everything is given back.
func TestManyHedgedCalls(t *testing.T) {
	ss := newServers(t)
	slow := func(ctx context.Context, call int64) error {
		switch call % 7 {
		case 0:
			return hangs(ctx, call)
		case 1, 2:
			time.Sleep(time.Duration(call%5) * time.Millisecond)
		case 3:
			return status.Error(codes.Unavailable, "")
		}
		return nil
	}
	ss.start("a", slow)
	ss.start("b", slow)
	p := hedging()
	p.Retry.MaxAttempts, p.Retry.BackoffBase = 4, time.Millisecond
	p.PerTryTimeout, p.Timeout = 20*time.Millisecond, 5*time.Second
	p.Hedge.Delay = 2 * time.Millisecond
	p.Concurrency = policy.ConcurrencyPolicy{MaxInFlight: 8, MaxQueue: 100, QueueTimeout: time.Minute}
	cc, service := ss.connect(p, []string{"a", "b"})
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			for range 40 {
				ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
				who, err := ask(ctx, cc)
				cancel()
				if err == nil && who != "a" && who != "b" {
					t.Errorf("answered by %q with %v", who, err)
				}
			}
		})
	}
	callers.Wait()
	nothingHeld(t, service)
	if n := service.Recorder().Lifetime().Calls; n != 640 {
		t.Fatalf("%d calls recorded, want 640", n)
	}
}

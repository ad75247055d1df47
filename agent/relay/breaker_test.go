package relay

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// oneProbe is a breaker that the first failure opens, for a moment, and that
// one probe closes.
func oneProbe(scope policy.Scope, probeTimeout time.Duration) policy.Policy {
	return policy.Policy{Breaker: policy.BreakerPolicy{Scope: scope, Options: breaker.Options{
		ConsecutiveFailures: 1, OpenFor: 5 * time.Millisecond, HalfOpenProbes: 1, ProbeTimeout: probeTimeout}}}
}

// until calls until the endpoint answers, and counts the refusals before that.
func until(ctx context.Context, cc *grpc.ClientConn, refused *atomic.Int64) error {
	for {
		_, err := unary(ctx, cc, nil)
		if err == nil || ctx.Err() != nil {
			return err
		}
		if reason, _, _ := refusalOf(err); reason == "BREAKER_OPEN" {
			refused.Add(1)
		}
	}
}

func TestOfManyCallersOneAtATimeProbes(t *testing.T) {
	const callers, failing = 200, 5
	for _, scope := range []policy.Scope{policy.ScopeService, policy.ScopeMethod, policy.ScopeEndpoint} {
		var calls, inFlight, most, refused atomic.Int64
		var back atomic.Bool // a probe succeeded
		s := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
			if back.Load() {
				return nil, nil
			}
			probe := calls.Add(1) - 1 // 0 is the call that opens the breaker
			n := inFlight.Add(1)
			defer inFlight.Add(-1)
			for was := most.Load(); n > was && !most.CompareAndSwap(was, n); was = most.Load() {
			}
			// It stays until every caller has asked, on average.
			for enough := refused.Load() + callers; probe > 0 && refused.Load() < enough; time.Sleep(time.Millisecond) {
				if ctx.Err() != nil {
					return nil, ctx.Err()
				}
			}
			if probe > failing {
				back.Store(true)
				return nil, nil
			}
			return nil, status.Error(codes.Unavailable, "still down")
		}}
		address, _ := s.start(t)
		cc := newFixture(t, oneProbe(scope, 0), address).client(t)
		ctx := testContext(t)
		_, _ = unary(ctx, cc, nil)

		var group sync.WaitGroup
		for range callers {
			group.Go(func() {
				if err := until(ctx, cc, &refused); err != nil {
					t.Error(err)
				}
			})
		}
		group.Wait()

		if most.Load() != 1 || calls.Load() != 1+failing+1 {
			t.Errorf("%v: %d probes at once, want 1; %d calls reached the endpoint before it was back, want the first, %d probes that failed and 1", scope, most.Load(), calls.Load(), failing)
		}
	}
}

func TestAProbeThatNeverEndsDoesNotHoldTheBreaker(t *testing.T) {
	var calls, refused atomic.Int64
	release, ended := make(chan struct{}), make(chan struct{})
	s := &echoServer{unary: func(context.Context, []byte) ([]byte, error) {
		switch calls.Add(1) {
		case 1:
			return nil, status.Error(codes.Unavailable, "down")
		case 2:
			<-release
			return nil, status.Error(codes.Unavailable, "a late answer")
		}
		return nil, nil
	}}
	address, _ := s.start(t)
	f := newFixture(t, oneProbe(policy.ScopeService, 100*time.Millisecond), address)
	cc := f.client(t)
	ctx := testContext(t)
	_, _ = unary(ctx, cc, nil)
	go func() {
		defer close(ended)
		for calls.Load() < 2 {
			_, _ = unary(ctx, cc, nil)
		}
	}()
	waitFor(t, func() bool { return calls.Load() == 2 })

	err := until(ctx, cc, &refused)

	if err != nil || calls.Load() != 3 || refused.Load() == 0 {
		t.Fatalf("%v: %d calls reached the endpoint, want the first, the probe that hangs and one after it; %d were refused meanwhile", err, calls.Load(), refused.Load())
	}
	close(release)
	<-ended
	if state := f.service.Breakers()[0].Breaker.Snapshot(f.relay.now()).State; state != breaker.Closed {
		t.Fatalf("the late answer of a probe that expired made the breaker %v", state)
	}
}

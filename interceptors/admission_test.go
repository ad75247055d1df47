package interceptors

import (
	"context"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

// oneAtATime lets one call in and one wait; it answers once released.
func oneAtATime(ss *servers) (p policy.Policy, arrived, release chan struct{}) {
	arrived, release = make(chan struct{}, 8), make(chan struct{}, 8)
	ss.start("a", func(ctx context.Context, _ int64) error {
		arrived <- struct{}{}
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, QueueTimeout: time.Minute}}, arrived, release
}

func TestACallWaitsForItsTurnAndTheNextIsRefused(t *testing.T) {
	ss := newServers(t)
	p, arrived, release := oneAtATime(ss)
	cc, service := ss.connect(p, []string{"a"})
	var calls sync.WaitGroup
	good := func() {
		if _, err := ask(t.Context(), cc); err != nil {
			t.Error(err)
		}
	}
	calls.Go(good)
	<-arrived
	calls.Go(good) // waits
	eventually(t, "the second call does not wait", func() bool { return service.Limiter().Snapshot(time.Since(processOrigin)).Waiting == 1 })

	_, err := ask(t.Context(), cc)

	if reason, _ := reasonOf(err); status.Code(err) != codes.ResourceExhausted || reason != "CONCURRENCY_LIMIT" {
		t.Errorf("got %v (%s)", err, reason)
	}
	release <- struct{}{}
	<-arrived // the one that waited
	release <- struct{}{}
	calls.Wait()
	nothingHeld(t, service)
}

func TestAWaitEndsWithItsCaller(t *testing.T) {
	ss := newServers(t)
	p, arrived, release := oneAtATime(ss)
	cc, service := ss.connect(p, []string{"a"})
	var first sync.WaitGroup
	first.Go(func() { _, _ = ask(t.Context(), cc) })
	<-arrived
	ctx, leave := context.WithCancel(t.Context())
	var second sync.WaitGroup
	second.Go(func() {
		if _, err := ask(ctx, cc); status.Code(err) != codes.Canceled {
			t.Errorf("got %v", err)
		}
	})
	eventually(t, "the second call does not wait", func() bool { return service.Limiter().Snapshot(time.Since(processOrigin)).Waiting == 1 })

	leave()

	second.Wait()
	if n := service.Limiter().Snapshot(time.Since(processOrigin)).Waiting; n != 0 {
		t.Errorf("%d wait still", n)
	}
	release <- struct{}{}
	first.Wait()
}

func TestAWaitEndsWithItsTime(t *testing.T) {
	ss := newServers(t)
	p, arrived, release := oneAtATime(ss)
	p.Concurrency.QueueTimeout = 20 * time.Millisecond
	cc, _ := ss.connect(p, []string{"a"})
	var first sync.WaitGroup
	first.Go(func() { _, _ = ask(t.Context(), cc) })
	<-arrived

	_, err := ask(t.Context(), cc)

	if reason, _ := reasonOf(err); reason != "QUEUE_TIMEOUT" {
		t.Errorf("got %v (%s)", err, reason)
	}
	release <- struct{}{}
	first.Wait()
}

func TestARateIsKeptByCaller(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(policy.Policy{RateLimit: policy.RateLimitPolicy{PerSecond: 0.001, Burst: 1, KeyHeader: "x-user"}}, []string{"a"})
	as := func(user string) error {
		_, err := ask(metadata.AppendToOutgoingContext(t.Context(), "x-user", user), cc)
		return err
	}

	first, again, other := as("ann"), as("ann"), as("bob")

	if reason, retry := reasonOf(again); first != nil || other != nil || reason != "RATE_LIMIT" || retry < time.Minute || a.calls.Load() != 2 {
		t.Fatalf("ann %v, again %v (%s, %v), bob %v", first, again, reason, retry, other)
	}
}

func TestFaultsDelayAndAbort(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(policy.Policy{Fault: policy.FaultPolicy{Abort: policy.NotFound, AbortPercent: 100, Header: "x-chaos"}}, []string{"a"})
	_, spared := ask(t.Context(), cc)
	_, hit := ask(metadata.AppendToOutgoingContext(t.Context(), "x-chaos", "1"), cc)
	if reason, _ := reasonOf(hit); spared != nil || status.Code(hit) != codes.NotFound || reason != "FAULT_INJECTED" || a.calls.Load() != 1 {
		t.Fatalf("spared %v, hit %v (%s)", spared, hit, reason)
	}

	cc, service := ss.connect(policy.Policy{Timeout: 20 * time.Millisecond, Fault: policy.FaultPolicy{Delay: time.Hour, DelayPercent: 100}}, []string{"a"})
	_, err := ask(t.Context(), cc)
	if reason, _ := reasonOf(err); reason != "TIMEOUT" || actions(service)["fault"] != 1 {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

func TestADeadlineThatIsOverIsRefusedAtTheDoor(t *testing.T) {
	ss := newServers(t)
	a := ss.start("a", nil)
	cc, _ := ss.connect(policy.Policy{}, []string{"a"})
	ctx, cancel := context.WithDeadline(t.Context(), time.Now().Add(-time.Second))
	defer cancel()

	_, err := ask(ctx, cc)

	if reason, _ := reasonOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "DEADLINE" || a.calls.Load() != 0 {
		t.Fatalf("got %v (%s)", err, reason)
	}
}

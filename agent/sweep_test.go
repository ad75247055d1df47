package agent

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// fail makes a call that its endpoint fails.
func fail(s *policy.Service, now policy.Instant) {
	var c policy.Call
	var a policy.Attempt
	c.Begin(s.Method("/test.Echo/Call"), now, policy.Arrival{})
	c.Admit(now, 1)
	c.Pick(now, 1, &a)
	c.Finish(&a, now, policy.Ending{Result: policy.Result{Code: policy.Internal}}, 1)
	c.End(now, policy.Result{Code: policy.Internal}, 1)
}

func TestSweepLetsEjectedEndpointsBackOnTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := time.Now().Add(-time.Hour)
		now := func() policy.Instant { return time.Since(origin) }
		s := policy.NewService("echo", policy.Settings{Policy: policy.Policy{Outlier: balancer.OutlierOptions{ConsecutiveFailures: 1, EjectFor: 3 * time.Second}}}, nil)
		s.SetEndpoints([]balancer.Spec{{Address: "a:1"}, {Address: "b:1"}})
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		go func() {
			defer close(stopped)
			sweep(ctx, func() []*policy.Service { return []*policy.Service{s} }, now, func() {})
		}()

		time.Sleep(10 * time.Second)
		fail(s, now())
		out := s.Outliers().Out
		if len(out) != 1 {
			t.Fatalf("out are %+v", out)
		}
		time.Sleep(out[0].Until - now() - time.Millisecond)
		if len(s.Outliers().Out) != 1 {
			t.Error("it is back early")
		}
		time.Sleep(sweepEvery + time.Millisecond)
		if out[0].Endpoint.Fit() == false || len(s.Outliers().Out) != 0 {
			t.Error("it is not back on time")
		}

		stop()
		<-stopped
	})
}

func TestSweepIsIdleWhereNothingIsDue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		origin := time.Now().Add(-time.Hour)
		var looks atomic.Int64
		ctx, stop := context.WithCancel(t.Context())
		stopped := make(chan struct{})
		idle := policy.NewService("idle", policy.Settings{}, nil)
		busy := policy.NewService("busy", policy.Settings{Policy: policy.Policy{Outlier: balancer.OutlierOptions{ConsecutiveFailures: 1, EjectFor: time.Millisecond}}}, nil)
		services := []*policy.Service{idle}
		go func() {
			defer close(stopped)
			sweep(ctx, func() []*policy.Service { looks.Add(1); return services }, func() policy.Instant { return time.Since(origin) }, func() {})
		}()
		time.Sleep(10*time.Second + 500*time.Millisecond)
		if n := looks.Load(); n > 11 {
			t.Errorf("looked %d times in ten idle seconds", n)
		}
		stop()
		<-stopped

		looks.Store(0)
		services = []*policy.Service{idle, busy} // due every millisecond
		ctx, stop = context.WithCancel(t.Context())
		stopped = make(chan struct{})
		go func() {
			defer close(stopped)
			sweep(ctx, func() []*policy.Service { looks.Add(1); return services }, func() policy.Instant { return time.Since(origin) }, func() {})
		}()
		time.Sleep(10*time.Second + 50*time.Millisecond)
		if n := looks.Load(); n != 100 {
			t.Errorf("looked %d times in ten busy seconds, want 100", n)
		}
		stop()
		<-stopped
	})
}

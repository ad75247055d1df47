package agent

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	// sweepEvery is the least time between two sweeps, whatever falls due.
	sweepEvery = 100 * time.Millisecond
	// sweepAgain is the longest: services come and settings change, and nobody
	// tells the sweeper. A service that has nothing to do costs a few
	// nanoseconds.
	sweepAgain = time.Second
)

// sweep does what time asks of the services' endpoints, such as letting an
// ejected one back, until ctx ends, and calls after each time. services returns
// those that live; now is their clock.
func sweep(ctx context.Context, services func() []*policy.Service, now func() policy.Instant, after func()) {
	timer := time.NewTimer(sweepEvery)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		at := now()
		next := at + sweepAgain
		for _, s := range services() {
			if due := s.Sweep(at, rand.Uint64()); due != 0 {
				next = min(next, due)
			}
		}
		after()
		timer.Reset(max(next-now(), sweepEvery))
	}
}

// endpointMoved returns who hears of a service's endpoints that go out of
// rotation and come back.
func (a *Agent) endpointMoved(service string) func(balancer.Ejection, bool) {
	return func(e balancer.Ejection, out bool) {
		if c := a.control.Load(); c != nil {
			c.Changed()
		}
		attributes := []any{"service", service, "endpoint", e.Endpoint.Address(), "reason", e.Reason}
		level, what := slog.LevelInfo, "an endpoint is back from its ejection"
		switch {
		case e.Observed && !out:
			return // it never was out
		case e.Observed:
			what = "an endpoint would be ejected"
		case out:
			level, what = slog.LevelWarn, "an endpoint is ejected"
		}
		if out {
			attributes = append(attributes, "until", a.origin.Add(e.Until).Format("15:04:05.000"))
		}
		a.logger.Log(context.Background(), level, what, attributes...)
	}
}

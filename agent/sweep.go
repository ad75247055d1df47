package agent

import (
	"context"
	"math/rand/v2"
	"time"

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
// ejected one back, until ctx ends. services returns those that live; now is
// their clock.
func sweep(ctx context.Context, services func() []*policy.Service, now func() policy.Instant) {
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
		timer.Reset(max(next-now(), sweepEvery))
	}
}

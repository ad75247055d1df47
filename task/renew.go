package task

import (
	"context"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const (
	// renewEvery is how often what no open stream renews is; leases last a second at
	// least.
	renewEvery = 400 * time.Millisecond
	// maxRenewals is how many leases the API takes at a time.
	maxRenewals = 1000
)

// renewOrphans renews what came by streams that are gone, until ctx ends. What is
// over is ended.
func (r *running) renewOrphans(ctx context.Context) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if orphans := r.orphans(); len(orphans) > 0 {
			r.renew(ctx, orphans)
		}
	}
}

func (r *running) orphans() (leases []*outriggerv1.TaskLease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for l, w := range r.held {
		if !w.from.isOpen() && len(leases) < maxRenewals {
			leases = append(leases, l.message())
		}
	}
	return leases
}

func (r *running) renew(ctx context.Context, leases []*outriggerv1.TaskLease) {
	ctx, cancel := context.WithTimeout(ctx, endTimeout)
	defer cancel()
	answer, err := r.api.RenewTasks(ctx, &outriggerv1.RenewTasksRequest{Leases: leases})
	if err != nil {
		return // the agent is not back: the leases last or they don't
	}
	for _, renewed := range answer.GetLeases() {
		switch {
		case renewed.GetLeaseUntil() == nil:
			r.cancel(leaseOf(renewed.GetLease()), ErrLost)
		case renewed.GetCancelRequested():
			r.cancel(leaseOf(renewed.GetLease()), ErrCancelled)
		}
	}
}

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/bench/goals"
)

const (
	slots       = 40 // the knee: so many calls at once, each for serviceTime
	serviceTime = 40 * time.Millisecond
	overload    = 3 // times its capacity is offered
	// A call that is not answered by then is of no use to its caller.
	useful      = time.Second
	mostSlower  = 3.0
	leastGood   = 0.9
	limitConns  = 16
	quietShare  = 0.2 // of the capacity, to see how fast it is unloaded
	quietLength = 3 * time.Second
	// A limit that has to be found has so long for it; what comes before the end
	// of that is shown, and not judged.
	settling = 2 * time.Second
)

func capacity() float64 { return slots / serviceTime.Seconds() }

// queueing is a server with a knee: it works on so many calls at once, first
// come, first served, and the others wait inside it, which is what makes them
// slow. It reckons each call's turn from those before it, so that what a
// machine oversleeps does not cost it capacity. A call whose caller gives up
// before its turn is not worked on.
type queueing struct {
	mu   sync.Mutex
	free [slots]time.Time // when each slot is free
	next int              // the slot that is free first
}

func (q *queueing) answer(ctx context.Context) error {
	now := time.Now()
	deadline, limited := ctx.Deadline()
	q.mu.Lock()
	begins := q.free[q.next]
	if begins.Before(now) {
		begins = now
	}
	gone := limited && !begins.Before(deadline)
	ends := begins.Add(serviceTime)
	if !gone {
		q.free[q.next] = ends
		q.next = (q.next + 1) % slots
	}
	q.mu.Unlock()
	if gone {
		<-ctx.Done()
		return status.Error(codes.DeadlineExceeded, "its turn never came")
	}
	time.Sleep(time.Until(ends))
	return nil
}

// limiting is one way to hold calls back.
type limiting struct{ name, policy string }

var limits = []limiting{
	{"adaptive", "concurrency: {adaptive: true, max_queue: 20, queue_timeout: 50ms}"},
	{"max_in_flight: 40", "concurrency: {max_in_flight: 40, max_queue: 20, queue_timeout: 50ms}"},
	{"max_in_flight: 1000", "concurrency: {max_in_flight: 1000, max_queue: 20, queue_timeout: 50ms}"},
	{"none", ""},
}

// limited is what came of one of them.
type limited struct {
	quiet, early, p50, p99 time.Duration // p99 of the server unloaded and while settling; of calls let in
	goodput                float64       // useful answers a second
	calls, refused, atOnce int
}

// limit offers three times an endpoint's capacity under each limit in turn.
func limit() ([]goals.Goal, error) {
	offered := overload * capacity()
	fmt.Printf("limit: an endpoint with a knee at %d calls at once, %.0f calls a second; offered %.0f a second for %d s, after %v to settle; no answer of use after %v\n",
		slots, capacity(), offered, *seconds, settling, useful)
	fmt.Printf("  %-20s %9s %9s %9s %9s %10s %10s %12s %9s %12s\n", "concurrency", "goodput/s", "÷ cap.", "refused", "at once", "p50 ms", "p99 ms", "unloaded p99", "p99 ÷ it", "settling p99")
	var found []goals.Goal
	for _, l := range limits {
		r, err := l.run(offered)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", l.name, err)
		}
		share, slower := r.goodput/capacity(), float64(r.p99)/float64(r.quiet)
		fmt.Printf("  %-20s %9.0f %9.2f %8.1f%% %9d %10.1f %10.1f %12.1f %9.2f %12.1f\n", l.name, r.goodput, share, 100*float64(r.refused)/float64(r.calls), r.atOnce, ms(r.p50), ms(r.p99), ms(r.quiet), slower, ms(r.early))
		if len(found) == 0 { // the first is ours
			found = []goals.Goal{
				goals.AtLeast(share, leastGood, "%s: goodput as a share of the capacity", l.name),
				goals.AtMost(slower, mostSlower, "%s: p99 of calls let in ÷ p99 unloaded", l.name),
			}
		}
	}
	return found, nil
}

func (l limiting) run(offered float64) (r limited, err error) {
	u, err := serve(new(queueing).answer)
	if err != nil {
		return r, err
	}
	defer u.stop()
	ccs, shut, err := throughAgent(l.policy, limitConns, u)
	if err != nil {
		return r, err
	}
	defer shut()
	quiet := offer(ccs, quietShare*capacity(), quietLength, useful)
	if n := count(quiet, good); n != len(quiet) {
		return r, fmt.Errorf("%d of %d calls failed without load", len(quiet)-n, len(quiet))
	}
	answers := offer(ccs, offered, settling+length(), useful)
	first := int(offered * settling.Seconds())
	early, answers := answers[:first], answers[first:]
	letIn := func(a answer) bool { return a.reason != "CONCURRENCY_LIMIT" && a.reason != "QUEUE_TIMEOUT" }
	return limited{
		quiet: quantile(quiet, 0.99, all), early: quantile(early, 0.99, letIn), p50: quantile(answers, 0.5, letIn), p99: quantile(answers, 0.99, letIn),
		goodput: float64(count(answers, good)) / length().Seconds(),
		calls:   len(answers), refused: len(answers) - count(answers, letIn), atOnce: int(u.most.Load()),
	}, nil
}

package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/outrigger-rpc/outrigger/bench/goals"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

const (
	fillers      = 4
	listings     = 50
	mostListing  = 50.0 // ms
	mostSlower   = 1.5
	mostResident = 100.0 // MiB
)

func millionPart(b *bench) ([]goals.Goal, error) {
	ctx := context.Background()
	full, err := b.newAgent(100_000_000)
	if err != nil {
		return nil, err
	}
	empty, err := b.newAgent(100_000_000)
	if err != nil {
		return nil, err
	}
	for _, a := range []*agent{full, empty} {
		if err := a.pause(ctx, "default", true); err != nil {
			return nil, err
		}
	}
	took, filling, err := full.fill(ctx, *queued)
	if err != nil {
		return nil, err
	}
	fmt.Printf("million on %s: %d tasks submitted in %v by %d callers with %d each, %.0f a second\n", b.store, *queued, took.Round(time.Second), fillers, *batch, float64(*queued)/took.Seconds())

	slowest, most := 0.0, full.resident() // from here on it holds them
	for _, row := range []struct {
		name    string
		request *outriggerv1.ListTasksRequest
		judged  bool
	}{
		{"the first page", &outriggerv1.ListTasksRequest{}, true},
		{"the first page of AVAILABLE", &outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_AVAILABLE}}, true},
		{"the first page of what has not ended", &outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{
			outriggerv1.TaskState_SCHEDULED, outriggerv1.TaskState_AVAILABLE, outriggerv1.TaskState_RUNNING, outriggerv1.TaskState_RETRYABLE}}, true},
		{"the first page of FAILED (none)", &outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_FAILED}}, true},
		{"the first page of kind grpc", &outriggerv1.ListTasksRequest{Kind: "grpc"}, true},
		{"the first page of kind email (none)", &outriggerv1.ListTasksRequest{Kind: "email"}, true},
		{"the first page with a tag (none)", &outriggerv1.ListTasksRequest{Tag: "none"}, false},
	} {
		var times []time.Duration
		for range listings {
			at := time.Now()
			if _, err := full.clients[0].API().ListTasks(ctx, row.request); err != nil {
				return nil, fmt.Errorf("%s: %w", row.name, err)
			}
			times = append(times, time.Since(at))
		}
		note := ""
		if row.judged {
			slowest = max(slowest, quantile(times, 0.99))
		} else {
			note = "  (shown, not judged)"
		}
		most = max(most, full.resident())
		fmt.Printf("  %-37s p50 %7.2f ms  longest %7.2f ms%s\n", row.name, quantile(times, 0.5), quantile(times, 1), note)
	}
	at := time.Now()
	queues, err := full.clients[0].API().ListQueues(ctx, &outriggerv1.ListQueuesRequest{})
	if err != nil {
		return nil, err
	}
	fmt.Printf("  %-37s     %7.2f ms\n", "the queues", float64(time.Since(at))/float64(time.Millisecond))
	waiting := uint64(0)
	for _, q := range queues.GetQueues() {
		waiting += q.GetAvailable()
	}
	if waiting < uint64(*queued) {
		return nil, fmt.Errorf("%d tasks wait, and %d were accepted", waiting, *queued)
	}

	ways := []*way{full.way("into the full store"), empty.way("into an empty store")}
	for range *rounds {
		for _, w := range ways {
			rate, err := w.rate(submitters, *length)
			if err != nil {
				return nil, err
			}
			w.figures = append(w.figures, rate)
			most = max(most, full.resident())
		}
	}
	for _, w := range ways {
		fmt.Printf("  submits by %d, %-24s %9.0f /s  rounds: %.0f\n", submitters, w.name, median(w.figures), w.figures)
	}
	fmt.Printf("  resident: %.0f MiB at most while they were submitted, %.0f at most since, %.0f at the end\n", mib(filling), mib(most), mib(full.resident()))
	return []goals.Goal{
		goals.AtMost(slowest, mostListing, "the slowest first page, p99 in ms"),
		goals.AtMost(median(ways[1].figures)/median(ways[0].figures), mostSlower, "submits are slower than into an empty store by a factor of"),
		goals.AtMost(mib(max(filling, most)), mostResident, "the agent's resident memory at most, in MiB"),
	}, nil
}

// resident is the agent's memory now, in bytes.
func (a *agent) resident() int {
	n, err := a.Resident()
	if err != nil {
		return 0 // it ended, which the next call tells
	}
	return n
}

func mib(bytes int) float64 { return float64(bytes) / (1 << 20) }

// way submits one task a call.
func (a *agent) way(name string) *way {
	spec := emptyCall()
	return &way{name: name, each: 1, one: func(ctx context.Context, caller int) error {
		_, err := a.clients[caller%len(a.clients)].Submit(ctx, spec, task.Options{})
		return err
	}}
}

// fill submits n tasks, and returns the most memory that the agent was seen to
// hold meanwhile.
func (a *agent) fill(ctx context.Context, n int) (took time.Duration, most int, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	began := time.Now()
	batches := make(chan int)
	var group sync.WaitGroup
	for caller := range fillers {
		group.Go(func() {
			spec := emptyCall()
			for size := range batches {
				if err := a.submitMany(ctx, caller, size, spec); err != nil {
					cancel(err)
				}
			}
		})
	}
	for n > 0 && ctx.Err() == nil {
		size := min(n, *batch)
		select {
		case batches <- size:
			n -= size
		case <-ctx.Done():
		}
		most = max(most, a.resident())
	}
	close(batches)
	group.Wait()
	return time.Since(began), most, context.Cause(ctx)
}

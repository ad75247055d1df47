package tasks

import (
	"context"
	"maps"
	"slices"
	"time"

	"github.com/outrigger-rpc/outrigger/sla"
)

// Stats are the executor's figures, for telemetry. Counters never decrease.
type Stats struct {
	Kinds  []KindStats  // in the order of their names
	Queues []QueueStats // in the order of their names
	// Submitted tasks were accepted; Existed were there before; Rejected found their
	// queue full; CallerRan were run by their submits.
	Submitted, Existed, Rejected, CallerRan uint64
	// ScheduleDropped counts times of schedules at which the queue was full.
	ScheduleDropped uint64
}

// KindStats are the figures of one kind.
type KindStats struct {
	Kind string
	// Attempts that ended, by outcome.
	Attempts [numOutcomes]uint64
	// Wait is how long attempts waited past their time, Run how long they took.
	Wait, Run sla.Histogram
	// SLA is the time from run_at until done; Targets what is promised of it, nil:
	// nothing.
	SLA     *sla.Recorder // nil until a task of it has ended
	Targets *sla.Targets
}

// QueueStats are the figures of one queue.
type QueueStats struct {
	Name                                             string
	Paused                                           bool
	Available, Scheduled, Retryable, Running, Failed uint64
	Capacity, Workers                                int
	// Oldest is when the one that waits longest was to run; zero: none waits.
	Oldest time.Time
}

// Outcomes returns every outcome, in the order of KindStats.Attempts.
func Outcomes() []Outcome {
	all := make([]Outcome, numOutcomes)
	for i := range all {
		all[i] = Outcome(i)
	}
	return all
}

// Stats reads the figures. Those of queues come from the store: an error leaves
// them out.
func (e *Executor) Stats(ctx context.Context) (Stats, error) {
	c := &e.counters
	s := Stats{
		Submitted: c.submitted.Load(), Existed: c.existed.Load(), Rejected: c.rejected.Load(), CallerRan: c.callerRan.Load(),
		ScheduleDropped: c.scheduleDropped.Load(),
	}
	s.Kinds = e.KindStats()
	settings := e.settings.Load()
	kept, err := e.kept()
	if err != nil {
		return s, err
	}
	queues, err := kept.Queues(ctx, settings.queueNames())
	for _, q := range queues {
		capacity, _ := settings.capacity(q.Name)
		s.Queues = append(s.Queues, QueueStats{
			Name: q.Name, Paused: q.Paused, Available: q.Available, Scheduled: q.Scheduled, Retryable: q.Retryable, Running: q.Running, Failed: q.Discarded,
			Capacity: capacity, Workers: settings.Queues[q.Name].Workers, Oldest: q.Oldest,
		})
	}
	return s, err
}

// KindStats reads the figures of the kinds alone, which nothing can fail.
func (e *Executor) KindStats() []KindStats {
	settings := e.settings.Load()
	e.kinds.mu.Lock()
	all := maps.Clone(e.kinds.all)
	e.kinds.mu.Unlock()
	var kinds []KindStats
	for _, name := range slices.Sorted(maps.Keys(all)) {
		m := all[name]
		m.mu.Lock()
		kinds = append(kinds, KindStats{
			Kind: name, Attempts: m.attempts, Wait: m.wait.Clone(), Run: m.run.Clone(), SLA: m.sla, Targets: settings.Kinds[name].Targets,
		})
		m.mu.Unlock()
	}
	return kinds
}

package tasks

import (
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
	SLA     *sla.Recorder
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

package tasks

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	"github.com/outrigger-rpc/outrigger/sla"
)

// counters count what submits did.
type counters struct {
	submitted, existed, rejected, callerRan, scheduleDropped atomic.Uint64
}

// kinds measures tasks by kind. The zero value is ready for use.
type kinds struct {
	mu  sync.Mutex
	all map[string]*measured
}

// measured is what was measured of one kind.
type measured struct {
	mu       sync.Mutex // guards what follows
	attempts [numOutcomes]uint64
	wait     sla.Histogram
	run      sla.Histogram
	sla      *sla.Recorder // nil until one has ended
}

func (k *kinds) of(kind string) *measured {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.all[kind]
	if m == nil {
		if k.all == nil {
			k.all = map[string]*measured{}
		}
		m = &measured{}
		k.all[kind] = m
	}
	return m
}

// record counts an attempt that ended, and the task where it ended with it.
func (e *Executor) record(j *store.Job, p plan, waited, took time.Duration) {
	now := e.now()
	m := e.kinds.of(j.Kind)
	m.mu.Lock()
	m.attempts[p.as]++
	if p.as != Returned && p.as != Snoozed {
		m.wait.Record(max(waited, 0))
		m.run.Record(max(took, 0))
	}
	m.mu.Unlock()
	if p.ended() {
		e.recordEnd(m, j, p.as, now)
		if p.as == GivenUp {
			attempts, _ := j.Counted()
			e.options.Logger.Warn("a task was given up", "task", FormatID(j.ID), "kind", j.Kind, "queue", j.Queue, "attempts", attempts, "error", p.why)
		}
	}
}

// recordEnd counts a task that ended for its kind's SLA.
func (e *Executor) recordEnd(m *measured, j *store.Job, as Outcome, now time.Time) {
	due := j.Facts.Due
	if due.IsZero() {
		due = j.SubmittedAt
	}
	m.mu.Lock()
	if m.sla == nil {
		m.sla = sla.NewRecorder(sla.Options{Start: now.Sub(e.options.Origin)})
	}
	recorder := m.sla
	m.mu.Unlock()
	outcome := sla.Success
	switch as {
	case GivenUp:
		outcome = sla.Failure
	case Cancelled:
		outcome = sla.Excluded
	}
	recorder.Record(now.Sub(e.options.Origin), outcome, max(now.Sub(due), 0))
}

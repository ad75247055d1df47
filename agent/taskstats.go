package agent

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks"
	"github.com/outrigger-rpc/outrigger/agent/telemetry"
	"github.com/outrigger-rpc/outrigger/policy"
)

// statsTimeout bounds what a scrape waits for the task store.
const statsTimeout = 2 * time.Second

// slaWindow is what the SLA's figures of tasks are over, as those of calls.
const slaWindow = 5 * time.Minute

// taskStats are the executor's figures as telemetry names them.
func (a *Agent) taskStats() (telemetry.TaskStats, bool) {
	p := a.tasks
	if p == nil {
		return telemetry.TaskStats{}, false
	}
	ctx, cancel := context.WithTimeout(context.Background(), statsTimeout)
	defer cancel()
	s, err := p.executor.Stats(ctx)
	kept := p.store.Stats()
	out := telemetry.TaskStats{
		Usable: err == nil && p.store.Problem() == "", Commits: kept.Commits, Writes: kept.Writes,
		Submits: []policy.Count{
			{Label: "accepted", Total: s.Submitted}, {Label: "existed", Total: s.Existed}, {Label: "rejected", Total: s.Rejected},
			{Label: "caller_ran", Total: s.CallerRan}, {Label: "schedule_dropped", Total: s.ScheduleDropped},
		},
	}
	now := time.Now()
	for _, q := range s.Queues {
		t := telemetry.TaskQueueStats{
			Name: q.Name, Paused: q.Paused, Available: q.Available, Scheduled: q.Scheduled, Retryable: q.Retryable, Running: q.Running, Failed: q.Failed, Capacity: q.Capacity,
		}
		if !q.Oldest.IsZero() {
			t.OldestAge = max(now.Sub(q.Oldest), 0)
		}
		out.Queues = append(out.Queues, t)
	}
	for _, k := range s.Kinds {
		t := telemetry.TaskKindStats{Kind: k.Kind, Wait: k.Wait, Run: k.Run}
		for _, o := range tasks.Outcomes() {
			t.Attempts = append(t.Attempts, policy.Count{Label: o.String(), Total: k.Attempts[o]})
		}
		if k.SLA != nil && k.Targets != nil {
			report := k.SLA.Report(a.Now(), slaWindow, *k.Targets)
			t.Report = &report
		}
		out.Kinds = append(out.Kinds, t)
	}
	return out, true
}

// taskTracer makes spans of attempts with the telemetry of the moment. It implements
// tasks.Tracer.
type taskTracer struct {
	telemetry *atomic.Pointer[telemetry.Telemetry]
}

// Attempt implements tasks.Tracer.
func (t taskTracer) Attempt(ctx context.Context, a tasks.Attempt) (context.Context, string, func(tasks.Ending)) {
	t2 := t.telemetry.Load()
	if t2 == nil || t2.Tracer() == nil {
		return ctx, "", func(tasks.Ending) {}
	}
	span, traceparent := t2.Tracer().StartTask(telemetry.Attempt{ID: a.ID, Kind: a.Kind, Queue: a.Queue, Attempt: a.Attempt, Waited: a.Waited, Traceparent: a.Traceparent})
	return ctx, traceparent, func(e tasks.Ending) { span.End(e.Outcome.String(), e.Error) }
}

package tasks

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// callerRuns runs a task for its submit, which waits for it, since its queue is
// full: it ends by the caller's deadline, and nothing of it is stored.
func (e *Executor) callerRuns(ctx context.Context, c *candidate) (*outriggerv1.SubmitTaskResponse, error) {
	most := e.settings.Load().CallerRuns
	if e.callers.Add(1) > int64(most) {
		e.callers.Add(-1)
		e.counters.rejected.Add(1)
		return nil, queueFull(c.job.Queue, e.capacityOf(c.job.Queue), fmt.Sprintf(", and callers run the %d tasks that they may", most))
	}
	defer e.callers.Add(-1)
	submitted := e.now()
	j := store.Job{
		ID: c.job.ID, Kind: c.job.Kind, Queue: c.job.Queue, Priority: c.job.Priority, MaxAttempts: c.job.MaxAttempts, SubmittedAt: submitted, RunAt: submitted,
		Body: c.job.Body, Facts: c.job.Facts, Tags: c.job.Tags, Worker: "its submit",
	}
	for {
		j.Attempt++
		j.StartedAt = e.now()
		attempt, end := e.span(ctx, &j, j.StartedAt.Sub(j.RunAt))
		result, p := e.try(attempt, &j, j.StartedAt)
		now := e.now()
		end(Ending{p.as, p.why})
		if ctx.Err() != nil && p.as != Done {
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		e.record(&j, p, j.StartedAt.Sub(j.RunAt), now.Sub(j.StartedAt))
		if p.ended() {
			return e.callerRan(&j, p, result, now), nil
		}
		j.Failures = append(j.Failures, store.Failure{Attempt: j.Attempt, At: now, Error: p.why})
		if p.as == Snoozed {
			j.MaxAttempts++
			j.Snoozes++
		}
		if d, ok := ctx.Deadline(); ok && !p.at.Before(d) {
			return e.callerRan(&j, giveUp("the next attempt would come after the caller's deadline; "+p.why), nil, now), nil
		}
		j.RunAt = p.at
		if p.progress != nil {
			j.Progress = p.progress
		}
		select {
		case <-time.After(p.at.Sub(now)):
		case <-ctx.Done():
			return nil, status.FromContextError(ctx.Err()).Err()
		case <-e.stopping:
			_, err := e.kept()
			return nil, err
		}
	}
}

// callerRan answers a submit that ran its task.
func (e *Executor) callerRan(j *store.Job, p plan, result *outriggerv1.TaskResult, now time.Time) *outriggerv1.SubmitTaskResponse {
	e.counters.callerRan.Add(1)
	j.EndedAt, j.State, j.Note = now, store.Done, p.why
	if p.as != Done {
		j.State = store.Discarded
	}
	t := e.show(j)
	t.Result = result
	for _, f := range j.Failures {
		t.Failures = append(t.Failures, &outriggerv1.TaskFailure{Attempt: uint32(f.Attempt), At: timeOf(f.At), Error: f.Error})
	}
	if len(t.Failures) > maxFailures {
		t.Failures = t.Failures[len(t.Failures)-maxFailures:]
	}
	return &outriggerv1.SubmitTaskResponse{Task: t, CallerRan: true}
}

package tasks

import (
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// maxFailures is how many failures a task is shown with.
const maxFailures = 10

// states are the store's states as the API names them.
var states = map[store.State]outriggerv1.TaskState{
	store.Scheduled: outriggerv1.TaskState_SCHEDULED,
	store.Available: outriggerv1.TaskState_AVAILABLE,
	store.Pending:   outriggerv1.TaskState_RUNNING,
	store.Running:   outriggerv1.TaskState_RUNNING,
	store.Retryable: outriggerv1.TaskState_RETRYABLE,
	store.Done:      outriggerv1.TaskState_COMPLETED,
	store.Discarded: outriggerv1.TaskState_FAILED,
	store.Cancelled: outriggerv1.TaskState_CANCELLED,
}

// hasEnded reports whether a job of that state has ended.
func hasEnded(s store.State) bool {
	return s == store.Done || s == store.Discarded || s == store.Cancelled
}

func timeOf(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

// show returns a job as the API shows it, without what it contains.
func (e *Executor) show(j *store.Job) *outriggerv1.Task {
	attempts, most := j.Counted()
	t := &outriggerv1.Task{
		Id: FormatID(j.ID), Kind: j.Kind, State: states[j.State], Attempts: uint32(max(attempts, 0)), MaxAttempts: uint32(max(most, 0)), Queue: j.Queue,
		Priority: uint32(max(j.Priority, 0)), Tenant: j.Facts.Tenant, Tags: j.Tags, SubmittedAt: timeOf(j.SubmittedAt), RunAt: timeOf(j.RunAt),
		StartedAt: timeOf(j.StartedAt), EndedAt: timeOf(j.EndedAt), Deadline: timeOf(j.Facts.Deadline), Step: j.Facts.Step,
		CancelRequested: j.CancelRequested && !hasEnded(j.State), Worker: j.Worker, Snoozes: uint32(max(j.Snoozes, 0)),
	}
	if j.State == store.Available && j.RunAt.After(e.now()) { // the store has it ready in good time
		t.State = outriggerv1.TaskState_SCHEDULED
		if attempts > 0 {
			t.State = outriggerv1.TaskState_RETRYABLE
		}
	}
	if j.State != store.Done {
		t.Error = j.Note
	}
	if j.Facts.Parent != 0 {
		t.Parent = FormatID(j.Facts.Parent)
	}
	if j.Kind == KindChain && len(j.Progress) > 0 {
		t.Steps = e.showSteps(j)
	}
	return t
}

// showWhole returns a job with its failures and, if asked for, what it contains
// and what came of it.
func (e *Executor) showWhole(j *store.Job, payload bool) (*outriggerv1.Task, error) {
	t := e.show(j)
	failures := j.Failures
	if len(failures) > maxFailures {
		failures = failures[len(failures)-maxFailures:]
	}
	for _, f := range failures {
		t.Failures = append(t.Failures, &outriggerv1.TaskFailure{Attempt: uint32(max(f.Attempt, 0)), At: timeOf(f.At), Error: short(f.Error)})
	}
	if payload {
		return t, e.showPayload(j, t)
	}
	return t, nil
}

// showPayload adds what a job contains and what came of it.
func (e *Executor) showPayload(j *store.Job, t *outriggerv1.Task) error {
	var err error
	if t.Spec, err = e.specOf(j); err != nil {
		return err
	}
	if j.State == store.Done {
		t.Result, err = e.resultOf(j)
	}
	return err
}

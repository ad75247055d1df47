package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// LeaseTasks leases tasks to a worker.
func (e *Executor) LeaseTasks(ctx context.Context, r *outriggerv1.LeaseTasksRequest) (*outriggerv1.LeaseTasksResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	if err := e.settings.Load().checkAppKinds(r.GetKinds()); err != nil {
		return nil, invalid(err)
	}
	n := int(max(r.GetMaxTasks(), 1))
	// The caller's own deadline does not end the wait with an error: what was
	// leased then would be lost on it.
	waiting, cancel := context.WithTimeout(ctx, r.GetWait().AsDuration())
	defer cancel()
	for {
		p := e.desk.line(r.GetKinds()) // before the look: no arrival goes unseen
		jobs, err := e.leaseJobs(ctx, kept, r.GetKinds(), r.GetWorker(), n, r.GetLease())
		if err != nil || len(jobs) > 0 {
			e.leaveDesk(p, len(jobs) > 0)
			if ctx.Err() != nil {
				e.takeBack(ctx, jobs, goneWhy)
				return nil, status.FromContextError(ctx.Err()).Err()
			}
			return &outriggerv1.LeaseTasksResponse{Tasks: e.handOutAll(ctx, jobs)}, asStatus(err)
		}
		select {
		case <-p.called:
			continue
		case <-waiting.Done():
		case <-e.stopping:
		}
		e.leaveDesk(p, false)
		return &outriggerv1.LeaseTasksResponse{}, nil
	}
}

// goneWhy is why tasks wait again that were leased for a worker and never came to it.
const goneWhy = "its worker was gone before it came"

// takeBack puts tasks off that never came to their worker: they run again at once,
// and no attempt is counted.
func (e *Executor) takeBack(ctx context.Context, jobs []leased, why string) {
	for i := range jobs {
		j := &jobs[i].Job
		if _, err := e.conclude(context.WithoutCancel(ctx), j, putOff(e.now(), Returned, why), nil); err != nil {
			e.options.Logger.Warn("a task that never came to its worker runs again once its lease has lapsed", "task", FormatID(j.ID), "error", err)
		}
	}
}

// leaveDesk ends a worker's wait. Where it found tasks, or was called and went
// away, the next one looks.
func (e *Executor) leaveDesk(p *place, found bool) {
	e.desk.leave(p)
	select {
	case <-p.called:
		found = true
	default:
	}
	if found {
		for _, q := range p.queues {
			e.desk.arrived(q)
		}
	}
}

// checkAppKinds refuses kinds that no app works.
func (s *Settings) checkAppKinds(kinds []string) *FieldError {
	for i, kind := range kinds {
		if !s.Kinds[kind].App {
			return &FieldError{fmt.Sprintf("kinds[%d]", i), fmt.Sprintf("%q is no kind of tasks.kinds that apps work; %s", kind, known(s.appKinds()))}
		}
	}
	return nil
}

// handOutAll returns leased jobs as their worker gets them.
func (e *Executor) handOutAll(ctx context.Context, jobs []leased) []*outriggerv1.LeasedTask {
	out := make([]*outriggerv1.LeasedTask, 0, len(jobs))
	for i := range jobs {
		if l := e.handOut(ctx, &jobs[i]); l != nil {
			out = append(out, l)
		}
	}
	return out
}

// leased is a job that a worker holds.
type leased struct {
	store.Job
	until time.Time
}

// leaseJobs leases jobs. One that is past its deadline is given up instead.
func (e *Executor) leaseJobs(ctx context.Context, kept Store, kinds []string, worker string, n int, told *durationpb.Duration) ([]leased, error) {
	s := e.settings.Load()
	lasts := make(map[string]time.Duration, len(kinds))
	for _, kind := range kinds {
		k := s.Kinds[kind]
		lasts[kind] = min(leaseOf(k, told), k.Timeout)
	}
	// Another kind comes first each time, so that one of which there is much does not
	// hold up the others.
	first := int(e.turn.Add(1) % uint64(len(kinds)))
	queues := append(slices.Clone(kinds[first:]), kinds[:first]...)
	jobs, err := kept.Lease(ctx, store.LeaseRequest{Queues: queues, Worker: worker, Max: n, For: lasts})
	if err != nil {
		return nil, err
	}
	now := e.now()
	out := make([]leased, 0, len(jobs))
	var shorter []int // of out, whose leases are to last until
	var held []store.Held
	var until []time.Time
	for _, j := range jobs {
		if d := j.Facts.Deadline; !d.IsZero() && !now.Before(d) {
			p := overdue(d)
			if p, err := e.conclude(ctx, &j, p, nil); err == nil {
				e.record(&j, p, now.Sub(j.RunAt), 0)
			}
			continue // if it could not be kept, it is tried when its lease has lapsed
		}
		l := leased{j, now.Add(lasts[j.Queue])}
		if latest := e.latest(&j, s.Kinds[j.Kind]); latest.Before(l.until) { // its own timeout, or deadline
			shorter, held, until = append(shorter, len(out)), append(held, store.Held{ID: j.ID, Attempt: j.Attempt}), append(until, latest)
		}
		out = append(out, l)
	}
	if len(held) > 0 {
		if _, err := kept.Renew(ctx, held, until); err == nil { // else they last for as long as all others
			for i, n := range shorter {
				out[n].until = until[i]
			}
		}
	}
	return out, nil
}

func leaseOf(k Kind, told *durationpb.Duration) time.Duration {
	if told != nil {
		return told.AsDuration()
	}
	return k.Lease
}

// latest returns the time by which an attempt of a leased job ends: its timeout,
// or its deadline if that comes first.
func (e *Executor) latest(j *store.Job, k Kind) time.Time {
	at := j.StartedAt.Add(timeoutOf(j, k))
	if d := j.Facts.Deadline; !d.IsZero() && d.Before(at) {
		return d
	}
	return at
}

// handOut returns a leased job as its worker gets it; nil: it can't be read, and
// is given up.
func (e *Executor) handOut(ctx context.Context, l *leased) *outriggerv1.LeasedTask {
	spec, err := e.specOf(&l.Job)
	if err != nil {
		p := giveUp(err.Error())
		if p, err := e.conclude(ctx, &l.Job, p, nil); err == nil {
			e.record(&l.Job, p, 0, 0)
		}
		return nil
	}
	t := &outriggerv1.LeasedTask{
		Id: FormatID(l.ID), Kind: l.Kind, Attempt: uint32(l.Attempt), MaxAttempts: uint32(l.MaxAttempts), Payload: spec.GetApp().GetPayload(),
		LeaseUntil: timeOf(l.until), Deadline: timeOf(l.Facts.Deadline), Tenant: l.Facts.Tenant, Tags: l.Tags, Step: l.Facts.Step, Traceparent: l.Facts.Trace,
	}
	if l.Facts.Parent != 0 {
		t.Parent = FormatID(l.Facts.Parent)
	}
	return t
}

// RenewTasks renews leases.
func (e *Executor) RenewTasks(ctx context.Context, r *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	s, now := e.settings.Load(), e.now()
	out := &outriggerv1.RenewTasksResponse{Leases: make([]*outriggerv1.RenewedLease, len(r.GetLeases()))}
	var held []store.Held
	var until []time.Time
	var at []int // in out
	for i, l := range r.GetLeases() {
		out.Leases[i] = &outriggerv1.RenewedLease{Lease: l}
		id, err := ParseID(l.GetId())
		if err != nil {
			return nil, badID(fmt.Sprintf("leases[%d].id", i), l.GetId())
		}
		j, err := kept.Get(ctx, id)
		switch {
		case errors.Is(err, store.ErrNotFound):
			continue
		case err != nil:
			return nil, asStatus(err)
		}
		k := s.Kinds[j.Kind]
		latest := e.latest(&j, k)
		if !k.App || j.State != store.Running || j.Attempt != int(l.GetAttempt()) || !latest.After(now) {
			continue
		}
		wanted := now.Add(leaseOf(k, r.GetLease()))
		if latest.Before(wanted) {
			wanted = latest
		}
		held, until, at = append(held, store.Held{ID: id, Attempt: j.Attempt}), append(until, wanted), append(at, i)
	}
	if len(held) == 0 {
		return out, nil
	}
	renewed, err := kept.Renew(ctx, held, until)
	if err != nil {
		return nil, asStatus(err)
	}
	for n, r := range renewed {
		out.Leases[at[n]].LeaseUntil, out.Leases[at[n]].CancelRequested = timeOf(r.Until), r.CancelRequested
	}
	return out, nil
}

// heldBy returns the job of a lease that a worker names.
func (e *Executor) heldBy(ctx context.Context, kept Store, l *outriggerv1.TaskLease) (*store.Job, error) {
	id, err := ParseID(l.GetId())
	if err != nil {
		return nil, badID("lease.id", l.GetId())
	}
	j, err := kept.Get(ctx, id)
	switch {
	case err != nil:
		return nil, asStatus(err)
	case !e.settings.Load().Kinds[j.Kind].App:
		return nil, status.Errorf(codes.FailedPrecondition, "lease.id: task %s is of kind %q, which workers don't lease", l.GetId(), j.Kind)
	case j.State != store.Running || j.Attempt != int(l.GetAttempt()):
		return nil, asStatus(store.ErrLost)
	}
	return &j, nil
}

// CompleteTask ends a leased task well.
func (e *Executor) CompleteTask(ctx context.Context, r *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	if err := e.settings.Load().checkResult(r.GetResult()); err != nil {
		return nil, invalid(err)
	}
	j, err := e.heldBy(ctx, kept, r.GetLease())
	if err != nil {
		return nil, err
	}
	t, err := e.endLeased(ctx, kept, j, plan{as: Done}, &outriggerv1.TaskResult{Payload: r.GetResult()})
	return &outriggerv1.CompleteTaskResponse{Task: t}, err
}

// FailTask ends an attempt of a leased task that failed.
func (e *Executor) FailTask(ctx context.Context, r *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	if err := checkFailure(r); err != nil {
		return nil, invalid(err)
	}
	j, err := e.heldBy(ctx, kept, r.GetLease())
	if err != nil {
		return nil, err
	}
	t, err := e.endLeased(ctx, kept, j, e.failed(j, r), nil)
	return &outriggerv1.FailTaskResponse{Task: t}, err
}

// endLeased keeps how a leased job ended, and returns it as it is then.
func (e *Executor) endLeased(ctx context.Context, kept Store, j *store.Job, p plan, result *outriggerv1.TaskResult) (*outriggerv1.Task, error) {
	p, err := e.conclude(ctx, j, p, result)
	if err != nil {
		return nil, asStatus(err)
	}
	e.record(j, p, j.StartedAt.Sub(j.RunAt), e.now().Sub(j.StartedAt))
	now, err := kept.Get(ctx, j.ID)
	if err != nil {
		return nil, asStatus(err)
	}
	return e.show(&now), nil
}

// failed says what becomes of a job whose worker failed.
func (e *Executor) failed(j *store.Job, r *outriggerv1.FailTaskRequest) plan {
	if j.CancelRequested {
		return stopped(cancelledWhy + "; " + short(r.GetError()))
	}
	f := failure{
		why: short(r.GetError()), permanent: r.GetPermanent(), snooze: r.GetSnooze(),
		after: r.GetRetryAfter().AsDuration(), exactly: r.GetRetryAfter() != nil,
	}
	return decide(j, e.settings.Load().Kinds[j.Kind], f, e.now(), e.options.Random())
}

func (s *Settings) checkResult(p *outriggerv1.Payload) *FieldError {
	if size := len(p.GetData()); size > s.MaxPayload {
		return &FieldError{"result.data", fmt.Sprintf("it has %d bytes, and may have %d (tasks.max_payload)", size, s.MaxPayload)}
	}
	return checkPayload("result", p)
}

func checkFailure(r *outriggerv1.FailTaskRequest) *FieldError {
	switch {
	case r.GetSnooze() && r.GetRetryAfter() == nil:
		return &FieldError{"retry_after", "is missing: snooze puts the task off for as long as it says"}
	case r.GetSnooze() && r.GetPermanent():
		return &FieldError{"permanent", "is given together with snooze; want one of the two"}
	}
	return nil
}

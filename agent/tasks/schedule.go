package tasks

import (
	"context"
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// missedAfter is how late a schedule may run before SKIP takes its time for missed:
// an agent restarts within it.
const missedAfter = time.Minute

// scheduleRetry is how soon a schedule is looked at again that can't be read now.
const scheduleRetry = time.Minute

// fire returns the times at which a schedule's tasks are due now, the oldest first,
// and when it is to be looked at next (zero: never). runAt is the time for which it
// was put off last, or when an operator asked for it.
func (t timetable) fire(runAt, now time.Time) (run []time.Time, next time.Time) {
	run, next = t.due(runAt, now, missedAfter)
	switch {
	case t.missed == outriggerv1.TaskSchedule_RUN_ALL:
		run = append([]time.Time{runAt}, run...)
		run = run[max(0, len(run)-maxMissed):]
	case len(run) == 0 && t.missed == outriggerv1.TaskSchedule_SKIP && now.Sub(runAt) > missedAfter:
	case len(run) == 0:
		run = []time.Time{runAt}
	}
	return run, next
}

// doSchedule submits what a schedule has due, and puts the schedule off until its
// next time, in one transaction: a crash loses none and repeats none.
func (e *Executor) doSchedule(ctx context.Context, j *store.Job) {
	now := e.now()
	spec, err := e.specOf(j)
	if err != nil {
		e.finish(ctx, j, plan{outcome: store.Retry(now.Add(scheduleRetry), err.Error()), as: Retried, why: err.Error()}, nil)
		return
	}
	times, problem := parseSchedule(spec.GetSchedule())
	if problem != nil {
		e.finish(ctx, j, giveUp(problem.Error()), nil)
		return
	}
	run, next := times.fire(j.RunAt, now)
	instances, note := e.instances(j, spec, run, now)
	for _, c := range instances {
		defer e.places.give(c.wants)
	}
	outcome := store.Snooze(next, note)
	if d := j.Facts.Deadline; next.IsZero() || !d.IsZero() && next.After(d) {
		outcome = store.Completed(nil)
	}
	err = e.untilKept(ctx, func(ctx context.Context) error {
		return (*e.store.Load()).Finish(ctx, store.Held{ID: j.ID, Attempt: j.Attempt}, outcome, func(ctx context.Context, tx store.Tx) error {
			return insertInstances(ctx, tx, instances)
		})
	})
	if err != nil {
		e.options.Logger.Error("a schedule could not submit what is due: it is tried again", "schedule", FormatID(j.ID), "error", err)
		return
	}
	e.counters.submitted.Add(uint64(len(instances)))
}

// instances makes the tasks of a schedule's times. Those whose queue is full are
// left out; note says so. Their places are taken.
func (e *Executor) instances(j *store.Job, spec *outriggerv1.TaskSpec, run []time.Time, now time.Time) (all []*candidate, note string) {
	kept := *e.store.Load()
	leaveOut := func(at time.Time, why string) {
		note = fmt.Sprintf("the task of %s was left out: %s", at.UTC().Format(time.RFC3339), why)
		e.counters.scheduleDropped.Add(1)
		e.options.Logger.Warn("a task of a schedule was left out", "schedule", FormatID(j.ID), "time", at, "error", why)
	}
	for _, at := range run {
		if d := j.Facts.Deadline; !d.IsZero() && at.After(d) {
			continue
		}
		c, err := e.instance(j, spec, at, now)
		if err != nil {
			leaveOut(at, err.Error())
			continue
		}
		if full, ok := e.places.take(c.wants, e.capacityOf, kept.Waiting); !ok {
			leaveOut(at, fmt.Sprintf("queue %q has the %d waiting tasks that it may have", full, e.capacityOf(full)))
			continue
		}
		all = append(all, c)
	}
	return all, note
}

// instance makes the task of one of a schedule's times.
func (e *Executor) instance(j *store.Job, schedule *outriggerv1.TaskSpec, at, now time.Time) (*candidate, error) {
	spec := proto.CloneOf(schedule)
	spec.Schedule, spec.RunAt, spec.Delay, spec.Deadline, spec.Unique = nil, nil, nil, nil, nil
	// What the configuration allowed once it may not allow any more.
	if err := e.settings.Load().checkSpec(spec, nil, now); err != nil {
		return nil, err
	}
	c := &candidate{spec: spec}
	var err error
	if c.job, err = e.newJob(spec, now, ""); err != nil {
		return nil, err
	}
	c.job.Unique, c.job.Facts.Parent, c.job.Facts.Due = instanceKey(j.ID, at), j.ID, at
	return c, e.prepare(c)
}

func insertInstances(ctx context.Context, tx store.Tx, all []*candidate) error {
	if len(all) == 0 {
		return nil
	}
	jobs := make([]store.New, len(all))
	for i, c := range all {
		jobs[i] = c.job
	}
	inserted, err := tx.Insert(ctx, jobs)
	if err != nil {
		return err
	}
	for i, c := range all {
		if c.start == nil || inserted[i].Existed {
			continue
		}
		if err := c.start.insert(ctx, tx, &inserted[i].Job); err != nil {
			return err
		}
	}
	return nil
}

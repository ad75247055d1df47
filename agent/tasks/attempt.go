package tasks

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// finishFor is how long the end of an attempt is tried to be kept while the store
// can't be written; afterwards the lease has lapsed, and the task runs again.
const finishFor = 30 * time.Second

// Why tasks ended, or were given back, that no attempt is to blame for.
const (
	cancelledWhy = "somebody cancelled it"
	stoppedWhy   = "the agent stopped before it was done"
)

// do makes one attempt of a job; it implements store.Work.Do.
func (e *Executor) do(ctx context.Context, j store.Job) {
	if j.Kind == KindSchedule {
		e.doSchedule(ctx, &j)
		return
	}
	started := e.now()
	waited := started.Sub(j.RunAt)
	attempt, end := e.span(ctx, &j, waited)
	result, p := e.try(attempt, &j, started)
	if errors.Is(context.Cause(ctx), store.ErrLeaseOver) {
		p = plan{as: Lost, why: "the store could not be reached for as long as a lease lasts"}
	} else {
		p = e.finish(ctx, &j, p, result)
	}
	end(Ending{p.as, p.why})
	e.record(&j, p, waited, e.now().Sub(started))
}

// span begins the span of an attempt.
func (e *Executor) span(ctx context.Context, j *store.Job, waited time.Duration) (context.Context, func(Ending)) {
	trace, end := j.Facts.Trace, func(Ending) {}
	if t := e.options.Tracer; t != nil {
		a := Attempt{ID: FormatID(j.ID), Kind: j.Kind, Queue: j.Queue, Attempt: j.Attempt, Waited: waited, Traceparent: j.Facts.Trace}
		var sent string
		if ctx, sent, end = t.Attempt(ctx, a); sent != "" {
			trace = sent
		}
	}
	return context.WithValue(ctx, traceKey{}, trace), end
}

// traceKey is where a context has the traceparent that attempts send.
type traceKey struct{}

// try does a job's work once and says what becomes of the job.
func (e *Executor) try(ctx context.Context, j *store.Job, now time.Time) (*outriggerv1.TaskResult, plan) {
	if d := j.Facts.Deadline; !d.IsZero() && !now.Before(d) {
		return nil, overdue(d)
	}
	spec, err := e.specOf(j)
	if err != nil {
		return nil, giveUp(err.Error())
	}
	k := e.settings.Load().Kinds[j.Kind]
	limit := timeoutOf(j, k)
	if d := j.Facts.Deadline; !d.IsZero() {
		limit = min(limit, d.Sub(now))
	}
	timed, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	result, f := e.work(timed, j, spec)
	if f == nil {
		return result, plan{as: Done}
	}
	switch cause := context.Cause(ctx); {
	case errors.Is(cause, store.ErrCancelled):
		return nil, stopped(cancelledWhy)
	case errors.Is(cause, store.ErrStopping):
		return nil, putOff(e.now(), Returned, stoppedWhy)
	}
	return nil, decide(j, k, *f, e.now(), e.options.Random())
}

func overdue(deadline time.Time) plan {
	return giveUp(fmt.Sprintf("%s: it was not done by %s", ReasonDeadline, deadline.UTC().Format(time.RFC3339)))
}

// timeoutOf returns how long an attempt of a job may take.
func timeoutOf(j *store.Job, k Kind) time.Duration {
	if ms := j.Facts.Timeout; ms > 0 {
		return time.Duration(ms) * time.Millisecond
	}
	if k.Timeout > 0 {
		return k.Timeout
	}
	return defaultTimeout // its kind left the configuration
}

// defaultTimeout is how long an attempt may take of which nothing is said.
const defaultTimeout = 30 * time.Second

// work does a job's work; nil: it is done.
func (e *Executor) work(ctx context.Context, j *store.Job, spec *outriggerv1.TaskSpec) (*outriggerv1.TaskResult, *failure) {
	switch w := spec.GetWork().(type) {
	case *outriggerv1.TaskSpec_Grpc:
		return e.doGRPC(ctx, j, w.Grpc)
	case *outriggerv1.TaskSpec_Http:
		return e.doHTTP(ctx, j, w.Http)
	case *outriggerv1.TaskSpec_Email:
		return e.doEmail(ctx, j, w.Email)
	}
	return nil, &failure{why: fmt.Sprintf("this agent can't do work of kind %q", j.Kind), permanent: true}
}

// finish keeps how an attempt ended, and tries so until its lease is over. It
// returns what became of the job: Lost, where another attempt counts by now.
func (e *Executor) finish(ctx context.Context, j *store.Job, p plan, result *outriggerv1.TaskResult) plan {
	err := e.untilKept(ctx, func(ctx context.Context) (err error) {
		p, err = e.conclude(ctx, j, p, result)
		return err
	})
	switch {
	case err == nil:
		return p
	case errors.Is(err, store.ErrLost), errors.Is(err, store.ErrNotFound):
		return plan{as: Lost, why: store.ErrLost.Error()}
	}
	e.options.Logger.Error("how an attempt of a task ended could not be kept: the task runs again", "task", FormatID(j.ID), "kind", j.Kind, "attempt", j.Attempt, "error", err)
	return plan{as: Lost, why: "the store can't be written: " + err.Error()}
}

// conclude keeps how an attempt ended and, in the same transaction, moves the
// chain on that the job is a step of. It returns what became of the job: one whose
// result can't be kept is given up.
func (e *Executor) conclude(ctx context.Context, j *store.Job, p plan, result *outriggerv1.TaskResult) (plan, error) {
	if p.as == Done {
		output, err := e.seal(j.ID, partOutput, result)
		if err != nil {
			p = giveUp("its result can't be kept: " + err.Error())
		} else {
			p.outcome = store.Completed(output)
		}
	}
	var also func(context.Context, store.Tx) error
	var end *chainEnd
	switch {
	case p.progress != nil:
		also = func(ctx context.Context, tx store.Tx) error { return tx.SetProgress(ctx, j.ID, p.progress) }
	case p.ended() && j.Facts.Step != "":
		also = func(ctx context.Context, tx store.Tx) (err error) {
			end, err = e.stepEnded(ctx, tx, j, p, result)
			return err
		}
	}
	err := (*e.store.Load()).Finish(ctx, store.Held{ID: j.ID, Attempt: j.Attempt}, p.outcome, also)
	if err == nil {
		e.chainEnded(end)
	}
	return p, err
}

// untilKept calls write until the store answers: with success, or that the lease
// is over. It gives up after finishFor, and when the lease of ctx is over.
func (e *Executor) untilKept(ctx context.Context, write func(context.Context) error) error {
	// What was cancelled or is stopping must be kept all the same.
	writing, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishFor)
	defer cancel()
	defer context.AfterFunc(ctx, func() {
		if errors.Is(context.Cause(ctx), store.ErrLeaseOver) {
			cancel()
		}
	})()
	for wait := 20 * time.Millisecond; ; wait = min(2*wait, time.Second) {
		err := write(writing)
		if err == nil || errors.Is(err, store.ErrLost) || errors.Is(err, store.ErrNotFound) || writing.Err() != nil {
			return err
		}
		select {
		case <-writing.Done():
			return err
		case <-e.hurry:
			return err
		case <-time.After(wait):
		}
	}
}

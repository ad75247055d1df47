package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// candidate is a task on its way into the store.
type candidate struct {
	spec *outriggerv1.TaskSpec
	job  store.New
	// wants is how many places it takes, or its first steps, by queue.
	wants map[string]int
	// digest is of what was submitted under an idempotency key; nil: there is none.
	digest []byte
	// start is how its chain begins; nil: it is none.
	start *chainStart
	// callerRuns: the submit runs it if the queue is full.
	callerRuns bool
}

// SubmitTask accepts a task.
func (e *Executor) SubmitTask(ctx context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	now := e.now()
	c, err := e.candidate(ctx, r, now)
	if err != nil {
		return nil, asStatus(err)
	}
	if full, ok := e.places.take(c.wants, e.capacityOf, kept.Waiting); !ok {
		return e.submitToFull(ctx, kept, c, full)
	}
	defer e.places.give(c.wants)
	inserted, err := e.insert(ctx, kept, []*candidate{c})
	if err != nil {
		return nil, asStatus(err)
	}
	return e.submitted(inserted[0]), nil
}

// SubmitTasks accepts several, all or none.
func (e *Executor) SubmitTasks(ctx context.Context, r *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error) {
	kept, err := e.kept()
	if err != nil {
		return nil, err
	}
	now := e.now()
	all := make([]*candidate, len(r.GetTasks()))
	wanted, seen := map[string]int{}, map[string]int{}
	for i, one := range r.GetTasks() {
		field := fmt.Sprintf("tasks[%d]", i)
		if one.GetWhenFull() == outriggerv1.SubmitTaskRequest_CALLER_RUNS {
			return nil, invalid(&FieldError{field + ".when_full", "CALLER_RUNS can't be had for several tasks at once; submit them one by one"})
		}
		c, err := e.candidate(ctx, one, now)
		if err != nil {
			return nil, asStatus(withinField(field, err))
		}
		if key := string(c.job.Unique); key != "" {
			if first, ok := seen[key]; ok {
				return nil, invalid(&FieldError{field, fmt.Sprintf("it has the idempotency_key or the unique.key of tasks[%d]; want each once", first)})
			}
			seen[key] = i
		}
		all[i] = c
		for queue, n := range c.wants {
			wanted[queue] += n
		}
	}
	if full, ok := e.places.take(wanted, e.capacityOf, kept.Waiting); !ok {
		e.counters.rejected.Add(uint64(len(all)))
		return nil, queueFull(full, e.capacityOf(full), fmt.Sprintf(", or no room for %d more", wanted[full]))
	}
	defer e.places.give(wanted)
	inserted, err := e.insert(ctx, kept, all)
	if err != nil {
		return nil, asStatus(err)
	}
	out := &outriggerv1.SubmitTasksResponse{}
	for _, i := range inserted {
		out.Tasks = append(out.Tasks, e.submitted(i))
	}
	return out, nil
}

func (e *Executor) submitted(i store.Inserted) *outriggerv1.SubmitTaskResponse {
	if i.Existed {
		e.counters.existed.Add(1)
	} else {
		e.counters.submitted.Add(1)
	}
	return &outriggerv1.SubmitTaskResponse{Task: e.show(&i.Job), Existed: i.Existed}
}

// withinField prefixes a field's error with the message that holds it.
func withinField(outer string, err error) error {
	var field *FieldError
	if errors.As(err, &field) {
		return field.within(outer)
	}
	return err
}

// candidate checks a submit and makes its job.
func (e *Executor) candidate(ctx context.Context, r *outriggerv1.SubmitTaskRequest, now time.Time) (*candidate, error) {
	s, spec := e.settings.Load(), r.GetTask()
	if err := s.checkSpec(spec, nil, now); err != nil {
		return nil, withinField("task", err)
	}
	if r.GetIdempotencyKey() != "" && spec.GetUnique() != nil {
		return nil, &FieldError{"idempotency_key", "is given together with task.unique; want one of the two"}
	}
	if err := checkWhenFull(r); err != nil {
		return nil, err
	}
	c := &candidate{spec: spec}
	var err error
	if c.job, err = e.newJob(spec, now, traceOf(ctx)); err != nil {
		return nil, withinField("task", err)
	}
	if key := r.GetIdempotencyKey(); key != "" {
		c.job.Unique = idempotencyKey(key)
		if c.digest, err = digestOf(spec); err != nil {
			return nil, err
		}
		if c.job.Facts.Digest, err = sealed(s, c.job.ID, partDigest, c.digest); err != nil {
			return nil, err
		}
	}
	if err = e.prepare(c); err != nil {
		return nil, withinField("task", err)
	}
	c.callerRuns = r.GetWhenFull() == outriggerv1.SubmitTaskRequest_CALLER_RUNS ||
		r.GetWhenFull() == outriggerv1.SubmitTaskRequest_WHEN_FULL_UNSPECIFIED && s.Queues[c.job.Queue].CallerRuns && inlineProblem(r) == nil
	return c, nil
}

// prepare begins a candidate's chain, if it is one, and says which places it wants.
// A schedule wants none: its tasks do when their time has come.
func (e *Executor) prepare(c *candidate) (err error) {
	c.wants = map[string]int{}
	switch c.job.Kind {
	case KindSchedule:
	case KindChain:
		if c.start, err = e.beginChain(c.spec, &c.job); err != nil {
			return err
		}
		for _, j := range c.start.jobs {
			c.wants[j.Queue]++
		}
	default:
		c.wants[c.job.Queue] = 1
	}
	return nil
}

// checkWhenFull refuses CALLER_RUNS for what a submit can't run.
func checkWhenFull(r *outriggerv1.SubmitTaskRequest) error {
	if r.GetWhenFull() != outriggerv1.SubmitTaskRequest_CALLER_RUNS {
		return nil
	}
	if problem := inlineProblem(r); problem != nil {
		return problem
	}
	return nil
}

// inlineProblem says why a submit can't run its task itself; nil: it can.
func inlineProblem(r *outriggerv1.SubmitTaskRequest) *FieldError {
	spec := r.GetTask()
	kind, _ := kindOf(spec)
	var why string
	switch {
	case kind != KindGRPC && kind != KindHTTP && kind != KindEmail:
		why = fmt.Sprintf("is for grpc, http and email, not for tasks of kind %q", kind)
	case spec.GetSchedule() != nil:
		why = "is not for schedules"
	case spec.GetRunAt() != nil || spec.GetDelay() != nil:
		why = "is not for tasks that run later (run_at, delay)"
	case r.GetIdempotencyKey() != "" || spec.GetUnique() != nil:
		why = "is not for tasks with idempotency_key or unique: only what is stored can be told to be there"
	default:
		return nil
	}
	return &FieldError{"when_full", "CALLER_RUNS " + why}
}

// insert keeps the candidates, all or none, chains with their first steps.
func (e *Executor) insert(ctx context.Context, kept Store, all []*candidate) ([]store.Inserted, error) {
	jobs := make([]store.New, len(all))
	plain := true // one insert alone
	for i, c := range all {
		jobs[i] = c.job
		plain = plain && c.start == nil && (c.digest == nil || len(all) == 1)
	}
	if plain {
		inserted, err := kept.Insert(ctx, jobs)
		if err != nil {
			return nil, err
		}
		return inserted, e.sameContent(inserted, all)
	}
	var inserted []store.Inserted
	err := kept.Update(ctx, func(ctx context.Context, tx store.Tx) error {
		var err error
		if inserted, err = tx.Insert(ctx, jobs); err != nil {
			return err
		}
		if err = e.sameContent(inserted, all); err != nil {
			return err
		}
		for i, c := range all {
			if c.start == nil || inserted[i].Existed {
				continue
			}
			if err = c.start.insert(ctx, tx, &inserted[i].Job); err != nil {
				return err
			}
		}
		return nil
	})
	return inserted, err
}

// sameContent refuses other content under an idempotency key that is there.
func (e *Executor) sameContent(inserted []store.Inserted, all []*candidate) error {
	for i, c := range all {
		if c.digest == nil || !inserted[i].Existed {
			continue
		}
		there := &inserted[i].Job
		digest, err := opened(e.settings.Load(), there.ID, partDigest, there.Facts.Digest)
		if err != nil {
			return fmt.Errorf("the digest of the task that has the idempotency key can't be read: %w", err)
		}
		if !bytes.Equal(digest, c.digest) {
			return status.Errorf(codes.AlreadyExists, "idempotency_key: task %s was submitted under this key with other content; use another key for other content", FormatID(there.ID))
		}
	}
	return nil
}

// capacityOf returns how many tasks may wait in a queue; of one that is no more,
// none.
func (e *Executor) capacityOf(queue string) int {
	capacity, _ := e.settings.Load().capacity(queue)
	return capacity
}

// submitToFull is a submit to a queue that has all it may hold: a task that is
// there already is found all the same, and some the submit runs itself.
func (e *Executor) submitToFull(ctx context.Context, kept Store, c *candidate, full string) (*outriggerv1.SubmitTaskResponse, error) {
	if c.job.Unique != nil {
		found, err := e.find(ctx, kept, c)
		if err != nil {
			return nil, asStatus(err)
		}
		if found != nil {
			return e.submitted(*found), nil
		}
	}
	if c.callerRuns {
		return e.callerRuns(ctx, c)
	}
	e.counters.rejected.Add(1)
	return nil, queueFull(full, e.capacityOf(full), "")
}

// find returns the job that a candidate's key names; nil: there is none.
func (e *Executor) find(ctx context.Context, kept Store, c *candidate) (*store.Inserted, error) {
	j, err := kept.Find(ctx, c.job.Unique)
	switch {
	case errors.Is(err, store.ErrNotFound):
		return nil, nil
	case err != nil:
		return nil, err
	case c.job.UntilEnded && hasEnded(j.State):
		return nil, nil
	}
	found := store.Inserted{Job: j, Existed: true}
	return &found, e.sameContent([]store.Inserted{found}, []*candidate{c})
}

// traceOf returns the traceparent of a request; empty: it has none.
func traceOf(ctx context.Context) string {
	md, _ := metadata.FromIncomingContext(ctx)
	if v := md.Get("traceparent"); len(v) == 1 && len(v[0]) <= 64 {
		return v[0]
	}
	return ""
}

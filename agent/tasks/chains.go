package tasks

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"time"

	lru "github.com/hashicorp/golang-lru/v2"
	"google.golang.org/protobuf/proto"

	"github.com/outrigger-rpc/outrigger/agent/tasks/chain"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// A chain's row is never run. Its progress is the state of the chain's machine and
// which tasks are its steps'; whatever ends a step's task moves the chain on in the
// same transaction, so that a crash comes before all of it or after.

// outputsMost is how many times MaxPayload the results of a chain's steps may have
// together.
const outputsMost = 8

// chainProgress is what a chain's row keeps of its way.
type chainProgress struct {
	Names []string         `json:"names"` // of the steps, in their order
	State chain.State      `json:"state"`
	Tasks map[string]int64 `json:"tasks,omitempty"` // of steps that were started
	Undo  map[string]int64 `json:"undo,omitempty"`  // of compensations that were
}

// underway is a chain that is moved.
type underway struct {
	e       *Executor
	id      int64
	facts   store.Facts
	runAt   time.Time // of steps that start now; zero: at once
	prio    int
	spec    *outriggerv1.TaskSpec
	program *chain.Program
	at      chainProgress
	// insert are the tasks that start.
	insert []store.New
	end    *plan // how the chain ended; nil: it has not
}

// chainEnd is a chain that ended in a transaction, to be counted once that is kept.
type chainEnd struct {
	job  store.Job
	plan plan
}

// programs keeps the machines of chains that were seen lately: they cost far more
// to make than to use.
type programs struct {
	cache *lru.Cache[string, *chain.Program]
}

// programsKept is how many machines are kept.
const programsKept = 256

func newPrograms() programs {
	cache, err := lru.New[string, *chain.Program](programsKept)
	if err != nil {
		panic(err) // its size is a constant above 0
	}
	return programs{cache}
}

// of returns a chain's machine.
func (p programs) of(c *outriggerv1.ChainWork) (*chain.Program, error) {
	// Chains that differ in their input alone share one.
	key, err := proto.MarshalOptions{Deterministic: true}.Marshal(&outriggerv1.ChainWork{Steps: c.GetSteps(), Output: c.GetOutput()})
	if err != nil {
		return nil, err
	}
	if program, ok := p.cache.Get(string(key)); ok {
		return program, nil
	}
	program, err := chain.Compile(definitionOf(c))
	if err != nil {
		return nil, err
	}
	p.cache.Add(string(key), program)
	return program, nil
}

// chainStart is how a chain begins.
type chainStart struct {
	jobs     []store.New
	progress []byte
	end      *plan // nil: it goes on
}

// insert keeps the beginning of a chain whose row was inserted.
func (c *chainStart) insert(ctx context.Context, tx store.Tx, parent *store.Job) error {
	if _, err := tx.Insert(ctx, c.jobs); err != nil {
		return err
	}
	if err := tx.SetProgress(ctx, parent.ID, c.progress); err != nil {
		return err
	}
	parent.Progress = c.progress
	if c.end == nil {
		return nil
	}
	if err := tx.End(ctx, parent.ID, c.end.outcome); err != nil {
		return err
	}
	ended, err := tx.Get(ctx, parent.ID)
	if err == nil {
		*parent = ended
	}
	return err
}

// beginChain makes the beginning of a chain; job is its row.
func (e *Executor) beginChain(spec *outriggerv1.TaskSpec, job *store.New) (*chainStart, error) {
	program, err := e.programs.of(spec.GetChain())
	if err != nil {
		return nil, err
	}
	u := &underway{e: e, id: job.ID, facts: job.Facts, runAt: job.RunAt, prio: job.Priority, spec: spec, program: program, at: chainProgress{Names: program.Names()}}
	state, d, err := program.Begin(FormatID(job.ID), valueOf(spec.GetChain().GetInput()))
	if err != nil {
		return nil, err
	}
	u.at.State = state
	if err := u.follow(context.Background(), nil, d); err != nil {
		return nil, err
	}
	progress, err := u.encode()
	if err != nil {
		return nil, err
	}
	return &chainStart{jobs: u.insert, progress: progress, end: u.end}, nil
}

func (u *underway) encode() ([]byte, error) {
	b, err := json.Marshal(u.at)
	if err != nil {
		return nil, err
	}
	return sealed(u.e.settings.Load(), u.id, partProgress, b)
}

// progressOf reads a chain's way.
func (e *Executor) progressOf(j *store.Job) (p chainProgress, err error) {
	b, err := opened(e.settings.Load(), j.ID, partProgress, j.Progress)
	if err != nil {
		return p, fmt.Errorf("the chain's progress can't be read: %w", err)
	}
	if err := json.Unmarshal(b, &p); err != nil {
		return p, fmt.Errorf("the chain's progress can't be read: %w", err)
	}
	return p, nil
}

// resume returns a chain that is under way.
func (e *Executor) resume(j *store.Job) (*underway, error) {
	spec, err := e.specOf(j)
	if err != nil {
		return nil, err
	}
	program, err := e.programs.of(spec.GetChain())
	if err != nil {
		return nil, fmt.Errorf("its steps can't be read any more: %w", err)
	}
	at, err := e.progressOf(j)
	if err != nil {
		return nil, err
	}
	return &underway{e: e, id: j.ID, facts: j.Facts, prio: j.Priority, spec: spec, program: program, at: at}, nil
}

// tell tells a chain of an event, and does what follows from it; it returns the
// chain if it ended with it. What can't be read any more ends the chain: its steps
// must end all the same.
func (e *Executor) tell(ctx context.Context, tx store.Tx, parent *store.Job, event chain.Event) (*chainEnd, error) {
	u, err := e.resume(parent)
	if err != nil {
		return abandon(ctx, tx, parent, err)
	}
	state, d, err := u.program.Next(u.at.State, event)
	if err != nil {
		return abandon(ctx, tx, parent, err)
	}
	u.at.State = state
	if err := u.follow(ctx, tx, d); err != nil {
		return nil, err
	}
	return u.keep(ctx, tx, parent)
}

// abandon ends a chain that can't be moved on.
func abandon(ctx context.Context, tx store.Tx, parent *store.Job, why error) (*chainEnd, error) {
	p := giveUp(short(why.Error()))
	return &chainEnd{*parent, p}, tx.End(ctx, parent.ID, p.outcome)
}

// keep writes what became of a chain.
func (u *underway) keep(ctx context.Context, tx store.Tx, parent *store.Job) (*chainEnd, error) {
	if _, err := tx.Insert(ctx, u.insert); err != nil {
		return nil, err
	}
	progress, err := u.encode()
	if err != nil {
		return abandon(ctx, tx, parent, err)
	}
	if err := tx.SetProgress(ctx, parent.ID, progress); err != nil {
		return nil, err
	}
	if u.end == nil {
		return nil, nil
	}
	return &chainEnd{*parent, *u.end}, tx.End(ctx, parent.ID, u.end.outcome)
}

// chainEnded counts a chain that has ended; nil: none has.
func (e *Executor) chainEnded(c *chainEnd) {
	if c != nil {
		e.record(&c.job, c.plan, 0, e.now().Sub(c.job.SubmittedAt))
	}
}

// follow does what the machine decided, and what follows from that. Without a
// transaction nothing was started before.
func (u *underway) follow(ctx context.Context, tx store.Tx, d chain.Decision) error {
	var events []chain.Event
	for {
		for _, start := range d.Start {
			if problem := u.start(start); problem != "" {
				kind := chain.StepFailed
				if start.Undo {
					kind = chain.UndoFailed
				}
				events = append(events, chain.Event{Kind: kind, Step: start.Step, Error: problem})
			}
		}
		for _, step := range d.Cancel {
			over, err := u.cancel(ctx, tx, step)
			if err != nil {
				return err
			}
			if over {
				events = append(events, chain.Event{Kind: chain.StepCancelled, Step: step, Error: cancelledWhy})
			}
		}
		if d.Finished {
			u.finish(d)
			return nil
		}
		if len(events) == 0 {
			return nil
		}
		var err error
		if u.at.State, d, err = u.program.Next(u.at.State, events[0]); err != nil {
			return err
		}
		events = events[1:]
	}
}

// start makes the task of a step, or of what undoes it; problem says why it can't.
func (u *underway) start(start chain.Start) (problem string) {
	job, err := u.task(start)
	if err != nil {
		return short(err.Error())
	}
	u.insert = append(u.insert, job)
	tasks := &u.at.Tasks
	if start.Undo {
		tasks = &u.at.Undo
	}
	if *tasks == nil {
		*tasks = map[string]int64{}
	}
	(*tasks)[start.Step] = job.ID
	return ""
}

func (u *underway) task(start chain.Start) (job store.New, err error) {
	step := stepNamed(u.spec.GetChain(), start.Step)
	task, expressions := step.GetTask(), step.GetMap()
	if start.Undo {
		task, expressions = step.GetCompensation().GetTask(), step.GetCompensation().GetMap()
	}
	spec := proto.CloneOf(task)
	if problem := fill(spec, start.Fields); problem != nil {
		return job, problem
	}
	now := u.e.now()
	if spec.GetTenant() == "" {
		spec.Tenant = u.facts.Tenant
	}
	if spec.GetPriority() == 0 {
		spec.Priority = uint32(u.prio)
	}
	if len(expressions) > 0 { // else it was judged when it was submitted
		if err := checkRules(spec, nil); err != nil {
			return job, err
		}
	}
	if err := u.e.settings.Load().checkSpec(spec, nil, now); err != nil {
		return job, err
	}
	if job, err = u.e.newJob(spec, now, u.facts.Trace); err != nil {
		return job, err
	}
	job.RunAt, job.Facts.Due = u.runAt, u.runAt
	job.Facts.Parent, job.Facts.Step, job.Facts.Undo, job.Facts.Retention = u.id, start.Step, start.Undo, u.facts.Retention
	if !start.Undo { // what was begun is undone, however late
		job.Facts.Deadline = u.facts.Deadline
	}
	return job, nil
}

func stepNamed(c *outriggerv1.ChainWork, name string) *outriggerv1.ChainStep {
	for _, s := range c.GetSteps() {
		if s.GetName() == name {
			return s
		}
	}
	return nil
}

// cancel stops a step's task. over: it will tell nothing of its end.
func (u *underway) cancel(ctx context.Context, tx store.Tx, step string) (over bool, err error) {
	id := u.at.Tasks[step]
	for i := range u.insert {
		if u.insert[i].ID == id { // it has not begun
			u.insert = append(u.insert[:i], u.insert[i+1:]...)
			delete(u.at.Tasks, step)
			return true, nil
		}
	}
	if err := tx.Cancel(ctx, id); err != nil {
		return errors.Is(err, store.ErrNotFound), ignore(err, store.ErrNotFound)
	}
	j, err := tx.Get(ctx, id)
	return err == nil && hasEnded(j.State), err
}

// ignore returns err unless it is one that is no failure here.
func ignore(err, harmless error) error {
	if errors.Is(err, harmless) {
		return nil
	}
	return err
}

// finish says how the chain ended.
func (u *underway) finish(d chain.Decision) {
	why := short(d.Error)
	p := giveUp(why)
	switch u.at.State.Phase {
	case chain.Completed:
		output, err := u.e.seal(u.id, partOutput, &outriggerv1.TaskResult{Payload: payloadOf(d.Output)})
		if err != nil {
			p = giveUp("its result can't be kept: " + err.Error())
			break
		}
		p = plan{outcome: store.Completed(output), as: Done}
	case chain.Cancelled:
		p = stopped(why)
	}
	u.end = &p
}

// stepEnded tells a chain, in the transaction that ends a step's task, how it
// ended. It returns the chain if that ended too.
func (e *Executor) stepEnded(ctx context.Context, tx store.Tx, j *store.Job, p plan, result *outriggerv1.TaskResult) (*chainEnd, error) {
	parent, err := tx.Get(ctx, j.Facts.Parent)
	if err != nil || parent.State != store.Pending {
		return nil, ignore(err, store.ErrNotFound)
	}
	at, err := e.progressOf(&parent)
	if err != nil {
		return abandon(ctx, tx, &parent, err)
	}
	if at.current(j) != j.ID { // of an earlier run of the chain
		return nil, nil
	}
	event := eventOf(j, p, result)
	size, most := outputSize(&at.State)+len(event.Output.Data), outputsMost*e.settings.Load().MaxPayload
	if size <= most {
		return e.tell(ctx, tx, &parent, event)
	}
	event.Output = chain.Value{}
	end, err := e.tell(ctx, tx, &parent, event)
	if err != nil || end != nil {
		return end, err
	}
	if parent, err = tx.Get(ctx, parent.ID); err != nil {
		return nil, err
	}
	return e.tell(ctx, tx, &parent, chain.Event{Kind: chain.Fail, Error: fmt.Sprintf(
		"the results of its steps have %d bytes together, and may have %d (%d times tasks.max_payload)", size, most, outputsMost)})
}

// current returns the task that a job's step has now, or what undoes it.
func (p *chainProgress) current(j *store.Job) int64 {
	if j.Facts.Undo {
		return p.Undo[j.Facts.Step]
	}
	return p.Tasks[j.Facts.Step]
}

// eventOf returns the end of a step's task as the machine knows it.
func eventOf(j *store.Job, p plan, result *outriggerv1.TaskResult) chain.Event {
	event := chain.Event{Kind: chain.StepDone, Step: j.Facts.Step, Error: p.why}
	switch {
	case j.Facts.Undo && p.as == Done:
		event.Kind = chain.UndoDone
	case j.Facts.Undo:
		event.Kind = chain.UndoFailed
	case p.as == GivenUp:
		event.Kind = chain.StepFailed
	case p.as == Cancelled:
		event.Kind = chain.StepCancelled
	default:
		event.Output = outputOf(result)
	}
	return event
}

func outputSize(s *chain.State) (n int) {
	for _, step := range s.Steps {
		n += len(step.Output.Data)
	}
	return n
}

// outputOf returns what a step gave, as expressions see it.
func outputOf(r *outriggerv1.TaskResult) chain.Value {
	if r.GetMessageId() != "" {
		b, err := json.Marshal(map[string]any{"message_id": r.GetMessageId(), "refused": r.GetRefused()})
		if err != nil {
			return chain.Value{}
		}
		return chain.Value{JSON: true, Data: b}
	}
	return valueOf(r.GetPayload())
}

// valueOf returns a payload as expressions see it: JSON where its type says so, or
// where it says nothing and it is JSON.
func valueOf(p *outriggerv1.Payload) chain.Value {
	media, _, err := mime.ParseMediaType(p.GetContentType())
	is := err == nil && media == jsonType || p.GetContentType() == ""
	return chain.Value{JSON: is && json.Valid(p.GetData()), Data: p.GetData()}
}

func payloadOf(v chain.Value) *outriggerv1.Payload {
	p := &outriggerv1.Payload{Data: v.Data}
	if v.JSON {
		p.ContentType = jsonType
	}
	return p
}

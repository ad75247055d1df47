package task

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const (
	// DefaultConcurrency is how many tasks a worker does at once where it says
	// nothing.
	DefaultConcurrency = 16
	// DefaultDrain is how long tasks under way may take when a worker stops.
	DefaultDrain = 30 * time.Second

	// renewEvery is how often what an open stream does not renew is; leases last a
	// second at least.
	renewEvery  = 400 * time.Millisecond
	maxRenewals = 1000 // the API takes no more at a time

	reconnectAfter = 500 * time.Millisecond
	// endTimeout bounds telling the agent how a task ended, where its stream is
	// gone.
	endTimeout = 10 * time.Second
)

// Causes of a Handler's context that ended.
var (
	// ErrLost: the lease is over, and another attempt counts.
	ErrLost = errors.New("the task's lease is over")
	// ErrCancelled: somebody cancelled the task.
	ErrCancelled = errors.New("somebody cancelled the task")
	// ErrStopped: the worker stops, and its drain is over.
	ErrStopped = errors.New("the worker stops")
)

// Handler does a task and returns what came of it; nil is nothing. Its context ends
// when the lease is lost, when the task is cancelled, and when the worker has
// stopped. An error is a failed attempt: the next one comes by the kind's backoff,
// or as Permanent, RetryAfter and Snooze say. A panic is a failed attempt too.
type Handler func(ctx context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error)

// JSON makes a handler of a function from and to values that JSON reads and
// writes. A payload that is no In fails the task for good.
func JSON[In, Out any](do func(context.Context, In) (Out, error)) Handler {
	return func(ctx context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
		var in In
		if err := json.Unmarshal(t.GetPayload().GetData(), &in); err != nil {
			return nil, Permanent(fmt.Errorf("the payload is no JSON for a %T: %w", in, err))
		}
		out, err := do(ctx, in)
		if err != nil {
			return nil, err
		}
		data, err := json.Marshal(out)
		if err != nil {
			return nil, Permanent(fmt.Errorf("the result can't be written as JSON: %w", err))
		}
		return &outriggerv1.Payload{Data: data, ContentType: jsonType}, nil
	}
}

// failure is how an attempt failed.
type failure struct {
	error
	permanent, snooze bool
	after             time.Duration
}

func (f *failure) Unwrap() error { return f.error }

// Permanent marks an error that no other attempt would mend: the task FAILED.
func Permanent(err error) error { return &failure{error: err, permanent: true} }

// RetryAfter marks an error whose next attempt comes after d.
func RetryAfter(d time.Duration, err error) error { return &failure{error: err, after: d} }

// Snooze puts a task off by d without counting the attempt.
func Snooze(d time.Duration, why string) error {
	return &failure{error: errors.New(why), after: d, snooze: true}
}

// Worker does tasks. Fill it, and Run it once.
type Worker struct {
	// Kinds are what it does, by the names that tasks.kinds of the agent's
	// configuration has. One at least.
	Kinds map[string]Handler
	// Name is shown to operators. Empty: the host's name and the process id.
	Name string
	// Concurrency is how many tasks it does at once. Zero: DefaultConcurrency.
	Concurrency int
	// Drain is how long tasks under way may take when it stops. Zero: DefaultDrain.
	Drain time.Duration
	// Logger gets what it has to say. nil: slog.Default.
	Logger *slog.Logger
}

// Run does tasks until ctx ends, and then lets those under way finish. An agent
// that goes away is waited for; what it handed out is finished, and told to it when
// it is back, as long as the leases last. The error is one that waiting won't mend,
// such as a kind that the agent doesn't know.
func (w *Worker) Run(ctx context.Context, c *Client) error {
	if len(w.Kinds) == 0 {
		return errors.New("the worker has no kinds; want Kinds: a handler for each")
	}
	r := &running{worker: w, api: c.api, held: make(map[lease]*work), logger: w.Logger, name: w.Name, free: w.Concurrency}
	if r.logger == nil {
		r.logger = slog.Default()
	}
	if r.free <= 0 {
		r.free = DefaultConcurrency
	}
	if r.name == "" {
		host, _ := os.Hostname()
		r.name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	for kind := range w.Kinds {
		r.kinds = append(r.kinds, kind)
	}
	slices.Sort(r.kinds)
	var renewing sync.WaitGroup
	stop := make(chan struct{})
	renewing.Go(func() { r.renewOrphans(stop) })
	defer renewing.Wait()
	defer close(stop)
	defer r.drain(w.Drain)
	told := false
	for ctx.Err() == nil {
		err := r.session(ctx)
		switch status.Code(err) {
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
			return err
		}
		if err != nil && ctx.Err() == nil && !told {
			r.logger.Warn("the agent is not there: waiting for it", "error", err)
		}
		told = err != nil
		select {
		case <-ctx.Done():
		case <-time.After(reconnectAfter):
		}
	}
	return nil
}

// lease names one attempt.
type lease struct {
	id      string
	attempt uint32
}

// work is a task under way.
type work struct {
	cancel context.CancelCauseFunc
	from   *stream // who it came by renews it, as long as that is open
}

// running is a worker that runs.
type running struct {
	worker *Worker
	api    outriggerv1.TaskServiceClient
	logger *slog.Logger
	name   string
	kinds  []string
	tasks  sync.WaitGroup

	mu     sync.Mutex
	free   int // how many more tasks it could do
	held   map[lease]*work
	stream *stream // nil: none is open
}

// start does a task that came.
func (r *running) start(from *stream, t *outriggerv1.LeasedTask) {
	ctx, cancel := context.WithCancelCause(context.Background())
	if d := t.GetDeadline(); d != nil {
		var release context.CancelFunc
		ctx, release = context.WithDeadline(ctx, d.AsTime())
		context.AfterFunc(ctx, release)
	}
	l := lease{t.GetId(), t.GetAttempt()}
	r.mu.Lock()
	r.free--
	r.held[l] = &work{cancel, from}
	r.mu.Unlock()
	r.tasks.Go(func() {
		result, err := r.do(ctx, t)
		lost := errors.Is(context.Cause(ctx), ErrLost)
		cancel(nil)
		if !lost {
			r.end(l, result, err)
		}
		r.mu.Lock()
		delete(r.held, l)
		r.free++
		s := r.stream
		r.mu.Unlock()
		if s != nil {
			s.more(1)
		}
	})
}

// do runs the handler.
func (r *running) do(ctx context.Context, t *outriggerv1.LeasedTask) (result *outriggerv1.Payload, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the handler panicked: %v", p)
			r.logger.Error("a task's handler panicked", "kind", t.GetKind(), "id", t.GetId(), "panic", p)
		}
	}()
	handler := r.worker.Kinds[t.GetKind()]
	if handler == nil {
		return nil, Snooze(time.Minute, "worker "+r.name+" does not know the kind "+t.GetKind())
	}
	return handler(ctx, t)
}

// end tells the agent how a task ended: by the stream that is open, or by a call.
func (r *running) end(l lease, result *outriggerv1.Payload, err error) {
	complete := &outriggerv1.CompleteTaskRequest{Lease: &outriggerv1.TaskLease{Id: l.id, Attempt: l.attempt}, Result: result}
	fail := failed(l, err)
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	broken := false
	for {
		var tell error
		r.mu.Lock()
		s := r.stream
		r.mu.Unlock()
		switch {
		case s != nil && !broken:
			refused, answered := s.tell(l, complete, fail)
			if !answered {
				broken = true // by a call, then
				continue
			}
			tell = refused
		case fail != nil:
			_, tell = r.api.FailTask(ctx, fail)
		default:
			_, tell = r.api.CompleteTask(ctx, complete)
		}
		switch status.Code(tell) {
		case codes.OK:
			return
		case codes.Unavailable, codes.ResourceExhausted:
			select {
			case <-time.After(reconnectAfter):
				continue
			case <-ctx.Done():
			}
		}
		r.logger.Warn("how a task ended does not count: it will be done again", "id", l.id, "attempt", l.attempt, "error", tell)
		return
	}
}

// failed makes a message of an error; nil of nil.
func failed(l lease, err error) *outriggerv1.FailTaskRequest {
	if err == nil {
		return nil
	}
	request := &outriggerv1.FailTaskRequest{Lease: &outriggerv1.TaskLease{Id: l.id, Attempt: l.attempt}, Error: clipped(err.Error())}
	var f *failure
	if errors.As(err, &f) {
		request.Permanent, request.Snooze = f.permanent, f.snooze
		if f.after > 0 || f.snooze {
			request.RetryAfter = durationpb.New(f.after)
		}
	}
	return request
}

// clipped bounds an error's text as the API does.
func clipped(text string) string {
	const limit = 4096
	if text == "" {
		return "it failed and did not say why"
	}
	if len(text) > limit {
		text = text[:limit-3]
		for len(text) > 0 && text[len(text)-1]&0xC0 == 0x80 {
			text = text[:len(text)-1]
		}
		if n := len(text); n > 0 && text[n-1] >= 0xC0 {
			text = text[:n-1]
		}
		text += "…"
	}
	return text
}

// renewOrphans renews what came by streams that are gone, until stop is closed.
// What is over is ended.
func (r *running) renewOrphans(stop <-chan struct{}) {
	tick := time.NewTicker(renewEvery)
	defer tick.Stop()
	for {
		select {
		case <-stop:
			return
		case <-tick.C:
		}
		request := &outriggerv1.RenewTasksRequest{}
		r.mu.Lock()
		for l, w := range r.held {
			if w.from != r.stream && len(request.Leases) < maxRenewals {
				request.Leases = append(request.Leases, &outriggerv1.TaskLease{Id: l.id, Attempt: l.attempt})
			}
		}
		r.mu.Unlock()
		if len(request.Leases) > 0 {
			r.renew(request)
		}
	}
}

func (r *running) renew(request *outriggerv1.RenewTasksRequest) {
	ctx, cancel := context.WithTimeout(context.Background(), endTimeout)
	defer cancel()
	answer, err := r.api.RenewTasks(ctx, request)
	if err != nil {
		return // the agent is not back: the leases last or they don't
	}
	for _, renewed := range answer.GetLeases() {
		l := lease{renewed.GetLease().GetId(), renewed.GetLease().GetAttempt()}
		switch {
		case renewed.GetLeaseUntil() == nil:
			r.cancel(l, ErrLost)
		case renewed.GetCancelRequested():
			r.cancel(l, ErrCancelled)
		}
	}
}

// cancel ends a handler's context.
func (r *running) cancel(l lease, why error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if w := r.held[l]; w != nil {
		w.cancel(why)
	}
}

// drain waits for the tasks under way.
func (r *running) drain(limit time.Duration) {
	if limit == 0 {
		limit = DefaultDrain
	}
	over := time.AfterFunc(limit, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		for _, w := range r.held {
			w.cancel(ErrStopped)
		}
	})
	defer over.Stop()
	r.tasks.Wait()
	r.mu.Lock()
	s := r.stream
	r.mu.Unlock()
	if s != nil {
		s.close()
	}
}

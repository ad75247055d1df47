package tasks

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
)

// roundEvery is how often what other agents did is looked for: what waits for it
// waits no longer than that.
const roundEvery = time.Second

// Executor is the task executor. Make it with New. Safe for concurrent use.
type Executor struct {
	options  Options
	settings atomic.Pointer[Settings]
	applying sync.Mutex // held by Start, Stop and Apply
	store    atomic.Pointer[Store]
	// stopping is closed when Stop begins: nothing new is leased or accepted.
	// stopped is closed when streams of work must end, hurry when Stop's time is up.
	stopping, stopped, hurry chan struct{}
	background               sync.WaitGroup
	endBackground            context.CancelFunc

	// Of the background goroutine alone: whether its last round failed, the chain
	// that it looked at last, and when it begins anew.
	roundFailed bool
	swept       int64
	nextSweep   time.Time
	sessions    sessions // workers' streams

	waiters  waiters
	desk     desk
	places   places
	programs programs
	untold   untold
	callers  atomic.Int64  // tasks that their submits run now
	turn     atomic.Uint64 // of leases
	counters counters
	kinds    kinds
}

// New returns an executor that has no store yet. Settings that make no sense are
// an error.
func New(o Options) (*Executor, error) {
	if err := o.Settings.check(); err != nil {
		return nil, err
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Random == nil {
		o.Random = rand.Float64
	}
	if o.Origin.IsZero() {
		o.Origin = o.Now()
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	e := &Executor{options: o, stopping: make(chan struct{}), stopped: make(chan struct{}), hurry: make(chan struct{}), programs: newPrograms()}
	e.settings.Store(o.Settings.clone())
	return e, nil
}

// errStarted is for a second Start.
var errStarted = errors.New("the executor was started before, or stopped")

// Start gives the executor its store and begins to run tasks. Once; after an
// error it may be called again.
func (e *Executor) Start(ctx context.Context, s Store) error {
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.store.Load() != nil || e.isStopping() {
		return errStarted
	}
	e.store.Store(&s) // what it runs needs it
	err := s.Start(ctx, store.Work{Queues: e.settings.Load().workers(), Kinds: []string{KindGRPC, KindHTTP, KindEmail, KindSchedule}, Do: e.do})
	if err != nil {
		e.store.Store(nil)
		return err
	}
	background, end := context.WithCancel(context.Background())
	e.endBackground = end
	e.background.Go(func() { e.rounds(background) })
	return nil
}

// Apply takes other settings over. An error leaves the old ones in force.
func (e *Executor) Apply(ctx context.Context, s Settings) error {
	if err := s.check(); err != nil {
		return err
	}
	e.applying.Lock()
	defer e.applying.Unlock()
	next := s.clone()
	if kept := e.store.Load(); kept != nil && !e.isStopping() {
		if err := (*kept).SetQueues(ctx, next.workers()); err != nil {
			return err
		}
	}
	e.settings.Store(next)
	return nil
}

// Stop accepts no more, ends waiting requests, leases nothing, lets running tasks
// end until ctx does, and gives the rest back. The store is the caller's to close,
// and so is the API, which must be served until then: workers report to it.
func (e *Executor) Stop(ctx context.Context) error {
	e.applying.Lock()
	defer e.applying.Unlock()
	if e.isStopping() {
		return nil
	}
	close(e.stopping)
	defer context.AfterFunc(ctx, func() { close(e.hurry) })()
	var err error
	var ending sync.WaitGroup
	if kept := e.store.Load(); kept != nil {
		ending.Go(func() { err = (*kept).Stop(ctx) })
	}
	idle := e.sessions.close()
	select {
	case <-idle:
	case <-ctx.Done():
	}
	close(e.stopped)
	ending.Wait()
	select {
	case <-idle:
	case <-time.After(giveBackFor): // a worker that reads nothing holds its stream
	}
	if e.endBackground != nil {
		e.endBackground()
	}
	e.background.Wait()
	return err
}

// giveBackFor is how long streams may take to give back what they hold.
const giveBackFor = 3 * time.Second

func (e *Executor) isStopping() bool {
	select {
	case <-e.stopping:
		return true
	default:
		return false
	}
}

// kept returns the store, or the status of why it can't be used.
func (e *Executor) kept() (Store, error) {
	s := e.store.Load()
	switch {
	case e.isStopping():
		return nil, refuse(codes.Unavailable, "the agent stops", &errdetails.ErrorInfo{Domain: Domain, Reason: "DRAINING"}, &errdetails.RetryInfo{RetryDelay: durationpb.New(storeRetry)})
	case s == nil:
		return nil, storeDown("it has not been opened yet")
	}
	return *s, nil
}

// Problem says why no task can be accepted now; empty: it can.
func (e *Executor) Problem() string {
	s := e.store.Load()
	if s == nil {
		return "the task store has not been opened yet"
	}
	return (*s).Problem()
}

// Moved is for store.Options.Moved. It does not block.
func (e *Executor) Moved(m store.Moved) {
	e.waiters.wake(m.ID)
	if m.Parent != 0 {
		e.waiters.wake(m.Parent)
	}
	if m.State == store.Available || m.State == store.Retryable || m.State == store.Scheduled {
		e.desk.arrived(m.Queue)
	}
	if m.CancelRequested {
		e.sessions.cancelled(m.ID)
	}
	e.ended(m)
}

// rounds look for what nobody in this process tells of.
func (e *Executor) rounds(ctx context.Context) {
	ticker := time.NewTicker(roundEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		e.desk.round()
		e.waiters.round()
		kept := *e.store.Load()
		e.say(errors.Join(e.giveUpOverdue(ctx, kept), e.mend(ctx, kept), e.sweep(ctx, kept)))
	}
}

// say logs what a round could not do, once for each time that the store is down.
func (e *Executor) say(err error) {
	switch {
	case err == nil:
		e.roundFailed = false
	case !e.roundFailed && !errors.Is(err, context.Canceled):
		e.roundFailed = true
		e.options.Logger.Error("the task store can't be used", "error", err)
	}
}

func (e *Executor) now() time.Time { return e.options.Now() }

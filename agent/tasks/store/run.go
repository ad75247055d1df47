package store

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/riverqueue/river"
	"github.com/riverqueue/river/rivertype"
)

// run is a job that was fetched for Work.Do.
type run struct {
	held     Held
	finished atomic.Bool

	mu     sync.Mutex
	cause  error // why it is to end; nil: it is not
	cancel context.CancelCauseFunc
}

// begin gives it the function that ends its context.
func (r *run) begin(cancel context.CancelCauseFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.cancel = cancel
	if r.cause != nil {
		cancel(r.cause)
	}
}

// end ends its context, now or once it has one.
func (r *run) end(cause error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.cause == nil {
		r.cause = cause
	}
	if r.cancel != nil {
		r.cancel(cause)
	}
}

// cancelRun ends the context of a job that somebody cancelled, where it runs here.
func (s *Store) cancelRun(id int64) {
	s.mu.Lock()
	r := s.running[id]
	if r == nil && s.fetching.n > 0 {
		s.fetching.cancelled[id] = true
	}
	s.mu.Unlock()
	if r != nil {
		r.end(ErrCancelled)
	}
}

// fetchBegins and fetchEnds surround a fetch: jobs that it brings are known to
// cancelRun.
func (s *Store) fetchBegins() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fetching.n++
}

func (s *Store) fetchEnds(jobs []Job) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := range jobs {
		r := &run{held: Held{jobs[i].ID, jobs[i].Attempt}}
		if s.fetching.cancelled[r.held.ID] {
			r.cause = ErrCancelled
		}
		s.running[r.held.ID] = r
	}
	if s.fetching.n--; s.fetching.n == 0 {
		clear(s.fetching.cancelled)
	}
}

// Pace of River's client.
const (
	fetchCooldown = time.Millisecond
	fetchPoll     = time.Second
	// never is how long a job may run before River takes it for stuck: the store
	// itself knows who holds what.
	never = 10 * 365 * 24 * time.Hour
)

// riverConfig says what River runs.
func (s *Store) riverConfig(w Work) *river.Config {
	workers := river.NewWorkers()
	for _, kind := range w.Kinds {
		river.AddWorkerArgs(workers, anyArgs{kind: kind}, &worker{store: s, do: w.Do})
	}
	queues := make(map[string]river.QueueConfig, len(w.Queues))
	for name := range w.Queues {
		queues[name] = river.QueueConfig{MaxWorkers: river.QueueNumWorkersMax} // slots says how many
	}
	r := s.options.Retention
	return &river.Config{
		ID: s.self, Queues: queues, Workers: workers, Logger: slog.New(&quietHandler{to: s.logger.Handler(), store: s}),
		FetchCooldown: fetchCooldown, FetchPollInterval: fetchPoll, FetchOnlyKnownKinds: true,
		JobTimeout: -1, RescueStuckJobsAfter: never,
		CompletedJobRetentionPeriod: r.Completed, CancelledJobRetentionPeriod: r.Cancelled, DiscardedJobRetentionPeriod: r.Failed,
	}
}

// anyArgs stands for the arguments of every kind: what they are, the store doesn't
// know.
type anyArgs struct{ kind string }

// Kind implements river.JobArgs.
func (a anyArgs) Kind() string { return a.kind }

// UnmarshalJSON takes any.
func (anyArgs) UnmarshalJSON([]byte) error { return nil }

// MarshalJSON makes none: jobs are inserted by the store.
func (anyArgs) MarshalJSON() ([]byte, error) { return json.Marshal(struct{}{}) }

// worker does the jobs of a kind.
type worker struct {
	river.WorkerDefaults[anyArgs]
	store *Store
	do    func(ctx context.Context, j Job)
}

// Work implements river.Worker. How the attempt ended is said by Finish: River does
// not hear of it.
func (w *worker) Work(river context.Context, job *river.Job[anyArgs]) error {
	s := w.store
	defer func() {
		if s.slots.free(job.Queue) {
			s.hub.publish(topicInsert, payload(insertPayload{job.Queue}))
		}
	}()
	j, err := jobOf(job.JobRow)
	if err != nil {
		return err // River says so in the job
	}
	s.mu.Lock()
	r := s.running[j.ID]
	s.mu.Unlock()
	if r == nil || r.held != (Held{j.ID, j.Attempt}) {
		return nil // its attempt is over before it began: another one was fetched
	}
	ctx, cancel := context.WithCancelCause(context.WithoutCancel(river))
	defer cancel(nil)
	r.begin(cancel)
	defer context.AfterFunc(river, func() {
		if errors.Is(context.Cause(river), rivertype.ErrJobCancelledRemotely) {
			r.end(ErrCancelled)
		} else {
			r.end(ErrStopping)
		}
	})()
	why := w.guarded(ctx, j)
	if !r.finished.Load() {
		s.unfinished(r.held, j, why)
	}
	s.mu.Lock()
	if s.running[j.ID] == r {
		delete(s.running, j.ID)
	}
	s.mu.Unlock()
	return nil
}

// guarded does the job; a panic is a failed attempt.
func (w *worker) guarded(ctx context.Context, j Job) (why string) {
	defer func() {
		if p := recover(); p != nil {
			why = fmt.Sprintf("the agent panicked over it: %v", p)
			w.store.logger.Error("a task made the agent panic", "id", j.ID, "kind", j.Kind, "panic", p)
		}
	}()
	w.do(ctx, j)
	return "the attempt ended and did not say how"
}

// unfinished ends an attempt that did not say how it ended.
func (s *Store) unfinished(h Held, j Job, why string) {
	if j.Attempt >= j.MaxAttempts {
		s.give(h, GiveUp(why))
		return
	}
	s.give(h, Retry(time.Now().Add(time.Second<<min(j.Attempt, 10)), why))
}

// give ends an attempt whose own end was lost. What can't be ended now is given
// back when its lease lapses.
func (s *Store) give(h Held, o Outcome) {
	ctx, cancel := context.WithTimeout(context.Background(), commitTimeout)
	defer cancel()
	if err := s.Finish(ctx, h, o, nil); err != nil && !errors.Is(err, ErrLost) {
		s.logger.Warn("the end of a task's attempt could not be kept: it will run again", "id", h.ID, "attempt", h.Attempt, "error", err)
	}
}

// endAll ends the contexts of all jobs that run here.
func (s *Store) endAll(cause error) {
	s.mu.Lock()
	all := slices.Collect(maps.Values(s.running))
	s.mu.Unlock()
	for _, r := range all {
		r.end(cause)
	}
}

// quietHandler passes River's warnings on, the same one at most every 10 s, and no
// error that the store's own health says already.
type quietHandler struct {
	to    slog.Handler
	store *Store
}

// quietFor is how long the same line of River's is not said again.
const quietFor = 10 * time.Second

// Enabled implements slog.Handler.
func (h *quietHandler) Enabled(_ context.Context, l slog.Level) bool { return l >= slog.LevelWarn }

// Handle implements slog.Handler.
func (h *quietHandler) Handle(ctx context.Context, r slog.Record) error {
	if !h.store.health.usable() || h.store.stopping.Load() || h.store.health.saidLately(r.Message, quietFor) {
		return nil
	}
	r.Message = "task engine: " + r.Message
	return h.to.Handle(ctx, r)
}

// WithAttrs implements slog.Handler.
func (h *quietHandler) WithAttrs(a []slog.Attr) slog.Handler {
	return &quietHandler{h.to.WithAttrs(a), h.store}
}

// WithGroup implements slog.Handler.
func (h *quietHandler) WithGroup(name string) slog.Handler {
	return &quietHandler{h.to.WithGroup(name), h.store}
}

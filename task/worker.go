package task

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

const (
	// DefaultConcurrency is how many tasks a worker does at once where it says
	// nothing.
	DefaultConcurrency = 16
	// MaxConcurrency is how many it may do at once.
	MaxConcurrency = 10000
	// DefaultDrain is how long tasks under way may take when a worker stops.
	DefaultDrain = 30 * time.Second

	reconnectAfter = 500 * time.Millisecond
	// endTimeout bounds one call that tells the agent how a task ended, and after a
	// drain all of it.
	endTimeout = 10 * time.Second
)

// Worker does tasks. Fill it, and Run it once.
type Worker struct {
	// Kinds are what it does, by the names that tasks.kinds of the agent's
	// configuration has. One at least.
	Kinds map[string]Handler
	// Name is shown to operators. Empty: the host's name and the process id.
	Name string
	// Concurrency is how many tasks it does at once. Zero: DefaultConcurrency.
	Concurrency int
	// Drain is how long tasks under way may take when it stops. Zero: DefaultDrain;
	// negative: not at all.
	Drain time.Duration
	// Logger gets what it has to say. nil: slog.Default.
	Logger *slog.Logger
}

// Run does tasks until ctx ends, then lets those under way finish, and returns nil.
// An agent that goes away is waited for; what it handed out is finished, and told to
// it when it is back, as long as the leases last. The error is one that waiting won't
// mend, such as a kind that the agent doesn't know. A handler that does not heed its
// context keeps Run from returning.
func (w *Worker) Run(ctx context.Context, c *Client) error {
	r, err := w.begin(c)
	if err != nil {
		return err
	}
	var renewing sync.WaitGroup
	kept, stop := context.WithCancel(context.Background())
	renewing.Go(func() { r.renewOrphans(kept) })
	defer renewing.Wait()
	defer stop()
	defer r.drain(cmp.Or(w.Drain, DefaultDrain))
	for ctx.Err() == nil {
		err := r.session(ctx)
		switch status.Code(err) {
		case codes.InvalidArgument, codes.NotFound, codes.FailedPrecondition, codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
			return err
		}
		if ctx.Err() == nil {
			r.gone(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(reconnectAfter):
		}
	}
	return nil
}

// begin checks what the worker says, and fills in what it doesn't.
func (w *Worker) begin(c *Client) (*running, error) {
	if len(w.Kinds) == 0 {
		return nil, errors.New("the worker has no kinds; want Kinds: a handler for each")
	}
	if w.Concurrency < 0 || w.Concurrency > MaxConcurrency {
		return nil, fmt.Errorf("the worker's Concurrency is %d; want 0 to %d", w.Concurrency, MaxConcurrency)
	}
	r := &running{
		worker: w, api: c.api, logger: w.Logger, name: w.Name, free: cmp.Or(w.Concurrency, DefaultConcurrency),
		held: make(map[lease]*work), idle: make(chan struct{}),
	}
	r.telling, r.stopTelling = context.WithCancel(context.Background())
	for kind, handler := range w.Kinds {
		if handler == nil {
			return nil, fmt.Errorf("the worker's Kinds has no handler for %q", kind)
		}
		r.kinds = append(r.kinds, kind)
	}
	slices.Sort(r.kinds)
	if r.logger == nil {
		r.logger = slog.Default()
	}
	if r.name == "" {
		host, err := os.Hostname()
		if err != nil {
			host = "worker"
		}
		r.name = fmt.Sprintf("%s:%d", host, os.Getpid())
	}
	return r, nil
}

// running is a worker that runs.
type running struct {
	worker *Worker
	api    outriggerv1.TaskServiceClient
	logger *slog.Logger
	name   string
	kinds  []string
	tasks  sync.WaitGroup // those under way; streams start them, so nobody waits for it while one is open

	telling     context.Context // ends when telling the agent how tasks ended is given up
	stopTelling context.CancelFunc

	mu       sync.Mutex
	free     int // how many more tasks it could do
	held     map[lease]*work
	stream   *stream // nil: none is open
	away     bool    // the agent, and the log says so
	stopping bool
	idle     chan struct{} // closed once it is stopping and nothing is held
}

// gone says once that the agent is away.
func (r *running) gone(err error) {
	r.mu.Lock()
	told := r.away
	r.away = true
	r.mu.Unlock()
	if !told {
		r.logger.Warn("the agent is not there: waiting for it", "error", err)
	}
}

// reached says that it is back.
func (r *running) reached() {
	r.mu.Lock()
	was := r.away
	r.away = false
	r.mu.Unlock()
	if was {
		r.logger.Info("the agent is there")
	}
}

// closed is called by a stream at its end.
func (r *running) closed(s *stream) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.stream == s {
		r.stream = nil
	}
}

// idled closes idle where it is time to. The caller holds mu.
func (r *running) idled() {
	if !r.stopping || len(r.held) > 0 {
		return
	}
	select {
	case <-r.idle: // closed before: a task came all the same
	default:
		close(r.idle)
	}
}

// drain lets no more tasks come and waits for those under way, for as long as limit
// says; then their contexts end, and what they were is told within endTimeout.
func (r *running) drain(limit time.Duration) {
	r.mu.Lock()
	r.stopping = true
	s := r.stream
	r.idled()
	r.mu.Unlock()
	over := time.AfterFunc(max(limit, 0), r.stop)
	defer over.Stop()
	late := time.AfterFunc(max(limit, 0)+endTimeout, func() {
		r.stopTelling()
		if s != nil {
			s.end()
		}
	})
	defer late.Stop()
	if s != nil {
		s.send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Stop{Stop: &outriggerv1.StopWork{}}})
		select {
		case <-s.ended:
		case <-r.idle: // the agent ends the stream at once then
			select {
			case <-s.ended:
			case <-time.After(endTimeout):
			}
		}
		s.close()
	}
	r.tasks.Wait()
	r.stopTelling()
}

// stop ends the handlers' contexts.
func (r *running) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.held {
		w.cancel(ErrStopped)
	}
}

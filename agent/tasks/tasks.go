// Package tasks is the durable task executor: it keeps work for later and does
// it, surely and at least once, without making the caller wait. What it keeps,
// package store keeps for it; what tasks mean is here.
//
//	e, err := tasks.New(tasks.Options{Settings: settings, Calls: calls, HTTP: transport})
//	s, err := store.Open(ctx, store.Options{Moved: e.Moved, …})
//	err = e.Start(ctx, s)   // accepts tasks and runs them
//	…
//	err = e.Stop(ctx)       // lets running ones end until ctx does, gives the rest back
//	err = s.Close()
//
// Its methods that take a request of outrigger.v1 are what TaskService answers
// with: the errors they return are gRPC statuses, as callers shall see them.
// Before Start, and while the store can't be used, they answer UNAVAILABLE with
// the reason TASK_STORE.
//
// A task is a job whose body is its TaskSpec. Those of the kinds grpc, http and
// email are run here (attempt.go), those of the configuration's kinds are leased
// by workers (lease.go, work.go). A chain is a job that is never run: each of its
// steps is a task, and the transaction that ends a step also moves the chain on
// (chains.go). A schedule is a job that submits a task at each of its times and
// then is put off until the next (schedule.go).
package tasks

import (
	"context"
	"log/slog"
	"net/http"
	"time"

	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	"github.com/outrigger-rpc/outrigger/agent/tasks/webhook"
	"github.com/outrigger-rpc/outrigger/sla"
)

// Domain and the reasons of its own ErrorInfos.
const (
	Domain          = "outrigger"
	ReasonQueueFull = "TASK_QUEUE_FULL"
	ReasonStore     = "TASK_STORE"
	ReasonDeadline  = "DEADLINE"
)

// DefaultQueue is the queue of tasks that name none.
const DefaultQueue = "default"

// Kinds that every agent knows.
const (
	KindGRPC     = "grpc"
	KindHTTP     = "http"
	KindEmail    = "email"
	KindChain    = "chain"
	KindSchedule = "schedule"
)

// TaskIDKey is the metadata key and header that each attempt carries: the task's
// id, the same for each attempt of a task. AttemptKey's value is the attempt, from 1.
const (
	TaskIDKey  = "outrigger-task-id"
	AttemptKey = "outrigger-task-attempt"
)

// Options make an Executor.
type Options struct {
	// Settings are those that a reload may change; see Apply.
	Settings
	// Calls makes the calls of grpc tasks. It must not be nil.
	Calls Calls
	// HTTP sends the requests of http tasks, through the agent's own policies and
	// the rules of where they may go. It must not be nil and is given requests
	// whose context ends with the attempt. An answer with the header
	// Outrigger-Reason is the agent's own refusal.
	HTTP http.RoundTripper
	// Tracer makes spans of attempts. nil: none.
	Tracer Tracer
	// Origin is what the SLA's instants are relative to. Zero: when New is called.
	Origin time.Time
	// Now is the clock. nil: time.Now.
	Now func() time.Time
	// Random returns numbers from 0 to 1, for jitter. nil: math/rand/v2.
	Random func() float64
	// Logger hears of tasks that were given up (WARN) and of a store that fails
	// (ERROR); never of what tasks contain. nil: nobody does.
	Logger *slog.Logger
}

// Settings say which tasks there are and how they are run.
type Settings struct {
	// Queues by name; "default" must be among them. Those of kinds that apps work
	// are not: each such kind has its own, of the same name.
	Queues map[string]Queue
	// Kinds by name: grpc, http, email and chain, and those that apps work.
	Kinds map[string]Kind
	// MaxPayload is the largest content of a task, and the largest result that is
	// kept, in bytes.
	MaxPayload int
	// CallerRuns is how many tasks callers may run at once in all, where a queue
	// is full; zero: 64.
	CallerRuns int
	// Retention is how long the store keeps what ended.
	Retention store.Retention
	// Email sends the mails of email tasks. nil: they are refused.
	Email Mailer
	// Templates are those that email tasks may name. nil: there are none.
	Templates *email.Templates
	// Webhooks sign the requests of http tasks, by the names of their secrets.
	Webhooks map[string]Signer
	// Seal encrypts what tasks contain and what came of them. nil: it is kept as
	// it is.
	Seal Seal
}

// Queue is a queue that the agent works.
type Queue struct {
	// Workers is how many of it run at once.
	Workers int
	// Capacity is how many may wait.
	Capacity int
	// CallerRuns lets the submit itself run the task when it is full.
	CallerRuns bool
}

// Kind is how tasks of a kind are run.
type Kind struct {
	// App: workers lease it. Then Lease is how long a lease lasts and Capacity how
	// many may wait.
	App      bool
	Lease    time.Duration
	Capacity int
	// MaxAttempts is how often one is tried.
	MaxAttempts int
	// BackoffBase is the wait after the first failure, which doubles with each up
	// to BackoffMax; it is drawn between half of it and all of it.
	BackoffBase, BackoffMax time.Duration
	// Timeout is how long an attempt may take.
	Timeout time.Duration
	// Targets are what is promised of the time from run_at until done. nil:
	// nothing is, and it is measured anyway.
	Targets *sla.Targets
}

// Call is a unary call.
type Call struct {
	// Service is one of the configuration, or an authority.
	Service string
	// Method is "/package.Service/Method".
	Method string
	// Metadata goes with it: keys in lower case, values of "-bin" keys as bytes.
	Metadata metadata.MD
	// Message is the request, serialized.
	Message []byte
	// MaxReply is the largest reply that is of use; see ErrReplyTooLarge.
	MaxReply int
}

// Calls makes calls through the agent's own policies. Safe for concurrent use.
type Calls interface {
	// Call makes one and returns the reply, serialized. An error is a gRPC status;
	// a refusal by the agent itself carries ErrorInfo with the domain outrigger,
	// and RetryInfo where waiting helps. ErrReplyTooLarge (wrapped) means that the
	// call succeeded and its reply is larger than MaxReply.
	Call(ctx context.Context, c Call) (reply []byte, err error)
}

// Mailer sends e-mails: an *email.Sender. Safe for concurrent use.
type Mailer interface {
	// Validate returns what is wrong with a mail.
	Validate(m email.Message) []email.Problem
	// MessageID returns the Message-ID of a task's mail, the same each time.
	MessageID(taskID string) string
	// Send sends it. An error is an *email.Error.
	Send(ctx context.Context, m email.Message) (email.Receipt, error)
}

// Signer signs requests, as Standard Webhooks say: a *webhook.Files. Safe for
// concurrent use.
type Signer interface {
	Sign(id string, at time.Time, body []byte) (webhook.Headers, error)
}

// Seal encrypts: a *seal.Keys. Safe for concurrent use.
type Seal interface {
	// Seal appends the sealed content to dst; it opens under the same name alone.
	Seal(dst []byte, name string, content []byte) ([]byte, error)
	// Open appends the content to dst, with whichever key it was sealed.
	Open(dst []byte, name string, sealed []byte) ([]byte, error)
}

// Tracer makes spans of attempts. Safe for concurrent use.
type Tracer interface {
	// Attempt begins the span of an attempt, in the trace of the submitter where
	// it told one. It returns what to carry on: the context, and the traceparent
	// to send ("": the submitter's); and what ends the span.
	Attempt(ctx context.Context, a Attempt) (_ context.Context, traceparent string, end func(Ending))
}

// Attempt is one attempt of a task.
type Attempt struct {
	ID, Kind, Queue string
	Attempt         int
	// Waited is how long after its time it began.
	Waited time.Duration
	// Traceparent is the submitter's; empty: it told none.
	Traceparent string
}

// Ending is how an attempt ended.
type Ending struct {
	Outcome Outcome
	// Error is why; empty: it was done.
	Error string
}

// Outcome is how an attempt ended, as it is counted.
type Outcome uint8

// The outcomes of an attempt.
const (
	Done      Outcome = iota // the task COMPLETED
	Retried                  // it failed, and another one follows
	GivenUp                  // the task FAILED
	Snoozed                  // put off without being counted
	Cancelled                // the task was CANCELLED
	Returned                 // given back, since the agent stops
	Lost                     // its lease was over before it ended
	numOutcomes
)

// String returns the outcome's name, as it stands in metrics.
func (o Outcome) String() string {
	return [numOutcomes]string{"done", "retried", "given_up", "snoozed", "cancelled", "returned", "lost"}[o]
}

// Store keeps the tasks: a *store.Store.
type Store interface {
	Start(ctx context.Context, w store.Work) error
	SetQueues(ctx context.Context, workers map[string]int) error
	Stop(ctx context.Context) error
	NewID() int64
	Insert(ctx context.Context, jobs []store.New) ([]store.Inserted, error)
	Get(ctx context.Context, id int64) (store.Job, error)
	List(ctx context.Context, f store.Filter) ([]store.Job, error)
	// Find returns the newest job that Unique named, ended or not:
	// store.ErrNotFound if none is kept.
	Find(ctx context.Context, unique []byte) (store.Job, error)
	// Overdue returns jobs, at most limit, that neither run nor have ended and
	// whose Facts.Deadline lies before now.
	Overdue(ctx context.Context, now time.Time, limit int) ([]store.Job, error)
	Lease(ctx context.Context, r store.LeaseRequest) ([]store.Job, error)
	Renew(ctx context.Context, held []store.Held, until []time.Time) ([]store.Renewal, error)
	Finish(ctx context.Context, h store.Held, o store.Outcome, also func(ctx context.Context, tx store.Tx) error) error
	Update(ctx context.Context, do func(ctx context.Context, tx store.Tx) error) error
	Cancel(ctx context.Context, id int64) (store.Job, error)
	Retry(ctx context.Context, id int64) (store.Job, error)
	Purge(ctx context.Context, f store.PurgeFilter) (int, error)
	Pause(ctx context.Context, queue string) error
	Resume(ctx context.Context, queue string) error
	Queues(ctx context.Context, names []string) ([]store.Queue, error)
	Waiting(queue string) int
	Problem() string
}

// Package store keeps tasks: jobs of River (github.com/riverqueue/river) in an
// embedded SQLite file, or in a PostgreSQL database that several agents share.
// It knows how to keep, fetch, fence and find jobs; what they are about, and what
// is done with them, is the caller's.
//
//	s, err := store.Open(ctx, store.Options{SQLite: &store.SQLite{Path: "outrigger-tasks.db"}})
//	err = s.Start(ctx, store.Work{Queues: …, Kinds: …, Do: do})   // River fetches and calls do
//	inserted, err := s.Insert(ctx, []store.New{{Kind: "email", Queue: "default", Body: …}})
//	jobs, err := s.Lease(ctx, store.LeaseRequest{Queues: []string{"save-user"}, …}) // what apps work
//	err = s.Finish(ctx, store.Held{ID: …, Attempt: …}, store.Completed(output), nil)
//	s.Stop(ctx)                                                  // running jobs end or are given back
//	s.Close()
//
// Writes that arrive together commit together; one that comes alone waits for
// nobody. What Insert and Finish acknowledged is on disk.
package store

import (
	"context"
	"errors"
	"strings"
	"time"
)

// Errors that callers decide on. Others mean that the store can't be written or
// read now: nothing was accepted.
var (
	// ErrNotFound: there is no such job (any more).
	ErrNotFound = errors.New("there is no such task")
	// ErrLost: the holder's attempt is over; another one counts, or the job has
	// ended.
	ErrLost = errors.New("the lease is over")
	// ErrState: the job is not in a state that allows it.
	ErrState = errors.New("the task's state does not allow it")
)

// State is how far a job is.
type State string

// States as River names them.
const (
	Available State = "available" // fetched as soon as RunAt has come
	Scheduled State = "scheduled" // RunAt lies ahead
	Pending   State = "pending"   // never fetched: a chain, which its steps move on
	Running   State = "running"
	Retryable State = "retryable"
	Done      State = "completed"
	Discarded State = "discarded"
	Cancelled State = "cancelled"
)

// New is a job to keep.
type New struct {
	// ID from NewID, unique among all stores and in the order of time; zero: one is
	// drawn.
	ID int64
	// Kind says what it is.
	Kind string
	// Queue that it waits in.
	Queue string
	// Priority, 1 (first) to 4.
	Priority int
	// Pending keeps it from being fetched.
	Pending bool
	// RunAt is the earliest time; zero: now.
	RunAt time.Time
	// MaxAttempts, at least 1.
	MaxAttempts int
	// Body is what it is about, opaque (sealed by the caller where asked for).
	Body []byte
	// Facts are kept beside it and come with it everywhere.
	Facts Facts
	// Tags to list by.
	Tags []string
	// Unique, if not empty, names it among the jobs that are kept (States empty) or
	// that have not ended (UntilEnded): an Insert of a second one returns the first.
	Unique     []byte
	UntilEnded bool
}

// Facts are what is known of a job beside its body: JSON in its row. The zero value
// of each is "none".
type Facts struct {
	Tenant      string    `json:"tenant,omitempty"`
	Parent      int64     `json:"parent,omitempty"`
	Step        string    `json:"step,omitempty"`
	Undo        bool      `json:"undo,omitempty"` // it compensates Step
	Deadline    time.Time `json:"deadline,omitzero"`
	Timeout     int64     `json:"timeout_ms,omitempty"`
	BackoffBase int64     `json:"backoff_ms,omitempty"`
	BackoffMax  int64     `json:"backoff_max_ms,omitempty"`
	Retention   int64     `json:"retention_s,omitempty"`
	Digest      []byte    `json:"digest,omitempty"` // of what was submitted, to tell other content under the same key
	Trace       string    `json:"trace,omitempty"`  // the submitter's traceparent
	Due         time.Time `json:"due,omitzero"`     // when it was to run first; zero: when it was submitted
}

// Job is a job as it is kept.
type Job struct {
	ID       int64
	Kind     string
	Queue    string
	Priority int
	State    State
	// Attempt is the number of the newest attempt, from 1; 0: none was made. No two
	// attempts of a job have the same. Of them Snoozes were put off and don't count:
	// MaxAttempts grows by one with each, so that Attempt-Snoozes of
	// MaxAttempts-Snoozes are used up.
	Attempt         int
	MaxAttempts     int
	Snoozes         int
	RunAt           time.Time
	SubmittedAt     time.Time
	StartedAt       time.Time // of the last attempt; zero: none
	EndedAt         time.Time // zero: not yet
	Worker          string    // who runs it or ran it last
	CancelRequested bool
	Body            []byte
	Output          []byte // opaque; nil: none
	Note            string // why it waits or failed, the newest
	Failures        []Failure
	Facts           Facts
	Progress        []byte // opaque JSON of a Pending job, see Tx.SetProgress
	Tags            []string
}

// Counted returns how many attempts were made that count, and how many may be.
func (j *Job) Counted() (attempts, most int) { return j.Attempt - j.Snoozes, j.MaxAttempts - j.Snoozes }

// Failure is an attempt that failed.
type Failure struct {
	Attempt int
	At      time.Time
	Error   string
}

// Inserted answers New.
type Inserted struct {
	Job Job
	// Existed: it is the one that Unique found.
	Existed bool
}

// Held names one attempt of a job: a fence. What an attempt that is over says is
// refused with ErrLost.
type Held struct {
	ID      int64
	Attempt int
}

// Outcome is how an attempt ended. Make it with the functions below.
type Outcome struct {
	state  State
	output []byte
	err    string
	runAt  time.Time
	snooze bool
}

// Completed says that the job is done, and what came of it.
func Completed(output []byte) Outcome { return Outcome{state: Done, output: output} }

// Retry says that the attempt failed, and when the next one comes.
func Retry(at time.Time, why string) Outcome {
	return Outcome{state: Retryable, runAt: at, err: plain(why)}
}

// GiveUp says that the job failed for good.
func GiveUp(why string) Outcome { return Outcome{state: Discarded, err: plain(why)} }

// Stopped says that the job is cancelled.
func Stopped(why string) Outcome { return Outcome{state: Cancelled, err: plain(why)} }

// Snooze says that the attempt does not count, and when the next one comes.
func Snooze(at time.Time, why string) Outcome {
	return Outcome{state: Scheduled, runAt: at, err: plain(why), snooze: true}
}

// plain is a text without what PostgreSQL can't keep.
func plain(text string) string { return strings.ReplaceAll(text, "\x00", "\uFFFD") }

// Tx is a transaction in which a job is finished: see Finish and Update. Valid
// until the function that got it returns.
type Tx interface {
	// Get reads a job and keeps others from changing it until the end.
	Get(ctx context.Context, id int64) (Job, error)
	// Insert keeps jobs, as Store.Insert does.
	Insert(ctx context.Context, jobs []New) ([]Inserted, error)
	// SetProgress keeps the progress of a job that has not ended.
	SetProgress(ctx context.Context, id int64, progress []byte) error
	// End ends a job that is not running: a Pending one, or one that waits. ErrState:
	// it runs, or has ended.
	End(ctx context.Context, id int64, o Outcome) error
	// Reopen makes a job Pending that was so and has ended: it begins anew.
	Reopen(ctx context.Context, id int64) error
	// Cancel ends a job that is not running; of one that runs it asks that it stop.
	Cancel(ctx context.Context, id int64) error
}

// Filter narrows a list down. Zero: all.
type Filter struct {
	States []State
	Kind   string
	Queue  string
	Tag    string
	Parent int64
	// After: only jobs older than this ID; zero: from the newest on.
	After int64
	// Limit is the most that are returned. Zero: 100.
	Limit int
	// Payload: with Body, Output, Progress and every failure; else the newest
	// failure alone.
	Payload bool
}

// PurgeFilter says which jobs that have ended are deleted. Zero fields: all.
type PurgeFilter struct {
	ID          int64
	States      []State
	Kind, Queue string
	EndedBefore time.Time
}

// Queue is how a queue stands.
type Queue struct {
	Name                                                string
	Paused                                              bool
	Available, Scheduled, Retryable, Running, Discarded uint64
	// Oldest is when the one that waits longest was to run; zero: none waits.
	Oldest time.Time
}

// Work is what River runs here.
type Work struct {
	// Queues and how many of each run at once.
	Queues map[string]int
	// Kinds that Do can do.
	Kinds []string
	// Do makes one attempt. It ends when ctx does: with cause ErrCancelled somebody
	// cancelled the job, with cause ErrStopping the agent stops and the job is to be
	// given back. Do must call Finish for it; a job that it didn't finish is taken
	// for failed. A panic is a failed attempt.
	Do func(ctx context.Context, j Job)
}

// Causes of a context of Work.Do that ended.
var (
	ErrCancelled = errors.New("somebody cancelled the task")
	ErrStopping  = errors.New("the agent stops")
	ErrLeaseOver = errors.New("the store could not be reached for as long as a lease lasts")
)

// LeaseRequest asks for jobs that apps work.
type LeaseRequest struct {
	Queues []string                 // one of them each
	Worker string                   // who asks
	Max    int                      // at most this many
	For    map[string]time.Duration // how long a lease lasts, by queue
}

// Renewal is how a lease stands.
type Renewal struct {
	Until           time.Time // zero: it is over
	CancelRequested bool
}

// Moved tells of a job that changed; see Options.Moved.
type Moved struct {
	ID     int64
	Kind   string
	Queue  string
	State  State
	Parent int64
	// CancelRequested: it runs, and somebody asked that it stop.
	CancelRequested bool
}

package tasks

import (
	"context"
	"errors"
	"sync/atomic"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Executor is the task executor. Make it with New. Safe for concurrent use.
type Executor struct {
	options  Options
	settings atomic.Pointer[Settings]
}

// New returns an executor that has no store yet. Settings that make no sense are
// an error.
func New(o Options) (*Executor, error) { return &Executor{options: o}, nil }

// Start gives the executor its store and begins to run tasks. Once; after an
// error it may be called again.
func (e *Executor) Start(ctx context.Context, s Store) error { return errPending }

// Stop accepts no more, ends what waits, stops leasing, lets running tasks end
// until ctx does, and gives the rest back. The store is the caller's to close.
func (e *Executor) Stop(ctx context.Context) error { return errPending }

// Apply takes other settings over. An error leaves the old ones in force.
func (e *Executor) Apply(ctx context.Context, s Settings) error { return errPending }

// Moved is for store.Options.Moved. It does not block.
func (e *Executor) Moved(m store.Moved) {}

// Problem says why no task can be accepted now; empty: it can.
func (e *Executor) Problem() string { return "" }

// Deferred is a unary call that is kept for later.
type Deferred struct {
	// Service, Method, Metadata and Message are the call's; see Call.
	Service, Method string
	Metadata        metadata.MD
	Message         []byte
	// IdempotencyKey makes a second one with the same content the same task; empty:
	// each is a task of its own.
	IdempotencyKey string
	// Traceparent is the caller's; empty: it told none.
	Traceparent string
}

// Defer keeps a unary call as a grpc task of the queue "default". When it returns
// the task's id, the task is on disk. An error is a gRPC status.
func (e *Executor) Defer(ctx context.Context, d Deferred) (id string, err error) {
	return "", errPending
}

var errPending = status.Error(codes.Unimplemented, errors.ErrUnsupported.Error())

// SubmitTask accepts a task.
func (e *Executor) SubmitTask(ctx context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	return nil, errPending
}

// SubmitTasks accepts several, all or none.
func (e *Executor) SubmitTasks(ctx context.Context, r *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error) {
	return nil, errPending
}

// StreamTasks accepts those that receive returns, until it returns io.EOF, and
// sends an answer for each; send is called by one goroutine at a time.
func (e *Executor) StreamTasks(ctx context.Context, receive func() (*outriggerv1.StreamTasksRequest, error), send func(*outriggerv1.StreamTasksResponse) error) error {
	return errPending
}

// GetTask shows a task.
func (e *Executor) GetTask(ctx context.Context, r *outriggerv1.GetTaskRequest) (*outriggerv1.GetTaskResponse, error) {
	return nil, errPending
}

// ListTasks shows a page of tasks, the newest first.
func (e *Executor) ListTasks(ctx context.Context, r *outriggerv1.ListTasksRequest) (*outriggerv1.ListTasksResponse, error) {
	return nil, errPending
}

// WaitTask waits until a task, or a step of it, has ended.
func (e *Executor) WaitTask(ctx context.Context, r *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	return nil, errPending
}

// WatchTask sends a task whenever it changed, until it has ended.
func (e *Executor) WatchTask(ctx context.Context, r *outriggerv1.WatchTaskRequest, send func(*outriggerv1.WatchTaskResponse) error) error {
	return errPending
}

// CancelTask ends a task that has not ended.
func (e *Executor) CancelTask(ctx context.Context, r *outriggerv1.CancelTaskRequest) (*outriggerv1.CancelTaskResponse, error) {
	return nil, errPending
}

// RetryTask runs a task again.
func (e *Executor) RetryTask(ctx context.Context, r *outriggerv1.RetryTaskRequest) (*outriggerv1.RetryTaskResponse, error) {
	return nil, errPending
}

// PurgeTasks deletes tasks that have ended.
func (e *Executor) PurgeTasks(ctx context.Context, r *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error) {
	return nil, errPending
}

// ListQueues shows the queues.
func (e *Executor) ListQueues(ctx context.Context, r *outriggerv1.ListQueuesRequest) (*outriggerv1.ListQueuesResponse, error) {
	return nil, errPending
}

// PauseQueue stops tasks of a queue from being started.
func (e *Executor) PauseQueue(ctx context.Context, r *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error) {
	return nil, errPending
}

// ResumeQueue lets them be started again.
func (e *Executor) ResumeQueue(ctx context.Context, r *outriggerv1.ResumeQueueRequest) (*outriggerv1.ResumeQueueResponse, error) {
	return nil, errPending
}

// LeaseTasks leases tasks to a worker.
func (e *Executor) LeaseTasks(ctx context.Context, r *outriggerv1.LeaseTasksRequest) (*outriggerv1.LeaseTasksResponse, error) {
	return nil, errPending
}

// RenewTasks renews leases.
func (e *Executor) RenewTasks(ctx context.Context, r *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error) {
	return nil, errPending
}

// CompleteTask ends a leased task well.
func (e *Executor) CompleteTask(ctx context.Context, r *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error) {
	return nil, errPending
}

// FailTask ends an attempt of a leased task that failed.
func (e *Executor) FailTask(ctx context.Context, r *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error) {
	return nil, errPending
}

// Work serves a worker's stream: receive returns what it says, and io.EOF once it
// says no more.
func (e *Executor) Work(ctx context.Context, receive func() (*outriggerv1.WorkRequest, error), send func(*outriggerv1.WorkResponse) error) error {
	return errPending
}

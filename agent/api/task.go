package api

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Tasks executes tasks. The errors of its methods are gRPC statuses, as callers
// shall see them. Safe for concurrent use.
type Tasks interface {
	SubmitTask(ctx context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error)
	SubmitTasks(ctx context.Context, r *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error)
	// StreamTasks accepts what receive returns until its io.EOF; send is called by
	// one goroutine at a time.
	StreamTasks(ctx context.Context, receive func() (*outriggerv1.StreamTasksRequest, error), send func(*outriggerv1.StreamTasksResponse) error) error
	GetTask(ctx context.Context, r *outriggerv1.GetTaskRequest) (*outriggerv1.GetTaskResponse, error)
	ListTasks(ctx context.Context, r *outriggerv1.ListTasksRequest) (*outriggerv1.ListTasksResponse, error)
	WaitTask(ctx context.Context, r *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error)
	WatchTask(ctx context.Context, r *outriggerv1.WatchTaskRequest, send func(*outriggerv1.WatchTaskResponse) error) error
	CancelTask(ctx context.Context, r *outriggerv1.CancelTaskRequest) (*outriggerv1.CancelTaskResponse, error)
	RetryTask(ctx context.Context, r *outriggerv1.RetryTaskRequest) (*outriggerv1.RetryTaskResponse, error)
	PurgeTasks(ctx context.Context, r *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error)
	ListQueues(ctx context.Context, r *outriggerv1.ListQueuesRequest) (*outriggerv1.ListQueuesResponse, error)
	PauseQueue(ctx context.Context, r *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error)
	ResumeQueue(ctx context.Context, r *outriggerv1.ResumeQueueRequest) (*outriggerv1.ResumeQueueResponse, error)
	LeaseTasks(ctx context.Context, r *outriggerv1.LeaseTasksRequest) (*outriggerv1.LeaseTasksResponse, error)
	RenewTasks(ctx context.Context, r *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error)
	CompleteTask(ctx context.Context, r *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error)
	FailTask(ctx context.Context, r *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error)
	// Work serves a worker's stream until receive returns io.EOF and what the worker
	// holds has ended.
	Work(ctx context.Context, receive func() (*outriggerv1.WorkRequest, error), send func(*outriggerv1.WorkResponse) error) error
}

// errNoTasks is for an agent without a task executor.
var errNoTasks = status.Error(codes.FailedPrecondition, "this agent runs no tasks: its configuration has no tasks block; write tasks: {} for an embedded store")

// taskService implements outrigger.v1.TaskService.
type taskService struct {
	outriggerv1.UnimplementedTaskServiceServer
	tasks Tasks // nil: there are none
}

// ask passes a request on.
func ask[Q, A any](s *taskService, ctx context.Context, q Q, do func(Tasks, context.Context, Q) (A, error)) (A, error) { //nolint:revive // methods can't have types
	if s.tasks == nil {
		var none A
		return none, errNoTasks
	}
	return do(s.tasks, ctx, q)
}

func (s *taskService) SubmitTask(ctx context.Context, q *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	return ask(s, ctx, q, Tasks.SubmitTask)
}

func (s *taskService) SubmitTasks(ctx context.Context, q *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error) {
	return ask(s, ctx, q, Tasks.SubmitTasks)
}

func (s *taskService) GetTask(ctx context.Context, q *outriggerv1.GetTaskRequest) (*outriggerv1.GetTaskResponse, error) {
	return ask(s, ctx, q, Tasks.GetTask)
}

func (s *taskService) ListTasks(ctx context.Context, q *outriggerv1.ListTasksRequest) (*outriggerv1.ListTasksResponse, error) {
	return ask(s, ctx, q, Tasks.ListTasks)
}

func (s *taskService) WaitTask(ctx context.Context, q *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	return ask(s, ctx, q, Tasks.WaitTask)
}

func (s *taskService) CancelTask(ctx context.Context, q *outriggerv1.CancelTaskRequest) (*outriggerv1.CancelTaskResponse, error) {
	return ask(s, ctx, q, Tasks.CancelTask)
}

func (s *taskService) RetryTask(ctx context.Context, q *outriggerv1.RetryTaskRequest) (*outriggerv1.RetryTaskResponse, error) {
	return ask(s, ctx, q, Tasks.RetryTask)
}

func (s *taskService) PurgeTasks(ctx context.Context, q *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error) {
	return ask(s, ctx, q, Tasks.PurgeTasks)
}

func (s *taskService) ListQueues(ctx context.Context, q *outriggerv1.ListQueuesRequest) (*outriggerv1.ListQueuesResponse, error) {
	return ask(s, ctx, q, Tasks.ListQueues)
}

func (s *taskService) PauseQueue(ctx context.Context, q *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error) {
	return ask(s, ctx, q, Tasks.PauseQueue)
}

func (s *taskService) ResumeQueue(ctx context.Context, q *outriggerv1.ResumeQueueRequest) (*outriggerv1.ResumeQueueResponse, error) {
	return ask(s, ctx, q, Tasks.ResumeQueue)
}

func (s *taskService) LeaseTasks(ctx context.Context, q *outriggerv1.LeaseTasksRequest) (*outriggerv1.LeaseTasksResponse, error) {
	return ask(s, ctx, q, Tasks.LeaseTasks)
}

func (s *taskService) RenewTasks(ctx context.Context, q *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error) {
	return ask(s, ctx, q, Tasks.RenewTasks)
}

func (s *taskService) CompleteTask(ctx context.Context, q *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error) {
	return ask(s, ctx, q, Tasks.CompleteTask)
}

func (s *taskService) FailTask(ctx context.Context, q *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error) {
	return ask(s, ctx, q, Tasks.FailTask)
}

func (s *taskService) WatchTask(q *outriggerv1.WatchTaskRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchTaskResponse]) error {
	if s.tasks == nil {
		return errNoTasks
	}
	return s.tasks.WatchTask(stream.Context(), q, stream.Send)
}

// StreamTasks checks each task's rules by itself: a mistake in one must not end the
// stream of all.
func (s *taskService) StreamTasks(stream grpc.BidiStreamingServer[outriggerv1.StreamTasksRequest, outriggerv1.StreamTasksResponse]) error {
	if s.tasks == nil {
		return errNoTasks
	}
	var sending sync.Mutex
	send := func(m *outriggerv1.StreamTasksResponse) error {
		sending.Lock()
		defer sending.Unlock()
		return stream.Send(m)
	}
	receive := func() (*outriggerv1.StreamTasksRequest, error) {
		for {
			q, err := stream.Recv()
			if err != nil {
				return nil, err
			}
			wrong := (rules{}).Validate(q)
			if wrong == nil {
				return q, nil
			}
			refused := &outriggerv1.TaskRefusal{Code: uint32(codes.InvalidArgument), Message: wrong.Error()}
			if err := send(&outriggerv1.StreamTasksResponse{Tag: q.GetTag(), Refused: refused}); err != nil {
				return nil, err
			}
		}
	}
	return s.tasks.StreamTasks(stream.Context(), receive, send)
}

func (s *taskService) Work(stream grpc.BidiStreamingServer[outriggerv1.WorkRequest, outriggerv1.WorkResponse]) error {
	if s.tasks == nil {
		return errNoTasks
	}
	return s.tasks.Work(stream.Context(), stream.Recv, stream.Send)
}

package api

import (
	"context"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// Tasks keeps work and does it: what TaskService answers with. Errors are gRPC
// statuses, as callers shall see them. Safe for concurrent use.
type Tasks interface {
	SubmitTask(ctx context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error)
	SubmitTasks(ctx context.Context, r *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error)
	// StreamTasks accepts what receive returns until it returns io.EOF, and sends an
	// answer for each. A request that comes together with an error is refused with it.
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
	// Work serves a worker's stream: receive returns io.EOF once it says no more. It
	// may call receive until the stream has ended, whose context ends then.
	Work(ctx context.Context, receive func() (*outriggerv1.WorkRequest, error), send func(*outriggerv1.WorkResponse) error) error
}

// errNoTasks is for an agent that keeps no tasks.
var errNoTasks = status.Error(codes.FailedPrecondition, "this agent keeps no tasks: its configuration has no tasks block; write one, such as tasks: {}")

// taskService implements outrigger.v1.TaskService.
type taskService struct {
	outriggerv1.UnimplementedTaskServiceServer
	server *Server
}

// asked answers a request by one of Tasks' methods.
func asked[Request, Response any](ctx context.Context, t *taskService, r *Request, answer func(Tasks, context.Context, *Request) (*Response, error)) (*Response, error) {
	if t.server.tasks == nil {
		return nil, errNoTasks
	}
	out, err := answer(t.server.tasks, ctx, r)
	if err != nil {
		return nil, err
	}
	return out, nil
}

func (t *taskService) SubmitTask(ctx context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	return asked(ctx, t, r, Tasks.SubmitTask)
}

func (t *taskService) SubmitTasks(ctx context.Context, r *outriggerv1.SubmitTasksRequest) (*outriggerv1.SubmitTasksResponse, error) {
	return asked(ctx, t, r, Tasks.SubmitTasks)
}

// StreamTasks checks each request's rules itself: a mistake in one must not end
// the stream of all.
func (t *taskService) StreamTasks(stream grpc.BidiStreamingServer[outriggerv1.StreamTasksRequest, outriggerv1.StreamTasksResponse]) error {
	if t.server.tasks == nil {
		return errNoTasks
	}
	receive := func() (*outriggerv1.StreamTasksRequest, error) {
		r, err := stream.Recv()
		if err != nil {
			return nil, err
		}
		if err := (rules{}).Validate(r); err != nil {
			return r, status.Error(codes.InvalidArgument, err.Error())
		}
		return r, nil
	}
	return t.server.tasks.StreamTasks(stream.Context(), receive, stream.Send)
}

func (t *taskService) GetTask(ctx context.Context, r *outriggerv1.GetTaskRequest) (*outriggerv1.GetTaskResponse, error) {
	return asked(ctx, t, r, Tasks.GetTask)
}

func (t *taskService) ListTasks(ctx context.Context, r *outriggerv1.ListTasksRequest) (*outriggerv1.ListTasksResponse, error) {
	return asked(ctx, t, r, Tasks.ListTasks)
}

func (t *taskService) WaitTask(ctx context.Context, r *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	return asked(ctx, t, r, Tasks.WaitTask)
}

func (t *taskService) WatchTask(r *outriggerv1.WatchTaskRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchTaskResponse]) error {
	if t.server.tasks == nil {
		return errNoTasks
	}
	return t.server.tasks.WatchTask(stream.Context(), r, stream.Send)
}

func (t *taskService) CancelTask(ctx context.Context, r *outriggerv1.CancelTaskRequest) (*outriggerv1.CancelTaskResponse, error) {
	out, err := asked(ctx, t, r, Tasks.CancelTask)
	if err == nil {
		t.moved(ctx, "a task was cancelled", "task", r.GetId())
	}
	return out, err
}

func (t *taskService) RetryTask(ctx context.Context, r *outriggerv1.RetryTaskRequest) (*outriggerv1.RetryTaskResponse, error) {
	out, err := asked(ctx, t, r, Tasks.RetryTask)
	if err == nil {
		t.moved(ctx, "a task is run again", "task", r.GetId())
	}
	return out, err
}

func (t *taskService) PurgeTasks(ctx context.Context, r *outriggerv1.PurgeTasksRequest) (*outriggerv1.PurgeTasksResponse, error) {
	out, err := asked(ctx, t, r, Tasks.PurgeTasks)
	if err == nil {
		t.moved(ctx, "an operator purged tasks", "purged", out.GetPurged())
	}
	return out, err
}

func (t *taskService) ListQueues(ctx context.Context, r *outriggerv1.ListQueuesRequest) (*outriggerv1.ListQueuesResponse, error) {
	return asked(ctx, t, r, Tasks.ListQueues)
}

func (t *taskService) PauseQueue(ctx context.Context, r *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error) {
	out, err := asked(ctx, t, r, Tasks.PauseQueue)
	if err == nil {
		t.moved(ctx, "an operator paused a queue", "queue", r.GetName())
	}
	return out, err
}

func (t *taskService) ResumeQueue(ctx context.Context, r *outriggerv1.ResumeQueueRequest) (*outriggerv1.ResumeQueueResponse, error) {
	out, err := asked(ctx, t, r, Tasks.ResumeQueue)
	if err == nil {
		t.moved(ctx, "an operator resumed a queue", "queue", r.GetName())
	}
	return out, err
}

// moved tells the log what somebody changed.
func (t *taskService) moved(ctx context.Context, what string, facts ...any) {
	t.server.log.InfoContext(ctx, what, append(facts, "peer", peerAddress(ctx))...)
}

func (t *taskService) LeaseTasks(ctx context.Context, r *outriggerv1.LeaseTasksRequest) (*outriggerv1.LeaseTasksResponse, error) {
	return asked(ctx, t, r, Tasks.LeaseTasks)
}

func (t *taskService) RenewTasks(ctx context.Context, r *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error) {
	return asked(ctx, t, r, Tasks.RenewTasks)
}

func (t *taskService) CompleteTask(ctx context.Context, r *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error) {
	return asked(ctx, t, r, Tasks.CompleteTask)
}

func (t *taskService) FailTask(ctx context.Context, r *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error) {
	return asked(ctx, t, r, Tasks.FailTask)
}

func (t *taskService) Work(stream grpc.BidiStreamingServer[outriggerv1.WorkRequest, outriggerv1.WorkResponse]) error {
	if t.server.tasks == nil {
		return errNoTasks
	}
	if err := stream.SendHeader(nil); err != nil { // a worker sees at once that somebody listens
		return err
	}
	return t.server.tasks.Work(stream.Context(), stream.Recv, stream.Send)
}

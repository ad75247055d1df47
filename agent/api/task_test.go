package api

import (
	"context"
	"errors"
	"io"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// shelf is a task executor of a test's; what it does not implement panics.
type shelf struct {
	Tasks
	worked chan string
}

func (s *shelf) SubmitTask(_ context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	if r.GetIdempotencyKey() == "full" {
		return nil, status.Error(codes.ResourceExhausted, "full")
	}
	return &outriggerv1.SubmitTaskResponse{Task: &outriggerv1.Task{Id: "t1", Kind: r.GetTask().GetApp().GetKind()}}, nil
}

func (s *shelf) StreamTasks(ctx context.Context, receive func() (*outriggerv1.StreamTasksRequest, error), send func(*outriggerv1.StreamTasksResponse) error) error {
	for {
		r, err := receive()
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case r == nil:
			return err
		case err != nil:
			err = send(&outriggerv1.StreamTasksResponse{Tag: r.GetTag(), Refused: &outriggerv1.TaskRefusal{Message: err.Error()}})
		default:
			err = send(&outriggerv1.StreamTasksResponse{Tag: r.GetTag(), Submitted: &outriggerv1.SubmitTaskResponse{}})
		}
		if err != nil {
			return err
		}
	}
}

func (s *shelf) WatchTask(ctx context.Context, r *outriggerv1.WatchTaskRequest, send func(*outriggerv1.WatchTaskResponse) error) error {
	if err := send(&outriggerv1.WatchTaskResponse{Task: &outriggerv1.Task{Id: r.GetId()}}); err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

func (s *shelf) Work(_ context.Context, receive func() (*outriggerv1.WorkRequest, error), send func(*outriggerv1.WorkResponse) error) error {
	r, err := receive()
	if err != nil {
		return err
	}
	s.worked <- r.GetOpen().GetWorker()
	return send(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Task{Task: &outriggerv1.LeasedTask{Id: "t1"}}})
}

func (s *shelf) PauseQueue(_ context.Context, r *outriggerv1.PauseQueueRequest) (*outriggerv1.PauseQueueResponse, error) {
	return &outriggerv1.PauseQueueResponse{Queue: &outriggerv1.TaskQueue{Name: r.GetName(), Paused: true}}, nil
}

func taskClient(t *testing.T, tasks Tasks) outriggerv1.TaskServiceClient {
	t.Helper()
	return outriggerv1.NewTaskServiceClient(newHouse(t, func(o *Options) { o.Tasks = tasks }).conn)
}

func appSubmit(kind string) *outriggerv1.SubmitTaskRequest {
	return &outriggerv1.SubmitTaskRequest{Task: &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: kind}}}}
}

func TestTasksNeedTheirBlock(t *testing.T) {
	client := taskClient(t, nil)
	service := outriggerv1.File_outrigger_v1_task_proto.Services().ByName("TaskService")
	for i := range service.Methods().Len() {
		m := service.Methods().Get(i)
		t.Run(string(m.Name()), func(t *testing.T) {
			var err error
			switch m.Name() {
			case "StreamTasks":
				err = endedWith(client.StreamTasks(t.Context()))
			case "Work":
				err = endedWith(client.Work(t.Context()))
			case "WatchTask":
				err = endedWith(client.WatchTask(t.Context(), &outriggerv1.WatchTaskRequest{Id: "t1"}))
			default:
				err = askEmpty(t, client, string(m.Name()))
			}
			if s := status.Convert(err); s.Code() != codes.FailedPrecondition || s.Message() != errNoTasks.Error()[len("rpc error: code = FailedPrecondition desc = "):] {
				t.Errorf("%v", err)
			}
		})
	}
}

// endedWith returns what a stream ended with before anything came.
func endedWith[M any](stream interface{ Recv() (*M, error) }, err error) error {
	if err == nil {
		_, err = stream.Recv()
	}
	return err
}

// askEmpty makes a request of a unary method that breaks no rule.
func askEmpty(t *testing.T, c outriggerv1.TaskServiceClient, method string) (err error) {
	lease := &outriggerv1.TaskLease{Id: "t1", Attempt: 1}
	ctx := t.Context()
	switch method {
	case "SubmitTask":
		_, err = c.SubmitTask(ctx, appSubmit("a"))
	case "SubmitTasks":
		_, err = c.SubmitTasks(ctx, &outriggerv1.SubmitTasksRequest{Tasks: []*outriggerv1.SubmitTaskRequest{appSubmit("a")}})
	case "GetTask":
		_, err = c.GetTask(ctx, &outriggerv1.GetTaskRequest{Id: "t1"})
	case "ListTasks":
		_, err = c.ListTasks(ctx, &outriggerv1.ListTasksRequest{})
	case "WaitTask":
		_, err = c.WaitTask(ctx, &outriggerv1.WaitTaskRequest{Id: "t1"})
	case "CancelTask":
		_, err = c.CancelTask(ctx, &outriggerv1.CancelTaskRequest{Id: "t1"})
	case "RetryTask":
		_, err = c.RetryTask(ctx, &outriggerv1.RetryTaskRequest{Id: "t1"})
	case "PurgeTasks":
		_, err = c.PurgeTasks(ctx, &outriggerv1.PurgeTasksRequest{})
	case "ListQueues":
		_, err = c.ListQueues(ctx, &outriggerv1.ListQueuesRequest{})
	case "PauseQueue":
		_, err = c.PauseQueue(ctx, &outriggerv1.PauseQueueRequest{Name: "a"})
	case "ResumeQueue":
		_, err = c.ResumeQueue(ctx, &outriggerv1.ResumeQueueRequest{Name: "a"})
	case "LeaseTasks":
		_, err = c.LeaseTasks(ctx, &outriggerv1.LeaseTasksRequest{Kinds: []string{"a"}})
	case "RenewTasks":
		_, err = c.RenewTasks(ctx, &outriggerv1.RenewTasksRequest{Leases: []*outriggerv1.TaskLease{lease}})
	case "CompleteTask":
		_, err = c.CompleteTask(ctx, &outriggerv1.CompleteTaskRequest{Lease: lease})
	case "FailTask":
		_, err = c.FailTask(ctx, &outriggerv1.FailTaskRequest{Lease: lease, Error: "x"})
	default:
		t.Fatalf("the test does not know the method %s", method)
	}
	return err
}

func TestTaskRequestsArePassedOn(t *testing.T) {
	client := taskClient(t, &shelf{})
	r, err := client.SubmitTask(t.Context(), appSubmit("resize"))
	if err != nil || r.GetTask().GetKind() != "resize" {
		t.Errorf("%v, %v", r, err)
	}
	full := appSubmit("resize")
	full.IdempotencyKey = "full"
	if _, err := client.SubmitTask(t.Context(), full); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("%v", err)
	}
	if p, err := client.PauseQueue(t.Context(), &outriggerv1.PauseQueueRequest{Name: "mail"}); err != nil || !p.GetQueue().GetPaused() {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := client.SubmitTask(t.Context(), &outriggerv1.SubmitTaskRequest{}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a request that breaks a rule: %v", err)
	}
}

func TestABadTaskDoesNotEndTheStreamOfAll(t *testing.T) {
	stream, err := taskClient(t, &shelf{}).StreamTasks(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for tag, submit := range []*outriggerv1.SubmitTaskRequest{appSubmit("a"), nil, appSubmit("b")} {
		if err := stream.Send(&outriggerv1.StreamTasksRequest{Tag: uint64(tag), Submit: submit}); err != nil {
			t.Fatal(err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	for tag := range uint64(3) {
		a, err := stream.Recv()
		if err != nil || a.GetTag() != tag || (a.GetRefused() != nil) != (tag == 1) {
			t.Errorf("%v, %v", a, err)
		}
	}
	if _, err := stream.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("it ended with %v", err)
	}
}

func TestWorkAndWatchAreStreams(t *testing.T) {
	s := &shelf{worked: make(chan string, 1)}
	h := newHouse(t, func(o *Options) { o.Tasks = s })
	client := outriggerv1.NewTaskServiceClient(h.conn)
	work, err := client.Work(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := work.Send(&outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: []string{"a"}, Worker: "w"}}}); err != nil {
		t.Fatal(err)
	}
	if a, err := work.Recv(); err != nil || a.GetTask().GetId() != "t1" || <-s.worked != "w" {
		t.Errorf("%v, %v", a, err)
	}
	watch, err := client.WatchTask(t.Context(), &outriggerv1.WatchTaskRequest{Id: "t1"})
	if err != nil {
		t.Fatal(err)
	}
	if a, err := watch.Recv(); err != nil || a.GetTask().GetId() != "t1" {
		t.Errorf("%v, %v", a, err)
	}
	h.server.Shutdown(t.Context())
	if _, err := watch.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("with the server it ended with %v", err)
	}
}

func TestOnlyTasksMayBeLarge(t *testing.T) {
	h := newHouse(t, func(o *Options) { o.Tasks, o.MaxTask = &shelf{}, 8<<20 })
	large := appSubmit("resize")
	large.Task.GetApp().Payload = &outriggerv1.Payload{Data: make([]byte, 6<<20)}
	if _, err := outriggerv1.NewTaskServiceClient(h.conn).SubmitTask(t.Context(), large, grpc.MaxCallSendMsgSize(16<<20)); err != nil {
		t.Errorf("a large task: %v", err)
	}
	name := string(make([]byte, maxRequest+1))
	if _, err := outriggerv1.NewBreakerServiceClient(h.conn).ListBreakers(t.Context(), &outriggerv1.ListBreakersRequest{PageToken: name}); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request of another kind: %v", err)
	}
	guard, err := outriggerv1.NewResilienceServiceClient(h.conn).Guard(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	cancels := make([]uint64, 8000)
	for i := range cancels {
		cancels[i] = 1 << 60 // nine bytes each
	}
	if err := guard.Send(&outriggerv1.GuardRequest{Cancels: cancels}); err != nil {
		t.Fatal(err)
	}
	if _, err := guard.Recv(); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("a large request in a stream: %v", err)
	}
}

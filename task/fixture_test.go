package task

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// patience is how long a test waits, in virtual time, for what must come.
const patience = 10 * time.Minute

// agent is a TaskService whose test says what it does.
type agent struct {
	outriggerv1.UnimplementedTaskServiceServer
	t testing.TB

	streams   chan *served // each Work stream, once it is open
	completed chan *outriggerv1.CompleteTaskRequest
	failed    chan *outriggerv1.FailTaskRequest

	mu       sync.Mutex
	listener *bufconn.Listener // nil: the agent is away
	server   *grpc.Server
	refuse   error // of Work
	submit   func(*outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error)
	wait     func(*outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error)
	renew    func(*outriggerv1.TaskLease) *outriggerv1.RenewedLease
	complete func(*outriggerv1.CompleteTaskRequest) error
}

func newAgent(t testing.TB) *agent {
	a := &agent{
		t: t, streams: make(chan *served, 10), completed: make(chan *outriggerv1.CompleteTaskRequest, 10), failed: make(chan *outriggerv1.FailTaskRequest, 10),
	}
	t.Cleanup(a.leave)
	return a
}

// come has the agent listen.
func (a *agent) come() *agent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.listener, a.server = bufconn.Listen(64<<10), grpc.NewServer(grpc.WaitForHandlers(true))
	outriggerv1.RegisterTaskServiceServer(a.server, a)
	go a.server.Serve(a.listener)
	return a
}

// leave ends it as a crash does: connections break.
func (a *agent) leave() {
	a.mu.Lock()
	server := a.server
	a.listener, a.server = nil, nil
	a.mu.Unlock()
	if server != nil {
		server.Stop()
	}
}

func (a *agent) dial(ctx context.Context, _ string) (net.Conn, error) {
	a.mu.Lock()
	l := a.listener
	a.mu.Unlock()
	if l == nil {
		return nil, errors.New("connection refused")
	}
	return l.DialContext(ctx)
}

// client returns a client that finds the agent whenever it is there.
func (a *agent) client() *Client {
	a.t.Helper()
	conn, err := grpc.NewClient("passthrough:///agent", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(a.dial), grpc.WithConnectParams(connecting))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	return New(conn)
}

func (a *agent) SubmitTask(_ context.Context, r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
	return a.submit(r)
}

func (a *agent) WaitTask(_ context.Context, r *outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
	return a.wait(r)
}

func (a *agent) RenewTasks(_ context.Context, r *outriggerv1.RenewTasksRequest) (*outriggerv1.RenewTasksResponse, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := &outriggerv1.RenewTasksResponse{}
	for _, l := range r.GetLeases() {
		renewed := &outriggerv1.RenewedLease{Lease: l, LeaseUntil: timestamppb.New(time.Now().Add(time.Second))}
		if a.renew != nil {
			renewed = a.renew(l)
		}
		out.Leases = append(out.Leases, renewed)
	}
	return out, nil
}

func (a *agent) CompleteTask(_ context.Context, r *outriggerv1.CompleteTaskRequest) (*outriggerv1.CompleteTaskResponse, error) {
	if a.complete != nil {
		if err := a.complete(r); err != nil {
			return nil, err
		}
	}
	a.completed <- r
	return &outriggerv1.CompleteTaskResponse{}, nil
}

func (a *agent) FailTask(_ context.Context, r *outriggerv1.FailTaskRequest) (*outriggerv1.FailTaskResponse, error) {
	a.failed <- r
	return &outriggerv1.FailTaskResponse{}, nil
}

// served is a Work stream as the agent sees it.
type served struct {
	a    *agent
	open *outriggerv1.OpenWork
	said chan *outriggerv1.WorkRequest // after open
	gone chan struct{}                 // closed when the worker ended it

	mu   sync.Mutex
	rpc  grpc.BidiStreamingServer[outriggerv1.WorkRequest, outriggerv1.WorkResponse]
	over chan error // what ends it
}

func (a *agent) Work(rpc grpc.BidiStreamingServer[outriggerv1.WorkRequest, outriggerv1.WorkResponse]) error {
	if a.refuse != nil {
		return a.refuse
	}
	first, err := rpc.Recv()
	if err != nil {
		return err
	}
	if err := rpc.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	s := &served{a: a, open: first.GetOpen(), rpc: rpc, said: make(chan *outriggerv1.WorkRequest, 100), gone: make(chan struct{}), over: make(chan error, 1)}
	go func() {
		defer close(s.gone)
		for {
			r, err := rpc.Recv()
			if err != nil {
				return
			}
			s.said <- r
		}
	}()
	a.streams <- s
	select {
	case err := <-s.over:
		return err
	case <-rpc.Context().Done():
		return rpc.Context().Err()
	}
}

// stream waits for the worker's next stream.
func (a *agent) stream() *served {
	a.t.Helper()
	return take(a.t, a.streams, "a stream of the worker")
}

// say sends the worker a message.
func (s *served) say(m *outriggerv1.WorkResponse) {
	s.a.t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.rpc.Send(m); err != nil {
		s.a.t.Errorf("the agent can't send: %v", err)
	}
}

func (s *served) hand(t *outriggerv1.LeasedTask) {
	s.a.t.Helper()
	s.say(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Task{Task: t}})
}

// hear waits for the worker's next message.
func (s *served) hear() *outriggerv1.WorkRequest {
	s.a.t.Helper()
	return take(s.a.t, s.said, "a message of the worker")
}

// more waits for the worker to ask for tasks.
func (s *served) more(want uint32) {
	s.a.t.Helper()
	if got := s.hear(); got.GetMore() != want {
		s.a.t.Fatalf("the worker said %v; want more: %d", got, want)
	}
}

// completes waits for the worker to complete a task, and takes it.
func (s *served) completes() *outriggerv1.CompleteTaskRequest {
	s.a.t.Helper()
	r := s.hear()
	if r.GetComplete() == nil {
		s.a.t.Fatalf("the worker said %v; want complete", r)
	}
	s.ended(r.GetComplete().GetLease(), nil)
	return r.GetComplete()
}

// fails waits for the worker to fail a task, and takes it.
func (s *served) fails() *outriggerv1.FailTaskRequest {
	s.a.t.Helper()
	r := s.hear()
	if r.GetFail() == nil {
		s.a.t.Fatalf("the worker said %v; want fail", r)
	}
	s.ended(r.GetFail().GetLease(), nil)
	return r.GetFail()
}

func (s *served) ended(l *outriggerv1.TaskLease, refused *outriggerv1.TaskRefusal) {
	s.a.t.Helper()
	s.say(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Ended{Ended: &outriggerv1.EndedWork{Lease: l, Refused: refused}}})
}

// breaks ends the stream.
func (s *served) breaks() { s.over <- status.Error(codes.Unavailable, "the connection broke") }

// stops waits for the worker to stop, and ends the stream as an agent does of which
// it holds nothing.
func (s *served) stops() {
	s.a.t.Helper()
	if r := s.hear(); r.GetStop() == nil {
		s.a.t.Fatalf("the worker said %v; want stop", r)
	}
	s.over <- nil
}

// run is a worker that runs.
type run struct {
	t     testing.TB
	stop  context.CancelFunc
	ended chan error
}

// runs starts a worker of the agent, which has ended when the test has.
func (a *agent) runs(w *Worker) *run {
	c := a.client()
	if w.Logger == nil {
		w.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	ctx, stop := context.WithCancel(context.Background())
	r := &run{t: a.t, stop: stop, ended: make(chan error, 1)}
	over := make(chan struct{})
	go func() {
		defer close(over)
		r.ended <- w.Run(ctx, c)
	}()
	a.t.Cleanup(func() {
		stop()
		a.leave()
		<-over
	})
	return r
}

// err waits for Run to return.
func (r *run) err() error {
	r.t.Helper()
	return take(r.t, r.ended, "the end of Run")
}

// take waits for what comes by a channel.
func take[T any](t testing.TB, from <-chan T, what string) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(patience):
		t.Fatalf("no %s came in %v", what, patience)
	}
	return v
}

// leased is a task of kind "save" as an agent hands it out.
func leased(id string, payload string) *outriggerv1.LeasedTask {
	return &outriggerv1.LeasedTask{Id: id, Kind: "save", Attempt: 1, MaxAttempts: 3, Payload: &outriggerv1.Payload{Data: []byte(payload), ContentType: jsonType}}
}

// one is a worker of the kind "save" that does one task at a time.
func one(do Handler) *Worker {
	return &Worker{Name: "w", Concurrency: 1, Kinds: map[string]Handler{"save": do}}
}

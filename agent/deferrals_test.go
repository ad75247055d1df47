package agent

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// withTasks is configOf beside a task executor on a file of its own.
func withTasks(t *testing.T, more, policy string, upstreams ...*upstream) string {
	return fmt.Sprintf("tasks: {store: {sqlite: {path: %q}}%s}\n", filepath.Join(t.TempDir(), "tasks.db"), more) + configOf(policy, upstreams...)
}

// deferred makes a call of which a task is expected, and returns its id.
func deferred(t *testing.T, cc *grpc.ClientConn, md ...string) (id string, err error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var trailer metadata.MD
	out := new(wrapperspb.StringValue)
	err = cc.Invoke(metadata.AppendToOutgoingContext(ctx, md...), "/test.Echo/Call", wrapperspb.String("x"), out, grpc.Trailer(&trailer))
	if err == nil && out.GetValue() != "" {
		t.Errorf("the answer holds %q, want an empty message", out.GetValue())
	}
	return strings.Join(trailer.Get("outrigger-task-id"), ","), err
}

func (r *running) task(id string) *outriggerv1.Task {
	r.t.Helper()
	got, err := outriggerv1.NewTaskServiceClient(dial(r.t, r.Addresses().API)).GetTask(context.Background(), &outriggerv1.GetTaskRequest{Id: id})
	if err != nil {
		r.t.Fatal(err)
	}
	return got.GetTask()
}

func TestADeferredCallIsMadeLater(t *testing.T) {
	up := startUpstream(t)
	r := startAgent(t, withTasks(t, "", "defer: {mode: ON_REQUEST}", up))
	app := r.app()

	id, err := deferred(t, app, "outrigger-defer", "true", "outrigger-idempotency-key", "order 7", "x-id-bin", "\x00\x01")
	if err != nil || id == "" {
		t.Fatalf("%q, %v", id, err)
	}
	again, err := deferred(t, app, "outrigger-defer", "true", "outrigger-idempotency-key", "order 7", "x-id-bin", "\x00\x01")
	if err != nil || again != id {
		t.Fatalf("the same key gave %q, %v; want %q", again, err, id)
	}
	_, err = deferred(t, app, "outrigger-defer", "true", "outrigger-idempotency-key", "order 7", "x-other", "1")
	if status.Code(err) != codes.AlreadyExists {
		t.Fatalf("other content under the key: %v", err)
	}

	eventually(t, "the task is done", func() bool { return r.task(id).GetState() == outriggerv1.TaskState_COMPLETED })
	if up.calls.Load() != 1 {
		t.Fatalf("%d calls were made", up.calls.Load())
	}
}

func TestACallThatFailedIsMadeAgainUntilItWorks(t *testing.T) {
	up := startUpstream(t)
	up.fail.Store(true)
	r := startAgent(t, withTasks(t, ", kinds: [{name: grpc, backoff: {base: 100ms, max: 100ms}}]", "defer: {mode: ON_FAILURE}", up))

	id, err := deferred(t, r.app())
	if err != nil || id == "" {
		t.Fatalf("%q, %v", id, err)
	}
	eventually(t, "an attempt of the task fails, and makes no task of its own", func() bool { return r.task(id).GetAttempts() >= 1 && up.calls.Load() >= 2 })

	up.fail.Store(false)

	eventually(t, "the task is done", func() bool { return r.task(id).GetState() == outriggerv1.TaskState_COMPLETED })
	all, err := outriggerv1.NewTaskServiceClient(dial(t, r.Addresses().API)).ListTasks(context.Background(), &outriggerv1.ListTasksRequest{})
	if err != nil || len(all.GetTasks()) != 1 {
		t.Fatalf("%v, %v", all, err)
	}
}

func TestAFullQueueRefusesDeferredCalls(t *testing.T) {
	up := startUpstream(t)
	r := startAgent(t, withTasks(t, ", queue_capacity: 1", "defer: {mode: ON_REQUEST}", up))
	if _, err := outriggerv1.NewTaskServiceClient(dial(t, r.Addresses().API)).PauseQueue(context.Background(), &outriggerv1.PauseQueueRequest{Name: "default"}); err != nil {
		t.Fatal(err)
	}
	app := r.app()
	if _, err := deferred(t, app, "outrigger-defer", "true"); err != nil {
		t.Fatal(err)
	}

	_, err := deferred(t, app, "outrigger-defer", "true")

	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(fmt.Sprint(status.Convert(err).Details()), "TASK_QUEUE_FULL") {
		t.Fatalf("got %v", err)
	}
}

func TestWhatTheExecutorRefusesIsTold(t *testing.T) {
	refused := func(code codes.Code, reason string, retry time.Duration) error {
		s, err := status.New(code, "why").WithDetails(&errdetails.ErrorInfo{Reason: reason}, &errdetails.RetryInfo{RetryDelay: durationpb.New(retry)})
		if err != nil {
			t.Fatal(err)
		}
		return s.Err()
	}
	for _, tc := range []struct {
		err    error
		reason policy.Reason
		code   policy.Code
		retry  time.Duration
	}{
		{refused(codes.ResourceExhausted, "TASK_QUEUE_FULL", 3*time.Second), policy.TaskQueueFull, policy.ResourceExhausted, 3 * time.Second},
		{refused(codes.Unavailable, "TASK_STORE", 2*time.Second), policy.TaskStore, policy.Unavailable, 2 * time.Second},
		{refused(codes.Unavailable, "DRAINING", 2*time.Second), policy.Draining, policy.Unavailable, 2 * time.Second},
		{status.Error(codes.DeadlineExceeded, "slow"), policy.TaskStore, policy.Unavailable, time.Second},
		{status.Error(codes.Canceled, "over"), policy.TaskStore, policy.Unavailable, time.Second},
		{status.Error(codes.AlreadyExists, "the key"), policy.NotDeferrable, policy.AlreadyExists, 0},
		{status.Error(codes.InvalidArgument, "grpc.metadata"), policy.NotDeferrable, policy.InvalidArgument, 0},
		{errors.New("odd"), policy.NotDeferrable, policy.Unknown, 0},
	} {
		if got := notKept(tc.err); got.Reason != tc.reason || got.Code() != tc.code || got.RetryAfter != tc.retry || got.Message == "" {
			t.Errorf("%v: %+v", tc.err, got)
		}
	}
}

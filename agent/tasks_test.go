package agent

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/agent/config"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// storing adds a tasks block to a configuration.
func storing(t *testing.T, text, more string) string {
	t.Helper()
	return text + fmt.Sprintf("tasks:\n  store: {sqlite: {path: %q}}\n  kinds: [{name: grpc, backoff: {base: 10ms}}]\n%s", filepath.Join(t.TempDir(), "tasks.db"), more)
}

func (r *running) tasksAPI() outriggerv1.TaskServiceClient {
	return outriggerv1.NewTaskServiceClient(dial(r.t, r.Addresses().API))
}

func waited(t *testing.T, api outriggerv1.TaskServiceClient, id string) *outriggerv1.Task {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	answer, err := api.WaitTask(ctx, &outriggerv1.WaitTaskRequest{Id: id})
	if err != nil {
		t.Fatal(err)
	}
	return answer.GetTask()
}

func echoTask(t *testing.T, text string) *outriggerv1.SubmitTaskRequest {
	t.Helper()
	message, err := proto.Marshal(wrapperspb.String(text))
	if err != nil {
		t.Fatal(err)
	}
	return &outriggerv1.SubmitTaskRequest{Task: &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{Service: "echo", Method: "/test.Echo/Call", Message: message}}}}
}

func TestAGRPCTaskGoesByTheAgentsPolicies(t *testing.T) {
	// Given a service whose breaker opens after two failures, and that fails,
	up := startUpstream(t)
	up.fail.Store(true)
	a := startAgent(t, storing(t, configOf("circuit_breaker: {consecutive_failures: 2, open_for: 600ms, max_open_for: 600ms}", up), ""))
	api := a.tasksAPI()
	submitted, err := api.SubmitTask(t.Context(), echoTask(t, "hello"))
	if err != nil {
		t.Fatal(err)
	}
	// when the breaker is open, then the task is put off and no attempt counts,
	eventually(t, "the task is put off", func() bool {
		got, err := api.GetTask(t.Context(), &outriggerv1.GetTaskRequest{Id: submitted.GetTask().GetId()})
		return err == nil && got.GetTask().GetSnoozes() > 0 && got.GetTask().GetAttempts() <= 2
	})
	// and it is done once the service is well.
	up.fail.Store(false)
	done := waited(t, api, submitted.GetTask().GetId())
	var reply wrapperspb.StringValue
	if err := proto.Unmarshal(done.GetResult().GetPayload().GetData(), &reply); err != nil || done.GetState() != outriggerv1.TaskState_COMPLETED || reply.GetValue() != "hello" {
		t.Errorf("%v %v", done, err)
	}
}

func TestAFullQueueRefusesADeferredCall(t *testing.T) {
	up := startUpstream(t)
	a := startAgent(t, storing(t, configOf("defer: {mode: ON_REQUEST}", up), "  queue_capacity: 1\n"))
	if _, err := a.tasksAPI().PauseQueue(t.Context(), &outriggerv1.PauseQueueRequest{Name: "default"}); err != nil {
		t.Fatal(err)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "outrigger-defer", "true")
	app := a.app()
	call := func() error {
		return app.Invoke(ctx, "/test.Echo/Call", wrapperspb.String("hello"), new(wrapperspb.StringValue))
	}

	first, second := call(), call()

	if first != nil || status.Code(second) != codes.ResourceExhausted {
		t.Fatalf("%v, then %v", first, second)
	}
	info, ok := status.Convert(second).Details()[0].(*errdetails.ErrorInfo)
	if !ok || info.GetReason() != "TASK_QUEUE_FULL" {
		t.Errorf("%v", status.Convert(second).Details())
	}
}

func TestAnHTTPTaskGoesWhereDialMayLead(t *testing.T) {
	var got atomic.Pointer[http.Header]
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		got.Store(&h)
		w.WriteHeader(http.StatusNoContent)
	}))
	defer web.Close()
	a := startAgent(t, storing(t, ports+"unmatched: {mode: DIAL}\n", ""))
	api := a.tasksAPI()
	submit := func(url string) *outriggerv1.Task {
		t.Helper()
		answer, err := api.SubmitTask(t.Context(), &outriggerv1.SubmitTaskRequest{Task: &outriggerv1.TaskSpec{
			Work: &outriggerv1.TaskSpec_Http{Http: &outriggerv1.HttpWork{Url: url}},
		}})
		if err != nil {
			t.Fatal(err)
		}
		return waited(t, api, answer.GetTask().GetId())
	}

	ok := submit(web.URL + "/hook")
	if h := got.Load(); ok.GetState() != outriggerv1.TaskState_COMPLETED || ok.GetResult().GetHttpStatus() != 204 || h == nil || h.Get("Outrigger-Task-Id") != ok.GetId() {
		t.Errorf("%v, its headers %v", ok, h)
	}
	for url, why := range map[string]string{
		"http://169.254.169.254/latest/":              "169.254.169.254 is link-local",
		"https://169.254.169.254/latest/":             "169.254.169.254 is link-local",
		"http://" + a.Addresses().Admin + "/readyz":   "it leads back to the agent",
		"https://" + a.Addresses().Egress + "/readyz": "it leads back to the agent",
	} {
		refused := submit(url)
		if refused.GetState() != outriggerv1.TaskState_FAILED || refused.GetAttempts() != 1 || !strings.HasPrefix(refused.GetError(), "NO_ROUTE: ") || !strings.Contains(refused.GetError(), why) {
			t.Errorf("%s: %v; want it to say %q", url, refused, why)
		}
	}
}

func TestTasksAreSeen(t *testing.T) {
	up := startUpstream(t)
	a := startAgent(t, storing(t, configOf("timeout: 1s", up), ""))
	api := a.tasksAPI()
	submitted, err := api.SubmitTask(t.Context(), echoTask(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	waited(t, api, submitted.GetTask().GetId())

	if ready := a.get("/readyz?verbose"); !strings.Contains(ready, "[+] tasks: accepting and running") {
		t.Error(ready)
	}
	eventually(t, "the attempt is counted", func() bool {
		return strings.Contains(a.get("/metrics"), `outrigger_task_attempts_total{outrigger_kind="grpc",outrigger_outcome="done"} 1`)
	})
	for _, want := range []string{`outrigger_tasks{outrigger_queue="default",outrigger_state="AVAILABLE"} 0`, `outrigger_task_submits_total{outrigger_outcome="accepted"} 1`, "outrigger_task_store_usable 1", `outrigger_sla_verdict{`} {
		if metrics := a.get("/metrics"); !strings.Contains(metrics, want) {
			t.Errorf("%s is not in the metrics", want)
		}
	}
	reports, err := outriggerv1.NewSlaServiceClient(dial(t, a.Addresses().API)).ListReports(t.Context(), &outriggerv1.ListReportsRequest{Service: "tasks/grpc"})
	if err != nil || reports.GetReports()[0].GetCalls() != 1 {
		t.Errorf("%v %v", reports, err)
	}
}

func TestWithoutATasksBlockThereAreNone(t *testing.T) {
	a := startAgent(t, ports)

	_, err := a.tasksAPI().ListQueues(t.Context(), &outriggerv1.ListQueuesRequest{})

	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "its configuration has no tasks block") {
		t.Error(err)
	}
}

func TestTasksOutliveARestart(t *testing.T) {
	up := startUpstream(t)
	up.fail.Store(true)
	text := storing(t, configOf("timeout: 1s", up), "")
	first := startAgent(t, text)
	submitted, err := first.tasksAPI().SubmitTask(t.Context(), echoTask(t, "x"))
	if err != nil {
		t.Fatal(err)
	}
	first.end()
	up.fail.Store(false)

	second := startAgent(t, text)

	if done := waited(t, second.tasksAPI(), submitted.GetTask().GetId()); done.GetState() != outriggerv1.TaskState_COMPLETED {
		t.Errorf("%v", done)
	}
}

func TestAReloadChangesHowTasksAreRun(t *testing.T) {
	// Given an agent whose tasks know no kind "letters", no queue "slow", and no mail,
	up := startUpstream(t)
	base := storing(t, configOf("timeout: 1s", up), "")
	a := startAgent(t, base)
	api := a.tasksAPI()
	letters := &outriggerv1.SubmitTaskRequest{Task: &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_App{App: &outriggerv1.AppWork{Kind: "letters"}}}}
	slow := echoTask(t, "x")
	slow.Task.Queue = "slow"
	for _, unknown := range []*outriggerv1.SubmitTaskRequest{letters, slow} {
		if _, err := api.SubmitTask(t.Context(), unknown); status.Code(err) != codes.InvalidArgument {
			t.Fatalf("before: %v", err)
		}
	}

	// when its file names them, with a mail server, and is read again,
	more := "  queues: [{name: slow, workers: 1}]\n  email: {server: \"127.0.0.1:1025\", from: \"a@example.com\"}\n"
	a.rewrite(strings.Replace(base, "{name: grpc,", "{name: letters}, {name: grpc,", 1) + more)

	// then both work, without a restart,
	if _, err := api.SubmitTask(t.Context(), letters); err != nil {
		t.Error(err)
	}
	submitted, err := api.SubmitTask(t.Context(), slow)
	if err != nil {
		t.Fatal(err)
	}
	if done := waited(t, api, submitted.GetTask().GetId()); done.GetState() != outriggerv1.TaskState_COMPLETED || done.GetQueue() != "slow" {
		t.Errorf("%v", done)
	}
	if leased, err := api.LeaseTasks(t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"letters"}, Worker: "w"}); err != nil || len(leased.GetTasks()) != 1 {
		t.Errorf("%v %v", leased, err)
	}
	// and a kind that workers may hold can't go.
	if err := os.WriteFile(a.path, []byte(base), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil || !strings.Contains(err.Error(), `tasks.kinds: "letters" goes`) {
		t.Errorf("%v", err)
	}
}

func TestAReloadWhoseTaskFilesAreBrokenChangesNothing(t *testing.T) {
	up := startUpstream(t)
	base := storing(t, configOf("timeout: 1s", up), "")
	a := startAgent(t, base)
	for more, want := range map[string]string{
		"  webhook_secrets: [{name: shop, files: [nowhere.secret]}]\n":                         `tasks.webhook_secrets "shop"`,
		"  email: {server: \"127.0.0.1:1025\", from: \"a@example.com\", templates: nowhere}\n": "tasks.email.templates",
	} {
		if err := os.WriteFile(a.path, []byte(base+"  queue_capacity: 1\n"+more), 0o600); err != nil {
			t.Fatal(err)
		}

		err := a.Reload()

		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
	queues, err := a.tasksAPI().ListQueues(t.Context(), &outriggerv1.ListQueuesRequest{})
	if err != nil || queues.GetQueues()[0].GetCapacity() == 1 {
		t.Errorf("%v %v", queues, err)
	}
}

func TestAFileThatTasksNameAndThatIsNotThereIsNamed(t *testing.T) {
	for more, want := range map[string]string{
		"  webhook_secrets: [{name: shop, files: [nowhere.secret]}]\n":                         `tasks.webhook_secrets "shop"`,
		"  email: {server: \"127.0.0.1:1025\", from: \"a@example.com\", templates: nowhere}\n": "tasks.email.templates",
	} {
		path := filepath.Join(t.TempDir(), "outrigger.yaml")
		if err := os.WriteFile(path, []byte(storing(t, ports, more)), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := New(Options{ConfigPath: path})
		if err == nil {
			err = a.Run(t.Context())
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

func TestThePostgresURL(t *testing.T) {
	dir := t.TempDir()
	password, whole := filepath.Join(dir, "password"), filepath.Join(dir, "url")
	for path, text := range map[string]string{password: "se/cret\n", whole: "postgres://app:pw@db:5432/tasks?sslmode=require\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct {
		name string
		c    config.TaskPostgres
		want string
	}{
		{"to another machine", config.TaskPostgres{URL: "postgres://app@db:5432/tasks", PasswordFile: password}, "postgres://app:se%2Fcret@db:5432/tasks?sslmode=verify-full"},
		{"to this one", config.TaskPostgres{URL: "postgres://app@127.0.0.1/tasks"}, "postgres://app@127.0.0.1/tasks"},
		{"by its socket", config.TaskPostgres{URL: "postgres:///tasks?host=/run/postgresql"}, "postgres:///tasks?host=/run/postgresql"},
		{"as it says itself", config.TaskPostgres{URL: "postgres://app@db/tasks?sslmode=disable"}, "postgres://app@db/tasks?sslmode=disable"},
		{"from a file", config.TaskPostgres{URLFile: whole}, "postgres://app:pw@db:5432/tasks?sslmode=require"},
	} {
		if got, err := postgresURL(&test.c); err != nil || got != test.want {
			t.Errorf("%s: %s %v, want %s", test.name, got, err, test.want)
		}
	}
	if err := os.WriteFile(whole, []byte("hunter2"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := postgresURL(&config.TaskPostgres{URLFile: whole}); err == nil || strings.Contains(err.Error(), "hunter2") {
		t.Errorf("%v", err)
	}
}

func TestAStreamThatFailsIsToldSoon(t *testing.T) {
	a := startAgent(t, storing(t, ports+"services:\n  - name: echo\n    endpoints: {static: [{address: \"127.0.0.1:1\"}]}\n    policy: {defer: {mode: ON_FAILURE}}\n", ""))
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	stream, err := a.app().NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Chat")
	if err != nil {
		t.Fatal(err)
	}

	err = stream.RecvMsg(new(wrapperspb.StringValue))

	if status.Code(err) != codes.Unavailable || ctx.Err() != nil {
		t.Errorf("%v, and its own deadline %v", err, ctx.Err())
	}
}

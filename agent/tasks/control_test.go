package tasks

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestTasksAreListedInPages(t *testing.T) {
	onStage(t, func(s *stage) {
		var ids []string
		for i := range 5 {
			ids = append(ids, s.submit(with(appTask("resize", "secret"), func(s *outriggerv1.TaskSpec) { s.Tags = []string{fmt.Sprint("n", i%2)} })).GetId())
		}
		var got []string
		token := ""
		for pages := 0; pages == 0 || token != ""; pages++ {
			r, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{PageSize: 2, PageToken: token})
			if err != nil || pages > 3 {
				t.Fatal(pages, err)
			}
			for _, task := range r.GetTasks() {
				got = append(got, task.GetId())
				if task.GetSpec() != nil || task.GetResult() != nil {
					t.Error("a payload was shown that nobody asked for")
				}
			}
			token = r.GetNextPageToken()
		}
		if want := []string{ids[4], ids[3], ids[2], ids[1], ids[0]}; fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("listed %v, want %v", got, want)
		}
		for _, tc := range []struct {
			r    *outriggerv1.ListTasksRequest
			want int
		}{
			{&outriggerv1.ListTasksRequest{Tag: "n1"}, 2},
			{&outriggerv1.ListTasksRequest{Kind: "grpc"}, 0},
			{&outriggerv1.ListTasksRequest{Queue: "resize"}, 5},
			{&outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_AVAILABLE}}, 5},
			{&outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_FAILED, outriggerv1.TaskState_RUNNING}}, 0},
		} {
			if r, err := s.e.ListTasks(s.t.Context(), tc.r); err != nil || len(r.GetTasks()) != tc.want {
				t.Errorf("%v: %d, %v; want %d", tc.r, len(r.GetTasks()), err, tc.want)
			}
		}
		r, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{PageSize: 1, ShowPayload: true})
		if err != nil || string(r.GetTasks()[0].GetSpec().GetApp().GetPayload().GetData()) != "secret" {
			t.Errorf("%v, %v", r, err)
		}
		for _, bad := range []string{"x", "YWZ0ZXI6", formatToken(1) + "x"} {
			_, err = s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{PageToken: bad})
			wantStatus(t, err, codes.InvalidArgument, "page_token: ")
		}
		_, err = s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{Parent: "x"})
		wantStatus(t, err, codes.InvalidArgument, "parent: ")
	})
}

func TestATaskThatIsNotThere(t *testing.T) {
	onStage(t, func(s *stage) {
		for name, do := range map[string]func(id string) error{
			"get": func(id string) error {
				_, err := s.e.GetTask(s.t.Context(), &outriggerv1.GetTaskRequest{Id: id})
				return err
			},
			"wait": func(id string) error {
				_, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: id})
				return err
			},
			"watch": func(id string) error { return s.e.WatchTask(s.t.Context(), &outriggerv1.WatchTaskRequest{Id: id}, nil) },
			"cancel": func(id string) error {
				_, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: id})
				return err
			},
			"retry": func(id string) error {
				_, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: id})
				return err
			},
			"purge": func(id string) error {
				_, err := s.e.PurgeTasks(s.t.Context(), &outriggerv1.PurgeTasksRequest{Id: id})
				return err
			},
		} {
			t.Run(name, func(t *testing.T) {
				wantStatus(t, do(FormatID(7)), codes.NotFound, "there is no such task")
				wantStatus(t, do("seven"), codes.InvalidArgument, "id: ", `"seven"`)
			})
		}
	})
}

func TestATaskIsWatched(t *testing.T) {
	onStage(t, func(s *stage) {
		fails := 1
		s.call = func(context.Context, Call) ([]byte, error) {
			time.Sleep(time.Second)
			if fails--; fails >= 0 {
				return nil, status.Error(codes.Unavailable, "no")
			}
			return nil, nil
		}
		task := s.submit(with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Delay = duration(10 * time.Second) }))
		var seen []string
		err := s.e.WatchTask(s.t.Context(), &outriggerv1.WatchTaskRequest{Id: task.GetId()}, func(r *outriggerv1.WatchTaskResponse) error {
			if state := r.GetTask().GetState(); state != outriggerv1.TaskState_AVAILABLE { // for an instant, which may go unseen
				seen = append(seen, fmt.Sprint(state, " ", sinceStart()))
			}
			return nil
		})
		if got := strings.Join(seen, " "); err != nil || got != "SCHEDULED 0s RUNNING 10s RETRYABLE 11s RUNNING 12s COMPLETED 13s" {
			t.Errorf("saw %s, %v", got, err)
		}
	})
}

func TestADeadLetterIsRunAgain(t *testing.T) {
	onStage(t, func(s *stage) {
		broken := true
		s.call = func(context.Context, Call) ([]byte, error) {
			if broken {
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			return nil, nil
		}
		task := s.submit(grpcTask(""))
		s.wait(task.GetId())
		dead, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_FAILED}})
		if err != nil || len(dead.GetTasks()) != 1 || dead.GetTasks()[0].GetError() != "INVALID_ARGUMENT: no" {
			t.Fatalf("%v, %v", dead, err)
		}
		broken = false
		if _, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: task.GetId()}); err != nil {
			t.Fatal(err)
		}
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_COMPLETED, 1)
		_, err = s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: task.GetId()})
		wantStatus(t, err, codes.FailedPrecondition, "it COMPLETED")
	})
}

func TestWhatWaitsForItsNextAttemptMakesItNow(t *testing.T) {
	onStage(t, func(s *stage) {
		fails := 1
		s.call = func(context.Context, Call) ([]byte, error) {
			if fails--; fails >= 0 {
				return nil, status.Error(codes.Unavailable, "no")
			}
			return nil, nil
		}
		task := s.submit(with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Retry = &outriggerv1.TaskRetry{Base: duration(time.Hour), Max: duration(time.Hour)}
		}))
		time.Sleep(time.Second)
		if _, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: task.GetId()}); err != nil {
			t.Fatal(err)
		}
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_COMPLETED, 2)
		if sinceStart() != time.Second {
			t.Errorf("done after %v", sinceStart())
		}
	})
}

func TestEndedTasksAreDeleted(t *testing.T) {
	onStage(t, func(s *stage) {
		done, waits := s.submit(grpcTask("")), s.submit(appTask("resize", ""))
		s.wait(done.GetId())
		_, err := s.e.PurgeTasks(s.t.Context(), &outriggerv1.PurgeTasksRequest{Id: waits.GetId()})
		wantStatus(t, err, codes.FailedPrecondition, "has not ended", "cancel it first")
		_, err = s.e.PurgeTasks(s.t.Context(), &outriggerv1.PurgeTasksRequest{Id: done.GetId(), Kind: "grpc"})
		wantStatus(t, err, codes.InvalidArgument, "id: ")
		time.Sleep(time.Hour)
		for _, tc := range []struct {
			r    *outriggerv1.PurgeTasksRequest
			want uint64
		}{
			{&outriggerv1.PurgeTasksRequest{States: []outriggerv1.TaskState{outriggerv1.TaskState_FAILED}}, 0},
			{&outriggerv1.PurgeTasksRequest{Kind: "http"}, 0},
			{&outriggerv1.PurgeTasksRequest{EndedBefore: timeOf(time.Now().Add(-2 * time.Hour))}, 0},
			{&outriggerv1.PurgeTasksRequest{EndedBefore: timeOf(time.Now())}, 1},
			{&outriggerv1.PurgeTasksRequest{}, 0},
		} {
			if r, err := s.e.PurgeTasks(s.t.Context(), tc.r); err != nil || r.GetPurged() != tc.want {
				t.Errorf("%v: %d, %v; want %d", tc.r, r.GetPurged(), err, tc.want)
			}
		}
	})
}

func TestAQueueIsPaused(t *testing.T) {
	onStage(t, func(s *stage) {
		r, err := s.e.PauseQueue(s.t.Context(), &outriggerv1.PauseQueueRequest{Name: "small"})
		if err != nil || !r.GetQueue().GetPaused() || r.GetQueue().GetCapacity() != 2 || r.GetQueue().GetWorkers() != 1 {
			t.Fatalf("%v, %v", r, err)
		}
		task := s.submit(with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "small" }))
		time.Sleep(time.Hour)
		s.want(s.get(task.GetId()), outriggerv1.TaskState_AVAILABLE, 0)
		s.want(s.wait(s.submit(grpcTask("")).GetId()), outriggerv1.TaskState_COMPLETED, 1)
		all, err := s.e.ListQueues(s.t.Context(), &outriggerv1.ListQueuesRequest{})
		var names []string
		for _, q := range all.GetQueues() {
			names = append(names, fmt.Sprint(q.GetName(), q.GetAvailable(), q.GetPaused()))
		}
		if err != nil || fmt.Sprint(names) != "[callers0 false default0 false resize0 false save-user0 false small1 true]" {
			t.Errorf("queues %v, %v", names, err)
		}
		if _, err := s.e.ResumeQueue(s.t.Context(), &outriggerv1.ResumeQueueRequest{Name: "small"}); err != nil {
			t.Fatal(err)
		}
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_COMPLETED, 1)
		_, err = s.e.PauseQueue(s.t.Context(), &outriggerv1.PauseQueueRequest{Name: "slow"})
		wantStatus(t, err, codes.InvalidArgument, "name: ", "callers, default, resize, save-user, small")
	})
}

func TestWaitsAreBounded(t *testing.T) {
	onStage(t, func(s *stage) {
		s.e.waiters.n = maxWaiters
		_, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: s.submit(appTask("resize", "")).GetId()})
		wantStatus(t, err, codes.ResourceExhausted, "10000 requests wait")
		s.e.waiters.n = 0
	})
}

func TestAWaitNoticesWhatAnotherAgentDid(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(appTask("resize", ""))
		go func() {
			time.Sleep(time.Minute)
			s.store.mu.Lock()
			defer s.store.mu.Unlock()
			for _, r := range s.store.jobs {
				r.State = store.Done
			}
		}()
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_COMPLETED, 0)
		if sinceStart() > 62*time.Second {
			t.Errorf("noticed after %v", sinceStart())
		}
	})
}

func TestStatsCountTasksByKind(t *testing.T) {
	onStage(t, func(s *stage) {
		fails := 1
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			time.Sleep(2 * time.Second)
			if string(c.Message) == "bad" {
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			if fails--; fails >= 0 {
				return nil, status.Error(codes.Unavailable, "no")
			}
			return nil, nil
		}
		s.wait(s.submit(with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Delay = duration(time.Minute) })).GetId()) // 2 s, wait 1 s, 2 s
		s.wait(s.submit(grpcTask("bad")).GetId())
		synctest.Wait()
		stats, err := s.e.Stats(s.t.Context())
		if err != nil || len(stats.Kinds) != 1 || stats.Submitted != 2 || len(stats.Queues) != 5 {
			t.Fatalf("%+v, %v", stats, err)
		}
		k := stats.Kinds[0]
		if k.Kind != "grpc" || k.Attempts[Done] != 1 || k.Attempts[Retried] != 1 || k.Attempts[GivenUp] != 1 || k.Run.Count() != 3 || k.Run.Max() < 1980*time.Millisecond || k.Run.Max() > 2020*time.Millisecond {
			t.Errorf("%+v", k)
		}
		total := k.SLA.Read(sinceStart(), time.Hour)
		if total.Successes != 1 || total.Failures != 1 || total.Latency.Max() < 4900*time.Millisecond || total.Latency.Max() > 5100*time.Millisecond {
			t.Errorf("successes %d, failures %d, longest %v", total.Successes, total.Failures, total.Latency.Max())
		}
	})
}

func TestSpansAreOfTheSubmittersTrace(t *testing.T) {
	tracer := &recordedTracer{}
	onStageWith(t, func(o *Options) { o.Tracer = tracer }, func(s *stage) {
		ctx := metadata.NewIncomingContext(s.t.Context(), metadata.Pairs("traceparent", "00-trace-span-01"))
		r, err := s.e.SubmitTask(ctx, &outriggerv1.SubmitTaskRequest{Task: grpcTask("")})
		if err != nil {
			t.Fatal(err)
		}
		s.wait(r.GetTask().GetId())
		synctest.Wait()
		if got := s.called()[0].Metadata.Get("traceparent"); len(got) != 1 || got[0] != "00-trace-attempt-01" {
			t.Errorf("the call carries %v", got)
		}
		if len(tracer.began) != 1 || tracer.began[0].Traceparent != "00-trace-span-01" || tracer.began[0].ID != r.GetTask().GetId() || tracer.ended[0].Outcome != Done {
			t.Errorf("began %+v, ended %+v", tracer.began, tracer.ended)
		}
	})
}

type recordedTracer struct {
	began []Attempt
	ended []Ending
}

func (r *recordedTracer) Attempt(ctx context.Context, a Attempt) (context.Context, string, func(Ending)) {
	r.began = append(r.began, a)
	return ctx, "00-trace-attempt-01", func(e Ending) { r.ended = append(r.ended, e) }
}

func TestTenantsAndPriorities(t *testing.T) {
	onStage(t, func(s *stage) {
		var order []string
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			order = append(order, string(c.Message))
			return nil, nil
		}
		if _, err := s.e.PauseQueue(s.t.Context(), &outriggerv1.PauseQueueRequest{Name: "default"}); err != nil {
			t.Fatal(err)
		}
		one := func(message, tenant string, priority uint32) {
			s.submit(with(grpcTask(message), func(s *outriggerv1.TaskSpec) { s.Tenant, s.Priority = tenant, priority }))
		}
		one("last", "a", 4)
		for i := range 3 {
			one(fmt.Sprint("a", i), "a", 0)
		}
		one("b0", "b", 0)
		one("first", "b", 1)
		next := testSettings()
		next.Queues["default"] = Queue{Workers: 1, Capacity: 100}
		if err := s.e.Apply(s.t.Context(), next); err != nil {
			t.Fatal(err)
		}
		if _, err := s.e.ResumeQueue(s.t.Context(), &outriggerv1.ResumeQueueRequest{Name: "default"}); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		if got := strings.Join(order, " "); got != "first a0 b0 a1 a2 last" {
			t.Errorf("run in the order %s", got)
		}
	})
}

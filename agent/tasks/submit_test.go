package tasks

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func httpTask(url string) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Http{Http: &outriggerv1.HttpWork{Url: url}}}
}

// with returns a task that was changed.
func with(spec *outriggerv1.TaskSpec, change func(*outriggerv1.TaskSpec)) *outriggerv1.TaskSpec {
	change(spec)
	return spec
}

func TestWhatIsWrongWithATaskIsNamed(t *testing.T) {
	future := timeOf(time.Date(2000, 1, 1, 1, 0, 0, 0, time.UTC))
	for _, tc := range []struct {
		name  string
		spec  *outriggerv1.TaskSpec
		field string
		text  string
	}{
		{"nothing to do", &outriggerv1.TaskSpec{}, "task.work", "nothing is to be done"},
		{"an unknown kind", appTask("knit", ""), "task.app.kind", `"knit" is no kind of tasks.kinds that apps work; known: resize, save-user`},
		{"a kind of the agent's own", appTask("grpc", ""), "task.app.kind", `"grpc" is no kind`},
		{"a large payload", appTask("resize", strings.Repeat("x", 5000)), "task.app.payload", "and may have 4096 (tasks.max_payload)"},
		{"a large message", grpcTask(strings.Repeat("x", 5000)), "task.grpc.message", "tasks.max_payload"},
		{"JSON that is none", with(appTask("resize", "{"), func(s *outriggerv1.TaskSpec) { s.GetApp().Payload.ContentType = "application/json" }), "task.app.payload.data", "is not JSON"},
		{"an unknown queue", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "slow" }), "task.queue", `there is no queue "slow"; known: callers, default, small`},
		{"a kind's queue for other work", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "resize" }), "task.queue", `there is no queue "resize"`},
		{"a queue for app work", with(appTask("resize", ""), func(s *outriggerv1.TaskSpec) { s.Queue = "default" }), "task.queue", "leave it out"},
		{"two times", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.RunAt, s.Delay = future, duration(time.Second) }), "task.run_at", "together with delay"},
		{"a time far ahead", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.RunAt = timeOf(time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC)) }), "task.run_at", "within ten years"},
		{"a deadline that has passed", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Deadline = timeOf(time.Date(1999, 1, 1, 0, 0, 0, 0, time.UTC)) }), "task.deadline", "not after"},
		{"a deadline before its time", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Deadline, s.Delay = future, duration(2*time.Hour) }), "task.deadline", "not after"},
		{"waits that make no sense", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Retry = &outriggerv1.TaskRetry{Base: duration(time.Minute), Max: duration(time.Second)}
		}), "task.retry.max", "shorter"},
		{"a period longer than tasks are kept", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Unique = &outriggerv1.UniqueTask{Key: "a", Period: duration(48 * time.Hour)}
		}), "task.unique.period", "48h0m0s is longer than a task is kept"},
		{"a bad cron", with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Schedule = &outriggerv1.TaskSchedule{Cron: "61 * * * *"} }), "task.schedule.cron", `"61 * * * *" is no schedule`},
		{"a bad time zone", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Schedule = &outriggerv1.TaskSchedule{Cron: "@daily", TimeZone: "Mars/Olympus"}
		}), "task.schedule.time_zone", `"Mars/Olympus" is no IANA time zone`},
		{"a schedule that never comes", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Schedule, s.Deadline = &outriggerv1.TaskSchedule{Cron: "@yearly"}, future
		}), "task.schedule.cron", "no time before the deadline"},
		{"metadata in capitals", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.GetGrpc().Metadata = []*outriggerv1.TaskHeader{{Name: "X-Color"}}
		}), "task.grpc.metadata[0].name", `"X-Color" is no metadata key`},
		{"metadata of the agent's", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.GetGrpc().Metadata = []*outriggerv1.TaskHeader{{Name: "a"}, {Name: "outrigger-task-id"}}
		}), "task.grpc.metadata[1].name", "set by the agent"},
		{"binary metadata that is none", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.GetGrpc().Metadata = []*outriggerv1.TaskHeader{{Name: "a-bin", Value: "%"}}
		}), "task.grpc.metadata[0].value", "not base64"},
		{"metadata with a line break", with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.GetGrpc().Metadata = []*outriggerv1.TaskHeader{{Name: "a", Value: "b\r\nc"}}
		}), "task.grpc.metadata[0].value", "printable ASCII"},
		{"a file", httpTask("file:///etc/passwd"), "task.http.url", `its scheme is "file"`},
		{"no host", httpTask("https:///hook"), "task.http.url", "no host"},
		{"a password in the URL", httpTask("https://me:secret@example.com/"), "task.http.url", "password"},
		{"no URL", httpTask("http://[::1"), "task.http.url", "no URL"},
		{"a fragment", httpTask("https://example.com/#a"), "task.http.url", "fragment"},
		{"an unknown secret", with(httpTask("https://example.com/"), func(s *outriggerv1.TaskSpec) { s.GetHttp().SignWith = "github" }), "task.http.sign_with", `there is no secret "github"`},
		{"a header with a line break", with(httpTask("https://example.com/"), func(s *outriggerv1.TaskSpec) {
			s.GetHttp().Headers = []*outriggerv1.TaskHeader{{Name: "x", Value: "a\nb"}}
		}), "task.http.headers[0].value", "control characters"},
		{"the Host header", with(httpTask("https://example.com/"), func(s *outriggerv1.TaskSpec) {
			s.GetHttp().Headers = []*outriggerv1.TaskHeader{{Name: "Host", Value: "a"}}
		}), "task.http.headers[0].name", "set by the agent"},
		{"a bad address", emailTask("ada@@example.org"), "task.email.to[0]", "ada@@example.org"},
		{"an address with a line break", emailTask("ada@example.org\r\nBcc: all@example.org"), "task.email.to[0]", ""},
		{"nobody to write to", emailTask(), "task.email.to", ""},
		{"an unknown template", with(emailTask("ada@example.org"), func(s *outriggerv1.TaskSpec) { s.GetEmail().Template = &outriggerv1.EmailTemplate{Name: "welcome"} }), "task.email.template.name", `there is no e-mail template "welcome"`},
		{"a template that lacks data", with(emailTask("ada@example.org"), func(s *outriggerv1.TaskSpec) { s.GetEmail().Template.DataJson = "{}" }), "task.email.template.data_json", "name"},
		{"a template that is none", with(emailTask("ada@example.org"), func(s *outriggerv1.TaskSpec) { s.GetEmail().Template.Text = "{{" }), "task.email.template", "text"},
		{"a template and a subject", with(emailTask("ada@example.org"), func(s *outriggerv1.TaskSpec) { s.GetEmail().Subject = "Hi" }), "task.email.template", "together"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				_, err := s.trySubmit(tc.spec, "")
				wantStatus(t, err, codes.InvalidArgument, tc.field+": ", tc.text)
				if got := violation(err); got != tc.field {
					t.Errorf("the violation is of %q, want %q", got, tc.field)
				}
				if len(s.store.jobs) != 0 {
					t.Error("it was kept all the same")
				}
			})
		})
	}
}

func TestMailsNeedAServer(t *testing.T) {
	onStageWith(t, func(o *Options) { o.Email = nil }, func(s *stage) {
		_, err := s.trySubmit(emailTask("ada@example.org"), "")
		wantStatus(t, err, codes.FailedPrecondition, "tasks.email")
	})
}

func TestAKeyNamesOneTask(t *testing.T) {
	onStage(t, func(s *stage) {
		first, err := s.trySubmit(appTask("resize", "a"), "signup-7")
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.trySubmit(appTask("resize", "a"), "signup-7")
		if err != nil || !again.GetExisted() || again.GetTask().GetId() != first.GetTask().GetId() {
			t.Errorf("the second submit: %v, %v", again, err)
		}
		_, err = s.trySubmit(appTask("resize", "b"), "signup-7")
		wantStatus(t, err, codes.AlreadyExists, "idempotency_key", first.GetTask().GetId())
		other, err := s.trySubmit(appTask("resize", "b"), "signup-8")
		if err != nil || other.GetExisted() {
			t.Errorf("another key: %v, %v", other, err)
		}
		_, err = s.trySubmit(with(appTask("resize", "a"), func(s *outriggerv1.TaskSpec) { s.Unique = &outriggerv1.UniqueTask{Key: "a"} }), "k")
		wantStatus(t, err, codes.InvalidArgument, "idempotency_key", "unique")
	})
}

func TestAKeyNamesItsTaskUnderEncryption(t *testing.T) {
	onStageWith(t, func(o *Options) { o.Seal = rot13{} }, func(s *stage) {
		if _, err := s.trySubmit(appTask("resize", "a"), "k"); err != nil {
			t.Fatal(err)
		}
		again, err := s.trySubmit(appTask("resize", "a"), "k")
		if err != nil || !again.GetExisted() {
			t.Errorf("the second submit: %v, %v", again, err)
		}
		_, err = s.trySubmit(appTask("resize", "b"), "k")
		wantStatus(t, err, codes.AlreadyExists)
	})
}

func TestUniqueTasks(t *testing.T) {
	daily := func() *outriggerv1.TaskSpec {
		return with(grpcTask("report"), func(s *outriggerv1.TaskSpec) {
			s.Unique = &outriggerv1.UniqueTask{Key: "report", Period: duration(24 * time.Hour)}
		})
	}
	untilDone := func() *outriggerv1.TaskSpec {
		return with(appTask("resize", ""), func(s *outriggerv1.TaskSpec) { s.Unique = &outriggerv1.UniqueTask{Key: "cat.png"} })
	}
	onStage(t, func(s *stage) {
		first := s.submit(daily())
		s.wait(first.GetId())
		time.Sleep(23 * time.Hour)
		if r, err := s.trySubmit(daily(), ""); err != nil || !r.GetExisted() || r.GetTask().GetId() != first.GetId() {
			t.Errorf("on the same day: %v, %v", r, err)
		}
		time.Sleep(time.Hour)
		if r, err := s.trySubmit(daily(), ""); err != nil || r.GetExisted() {
			t.Errorf("on the next day: %v, %v", r, err)
		}

		waits := s.submit(untilDone())
		if r, err := s.trySubmit(untilDone(), ""); err != nil || !r.GetExisted() {
			t.Errorf("while the first waits: %v, %v", r, err)
		}
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: waits.GetId()}); err != nil {
			t.Fatal(err)
		}
		if r, err := s.trySubmit(untilDone(), ""); err != nil || r.GetExisted() {
			t.Errorf("once the first has ended: %v, %v", r, err)
		}
	})
}

func TestABatchIsAcceptedWholeOrNotAtAll(t *testing.T) {
	onStage(t, func(s *stage) {
		batch := func(all ...*outriggerv1.SubmitTaskRequest) ([]*outriggerv1.SubmitTaskResponse, error) {
			r, err := s.e.SubmitTasks(s.t.Context(), &outriggerv1.SubmitTasksRequest{Tasks: all})
			return r.GetTasks(), err
		}
		one := func(payload, key string) *outriggerv1.SubmitTaskRequest {
			return &outriggerv1.SubmitTaskRequest{Task: appTask("resize", payload), IdempotencyKey: key}
		}
		_, err := batch(one("a", ""), &outriggerv1.SubmitTaskRequest{Task: appTask("knit", "")})
		wantStatus(t, err, codes.InvalidArgument, "tasks[1].task.app.kind: ")
		_, err = batch(one("a", "k"), one("b", "k"))
		wantStatus(t, err, codes.InvalidArgument, "tasks[1]: ", "tasks[0]")
		if len(s.store.jobs) != 0 {
			t.Fatalf("%d were kept", len(s.store.jobs))
		}
		done, err := batch(one("a", "k"), one("b", ""))
		if err != nil || len(done) != 2 {
			t.Fatalf("%v, %v", done, err)
		}
		_, err = batch(one("c", ""), one("other", "k"))
		wantStatus(t, err, codes.AlreadyExists)
		if len(s.store.jobs) != 2 {
			t.Errorf("%d are kept, want 2", len(s.store.jobs))
		}
		again, err := batch(one("c", ""), one("a", "k"))
		if err != nil || again[0].GetExisted() || !again[1].GetExisted() {
			t.Errorf("%v, %v", again, err)
		}
		_, err = batch(&outriggerv1.SubmitTaskRequest{Task: grpcTask(""), WhenFull: outriggerv1.SubmitTaskRequest_CALLER_RUNS})
		wantStatus(t, err, codes.InvalidArgument, "tasks[0].when_full: ")
	})
}

func TestAFullQueueRejects(t *testing.T) {
	onStage(t, func(s *stage) {
		small := func(key string) (*outriggerv1.SubmitTaskResponse, error) {
			spec := with(grpcTask("x"), func(s *outriggerv1.TaskSpec) { s.Queue, s.Delay = "small", duration(time.Hour) })
			return s.trySubmit(spec, key)
		}
		for _, key := range []string{"", "k"} {
			if _, err := small(key); err != nil {
				t.Fatal(err)
			}
		}
		_, err := small("")
		wantStatus(t, err, codes.ResourceExhausted, `queue "small" has the 2 waiting tasks`)
		var info *errdetails.ErrorInfo
		var retry *errdetails.RetryInfo
		for _, d := range status.Convert(err).Details() {
			switch d := d.(type) {
			case *errdetails.ErrorInfo:
				info = d
			case *errdetails.RetryInfo:
				retry = d
			}
		}
		if info.GetDomain() != "outrigger" || info.GetReason() != "TASK_QUEUE_FULL" || info.GetMetadata()["queue"] != "small" || info.GetMetadata()["capacity"] != "2" || retry.GetRetryDelay().AsDuration() <= 0 {
			t.Errorf("details %v %v", info, retry)
		}
		if again, err := small("k"); err != nil || !again.GetExisted() {
			t.Errorf("a task that is there: %v, %v", again, err)
		}
		_, err = s.e.SubmitTasks(s.t.Context(), &outriggerv1.SubmitTasksRequest{Tasks: []*outriggerv1.SubmitTaskRequest{{Task: grpcTask("")}, {Task: with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "small" })}}})
		wantStatus(t, err, codes.ResourceExhausted, "small")
		if _, err := s.trySubmit(grpcTask(""), ""); err != nil {
			t.Errorf("another queue: %v", err)
		}
	})
}

func TestAChainNeedsPlacesWhereItsFirstStepsWait(t *testing.T) {
	onStageWith(t, func(o *Options) {
		k := o.Kinds["resize"]
		k.Capacity = 3
		o.Kinds["resize"] = k
	}, func(s *stage) {
		two := func() *outriggerv1.TaskSpec {
			return chainOf("", after(step("a", nil, appTask("resize", ""))), after(step("b", nil, appTask("resize", ""))), step("c", nil, appTask("resize", "")))
		}
		s.submit(two())
		_, err := s.trySubmit(two(), "")
		wantStatus(t, err, codes.ResourceExhausted, `queue "resize" has the 3 waiting`)
		if len(s.store.jobs) != 3 {
			t.Errorf("%d are kept", len(s.store.jobs))
		}
	})
}

func TestACallerRunsWhatAFullQueueCanNotHold(t *testing.T) {
	onStage(t, func(s *stage) {
		hold := make(chan struct{})
		fails := 1
		s.call = func(ctx context.Context, c Call) ([]byte, error) {
			switch string(c.Message) {
			case "hold":
				<-hold
			case "slow":
				<-ctx.Done()
				return nil, ctx.Err()
			case "inline":
				if fails--; fails >= 0 {
					return nil, status.Error(codes.Unavailable, "not now")
				}
			case "broken":
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			return []byte("reply to " + string(c.Message)), nil
		}
		submit := func(ctx context.Context, message string, whenFull outriggerv1.SubmitTaskRequest_WhenFull, change func(*outriggerv1.TaskSpec)) (*outriggerv1.SubmitTaskResponse, error) {
			spec := with(grpcTask(message), func(s *outriggerv1.TaskSpec) { s.Queue = "callers" })
			if change != nil {
				change(spec)
			}
			return s.e.SubmitTask(ctx, &outriggerv1.SubmitTaskRequest{Task: spec, WhenFull: whenFull})
		}
		for range 2 { // one runs, one waits
			if _, err := submit(s.t.Context(), "hold", 0, nil); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}

		r, err := submit(s.t.Context(), "inline", 0, nil)
		if err != nil || !r.GetCallerRan() || string(r.GetTask().GetResult().GetPayload().GetData()) != "reply to inline" {
			t.Fatalf("%v, %v", r, err)
		}
		s.want(r.GetTask(), outriggerv1.TaskState_COMPLETED, 2)
		if sinceStart() != time.Second || len(s.store.jobs) != 2 {
			t.Errorf("it took %v, %d are kept", sinceStart(), len(s.store.jobs))
		}
		r, err = submit(s.t.Context(), "broken", 0, nil)
		if err != nil || r.GetTask().GetError() != "INVALID_ARGUMENT: no" {
			t.Errorf("%v, %v", r, err)
		}
		s.want(r.GetTask(), outriggerv1.TaskState_FAILED, 1)

		_, err = submit(s.t.Context(), "x", outriggerv1.SubmitTaskRequest_REJECT, nil)
		wantStatus(t, err, codes.ResourceExhausted)
		_, err = submit(s.t.Context(), "x", 0, func(s *outriggerv1.TaskSpec) { s.Delay = duration(time.Hour) })
		wantStatus(t, err, codes.ResourceExhausted)

		brief, cancel := context.WithTimeout(s.t.Context(), 2*time.Second)
		defer cancel()
		_, err = submit(brief, "slow", 0, nil)
		wantStatus(t, err, codes.DeadlineExceeded)
		close(hold)
	})
}

func TestWhatACallerCanNotRun(t *testing.T) {
	for name, spec := range map[string]*outriggerv1.TaskSpec{
		"app work":    appTask("resize", ""),
		"a later one": with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Delay = duration(time.Second) }),
		"a schedule":  with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Schedule = &outriggerv1.TaskSchedule{Cron: "@daily"} }),
		"a unique one": with(grpcTask(""), func(s *outriggerv1.TaskSpec) {
			s.Unique = &outriggerv1.UniqueTask{Key: "a"}
		}),
	} {
		t.Run(name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				_, err := s.e.SubmitTask(s.t.Context(), &outriggerv1.SubmitTaskRequest{Task: spec, WhenFull: outriggerv1.SubmitTaskRequest_CALLER_RUNS})
				wantStatus(t, err, codes.InvalidArgument, "when_full: CALLER_RUNS ")
			})
		})
	}
}

func TestCallersRunNoMoreThanTheyMay(t *testing.T) {
	onStageWith(t, func(o *Options) { o.CallerRuns = 2 }, func(s *stage) {
		hold := make(chan struct{})
		s.call = func(context.Context, Call) ([]byte, error) { <-hold; return nil, nil }
		spec := func() *outriggerv1.TaskSpec {
			return with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "callers" })
		}
		for range 2 {
			s.submit(spec())
			synctest.Wait()
		}
		var inline sync.WaitGroup
		for range 2 {
			inline.Go(func() {
				if r, err := s.trySubmit(spec(), ""); err != nil || !r.GetCallerRan() {
					t.Errorf("%v, %v", r, err)
				}
			})
		}
		synctest.Wait()
		_, err := s.trySubmit(spec(), "")
		wantStatus(t, err, codes.ResourceExhausted, "callers run the 2 tasks that they may")
		close(hold)
		inline.Wait()
	})
}

func TestTasksAreAcceptedInAStream(t *testing.T) {
	onStage(t, func(s *stage) {
		requests := make(chan *outriggerv1.StreamTasksRequest, 10)
		for tag := range uint64(4) {
			requests <- &outriggerv1.StreamTasksRequest{Tag: tag, Submit: &outriggerv1.SubmitTaskRequest{Task: appTask([]string{"resize", "knit"}[tag%2], fmt.Sprint(tag))}}
		}
		bad := status.Error(codes.InvalidArgument, "submit: required")
		requests <- nil
		close(requests)
		answers := map[uint64]*outriggerv1.StreamTasksResponse{}
		receive := func() (*outriggerv1.StreamTasksRequest, error) {
			r, ok := <-requests
			switch {
			case !ok:
				return nil, io.EOF
			case r == nil:
				return &outriggerv1.StreamTasksRequest{Tag: 9}, bad
			}
			return r, nil
		}
		err := s.e.StreamTasks(s.t.Context(), receive, func(a *outriggerv1.StreamTasksResponse) error {
			answers[a.GetTag()] = a
			return nil
		})
		if err != nil || len(answers) != 5 || len(s.store.jobs) != 2 {
			t.Fatalf("%v: %d answers, %d kept", err, len(answers), len(s.store.jobs))
		}
		if answers[0].GetSubmitted() == nil || answers[1].GetRefused().GetCode() != uint32(codes.InvalidArgument) || answers[9].GetRefused().GetMessage() != "submit: required" {
			t.Errorf("%v", answers)
		}
	})
}

func TestAStreamEndsWithItsReader(t *testing.T) {
	onStage(t, func(s *stage) {
		gone := errors.New("gone")
		n := 0
		receive := func() (*outriggerv1.StreamTasksRequest, error) {
			if n++; n > 1000 {
				t.Error("it goes on")
				return nil, io.EOF
			}
			time.Sleep(time.Millisecond)
			return &outriggerv1.StreamTasksRequest{Submit: &outriggerv1.SubmitTaskRequest{Task: appTask("resize", "")}}, nil
		}
		if err := s.e.StreamTasks(s.t.Context(), receive, func(*outriggerv1.StreamTasksResponse) error { return gone }); !errors.Is(err, gone) {
			t.Errorf("it ended with %v", err)
		}
	})
}

func TestBeforeTheStoreIsOpenNothingIsAccepted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, func(*Options) {})
		_, err := s.trySubmit(grpcTask(""), "")
		wantStatus(t, err, codes.Unavailable, "nothing was accepted")
		if s.e.Problem() == "" {
			t.Error("it has no problem")
		}
		if err := s.e.Start(t.Context(), s.store); err != nil {
			t.Fatal(err)
		}
		if err := s.e.Start(t.Context(), s.store); err == nil {
			t.Error("it started twice")
		}
		s.wait(s.submit(grpcTask("")).GetId())
		s.stop(time.Minute)
	})
}

func TestSettingsThatMakeNoSense(t *testing.T) {
	for name, change := range map[string]func(*Settings){
		"no default queue":         func(s *Settings) { delete(s.Queues, "default") },
		"a queue without workers":  func(s *Settings) { s.Queues["a"] = Queue{Capacity: 1} },
		"a queue of a kind's name": func(s *Settings) { s.Queues["resize"] = Queue{Workers: 1, Capacity: 1} },
		"the agent's queue":        func(s *Settings) { s.Queues[scheduleQueue] = Queue{Workers: 1, Capacity: 1} },
		"no http":                  func(s *Settings) { delete(s.Kinds, "http") },
		"a kind called schedule":   func(s *Settings) { s.Kinds["schedule"] = s.Kinds["resize"] },
		"no attempts":              func(s *Settings) { s.Kinds["a"] = Kind{Timeout: time.Second} },
		"no payload":               func(s *Settings) { s.MaxPayload = 0 },
		"a kind without a lease": func(s *Settings) {
			k := s.Kinds["resize"]
			k.Lease = 0
			s.Kinds["resize"] = k
		},
	} {
		s := testSettings()
		change(&s)
		if _, err := New(Options{Settings: s}); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestOtherSettingsAreTakenOver(t *testing.T) {
	onStage(t, func(s *stage) {
		next := testSettings()
		next.Queues["mail"] = Queue{Workers: 1, Capacity: 1}
		if err := s.e.Apply(s.t.Context(), next); err != nil {
			t.Fatal(err)
		}
		s.want(s.wait(s.submit(with(grpcTask(""), func(s *outriggerv1.TaskSpec) { s.Queue = "mail" })).GetId()), outriggerv1.TaskState_COMPLETED, 1)
		delete(next.Queues, "default")
		if err := s.e.Apply(s.t.Context(), next); err == nil {
			t.Error("settings without a default queue were taken")
		}
		s.wait(s.submit(grpcTask("")).GetId())
	})
}

func TestADeferredCallIsATask(t *testing.T) {
	onStage(t, func(s *stage) {
		d := Deferred{Service: "shop", Method: "/shop.Shop/Buy", Message: []byte("m"), IdempotencyKey: "k", Traceparent: "00-aa-bb-01",
			Metadata: []policy.Field{{Name: "user-agent", Value: "x"}, {Name: "tenant", Value: "a"}, {Name: "outrigger-defer", Value: "true"}, {Name: "b-bin", Value: "AP8"}, {Name: "grpc-timeout", Value: "1S"}}}
		id, err := s.e.Defer(s.t.Context(), d)
		if err != nil {
			t.Fatal(err)
		}
		again, err := s.e.Defer(s.t.Context(), d)
		if err != nil || again != id {
			t.Errorf("again: %q, %v", again, err)
		}
		s.wait(id)
		c := s.called()
		if len(c) != 1 || fmt.Sprint(map[string][]string(c[0].Metadata)) != fmt.Sprint(map[string][]string{"b-bin": {"\x00\xff"}, "outrigger-task-attempt": {"1"}, "outrigger-task-id": {id}, "tenant": {"a"}, "traceparent": {"00-aa-bb-01"}}) {
			t.Errorf("called %v", c)
		}
	})
}

var _ Store = (*store.Store)(nil)

package tasks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestACallIsMadeLater(t *testing.T) {
	onStage(t, func(s *stage) {
		spec := grpcTask("seven")
		spec.GetGrpc().Metadata = []*outriggerv1.TaskHeader{{Name: "tenant", Value: "a"}, {Name: "trace-bin", Value: "AAEC"}}
		task := s.submit(spec)
		done := s.wait(task.GetId())

		s.want(done, outriggerv1.TaskState_COMPLETED, 1)
		if got := string(done.GetResult().GetPayload().GetData()); got != "reply" {
			t.Errorf("the result is %q", got)
		}
		calls := s.called()
		if len(calls) != 1 {
			t.Fatalf("%d calls", len(calls))
		}
		c := calls[0]
		if c.Service != "shop" || c.Method != "/shop.Shop/Buy" || string(c.Message) != "seven" || c.MaxReply != 4096 {
			t.Errorf("called %+v", c)
		}
		for key, want := range map[string]string{TaskIDKey: task.GetId(), AttemptKey: "1", "tenant": "a", "trace-bin": "\x00\x01\x02"} {
			if got := c.Metadata.Get(key); len(got) != 1 || got[0] != want {
				t.Errorf("%s is %q, want %q", key, got, want)
			}
		}
	})
}

func TestACallThatFailsIsMadeAgain(t *testing.T) {
	onStage(t, func(s *stage) {
		var starts []time.Duration
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			starts = append(starts, sinceStart())
			if len(starts) < 3 {
				return nil, status.Error(codes.Unavailable, "not now")
			}
			return nil, nil
		}
		task := s.submit(grpcTask(""))
		done := s.wait(task.GetId())

		s.want(done, outriggerv1.TaskState_COMPLETED, 3)
		if want := []time.Duration{0, time.Second, 3 * time.Second}; fmt.Sprint(starts) != fmt.Sprint(want) {
			t.Errorf("attempts at %v, want %v", starts, want)
		}
		if done.GetError() != "" || len(done.GetFailures()) != 2 || done.GetFailures()[1].GetError() != "UNAVAILABLE: not now" {
			t.Errorf("error %q, failures %v", done.GetError(), done.GetFailures())
		}
		for i, c := range s.called() {
			if c.Metadata.Get(TaskIDKey)[0] != task.GetId() || c.Metadata.Get(AttemptKey)[0] != fmt.Sprint(i+1) {
				t.Errorf("attempt %d carries %v", i+1, c.Metadata)
			}
		}
	})
}

func TestATaskThatFailsIsGivenUp(t *testing.T) {
	for _, tc := range []struct {
		name     string
		code     codes.Code
		attempts uint32
	}{
		{"after its attempts", codes.Unavailable, 3},
		{"at once, where trying again is of no use", codes.InvalidArgument, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				s.call = func(context.Context, Call) ([]byte, error) { return nil, status.Error(tc.code, "no") }
				done := s.wait(s.submit(grpcTask("")).GetId())
				s.want(done, outriggerv1.TaskState_FAILED, tc.attempts)
				if !strings.HasSuffix(done.GetError(), ": no") || done.GetResult() != nil {
					t.Errorf("error %q, result %v", done.GetError(), done.GetResult())
				}
			})
		})
	}
}

func TestAnOpenBreakerPutsATaskOff(t *testing.T) {
	onStage(t, func(s *stage) {
		opens := 5 // more than there are attempts
		s.call = func(context.Context, Call) ([]byte, error) {
			if opens--; opens >= 0 {
				return nil, refusedBy("outrigger", "BREAKER_OPEN", codes.Unavailable, 20*time.Second)
			}
			return nil, nil
		}
		task := s.submit(grpcTask(""))
		time.Sleep(time.Second)
		waits := s.get(task.GetId())
		s.want(waits, outriggerv1.TaskState_SCHEDULED, 0)
		if waits.GetError() != "BREAKER_OPEN: no" || waits.GetSnoozes() != 1 {
			t.Errorf("error %q, snoozes %d", waits.GetError(), waits.GetSnoozes())
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 1)
		if got := sinceStart(); got != 150*time.Second { // five times 20 s and half as much
			t.Errorf("done after %v", got)
		}
	})
}

func TestADeadlineEndsATaskThatIsPutOff(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(context.Context, Call) ([]byte, error) {
			return nil, refusedBy("outrigger", "BREAKER_OPEN", codes.Unavailable, 20*time.Second)
		}
		spec := grpcTask("")
		spec.Deadline = timeOf(time.Now().Add(45 * time.Second))
		done := s.wait(s.submit(spec).GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 1)
		if !strings.HasPrefix(done.GetError(), "DEADLINE: ") || sinceStart() > 45*time.Second {
			t.Errorf("after %v: %q", sinceStart(), done.GetError())
		}
	})
}

func TestADeadlineEndsATaskThatNobodyRuns(t *testing.T) {
	onStage(t, func(s *stage) {
		spec := appTask("save-user", "")
		spec.Deadline = timeOf(time.Now().Add(10 * time.Second))
		done := s.wait(s.submit(spec).GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if !strings.HasPrefix(done.GetError(), "DEADLINE: ") || sinceStart() > 12*time.Second {
			t.Errorf("after %v: %q", sinceStart(), done.GetError())
		}
	})
}

func TestAnAttemptEndsByItsTimeout(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(ctx context.Context, _ Call) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		spec := grpcTask("")
		spec.Timeout, spec.Retry = duration(2*time.Second), &outriggerv1.TaskRetry{MaxAttempts: 1}
		done := s.wait(s.submit(spec).GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 1)
		if sinceStart() != 2*time.Second || !strings.HasPrefix(done.GetError(), "DEADLINE_EXCEEDED") {
			t.Errorf("after %v: %q", sinceStart(), done.GetError())
		}
	})
}

func TestARunningTaskIsCancelled(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(ctx context.Context, _ Call) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		task := s.submit(grpcTask(""))
		time.Sleep(time.Second)
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: task.GetId()}); err != nil {
			t.Fatal(err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_CANCELLED, 1)
		if sinceStart() != time.Second {
			t.Errorf("it ended after %v", sinceStart())
		}
	})
}

func TestAStopGivesBackWhatRuns(t *testing.T) {
	onStageWith(t, func(*Options) {}, func(s *stage) {
		s.call = func(ctx context.Context, _ Call) ([]byte, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		task := s.submit(grpcTask(""))
		time.Sleep(time.Second)
		s.stop(5 * time.Second)
		if sinceStart() != 6*time.Second {
			t.Errorf("it stopped after %v", sinceStart())
		}
		id, err := ParseID(task.GetId())
		if err != nil {
			t.Fatal(err)
		}
		j, err := s.store.Get(s.t.Context(), id)
		if attempts, _ := j.Counted(); err != nil || j.State != "scheduled" || attempts != 0 {
			t.Errorf("it is %v after %d attempts, %v", j.State, attempts, err)
		}
		_, err = s.trySubmit(grpcTask(""), "")
		wantStatus(t, err, codes.Unavailable, "stops")
	})
}

func TestAStopLetsWhatRunsEnd(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(context.Context, Call) ([]byte, error) {
			time.Sleep(3 * time.Second)
			return nil, nil
		}
		id, err := ParseID(s.submit(grpcTask("")).GetId())
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		s.stop(time.Minute)
		if j, _ := s.store.Get(s.t.Context(), id); j.State != "completed" || sinceStart() != 3*time.Second {
			t.Errorf("after %v it is %v", sinceStart(), j.State)
		}
	})
}

func TestAnEndIsKeptOnceTheStoreIsBack(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(context.Context, Call) ([]byte, error) {
			s.store.fail(errors.New("disk full"))
			return nil, nil
		}
		task := s.submit(grpcTask(""))
		time.Sleep(5 * time.Second)
		_, err := s.trySubmit(grpcTask(""), "")
		wantStatus(t, err, codes.Unavailable, "nothing was accepted", "disk full")
		if s.e.Problem() != "disk full" {
			t.Errorf("the problem is %q", s.e.Problem())
		}
		s.store.fail(nil)
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_COMPLETED, 1)
		if len(s.called()) != 1 {
			t.Errorf("%d calls", len(s.called()))
		}
	})
}

func TestAWebhookIsSent(t *testing.T) {
	onStage(t, func(s *stage) {
		tries := 0
		s.request = func(r *http.Request) (*http.Response, error) {
			tries++
			if r.Method != "POST" || r.URL.String() != "https://example.com/hook" || r.Header.Get("X-Color") != "red" || r.Header.Get("Outrigger-Task-Id") == "" {
				t.Errorf("sent %s %s %v", r.Method, r.URL, r.Header)
			}
			code := 503
			if tries == 2 {
				code = 201
			}
			return &http.Response{StatusCode: code, Header: http.Header{"Retry-After": {"60"}, "Content-Type": {"text/plain"}}, Body: body(strings.Repeat("x", 5000))}, nil
		}
		spec := &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Http{Http: &outriggerv1.HttpWork{
			Url: "https://example.com/hook", Headers: []*outriggerv1.TaskHeader{{Name: "x-color", Value: "red"}}, Body: []byte("{}"),
		}}}
		done := s.wait(s.submit(spec).GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 2)
		if sinceStart() != time.Minute {
			t.Errorf("the second attempt came after %v, not when it was asked for", sinceStart())
		}
		r := done.GetResult()
		if r.GetHttpStatus() != 201 || len(r.GetPayload().GetData()) != 4096 || !r.GetTruncated() || r.GetPayload().GetContentType() != "text/plain" {
			t.Errorf("the result is %d, %d bytes, truncated %v", r.GetHttpStatus(), len(r.GetPayload().GetData()), r.GetTruncated())
		}
	})
}

func emailTask(to ...string) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Email{Email: &outriggerv1.EmailWork{To: to, Template: &outriggerv1.EmailTemplate{
		Subject: "Welcome, {{.name}}", Text: "Hello {{.name}}", DataJson: `{"name": "Ada"}`,
	}}}}
}

func TestAMailWhoseSenderAReloadClosedIsPutOffUncounted(t *testing.T) {
	onStage(t, func(s *stage) {
		replaced, err := email.NewSender(email.Settings{Address: "127.0.0.1:25", From: "shop@example.com"})
		if err != nil {
			t.Fatal(err)
		}
		replaced.Close()
		s.mail = func(m email.Message) (email.Receipt, error) {
			if len(s.mails) == 1 {
				return replaced.Send(t.Context(), m)
			}
			return email.Receipt{MessageID: m.MessageID, Accepted: m.To}, nil
		}
		spec := emailTask("ada@example.org")
		spec.Retry = &outriggerv1.TaskRetry{MaxAttempts: 1}
		done := s.wait(s.submit(spec).GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 1)
	})
}

func TestAMailIsTheSameWheneverItIsSent(t *testing.T) {
	onStage(t, func(s *stage) {
		s.mail = func(m email.Message) (email.Receipt, error) {
			if len(s.mails) == 1 {
				return email.Receipt{}, errors.New("no answer")
			}
			return email.Receipt{MessageID: m.MessageID, Accepted: m.To}, nil
		}
		done := s.wait(s.submit(emailTask("ada@example.org")).GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 2)
		a, b := s.mails[0], s.mails[1]
		if a.MessageID != done.GetId()+"@example.com" || a.MessageID != b.MessageID || !a.Date.Equal(b.Date) || a.Subject != "Welcome, Ada" || a.Text != "Hello Ada" || b.Subject != a.Subject {
			t.Errorf("sent %+v, then %+v", a, b)
		}
		if done.GetResult().GetMessageId() != a.MessageID {
			t.Errorf("the result is %v", done.GetResult())
		}
	})
}

func TestOnlyWhoLacksAMailGetsItAgain(t *testing.T) {
	onStage(t, func(s *stage) {
		s.mail = func(m email.Message) (email.Receipt, error) {
			r := email.Receipt{MessageID: m.MessageID}
			if len(s.mails) == 1 {
				r.Refused = []email.Refusal{{Address: "b@example.org", Code: 450, Reason: "later"}, {Address: "c@example.org", Permanent: true, Code: 550, Reason: "nobody"}}
			}
			return r, nil
		}
		done := s.wait(s.submit(emailTask("a@example.org", "b@example.org", "c@example.org")).GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 2)
		if got := s.mails[1].Only; len(got) != 1 || got[0] != "b@example.org" {
			t.Errorf("the second mail is for %v", got)
		}
		if got := done.GetResult().GetRefused(); len(got) != 1 || !strings.HasPrefix(got[0], "c@example.org") {
			t.Errorf("refused: %v", got)
		}
	})
}

func TestContentIsSealed(t *testing.T) {
	onStageWith(t, func(o *Options) { o.Seal = rot13{} }, func(s *stage) {
		done := s.wait(s.submit(grpcTask("seven")).GetId())
		if string(done.GetResult().GetPayload().GetData()) != "reply" || string(done.GetSpec().GetGrpc().GetMessage()) != "seven" {
			t.Errorf("shown: %v %v", done.GetSpec(), done.GetResult())
		}
		for _, r := range s.store.jobs {
			if strings.Contains(string(r.Body), "seven") || strings.Contains(string(r.Output), "reply") {
				t.Errorf("kept in plain: %q, %q", r.Body, r.Output)
			}
		}
	})
}

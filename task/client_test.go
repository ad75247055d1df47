package task

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func TestSubmitHandsOverTheTaskItsOptionsAndItsKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.submit = func(r *outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
			if r.GetIdempotencyKey() != "signup-7" || r.GetTask().GetApp().GetKind() != "save" || r.GetTask().GetQueue() != "q" {
				t.Errorf("submitted: %v", r)
			}
			return &outriggerv1.SubmitTaskResponse{Task: &outriggerv1.Task{Id: "a"}}, nil
		}
		work := App("save", 7)
		got, err := a.client().Submit(t.Context(), work, Options{Key: "signup-7", Queue: "q"})
		if err != nil || got.GetId() != "a" {
			t.Errorf("Submit: %v, %v", got, err)
		}
		if work.GetQueue() != "" {
			t.Error("Submit changed the caller's task")
		}
	})
}

func TestSubmitReturnsARefusalAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.submit = func(*outriggerv1.SubmitTaskRequest) (*outriggerv1.SubmitTaskResponse, error) {
			return nil, status.Error(codes.ResourceExhausted, "full")
		}
		if got, err := a.client().Submit(t.Context(), App("save", nil), Options{}); got != nil || status.Code(err) != codes.ResourceExhausted {
			t.Errorf("Submit: %v, %v", got, err)
		}
	})
}

func TestSubmitRefusesWhatNoMessageCouldSay(t *testing.T) {
	c := newAgent(t).client()
	bad := make(chan int)
	undone := Step("save", App("save", nil), nil)
	undone.Compensation = &outriggerv1.StepCompensation{Task: App("delete", bad)}
	for _, test := range []struct {
		work    *outriggerv1.TaskSpec
		options Options
		want    string
	}{
		{App("save", bad), Options{}, "the task: the payload can't be written as JSON: chan int: "},
		{Chain(bad), Options{}, "the task: the chain's input can't be written as JSON: chan int: "},
		{Chain(nil, Step("save", App("save", bad), nil)), Options{}, "step save: the payload can't be written as JSON: "},
		{Chain(nil, undone), Options{}, "the compensation of step save: the payload can't be written as JSON: "},
		{App("save", nil), Options{Priority: -1}, "the task's Priority is -1; want 1 (first) to 4 (last)"},
		{App("save", nil), Options{Priority: 5}, "the task's Priority is 5; want 1 (first) to 4 (last)"},
		{App("save", nil), Options{MaxAttempts: -1}, "the task's MaxAttempts is -1; want 1 to 1000"},
		{App("save", nil), Options{MaxAttempts: 1001}, "the task's MaxAttempts is 1001; want 1 to 1000"},
		{App("save", nil), Options{Delay: -time.Second}, "the task's Delay is -1s; want no less than 0"},
		{App("save", nil), Options{Timeout: -time.Second}, "the task's Timeout is -1s; want more than 0"},
	} {
		if _, err := c.Submit(t.Context(), test.work, test.options); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Submit: %v; want %q", err, test.want)
		}
	}
}

// answers has the agent answer WaitTask with the task.
func answers(t *testing.T, task *outriggerv1.Task, output *outriggerv1.Payload) *Client {
	a := newAgent(t).come()
	a.wait = func(*outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
		return &outriggerv1.WaitTaskResponse{Task: task, StepOutput: output}, nil
	}
	return a.client()
}

func TestWaitReturnsATaskThatIsDoneAndItsResult(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := answers(t, &outriggerv1.Task{Id: "a", State: outriggerv1.TaskState_COMPLETED, Result: &outriggerv1.TaskResult{Payload: &outriggerv1.Payload{Data: []byte(`{"name": "Ada"}`)}}}, nil)
		got, err := c.Wait(t.Context(), "a")
		if err != nil {
			t.Fatal(err)
		}
		var p person
		if err := Result(got.GetResult().GetPayload(), &p); err != nil || p.Name != "Ada" {
			t.Errorf("the result is %v, %v", p, err)
		}
	})
}

func TestWaitReturnsATaskThatWasNotDoneAsAnError(t *testing.T) {
	for _, state := range []outriggerv1.TaskState{outriggerv1.TaskState_FAILED, outriggerv1.TaskState_CANCELLED} {
		synctest.Test(t, func(t *testing.T) {
			c := answers(t, &outriggerv1.Task{Id: "a", Kind: "save", State: state, Error: "the disk is full"}, nil)
			got, err := c.Wait(t.Context(), "a")
			var typed *Error
			if !errors.Is(err, ErrNotCompleted) || !errors.As(err, &typed) || typed.Task.GetId() != "a" || got.GetId() != "a" {
				t.Fatalf("Wait: %v, %v", got, err)
			}
			if want := "task a (save) " + state.String() + ": the disk is full"; err.Error() != want {
				t.Errorf("the error is %q; want %q", err, want)
			}
		})
	}
}

func TestWaitWaitsForAnAgentThatIsAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		a.wait = func(*outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
			return &outriggerv1.WaitTaskResponse{Task: &outriggerv1.Task{State: outriggerv1.TaskState_COMPLETED}}, nil
		}
		time.AfterFunc(time.Minute, func() { a.come() })
		begun := time.Now()
		if _, err := a.client().Wait(t.Context(), "a"); err != nil {
			t.Errorf("Wait: %v", err)
		}
		if took := time.Since(begun); took < time.Minute || took > 63*time.Second {
			t.Errorf("Wait returned after %v; want within 3 s of the agent's coming", took)
		}
	})
}

func TestWaitEndsWithItsContextAndSaysThatTheAgentWasAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 5200*time.Millisecond) // between two tries
		defer cancel()
		_, err := newAgent(t).client().Wait(ctx, "a")
		if !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.Unavailable || !strings.HasPrefix(err.Error(), "waiting for task a: context deadline exceeded (") {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestWaitEndsWithItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		a.wait = func(*outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
			<-ctx.Done()
			return nil, status.FromContextError(ctx.Err()).Err()
		}
		if _, err := a.client().Wait(ctx, "a"); !errors.Is(err, context.DeadlineExceeded) || status.Code(err) != codes.DeadlineExceeded {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestWaitReturnsARefusalAsItIs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.wait = func(*outriggerv1.WaitTaskRequest) (*outriggerv1.WaitTaskResponse, error) {
			return nil, status.Error(codes.NotFound, "there is no task a")
		}
		if _, err := a.client().Wait(t.Context(), "a"); status.Code(err) != codes.NotFound {
			t.Errorf("Wait: %v", err)
		}
	})
}

func TestWaitStepReturnsWhatTheStepGave(t *testing.T) {
	for _, state := range []string{"DONE", "SKIPPED"} {
		synctest.Test(t, func(t *testing.T) {
			c := answers(t, &outriggerv1.Task{State: outriggerv1.TaskState_RUNNING, Steps: []*outriggerv1.TaskStep{{Name: "validate", State: "DONE"}, {Name: "save", State: state}}}, &outriggerv1.Payload{Data: []byte("7")})
			var n int
			got, err := c.WaitStep(t.Context(), "a", "save")
			if err == nil {
				err = Result(got, &n)
			}
			if err != nil || n != 7 {
				t.Errorf("WaitStep: %v, %v", n, err)
			}
		})
	}
}

func TestWaitStepOfAChainThatEndedBeforeIsAnError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := answers(t, &outriggerv1.Task{Id: "a", Kind: "chain", State: outriggerv1.TaskState_FAILED, Error: "validate: no address", Steps: []*outriggerv1.TaskStep{{Name: "validate", State: "FAILED"}, {Name: "save", State: "WAITING"}}}, nil)
		if _, err := c.WaitStep(t.Context(), "a", "save"); !errors.Is(err, ErrNotCompleted) || !strings.Contains(err.Error(), "validate: no address") {
			t.Errorf("WaitStep: %v", err)
		}
	})
}

func TestAResultThatIsNoJSONForTheValueIsAnError(t *testing.T) {
	var n int
	err := Result(&outriggerv1.Payload{Data: []byte(`"x"`), ContentType: "text/plain"}, &n)
	if want := `the result (3 bytes, "text/plain") is no JSON for a *int: `; err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("Result: %v; want %q", err, want)
	}
}

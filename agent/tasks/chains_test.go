package tasks

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/email"
	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// method is a step's call.
func method(name string) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Grpc{Grpc: &outriggerv1.GrpcWork{Service: "shop", Method: "/shop.Users/" + name}}}
}

func step(name string, fields map[string]string, task *outriggerv1.TaskSpec) *outriggerv1.ChainStep {
	return &outriggerv1.ChainStep{Name: name, Task: task, Map: fields}
}

func after(s *outriggerv1.ChainStep, steps ...string) *outriggerv1.ChainStep {
	s.After = &outriggerv1.StepNames{Steps: steps}
	return s
}

func undoneBy(s *outriggerv1.ChainStep, fields map[string]string, task *outriggerv1.TaskSpec) *outriggerv1.ChainStep {
	s.Compensation = &outriggerv1.StepCompensation{Task: task, Map: fields}
	return s
}

func chainOf(input string, steps ...*outriggerv1.ChainStep) *outriggerv1.TaskSpec {
	return &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Chain{Chain: &outriggerv1.ChainWork{Steps: steps, Input: &outriggerv1.Payload{Data: []byte(input)}}}}
}

// register is the reference chain: validate, save, and a mail to the user.
func register() *outriggerv1.TaskSpec {
	mail := &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Email{Email: &outriggerv1.EmailWork{Template: &outriggerv1.EmailTemplate{Subject: "Welcome", Text: "Hello {{.name}}"}}}}
	c := chainOf(`{"name": "Ada", "email": "ada@example.org"}`,
		step("validate", map[string]string{"grpc.message": "input"}, method("Validate")),
		undoneBy(step("save", map[string]string{"app.payload": "steps.validate.output"}, appTask("save-user", "")), map[string]string{"grpc.message": "string(steps.save.output.id)"}, method("Delete")),
		step("welcome", map[string]string{"email.to": "[steps.save.output.email]", "email.template.data_json": "json({'name': steps.save.output.name})"}, mail),
	)
	c.GetChain().Output = "steps.save.output"
	c.Tenant = "t1"
	return c
}

// users answers the calls of register.
func users(_ context.Context, c Call) ([]byte, error) { return c.Message, nil }

func TestTheReferenceChain(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = users
		task := s.submit(register())
		s.want(task, outriggerv1.TaskState_RUNNING, 0)

		synctest.Wait()
		l := s.leaseOne("save-user")
		if l.GetParent() != task.GetId() || l.GetStep() != "save" || l.GetTenant() != "t1" || string(l.GetPayload().GetData()) != `{"email":"ada@example.org","name":"Ada"}` {
			t.Fatalf("leased %v", l)
		}
		if err := s.complete(l, `{"id": 7, "name": "Ada", "email": "ada@example.org"}`); err != nil {
			t.Fatal(err)
		}
		saved, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: task.GetId(), Step: "save"})
		if err != nil || string(saved.GetStepOutput().GetData()) != `{"id": 7, "name": "Ada", "email": "ada@example.org"}` || saved.GetStepOutput().GetContentType() != "application/json" {
			t.Errorf("the saved user: %v, %v", saved, err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 0)
		if got := string(done.GetResult().GetPayload().GetData()); got != `{"email":"ada@example.org","id":7,"name":"Ada"}` {
			t.Errorf("the chain's result is %s", got)
		}
		if len(s.mails) != 1 || s.mails[0].To[0] != "ada@example.org" || s.mails[0].Text != "Hello Ada" {
			t.Errorf("mails %v", s.mails)
		}
		var states []string
		for _, step := range done.GetSteps() {
			states = append(states, step.GetName()+" "+step.GetState())
			if s.get(step.GetTask()).GetParent() != task.GetId() {
				t.Errorf("the task of %s has another parent", step.GetName())
			}
		}
		if fmt.Sprint(states) != "[validate DONE save DONE welcome DONE]" {
			t.Errorf("steps %v", states)
		}
	})
}

func TestAChainThatFailsIsUndone(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = users
		s.mail = func(email.Message) (email.Receipt, error) { return email.Receipt{}, errors.New("no answer") }
		task := s.submit(register())
		synctest.Wait()
		if err := s.complete(s.leaseOne("save-user"), `{"id": 7, "name": "Ada", "email": "ada@example.org"}`); err != nil {
			t.Fatal(err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if done.GetError() != "step welcome: no answer" || done.GetSteps()[1].GetState() != "COMPENSATED" || done.GetSteps()[2].GetState() != "FAILED" {
			t.Errorf("error %q, steps %v", done.GetError(), done.GetSteps())
		}
		calls := s.called()
		last := calls[len(calls)-1]
		if last.Method != "/shop.Users/Delete" || string(last.Message) != "7" || len(s.mails) != 3 {
			t.Errorf("the last call is %s %q, after %d mails", last.Method, last.Message, len(s.mails))
		}
	})
}

func TestAFailedChainGoesOnWhereItFailed(t *testing.T) {
	onStage(t, func(s *stage) {
		broken := true
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			if broken && c.Method == "/shop.Users/B" {
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			return []byte(c.Method), nil
		}
		task := s.submit(chainOf("", step("a", nil, method("A")), step("b", nil, method("B"))))
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_FAILED, 0)
		broken = false
		if _, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: task.GetId()}); err != nil {
			t.Fatal(err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 0)
		var methods []string
		for _, c := range s.called() {
			methods = append(methods, strings.TrimPrefix(c.Method, "/shop.Users/"))
		}
		if fmt.Sprint(methods) != "[A B B]" || string(done.GetResult().GetPayload().GetData()) != "/shop.Users/B" {
			t.Errorf("called %v, result %v", methods, done.GetResult())
		}
		_, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: done.GetSteps()[0].GetTask()})
		wantStatus(t, err, codes.FailedPrecondition, "COMPLETED")
	})
}

func TestStepsRunSideBySideAndMeet(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			if c.Method != "/shop.Users/Sum" {
				time.Sleep(10 * time.Second)
				return []byte(`{"n": ` + string(c.Message) + `}`), nil
			}
			return c.Message, nil
		}
		done := s.wait(s.submit(chainOf(`[1, 2, 3]`,
			after(step("a", map[string]string{"grpc.message": "string(input[0])"}, method("A"))),
			after(step("b", map[string]string{"grpc.message": "string(input[1])"}, method("B"))),
			after(step("c", map[string]string{"grpc.message": "string(input[2])"}, method("C"))),
			after(step("sum", map[string]string{"grpc.message": "{'sum': parse_json(steps.a.output).n + parse_json(steps.b.output).n + parse_json(steps.c.output).n}"}, method("Sum")), "a", "b", "c"),
		)).GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 0)
		if got := string(done.GetResult().GetPayload().GetData()); got != `{"sum":6}` || sinceStart() != 10*time.Second {
			t.Errorf("after %v: %s", sinceStart(), got)
		}
	})
}

func TestAChainIsCancelled(t *testing.T) {
	onStage(t, func(s *stage) {
		var stopped []string
		s.call = func(ctx context.Context, c Call) ([]byte, error) {
			if c.Method == "/shop.Users/Slow" {
				<-ctx.Done()
				stopped = append(stopped, c.Method)
				return nil, ctx.Err()
			}
			return nil, nil
		}
		task := s.submit(chainOf("",
			undoneBy(step("a", nil, method("A")), nil, method("UndoA")),
			after(step("slow", nil, method("Slow")), "a"),
			after(step("app", nil, appTask("save-user", "")), "a"),
			after(step("waits", nil, appTask("resize", "")), "a"),
			step("last", nil, method("Last")),
		))
		w := s.work("save-user")
		w.more(1)
		l := (<-w.answers).GetTask()
		time.Sleep(time.Second)
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: task.GetId()}); err != nil {
			t.Fatal(err)
		}
		if a := <-w.answers; a.GetCancel().GetId() != l.GetId() {
			t.Errorf("the worker got %v", a)
		}
		w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Fail{Fail: &outriggerv1.FailTaskRequest{Lease: leaseOfTask(l), Error: "stopped"}}}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_CANCELLED, 0)
		var states []string
		for _, step := range done.GetSteps() {
			states = append(states, step.GetState())
		}
		if fmt.Sprint(states) != "[COMPENSATED CANCELLED CANCELLED CANCELLED CANCELLED]" || len(stopped) != 1 || s.leaseOne("resize") != nil {
			t.Errorf("steps %v, stopped %v", states, stopped)
		}
		w.leave()
	})
}

func TestACancelledStepEndsItsChain(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(chainOf("", step("app", nil, appTask("resize", ""))))
		id := s.get(task.GetId()).GetSteps()[0].GetTask()
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: id}); err != nil {
			t.Fatal(err)
		}
		done := s.get(task.GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if done.GetError() != "step app: it was cancelled" {
			t.Errorf("error %q", done.GetError())
		}
	})
}

func TestAChainEndsByItsDeadline(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(with(chainOf("",
			undoneBy(step("a", nil, method("A")), nil, method("UndoA")),
			step("app", nil, appTask("resize", "")),
		), func(t *outriggerv1.TaskSpec) { t.Deadline = timeOf(time.Now().Add(10 * time.Second)) }))
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if !strings.Contains(done.GetError(), "DEADLINE") || done.GetSteps()[0].GetState() != "COMPENSATED" || sinceStart() > 12*time.Second {
			t.Errorf("after %v: %q, %v", sinceStart(), done.GetError(), done.GetSteps())
		}
	})
}

func TestAStepWhoseLastLeaseLapsedEndsItsChain(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(chainOf("", step("app", nil, with(appTask("resize", ""), func(t *outriggerv1.TaskSpec) { t.Retry = &outriggerv1.TaskRetry{MaxAttempts: 1} }))))
		s.leaseOne("resize")
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if done.GetError() != "step app: its lease lapsed" || sinceStart() > 32*time.Second {
			t.Errorf("after %v: %q", sinceStart(), done.GetError())
		}
	})
}

func TestAStepWhoseEndNobodySawEndsItsChain(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(chainOf("", step("app", nil, appTask("resize", ""))))
		for _, how := range []func(r *row){
			func(r *row) { r.State, r.Note = store.Discarded, "elsewhere" },
		} {
			s.store.mu.Lock()
			for _, r := range s.store.jobs {
				if r.Kind == "resize" {
					how(r)
				}
			}
			s.store.mu.Unlock()
		}
		done := s.wait(task.GetId())
		if done.GetError() != "step app: elsewhere" {
			t.Errorf("error %q", done.GetError())
		}
	})
}

func TestAStepWhoseTaskIsGoneEndsItsChain(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(chainOf("", step("app", nil, appTask("resize", ""))))
		s.store.mu.Lock()
		for id, r := range s.store.jobs {
			if r.Kind == "resize" {
				delete(s.store.jobs, id)
			}
		}
		s.store.mu.Unlock()
		if done := s.wait(task.GetId()); done.GetError() != "step app: its task is gone" {
			t.Errorf("error %q", done.GetError())
		}
	})
}

func TestAStepThatCanNotStartEndsItsChain(t *testing.T) {
	for _, tc := range []struct {
		name  string
		steps []*outriggerv1.ChainStep
		text  string
	}{
		{"a field of another type", []*outriggerv1.ChainStep{step("b", map[string]string{"grpc.service": "7"}, method("B"))}, "step b: grpc.service: it is a number; want a string"},
		{"a field that breaks a rule", []*outriggerv1.ChainStep{step("b", map[string]string{"grpc.service": "''"}, method("B"))}, "step b: grpc.service: "},
		{"a bad address", []*outriggerv1.ChainStep{step("b", map[string]string{"email.to": "['nobody']"}, &outriggerv1.TaskSpec{Work: &outriggerv1.TaskSpec_Email{Email: &outriggerv1.EmailWork{Text: "x"}}})}, "step b: email.to[0]: "},
		{"a value that is not there", []*outriggerv1.ChainStep{step("b", map[string]string{"grpc.message": "input.missing"}, method("B"))}, "step b: "},
		{"beside one that could", []*outriggerv1.ChainStep{after(step("a", nil, method("A"))), after(step("b", map[string]string{"grpc.service": "7"}, method("B")))}, "step b: grpc.service: "},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				done := s.wait(s.submit(chainOf("{}", tc.steps...)).GetId())
				s.want(done, outriggerv1.TaskState_FAILED, 0)
				if !strings.HasPrefix(done.GetError(), tc.text) || len(s.called()) != 0 {
					t.Errorf("error %q, %d calls", done.GetError(), len(s.called()))
				}
			})
		})
	}
}

func TestWhatIsWrongWithAChainIsNamed(t *testing.T) {
	for _, tc := range []struct {
		name  string
		spec  *outriggerv1.TaskSpec
		field string
		text  string
	}{
		{"retries of a chain", with(chainOf("", step("a", nil, method("A"))), func(s *outriggerv1.TaskSpec) { s.Retry = &outriggerv1.TaskRetry{MaxAttempts: 2} }), "task.retry", "not for chains"},
		{"no task", chainOf("", step("a", nil, nil)), "task.chain.steps[0].task", "missing"},
		{"no work", chainOf("", step("a", nil, &outriggerv1.TaskSpec{})), "task.chain.steps[0].task.work", "nothing is to be done"},
		{"a chain in a chain", chainOf("", step("a", nil, chainOf("", step("b", nil, method("B"))))), "task.chain.steps[0].task.chain", "not for a step"},
		{"a time of its own", chainOf("", step("a", nil, with(method("A"), func(s *outriggerv1.TaskSpec) { s.Delay = duration(1) }))), "task.chain.steps[0].task.delay", "not for a step"},
		{"an unknown kind", chainOf("", step("a", nil, method("A")), step("b", nil, appTask("knit", ""))), "task.chain.steps[1].task.app.kind", `"knit"`},
		{"an unknown kind that undoes", chainOf("", undoneBy(step("a", nil, method("A")), nil, appTask("knit", ""))), "task.chain.steps[0].compensation.task.app.kind", `"knit"`},
		{"an unknown field", chainOf("", step("a", map[string]string{"grpc.body": "1"}, method("A"))), `task.chain.steps[0].map["grpc.body"]`, `no field "body"; known: service, method, message, metadata`},
		{"a field of other work", chainOf("", step("a", map[string]string{"email.to": "['a@example.org']"}, method("A"))), `task.chain.steps[0].map["email.to"]`, "which is grpc"},
		{"the kind by an expression", chainOf("", step("a", map[string]string{"app.kind": "'resize'"}, appTask("resize", ""))), `task.chain.steps[0].map["app.kind"]`, "can't come from an expression"},
		{"a bad expression", chainOf("", step("a", map[string]string{"grpc.message": "input.("}, method("A"))), `task.chain.steps[0].map["grpc.message"]`, ""},
		{"a step that comes later", chainOf("", step("a", map[string]string{"grpc.message": "steps.b.output"}, method("A")), step("b", nil, method("B"))), `task.chain.steps[0].map["grpc.message"]`, "b"},
		{"a circle", chainOf("", after(step("a", nil, method("A")), "b"), after(step("b", nil, method("B")), "a")), "", "waits for itself"},
		{"a method that is none", chainOf("", step("a", nil, with(method("A"), func(s *outriggerv1.TaskSpec) { s.GetGrpc().Method = "A" }))), "task.chain.steps[0].task.grpc.method", ""},
		{"a bad result", with(chainOf("", step("a", nil, method("A"))), func(s *outriggerv1.TaskSpec) { s.GetChain().Output = "nothing.here" }), "task.chain.output", ""},
		{"an address", chainOf("", step("a", nil, emailTask("nobody"))), "task.chain.steps[0].task.email.to[0]", ""},
		{"too large", chainOf(strings.Repeat("x", 5000), step("a", nil, method("A"))), "task.chain", "tasks.max_payload"},
		{"input that is not JSON", with(chainOf("{", step("a", nil, method("A"))), func(s *outriggerv1.TaskSpec) { s.GetChain().Input.ContentType = "application/json" }), "task.chain.input.data", "not JSON"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				_, err := s.trySubmit(tc.spec, "")
				wantStatus(t, err, codes.InvalidArgument, tc.field, tc.text)
				if got := violation(err); tc.field != "" && got != tc.field {
					t.Errorf("the violation is of %q, want %q", got, tc.field)
				}
			})
		})
	}
}

func TestResultsOfStepsAreBounded(t *testing.T) {
	onStage(t, func(s *stage) {
		s.call = func(context.Context, Call) ([]byte, error) { return make([]byte, 4000), nil }
		var steps []*outriggerv1.ChainStep
		for i := range 10 {
			steps = append(steps, step(fmt.Sprintf("s%d", i), nil, method("A")))
		}
		done := s.wait(s.submit(chainOf("", steps...)).GetId())
		s.want(done, outriggerv1.TaskState_FAILED, 0)
		if !strings.Contains(done.GetError(), "may have 32768 (8 times tasks.max_payload)") || len(s.called()) != 9 {
			t.Errorf("error %q after %d calls", done.GetError(), len(s.called()))
		}
	})
}

func TestAStepIsWaitedFor(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(chainOf("", step("a", nil, appTask("resize", "")), step("b", nil, appTask("resize", ""))))
		wait := func(step string) error {
			brief, cancel := context.WithTimeout(s.t.Context(), time.Second)
			defer cancel()
			_, err := s.e.WaitTask(brief, &outriggerv1.WaitTaskRequest{Id: task.GetId(), Step: step})
			return err
		}
		wantStatus(t, wait("a"), codes.DeadlineExceeded)
		wantStatus(t, wait("z"), codes.InvalidArgument, "step: ", "known: a, b")
		other := s.submit(appTask("save-user", ""))
		_, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: other.GetId(), Step: "a"})
		wantStatus(t, err, codes.InvalidArgument, "has no steps")
		if err := s.complete(s.leaseOne("resize"), "x"); err != nil {
			t.Fatal(err)
		}
		if err := wait("a"); err != nil {
			t.Error(err)
		}
	})
}

// TestAChainGoesOnAfterACrash crashes at each commit of the reference chain and one
// with parallel steps, once before the commit and once after it, and lets a new
// executor go on with what is kept.
func TestAChainGoesOnAfterACrash(t *testing.T) {
	parallel := func() *outriggerv1.TaskSpec {
		return chainOf(`{"n": 1}`,
			step("a", map[string]string{"grpc.message": "string(input.n)"}, method("A")),
			after(step("b", map[string]string{"grpc.message": "string(steps.a.output) + 'b'"}, method("B")), "a"),
			after(step("c", map[string]string{"grpc.message": "string(steps.a.output) + 'c'"}, method("C")), "a"),
			after(step("d", map[string]string{"grpc.message": "string(steps.b.output) + string(steps.c.output)"}, method("D")), "b", "c"),
		)
	}
	failing := func() *outriggerv1.TaskSpec {
		return chainOf("",
			undoneBy(step("a", nil, method("A")), nil, method("UndoA")),
			undoneBy(step("b", nil, method("B")), nil, method("UndoB")),
			step("broken", nil, method("Broken")),
		)
	}
	for name, tc := range map[string]struct {
		spec   func() *outriggerv1.TaskSpec
		state  outriggerv1.TaskState
		result string
	}{
		"parallel steps": {parallel, outriggerv1.TaskState_COMPLETED, "1b1c"},
		"undone, a to b": {failing, outriggerv1.TaskState_FAILED, ""},
	} {
		t.Run(name, func(t *testing.T) {
			for _, kept := range []bool{false, true} {
				crashed := true
				for n := 1; crashed; n++ {
					crashed = crashAt(t, tc.spec(), n, kept, tc.state, tc.result)
					if n > 100 {
						t.Fatal("it never gets through without a crash")
					}
				}
			}
		})
	}
}

// crashAt runs a chain and crashes at the n-th commit after it was accepted, which
// is kept or not. It reports whether there was an n-th.
func crashAt(t *testing.T, spec *outriggerv1.TaskSpec, n int, kept bool, state outriggerv1.TaskState, result string) (crashed bool) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		answer := func(_ context.Context, c Call) ([]byte, error) {
			if c.Method == "/shop.Users/Broken" {
				return nil, status.Error(codes.InvalidArgument, "no")
			}
			return c.Message, nil
		}
		first := newStage(t, func(*Options) {})
		first.call = answer
		if err := first.e.Start(t.Context(), first.store); err != nil {
			t.Fatal(err)
		}
		task := first.submit(spec)
		first.store.crashIn(n, kept)
		time.Sleep(time.Minute) // it ends, or no longer gets anywhere
		crashed = first.store.crashed()
		second := newStage(t, func(*Options) {})
		second.call = answer
		second.store.takeOver(first.store)
		first.stop(time.Second)
		if err := second.e.Start(t.Context(), second.store); err != nil {
			t.Fatal(err)
		}
		done := second.wait(task.GetId())
		second.want(done, state, 0)
		if got := string(done.GetResult().GetPayload().GetData()); got != result {
			t.Errorf("crash %d, kept %v: the result is %q, want %q", n, kept, got, result)
		}
		// Each step ran, and whoever ran it again can tell by the task's id.
		ids := map[string][]string{}
		for _, c := range append(first.called(), second.called()...) {
			if id := c.Metadata.Get(TaskIDKey)[0]; !slices.Contains(ids[c.Method], id) {
				ids[c.Method] = append(ids[c.Method], id)
			}
		}
		for m, of := range ids {
			if len(of) != 1 {
				t.Errorf("crash %d, kept %v: %s was called for %d tasks", n, kept, m, len(of))
			}
		}
		want := 4
		if state == outriggerv1.TaskState_FAILED {
			want = 5
		}
		if len(ids) != want {
			t.Errorf("crash %d, kept %v: %d methods were called, want %d: %v", n, kept, len(ids), want, ids)
		}
		second.stop(time.Minute)
	})
	return crashed
}

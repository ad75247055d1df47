package tasks

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/agent/tasks/store"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/test/postgres"
)

// server is the PostgreSQL that the tests share; nil: there is none here.
var server *postgres.Server

var absent error

func TestMain(m *testing.M) {
	if server, absent = postgres.Start(); absent != nil {
		server = nil
		fmt.Fprintln(os.Stderr, "SKIPPED for PostgreSQL:", absent)
		if !errors.Is(absent, postgres.ErrAbsent) {
			os.Exit(1)
		}
	}
	code := m.Run()
	if server != nil {
		if err := server.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = 1
		}
	}
	os.Exit(code)
}

// onDisk runs a test with executors over each real store: open opens another agent
// on the same one, or nil where that can't be.
func onDisk(t *testing.T, test func(s *stage, open func() *stage)) {
	t.Run("SQLite", func(t *testing.T) {
		test(openStage(t, store.Options{SQLite: &store.SQLite{Path: filepath.Join(t.TempDir(), "tasks.db")}}), nil)
	})
	t.Run("PostgreSQL", func(t *testing.T) {
		if server == nil {
			t.Skip(absent)
		}
		o := store.Options{Postgres: &store.Postgres{URL: server.URL(), Schema: "tasks_" + strings.ToLower(t.Name()[4:min(len(t.Name()), 40)])}}
		o.Postgres.Schema = strings.NewReplacer("/", "_").Replace(o.Postgres.Schema)
		t.Cleanup(func() {
			conn, err := pgx.Connect(context.Background(), server.URL())
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = conn.Close(context.Background()) }()
			if _, err := conn.Exec(context.Background(), "DROP SCHEMA IF EXISTS "+o.Postgres.Schema+" CASCADE"); err != nil {
				t.Error(err)
			}
		})
		test(openStage(t, o), func() *stage { return openStage(t, o) })
	})
}

// openStage returns a stage whose executor runs over a real store.
func openStage(t *testing.T, o store.Options) *stage {
	t.Helper()
	s := newStage(t, func(o *Options) {
		for name, k := range o.Kinds {
			k.BackoffBase, k.BackoffMax = 10*time.Millisecond, 100*time.Millisecond
			o.Kinds[name] = k
		}
		o.Queues["default"] = Queue{Workers: 8, Capacity: 5000}
	})
	s.store = nil
	o.Lease, o.Moved, o.Name = 2*time.Second, s.e.Moved, "test"
	kept, err := store.Open(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.e.Start(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		s.stop(10 * time.Second)
		if err := kept.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func TestTasksOnDisk(t *testing.T) {
	onDisk(t, func(s *stage, _ func() *stage) {
		t := s.t
		var fails atomic.Int32
		s.call = func(_ context.Context, c Call) ([]byte, error) {
			switch {
			case string(c.Message) == "bad":
				return nil, status.Error(codes.InvalidArgument, "no")
			case string(c.Message) == "twice" && fails.Add(1) == 1:
				return nil, status.Error(codes.Unavailable, "not now")
			}
			return []byte("reply"), nil
		}
		for _, tc := range []struct {
			message  string
			state    outriggerv1.TaskState
			attempts uint32
		}{{"good", outriggerv1.TaskState_COMPLETED, 1}, {"bad", outriggerv1.TaskState_FAILED, 1}, {"twice", outriggerv1.TaskState_COMPLETED, 2}} {
			done := s.wait(s.submit(grpcTask(tc.message)).GetId())
			s.want(done, tc.state, tc.attempts)
			if done.GetState() == outriggerv1.TaskState_COMPLETED && string(done.GetResult().GetPayload().GetData()) != "reply" {
				t.Errorf("%s: the result is %v", tc.message, done.GetResult())
			}
		}
		first, err := s.trySubmit(appTask("resize", "a"), "k")
		if err != nil {
			t.Fatal(err)
		}
		if again, err := s.trySubmit(appTask("resize", "a"), "k"); err != nil || !again.GetExisted() || again.GetTask().GetId() != first.GetTask().GetId() {
			t.Errorf("the second submit: %v, %v", again, err)
		}
		_, err = s.trySubmit(appTask("resize", "b"), "k")
		wantStatus(t, err, codes.AlreadyExists)
		_, err = s.e.SubmitTasks(t.Context(), &outriggerv1.SubmitTasksRequest{Tasks: []*outriggerv1.SubmitTaskRequest{{Task: appTask("save-user", "")}, {Task: appTask("resize", "b"), IdempotencyKey: "k"}}})
		wantStatus(t, err, codes.AlreadyExists)
		if l := s.leaseOne("save-user"); l != nil {
			t.Errorf("a part of a batch that was refused: %v", l)
		}
		l := s.leaseOne("resize")
		if l.GetId() != first.GetTask().GetId() {
			t.Fatalf("leased %v", l)
		}
		if err := s.complete(l, "done"); err != nil {
			t.Fatal(err)
		}
		wantStatus(t, s.complete(l, "again"), codes.Aborted)
		overdue := s.wait(s.submit(with(appTask("resize", ""), func(t *outriggerv1.TaskSpec) { t.Deadline = timeOf(time.Now().Add(100 * time.Millisecond)) })).GetId())
		if overdue.GetState() != outriggerv1.TaskState_FAILED || !strings.HasPrefix(overdue.GetError(), "DEADLINE") {
			t.Errorf("past its deadline: %v", overdue)
		}
		queues, err := s.e.ListQueues(t.Context(), &outriggerv1.ListQueuesRequest{})
		if err != nil || len(queues.GetQueues()) != 5 {
			t.Errorf("%v, %v", queues, err)
		}
		list, err := s.e.ListTasks(t.Context(), &outriggerv1.ListTasksRequest{PageSize: 2})
		if err != nil || len(list.GetTasks()) != 2 || list.GetNextPageToken() == "" {
			t.Errorf("%v, %v", list, err)
		}
		if r, err := s.e.PurgeTasks(t.Context(), &outriggerv1.PurgeTasksRequest{}); err != nil || r.GetPurged() != 5 {
			t.Errorf("purged %v, %v", r, err)
		}
	})
}

func TestChainsOnDisk(t *testing.T) {
	onDisk(t, func(s *stage, _ func() *stage) {
		s.call = users
		task := s.submit(register())
		r, err := s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"save-user"}, Wait: duration(10 * time.Second)})
		if err != nil || len(r.GetTasks()) != 1 {
			s.t.Fatalf("%v, %v", r, err)
		}
		if err := s.complete(r.GetTasks()[0], `{"id": 7, "name": "Ada", "email": "ada@example.org"}`); err != nil {
			s.t.Fatal(err)
		}
		saved, err := s.e.WaitTask(s.t.Context(), &outriggerv1.WaitTaskRequest{Id: task.GetId(), Step: "save"})
		if err != nil || len(saved.GetStepOutput().GetData()) == 0 {
			s.t.Errorf("%v, %v", saved, err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 0)
		if len(s.mails) != 1 || string(done.GetResult().GetPayload().GetData()) != `{"email":"ada@example.org","id":7,"name":"Ada"}` {
			s.t.Errorf("%d mails, result %v", len(s.mails), done.GetResult())
		}

		broken := s.submit(chainOf("", undoneBy(step("a", nil, method("A")), nil, method("Undo")), step("b", map[string]string{"grpc.service": "7"}, method("B"))))
		failed := s.wait(broken.GetId())
		s.want(failed, outriggerv1.TaskState_FAILED, 0)
		if failed.GetSteps()[0].GetState() != "COMPENSATED" {
			s.t.Errorf("steps %v", failed.GetSteps())
		}
		if _, err := s.e.RetryTask(s.t.Context(), &outriggerv1.RetryTaskRequest{Id: broken.GetId()}); err != nil {
			s.t.Fatal(err)
		}
		s.want(s.wait(broken.GetId()), outriggerv1.TaskState_FAILED, 0)

		waits := s.submit(chainOf("", step("a", nil, appTask("resize", ""))))
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: waits.GetId()}); err != nil {
			s.t.Fatal(err)
		}
		s.want(s.get(waits.GetId()), outriggerv1.TaskState_CANCELLED, 0)
	})
}

func TestASchedulesTasksOnDisk(t *testing.T) {
	onDisk(t, func(s *stage, _ func() *stage) {
		schedule := s.submit(with(grpcTask("tick"), func(s *outriggerv1.TaskSpec) { s.Schedule = &outriggerv1.TaskSchedule{Cron: "@every 1s"} }))
		for range 200 {
			if len(s.called()) >= 2 {
				break
			}
			time.Sleep(50 * time.Millisecond)
		}
		if _, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: schedule.GetId()}); err != nil {
			s.t.Fatal(err)
		}
		r, err := s.e.ListTasks(s.t.Context(), &outriggerv1.ListTasksRequest{Parent: schedule.GetId()})
		if err != nil || len(r.GetTasks()) < 2 {
			s.t.Errorf("%d tasks, %v", len(r.GetTasks()), err)
		}
	})
}

func TestManySubmittersOnDisk(t *testing.T) {
	onDisk(t, func(s *stage, _ func() *stage) {
		const submitters, each = 32, 20
		var all sync.WaitGroup
		ids := make([][]string, submitters)
		for i := range submitters {
			all.Go(func() {
				for n := range each {
					r, err := s.trySubmit(with(grpcTask(fmt.Sprint(i, n)), func(t *outriggerv1.TaskSpec) { t.Tenant = fmt.Sprint("t", i%4) }), "")
					if err != nil {
						s.t.Error(err)
						return
					}
					ids[i] = append(ids[i], r.GetTask().GetId())
				}
			})
		}
		all.Wait()
		for _, id := range slices.Concat(ids...) {
			s.want(s.wait(id), outriggerv1.TaskState_COMPLETED, 1)
		}
		if n := len(s.called()); n != submitters*each {
			s.t.Errorf("%d calls", n)
		}
	})
}

func TestTwoAgentsShareWork(t *testing.T) {
	onDisk(t, func(a *stage, open func() *stage) {
		if open == nil {
			a.t.Skip("a SQLite file is one agent's alone")
		}
		b := open()
		waits := make(chan *outriggerv1.Task, 1)
		task := a.submit(appTask("resize", "x"))
		go func() {
			r, err := a.e.WaitTask(a.t.Context(), &outriggerv1.WaitTaskRequest{Id: task.GetId()})
			if err != nil {
				a.t.Error(err)
			}
			waits <- r.GetTask()
		}()
		r, err := b.e.LeaseTasks(b.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize"}, Wait: duration(5 * time.Second)})
		if err != nil || len(r.GetTasks()) != 1 {
			b.t.Fatalf("%v, %v", r, err)
		}
		if err := b.complete(r.GetTasks()[0], "y"); err != nil {
			b.t.Fatal(err)
		}
		a.want(<-waits, outriggerv1.TaskState_COMPLETED, 1)

		// One that waits at one agent gets what comes to the other, within a second or so.
		leased := make(chan time.Duration, 1)
		began := time.Now()
		go func() {
			r, err := b.e.LeaseTasks(b.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"save-user"}, Wait: duration(10 * time.Second)})
			if err != nil || len(r.GetTasks()) != 1 {
				b.t.Errorf("%v, %v", r, err)
			}
			leased <- time.Since(began)
		}()
		a.submit(appTask("save-user", ""))
		if d := <-leased; d > 5*time.Second {
			a.t.Errorf("leased after %v", d)
		}
	})
}

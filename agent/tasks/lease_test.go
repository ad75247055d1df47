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

	"google.golang.org/grpc/codes"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// leaseOne leases one task of the kind; nil: there is none.
func (s *stage) leaseOne(kind string) *outriggerv1.LeasedTask {
	s.t.Helper()
	r, err := s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{kind}, Worker: "w"})
	if err != nil {
		s.t.Fatal(err)
	}
	if len(r.GetTasks()) == 0 {
		return nil
	}
	return r.GetTasks()[0]
}

func leaseOfTask(l *outriggerv1.LeasedTask) *outriggerv1.TaskLease {
	return &outriggerv1.TaskLease{Id: l.GetId(), Attempt: l.GetAttempt()}
}

func (s *stage) complete(l *outriggerv1.LeasedTask, result string) error {
	_, err := s.e.CompleteTask(s.t.Context(), &outriggerv1.CompleteTaskRequest{Lease: leaseOfTask(l), Result: &outriggerv1.Payload{Data: []byte(result)}})
	return err
}

func TestAWorkerLeasesAndCompletesATask(t *testing.T) {
	onStage(t, func(s *stage) {
		task := s.submit(with(appTask("resize", "cat"), func(t *outriggerv1.TaskSpec) { t.Tenant, t.Tags = "a", []string{"x"} }))
		if s.leaseOne("save-user") != nil {
			t.Fatal("it was leased as another kind")
		}
		l := s.leaseOne("resize")
		if l.GetId() != task.GetId() || l.GetAttempt() != 1 || l.GetMaxAttempts() != 3 || string(l.GetPayload().GetData()) != "cat" || l.GetTenant() != "a" || l.GetTags()[0] != "x" ||
			time.Until(l.GetLeaseUntil().AsTime()) != 30*time.Second {
			t.Errorf("leased %v", l)
		}
		running := s.get(task.GetId())
		s.want(running, outriggerv1.TaskState_RUNNING, 1)
		if running.GetWorker() != "w" || s.leaseOne("resize") != nil {
			t.Errorf("worker %q, or it was leased twice", running.GetWorker())
		}
		if err := s.complete(l, "small cat"); err != nil {
			t.Fatal(err)
		}
		done := s.wait(task.GetId())
		s.want(done, outriggerv1.TaskState_COMPLETED, 1)
		if string(done.GetResult().GetPayload().GetData()) != "small cat" {
			t.Errorf("the result is %v", done.GetResult())
		}
		wantStatus(t, s.complete(l, "again"), codes.Aborted, "the lease is over")
	})
}

func TestALeaseThatLapsedCountsNoMore(t *testing.T) {
	onStage(t, func(s *stage) {
		s.submit(appTask("resize", ""))
		stale := s.leaseOne("resize")
		time.Sleep(31 * time.Second)
		fresh := s.leaseOne("resize")
		if fresh.GetId() != stale.GetId() || fresh.GetAttempt() != 2 {
			t.Fatalf("leased %v", fresh)
		}
		wantStatus(t, s.complete(stale, ""), codes.Aborted)
		_, err := s.e.FailTask(s.t.Context(), &outriggerv1.FailTaskRequest{Lease: leaseOfTask(stale), Error: "x"})
		wantStatus(t, err, codes.Aborted)
		r, err := s.e.RenewTasks(s.t.Context(), &outriggerv1.RenewTasksRequest{Leases: []*outriggerv1.TaskLease{leaseOfTask(stale), leaseOfTask(fresh)}})
		if err != nil || r.GetLeases()[0].GetLeaseUntil() != nil || r.GetLeases()[1].GetLeaseUntil() == nil {
			t.Errorf("renewed %v, %v", r, err)
		}
		if err := s.complete(fresh, ""); err != nil {
			t.Error(err)
		}
	})
}

func TestALeaseIsRenewed(t *testing.T) {
	onStage(t, func(s *stage) {
		s.submit(appTask("resize", ""))
		l := s.leaseOne("resize")
		for range 10 {
			time.Sleep(20 * time.Second)
			r, err := s.e.RenewTasks(s.t.Context(), &outriggerv1.RenewTasksRequest{Leases: []*outriggerv1.TaskLease{leaseOfTask(l)}})
			if err != nil || !r.GetLeases()[0].GetLeaseUntil().AsTime().Equal(time.Now().Add(30*time.Second)) {
				t.Fatalf("after %v: %v, %v", sinceStart(), r, err)
			}
		}
		if err := s.complete(l, ""); err != nil {
			t.Error(err)
		}
	})
}

func TestALeaseLastsNoLongerThanAnAttemptMay(t *testing.T) {
	onStage(t, func(s *stage) {
		s.submit(with(appTask("resize", ""), func(t *outriggerv1.TaskSpec) { t.Timeout = duration(50 * time.Second) }))
		l := s.leaseOne("resize")
		renew := func() time.Duration {
			r, err := s.e.RenewTasks(s.t.Context(), &outriggerv1.RenewTasksRequest{Leases: []*outriggerv1.TaskLease{leaseOfTask(l)}, Lease: duration(time.Hour)})
			if err != nil {
				t.Fatal(err)
			}
			if r.GetLeases()[0].GetLeaseUntil() == nil {
				return 0
			}
			return time.Until(r.GetLeases()[0].GetLeaseUntil().AsTime())
		}
		time.Sleep(20 * time.Second)
		if got := renew(); got != 30*time.Second {
			t.Errorf("renewed for %v", got)
		}
		time.Sleep(30 * time.Second)
		if got := renew(); got != 0 {
			t.Errorf("renewed for %v after its timeout", got)
		}
	})
}

func TestAWorkerFailsATask(t *testing.T) {
	for _, tc := range []struct {
		name   string
		r      *outriggerv1.FailTaskRequest
		state  outriggerv1.TaskState
		counts uint32
		in     time.Duration
	}{
		{"it comes again", &outriggerv1.FailTaskRequest{Error: "x"}, outriggerv1.TaskState_RETRYABLE, 1, time.Second},
		{"when it said", &outriggerv1.FailTaskRequest{Error: "x", RetryAfter: duration(7 * time.Second)}, outriggerv1.TaskState_RETRYABLE, 1, 7 * time.Second},
		{"never", &outriggerv1.FailTaskRequest{Error: "x", Permanent: true}, outriggerv1.TaskState_FAILED, 1, 0},
		{"without an attempt being counted", &outriggerv1.FailTaskRequest{Error: "x", Snooze: true, RetryAfter: duration(7 * time.Second)}, outriggerv1.TaskState_SCHEDULED, 0, 7 * time.Second},
	} {
		t.Run(tc.name, func(t *testing.T) {
			onStage(t, func(s *stage) {
				task := s.submit(appTask("resize", ""))
				tc.r.Lease = leaseOfTask(s.leaseOne("resize"))
				r, err := s.e.FailTask(s.t.Context(), tc.r)
				if err != nil {
					t.Fatal(err)
				}
				s.want(r.GetTask(), tc.state, tc.counts)
				if r.GetTask().GetError() != "x" || tc.in != 0 && time.Until(r.GetTask().GetRunAt().AsTime()) != tc.in {
					t.Errorf("%q, again in %v", r.GetTask().GetError(), time.Until(r.GetTask().GetRunAt().AsTime()))
				}
				if tc.in != 0 {
					time.Sleep(tc.in)
					synctest.Wait()
					if l := s.leaseOne("resize"); l.GetId() != task.GetId() || l.GetAttempt() != 2 {
						t.Errorf("leased %v", l)
					}
				}
			})
		})
	}
}

func TestReportsThatMakeNoSense(t *testing.T) {
	onStage(t, func(s *stage) {
		s.submit(appTask("resize", ""))
		l := leaseOfTask(s.leaseOne("resize"))
		_, err := s.e.FailTask(s.t.Context(), &outriggerv1.FailTaskRequest{Lease: l, Error: "x", Snooze: true})
		wantStatus(t, err, codes.InvalidArgument, "retry_after: ")
		_, err = s.e.FailTask(s.t.Context(), &outriggerv1.FailTaskRequest{Lease: l, Error: "x", Snooze: true, Permanent: true, RetryAfter: duration(1)})
		wantStatus(t, err, codes.InvalidArgument, "permanent: ")
		_, err = s.e.CompleteTask(s.t.Context(), &outriggerv1.CompleteTaskRequest{Lease: l, Result: &outriggerv1.Payload{Data: make([]byte, 5000)}})
		wantStatus(t, err, codes.InvalidArgument, "result.data: ", "tasks.max_payload")
		_, err = s.e.CompleteTask(s.t.Context(), &outriggerv1.CompleteTaskRequest{Lease: &outriggerv1.TaskLease{Id: "nonsense", Attempt: 1}})
		wantStatus(t, err, codes.InvalidArgument, "lease.id: ")
		_, err = s.e.CompleteTask(s.t.Context(), &outriggerv1.CompleteTaskRequest{Lease: &outriggerv1.TaskLease{Id: FormatID(1 << 40), Attempt: 1}})
		wantStatus(t, err, codes.NotFound)
		_, err = s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize", "grpc"}})
		wantStatus(t, err, codes.InvalidArgument, "kinds[1]: ", "resize, save-user")
		hold := make(chan struct{})
		s.call = func(context.Context, Call) ([]byte, error) { <-hold; return nil, nil }
		own := s.submit(grpcTask(""))
		synctest.Wait()
		_, err = s.e.CompleteTask(s.t.Context(), &outriggerv1.CompleteTaskRequest{Lease: &outriggerv1.TaskLease{Id: own.GetId(), Attempt: 1}})
		wantStatus(t, err, codes.FailedPrecondition, "which workers don't lease")
		close(hold)
	})
}

func TestAWorkerWaitsForTasks(t *testing.T) {
	onStage(t, func(s *stage) {
		var got []string
		var mu sync.Mutex
		var workers sync.WaitGroup
		for range 3 {
			workers.Go(func() {
				r, err := s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize", "save-user"}, Wait: duration(10 * time.Second)})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				for _, l := range r.GetTasks() {
					got = append(got, fmt.Sprint(l.GetKind(), sinceStart()))
				}
				if len(r.GetTasks()) == 0 {
					got = append(got, fmt.Sprint("none", sinceStart()))
				}
			})
		}
		time.Sleep(1500 * time.Millisecond)
		s.submit(appTask("resize", ""))
		s.submit(appTask("save-user", ""))
		workers.Wait()
		if want := "resize1.5s save-user1.5s none10s"; strings.Join(got, " ") != want && strings.Join(got, " ") != "save-user1.5s resize1.5s none10s" {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestKindsTakeTurns(t *testing.T) {
	onStage(t, func(s *stage) {
		for range 10 {
			s.submit(appTask("resize", ""))
		}
		s.submit(appTask("save-user", ""))
		seen := map[string]bool{}
		for range 2 {
			r, err := s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize", "save-user"}})
			if err != nil {
				t.Fatal(err)
			}
			seen[r.GetTasks()[0].GetKind()] = true
		}
		if !seen["save-user"] {
			t.Error("one kind held up the other")
		}
	})
}

func TestWhatCameForAWorkerThatLeftRunsAgainAtOnce(t *testing.T) {
	onStage(t, func(s *stage) {
		ctx, leave := context.WithCancel(s.t.Context())
		task := s.submit(appTask("resize", ""))
		leave() // the store does not look at it
		_, err := s.e.LeaseTasks(ctx, &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize"}})
		wantStatus(t, err, codes.Canceled)
		if l := s.leaseOne("resize"); l.GetId() != task.GetId() {
			t.Errorf("leased %v", l)
		}
		s.want(s.get(task.GetId()), outriggerv1.TaskState_RUNNING, 1)
	})
}

func TestAPausedQueueIsNotLeased(t *testing.T) {
	onStage(t, func(s *stage) {
		if _, err := s.e.PauseQueue(s.t.Context(), &outriggerv1.PauseQueueRequest{Name: "resize"}); err != nil {
			t.Fatal(err)
		}
		s.submit(appTask("resize", ""))
		if s.leaseOne("resize") != nil {
			t.Error("it was leased")
		}
		var waits sync.WaitGroup
		waits.Go(func() {
			r, err := s.e.LeaseTasks(s.t.Context(), &outriggerv1.LeaseTasksRequest{Kinds: []string{"resize"}, Wait: duration(time.Minute)})
			if err != nil || len(r.GetTasks()) != 1 || sinceStart() != 5*time.Second {
				t.Errorf("after %v: %v, %v", sinceStart(), r, err)
			}
		})
		time.Sleep(5 * time.Second)
		r, err := s.e.ResumeQueue(s.t.Context(), &outriggerv1.ResumeQueueRequest{Name: "resize"})
		if err != nil || r.GetQueue().GetPaused() {
			t.Errorf("%v, %v", r, err)
		}
		waits.Wait()
	})
}

// worker is the other end of a stream of work.
type worker struct {
	requests chan *outriggerv1.WorkRequest
	answers  chan *outriggerv1.WorkResponse
	ended    chan error
	leave    context.CancelFunc
}

func (s *stage) work(kinds ...string) *worker {
	ctx, cancel := context.WithCancel(s.t.Context())
	w := &worker{make(chan *outriggerv1.WorkRequest, 100), make(chan *outriggerv1.WorkResponse, 100), make(chan error, 1), cancel}
	go func() {
		w.ended <- s.e.Work(ctx, func() (*outriggerv1.WorkRequest, error) {
			select {
			case r, ok := <-w.requests:
				if !ok {
					return nil, io.EOF
				}
				return r, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, func(r *outriggerv1.WorkResponse) error {
			w.answers <- r
			return nil
		})
		cancel()
	}()
	w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: kinds, Worker: "w"}}}
	return w
}

func (w *worker) more(n uint32) {
	w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_More{More: n}}
}

func (w *worker) complete(l *outriggerv1.LeasedTask) {
	w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Complete{Complete: &outriggerv1.CompleteTaskRequest{Lease: leaseOfTask(l), Result: &outriggerv1.Payload{Data: []byte("done")}}}}
}

func TestWorkComesInAStream(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		first := s.submit(appTask("resize", "1"))
		synctest.Wait()
		if len(w.answers) != 0 {
			t.Fatal("a task came before any was asked for")
		}
		w.more(2)
		if a := <-w.answers; a.GetTask().GetId() != first.GetId() {
			t.Fatalf("got %v", a)
		} else {
			w.complete(a.GetTask())
		}
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_COMPLETED || a.GetEnded().GetLease().GetId() != first.GetId() {
			t.Errorf("got %v", a)
		}
		s.submit(appTask("resize", "2"))
		second := (<-w.answers).GetTask()
		s.submit(appTask("resize", "3"))
		synctest.Wait()
		if len(w.answers) != 0 {
			t.Error("more came than was asked for")
		}
		w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Fail{Fail: &outriggerv1.FailTaskRequest{Lease: leaseOfTask(second), Error: "x", Permanent: true}}}
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_FAILED {
			t.Errorf("got %v", a)
		}
		w.complete(second)
		if a := <-w.answers; a.GetEnded().GetRefused().GetCode() != uint32(codes.Aborted) {
			t.Errorf("a second report: %v", a)
		}
		w.leave()
		wantStatus(t, <-w.ended, codes.Canceled)
	})
}

func TestAStreamRenewsItsLeases(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		task := s.submit(appTask("resize", ""))
		l := (<-w.answers).GetTask()
		time.Sleep(10 * time.Minute)
		s.want(s.get(task.GetId()), outriggerv1.TaskState_RUNNING, 1)
		w.complete(l)
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_COMPLETED {
			t.Errorf("got %v", a)
		}
		w.leave()
	})
}

func TestWhatAStreamHeldRunsAgainAtOnce(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		task := s.submit(appTask("resize", ""))
		<-w.answers
		w.leave()
		<-w.ended
		got := s.get(task.GetId())
		s.want(got, outriggerv1.TaskState_RETRYABLE, 1)
		if got.GetError() != "the worker's stream ended before the task did" {
			t.Errorf("error %q", got.GetError())
		}
	})
}

func TestAStreamIsToldOfACancel(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		task := s.submit(appTask("resize", ""))
		l := (<-w.answers).GetTask()
		r, err := s.e.CancelTask(s.t.Context(), &outriggerv1.CancelTaskRequest{Id: task.GetId()})
		if err != nil || !r.GetTask().GetCancelRequested() {
			t.Fatalf("%v, %v", r, err)
		}
		if a := <-w.answers; a.GetCancel().GetId() != task.GetId() {
			t.Fatalf("got %v", a)
		}
		if sinceStart() != 0 {
			t.Errorf("it was told after %v", sinceStart())
		}
		w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Fail{Fail: &outriggerv1.FailTaskRequest{Lease: leaseOfTask(l), Error: "stopped"}}}
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_CANCELLED {
			t.Errorf("got %v", a)
		}
		s.want(s.wait(task.GetId()), outriggerv1.TaskState_CANCELLED, 1)
		w.leave()
	})
}

func TestAStreamIsToldOfALeaseThatIsOver(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		s.submit(appTask("resize", ""))
		<-w.answers
		s.store.fail(errors.New("down"))
		time.Sleep(45 * time.Second)
		if a := <-w.answers; a.GetLost() == nil {
			t.Errorf("got %v", a)
		}
		s.store.fail(nil)
		w.more(1)
		if a := <-w.answers; a.GetTask().GetAttempt() != 2 {
			t.Errorf("got %v", a)
		}
		w.leave()
	})
}

func TestAReportIsKeptOnceTheStoreIsBack(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		s.submit(appTask("resize", ""))
		l := (<-w.answers).GetTask()
		s.store.fail(errors.New("down"))
		w.complete(l)
		if a := <-w.answers; a.GetEnded().GetRefused().GetCode() != uint32(codes.Unavailable) || a.GetEnded().GetRefused().GetReason() != "TASK_STORE" {
			t.Errorf("got %v", a)
		}
		s.store.fail(nil)
		w.complete(l)
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_COMPLETED {
			t.Errorf("got %v", a)
		}
		w.leave()
	})
}

func TestAStopWaitsForStreams(t *testing.T) {
	for _, reports := range []bool{true, false} {
		t.Run(fmt.Sprintf("reports=%v", reports), func(t *testing.T) {
			onStage(t, func(s *stage) {
				w := s.work("resize")
				w.more(5)
				task := s.submit(appTask("resize", ""))
				l := (<-w.answers).GetTask()
				id, err := ParseID(task.GetId())
				if err != nil {
					t.Fatal(err)
				}
				go func() {
					time.Sleep(4 * time.Second)
					if reports {
						w.complete(l)
					}
				}()
				s.stop(10 * time.Second)
				wantStatus(t, <-w.ended, codes.Unavailable, "the agent stops")
				j, err := s.store.Get(s.t.Context(), id)
				want, after := "completed0", 4*time.Second
				if !reports {
					want, after = "scheduled0", 10*time.Second
				}
				if reports {
					want = "completed1"
				}
				attempts, _ := j.Counted()
				if got := fmt.Sprint(j.State, attempts); err != nil || got != want || sinceStart() != after {
					t.Errorf("after %v it is %s, want %s after %v; %v", sinceStart(), got, want, after, err)
				}
			})
		})
	}
}

func TestAWorkerThatStopsEndsWhatItHolds(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(2)
		s.submit(appTask("resize", "1"))
		l := (<-w.answers).GetTask()
		w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Stop{Stop: &outriggerv1.StopWork{}}}
		synctest.Wait() // it was heard
		second := s.submit(appTask("resize", "2"))
		time.Sleep(10 * time.Minute)
		if len(w.answers)+len(w.ended) != 0 {
			t.Fatal("a task came, or the stream ended, while the worker held a task")
		}
		w.complete(l)
		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_COMPLETED {
			t.Errorf("got %v", a)
		}
		if err := <-w.ended; err != nil {
			t.Errorf("the stream ended with %v; want nil", err)
		}
		s.want(s.get(second.GetId()), outriggerv1.TaskState_AVAILABLE, 0)
		w.leave()
	})
}

func TestATaskThatIsBeingLeasedWhenItsWorkerStopsWaitsAgainUncounted(t *testing.T) {
	for how, leave := range map[string]func(*worker){
		"it says so": func(w *worker) {
			w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Stop{Stop: &outriggerv1.StopWork{}}}
		},
		"it says no more":  func(w *worker) { close(w.requests) },
		"its stream broke": func(w *worker) { w.leave() },
	} {
		t.Run(how, func(t *testing.T) {
			onStage(t, func(s *stage) {
				s.store.slow = time.Second
				task := s.submit(appTask("resize", "1"))
				w := s.work("resize")
				w.more(1)
				synctest.Wait() // the lease is under way
				s.want(s.get(task.GetId()), outriggerv1.TaskState_RUNNING, 1)

				leave(w)
				<-w.ended

				if len(w.answers) != 0 {
					t.Errorf("got %v", <-w.answers)
				}
				s.store.slow = 0
				if l := s.leaseOne("resize"); l.GetId() != task.GetId() {
					t.Errorf("another worker got %v", l)
				}
				s.want(s.get(task.GetId()), outriggerv1.TaskState_RUNNING, 1)
			})
		})
	}
}

func TestAReportIsAnsweredWhileTasksAreLeased(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("resize")
		w.more(1)
		s.submit(appTask("resize", "1"))
		l := (<-w.answers).GetTask()
		s.store.slow = time.Hour
		w.more(1)
		synctest.Wait() // the lease is under way

		w.complete(l)

		if a := <-w.answers; a.GetEnded().GetState() != outriggerv1.TaskState_COMPLETED || sinceStart() != 0 {
			t.Errorf("after %v: %v", sinceStart(), a)
		}
		w.leave()
		<-w.ended
	})
}

func TestStreamsThatMakeNoSense(t *testing.T) {
	onStage(t, func(s *stage) {
		w := s.work("knit")
		wantStatus(t, <-w.ended, codes.InvalidArgument, "open.kinds[0]: ", `"knit"`)
		w = s.work("resize")
		w.requests <- &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_Open{Open: &outriggerv1.OpenWork{Kinds: []string{"resize"}}}}
		wantStatus(t, <-w.ended, codes.InvalidArgument, "open: ")
		w = s.work("resize")
		w.more(maxHeld + 1)
		wantStatus(t, <-w.ended, codes.InvalidArgument, "more: ")
		err := s.e.Work(s.t.Context(), func() (*outriggerv1.WorkRequest, error) {
			return &outriggerv1.WorkRequest{Say: &outriggerv1.WorkRequest_More{More: 1}}, nil
		}, nil)
		wantStatus(t, err, codes.InvalidArgument, "open: the first message must be open")
		w = s.work("resize")
		close(w.requests)
		if err := <-w.ended; err != nil {
			t.Errorf("one that says no more ends with %v", err)
		}
	})
}

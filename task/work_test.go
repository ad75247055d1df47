package task

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// held has a worker with the handler get task "a", and returns the stream it came by.
func held(a *agent, do Handler) *served {
	a.t.Helper()
	a.runs(one(do))
	s := a.stream()
	s.more(1)
	s.hand(leased("a", `{"name": "Ada"}`))
	synctest.Wait()
	return s
}

func TestAHandlerGetsTheTaskAndItsResultIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, func(_ context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			return &outriggerv1.Payload{Data: append([]byte(t.GetId()), t.GetPayload().GetData()...), ContentType: "text/plain"}, nil
		})
		c := s.completes()
		if l := c.GetLease(); l.GetId() != "a" || l.GetAttempt() != 1 {
			t.Errorf("it completed the lease %v; want a, 1", l)
		}
		if r := c.GetResult(); string(r.GetData()) != `a{"name": "Ada"}` || r.GetContentType() != "text/plain" {
			t.Errorf("the result is %v", r)
		}
		s.more(1)
	})
}

func TestAnErrorIsAFailedAttempt(t *testing.T) {
	for _, test := range []struct {
		name              string
		err               error
		text              string
		permanent, snooze bool
		after             time.Duration // negative: unset
	}{
		{"plain", errors.New("the disk is full"), "the disk is full", false, false, -1},
		{"permanent", Permanent(errors.New("no such user")), "no such user", true, false, -1},
		{"permanent, wrapped", fmt.Errorf("saving: %w", Permanent(errors.New("no such user"))), "saving: no such user", true, false, -1},
		{"retry after", RetryAfter(3*time.Second, errors.New("busy")), "busy", false, false, 3 * time.Second},
		{"retry at once", RetryAfter(0, errors.New("busy")), "busy", false, false, 0},
		{"retry before now", RetryAfter(-time.Second, errors.New("busy")), "busy", false, false, 0},
		{"retry after longer than the API takes", RetryAfter(1000*time.Hour, errors.New("busy")), "busy", false, false, 168 * time.Hour},
		{"snooze", Snooze(time.Minute, "it is night"), "it is night", false, true, time.Minute},
		{"no text", errors.New(""), "it failed and did not say why", false, false, -1},
		{"no UTF-8", errors.New("bad \xff byte"), "bad \uFFFD byte", false, false, -1},
		{"too long", errors.New(strings.Repeat("ä", 4097)), strings.Repeat("ä", 4095) + "…", false, false, -1},
		{"as long as may be", errors.New(strings.Repeat("ä", 4096)), strings.Repeat("ä", 4096), false, false, -1},
	} {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAgent(t).come()
				f := held(a, func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) { return nil, test.err }).fails()
				if f.GetError() != test.text || f.GetPermanent() != test.permanent || f.GetSnooze() != test.snooze {
					t.Errorf("it failed with %v", f)
				}
				if got := f.GetRetryAfter(); (got != nil) != (test.after >= 0) || got != nil && got.AsDuration() != test.after {
					t.Errorf("the next attempt comes after %v; want %v", got, test.after)
				}
			})
		})
	}
}

func TestAPanicIsAFailedAttemptAndTheWorkerGoesOn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, func(_ context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			if t.GetId() == "a" {
				panic("index out of range")
			}
			return nil, nil
		})
		if f := s.fails(); f.GetError() != "the handler panicked: index out of range" || f.GetPermanent() {
			t.Errorf("it failed with %v", f)
		}
		s.more(1)
		s.hand(leased("b", ""))
		s.completes()
	})
}

func TestATaskOfAKindThatTheWorkerDoesNotKnowIsPutOff(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.runs(one(done))
		s := a.stream()
		s.more(1)
		task := leased("a", "")
		task.Kind = "resize"
		s.hand(task)
		if f := s.fails(); !f.GetSnooze() || f.GetRetryAfter().AsDuration() != time.Minute || f.GetError() != "worker w does not know the kind resize" {
			t.Errorf("it failed with %v", f)
		}
	})
}

func TestACancelledTasksContextEndsWithItsCause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, forever)
		s.say(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Cancel{Cancel: &outriggerv1.TaskLease{Id: "a", Attempt: 1}}})
		if f := s.fails(); f.GetError() != ErrCancelled.Error() {
			t.Errorf("it failed with %v; want %v", f, ErrCancelled)
		}
	})
}

func TestALostTasksContextEndsWithItsCauseAndNothingIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		why := make(chan error, 1)
		s := held(a, func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-ctx.Done()
			why <- context.Cause(ctx)
			return nil, nil
		})
		s.say(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Lost{Lost: &outriggerv1.TaskLease{Id: "a", Attempt: 1}}})
		if err := take(t, why, "end of the context"); !errors.Is(err, ErrLost) {
			t.Errorf("the context's cause is %v; want %v", err, ErrLost)
		}
		s.more(1) // and no end before
	})
}

func TestNewsOfAnotherAttemptDoNotEndThisOne(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		next := make(chan struct{})
		s := held(a, func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-next
			return nil, ctx.Err()
		})
		s.say(&outriggerv1.WorkResponse{Say: &outriggerv1.WorkResponse_Lost{Lost: &outriggerv1.TaskLease{Id: "a", Attempt: 2}}})
		synctest.Wait()
		close(next)
		s.completes()
	})
}

func TestATasksDeadlineEndsItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.runs(one(forever))
		s := a.stream()
		s.more(1)
		task := leased("a", "")
		task.Deadline = timestamppb.New(time.Now().Add(5 * time.Second))
		begun := time.Now()
		s.hand(task)
		if f := s.fails(); f.GetError() != context.DeadlineExceeded.Error() {
			t.Errorf("it failed with %v; want %v", f, context.DeadlineExceeded)
		}
		if took := time.Since(begun); took != 5*time.Second {
			t.Errorf("it failed after %v; want 5 s", took)
		}
	})
}

func TestATaskWhoseStreamBrokeIsRenewedAndCompletedByCalls(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		var renewed atomic.Int32
		a.renew = func(l *outriggerv1.TaskLease) *outriggerv1.RenewedLease {
			renewed.Add(1)
			return &outriggerv1.RenewedLease{Lease: l, LeaseUntil: timestamppb.New(time.Now().Add(time.Second))}
		}
		next := make(chan struct{})
		s := held(a, func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-next
			return &outriggerv1.Payload{Data: []byte("saved")}, ctx.Err()
		})
		s.breaks()
		second := a.stream()
		time.Sleep(10 * time.Second)
		if n := renewed.Load(); n < 20 {
			t.Errorf("the lease was renewed %d times in 10 s; leases may last no longer than 1 s", n)
		}
		close(next)
		if c := take(t, a.completed, "call"); c.GetLease().GetId() != "a" || string(c.GetResult().GetData()) != "saved" {
			t.Errorf("completed: %v", c)
		}
		second.more(1) // not before: it does one at a time
		if len(second.said) > 0 {
			t.Errorf("the second stream heard %v", second.hear())
		}
	})
}

func TestATaskWhoseStreamBrokeAndWhoseLeaseIsOverIsLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.renew = func(l *outriggerv1.TaskLease) *outriggerv1.RenewedLease {
			return &outriggerv1.RenewedLease{Lease: l}
		}
		why := make(chan error, 1)
		s := held(a, func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-ctx.Done()
			why <- context.Cause(ctx)
			return nil, ctx.Err()
		})
		s.breaks()
		if err := take(t, why, "end of the context"); !errors.Is(err, ErrLost) {
			t.Errorf("the context's cause is %v; want %v", err, ErrLost)
		}
		a.stream().more(1)
		if len(a.completed)+len(a.failed) > 0 {
			t.Error("its end was told; want nothing")
		}
	})
}

func TestATaskWhoseStreamBrokeIsCancelledByItsRenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.renew = func(l *outriggerv1.TaskLease) *outriggerv1.RenewedLease {
			return &outriggerv1.RenewedLease{Lease: l, LeaseUntil: timestamppb.New(time.Now().Add(time.Second)), CancelRequested: true}
		}
		held(a, forever).breaks()
		if f := take(t, a.failed, "call"); f.GetError() != ErrCancelled.Error() {
			t.Errorf("failed: %v; want %v", f, ErrCancelled)
		}
	})
}

func TestATaskThatEndsWhileTheAgentIsAwayIsToldWhenItIsBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		next := make(chan struct{})
		held(a, func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-next
			return nil, nil
		})
		a.leave()
		close(next)
		time.Sleep(time.Minute)
		a.come()
		if c := take(t, a.completed, "call"); c.GetLease().GetId() != "a" {
			t.Errorf("completed: %v", c)
		}
	})
}

func TestAnEndThatTheStreamDidNotAnswerIsToldByACall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, done)
		if r := s.hear(); r.GetComplete() == nil {
			t.Fatalf("the worker said %v; want complete", r)
		}
		s.breaks()
		if c := take(t, a.completed, "call"); c.GetLease().GetId() != "a" {
			t.Errorf("completed: %v", c)
		}
	})
}

func TestAnEndThatTheAgentCantKeepNowIsToldAgainForAsLongAsItTakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, done)
		for range 120 { // a minute, at half a second each
			r := s.hear()
			if r.GetComplete() == nil {
				t.Fatalf("the worker said %v; want complete", r)
			}
			s.ended(r.GetComplete().GetLease(), &outriggerv1.TaskRefusal{Code: uint32(codes.Unavailable), Reason: "TASK_STORE", Message: "the store is down"})
		}
		s.completes()
		s.more(1)
	})
}

func TestAnEndOfALeaseThatIsOverIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, done)
		r := s.hear()
		s.ended(r.GetComplete().GetLease(), &outriggerv1.TaskRefusal{Code: uint32(codes.Aborted), Message: "the lease is over"})
		s.more(1)
	})
}

func TestAResultThatTheAgentDoesNotTakeFailsTheTaskForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, done)
		r := s.hear()
		s.ended(r.GetComplete().GetLease(), &outriggerv1.TaskRefusal{Code: uint32(codes.InvalidArgument), Message: "result.data: it has 9 bytes, and may have 8"})
		if f := s.fails(); !f.GetPermanent() || f.GetError() != "the agent does not take its result: result.data: it has 9 bytes, and may have 8" {
			t.Errorf("it failed with %v", f)
		}
	})
}

func TestALargeResultGoesByACallWhichItCostsAlone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.complete = func(*outriggerv1.CompleteTaskRequest) error {
			return status.Error(codes.ResourceExhausted, "grpc: received message larger than max")
		}
		s := held(a, func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			return &outriggerv1.Payload{Data: make([]byte, 2<<20)}, nil
		})
		if f := s.fails(); !f.GetPermanent() || !strings.Contains(f.GetError(), "larger than max") {
			t.Errorf("it failed with %v", f)
		}
	})
}

func TestAResultThatNoMessageCouldSayFailsTheTaskForGood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		s := held(a, func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			return &outriggerv1.Payload{ContentType: "text/\xff"}, nil
		})
		if f := s.fails(); !f.GetPermanent() || !strings.Contains(f.GetError(), `content type is "text/\xff"`) {
			t.Errorf("it failed with %v", f)
		}
	})
}

func TestTasksOfABrokenStreamAreFinishedByAWorkerThatStops(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		r := a.runs(one(func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			time.Sleep(20 * time.Second)
			return nil, ctx.Err()
		}))
		var renewed atomic.Int32
		a.renew = func(l *outriggerv1.TaskLease) *outriggerv1.RenewedLease {
			renewed.Add(1)
			return &outriggerv1.RenewedLease{Lease: l, LeaseUntil: timestamppb.New(time.Now().Add(time.Second))}
		}
		s := a.stream()
		s.more(1)
		s.hand(leased("a", ""))
		synctest.Wait()
		r.stop()
		s.hear() // stop
		s.breaks()
		take(t, a.completed, "call")
		if n := renewed.Load(); n < 20 {
			t.Errorf("the lease was renewed %d times in 20 s; leases may last no longer than 1 s", n)
		}
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
	})
}

func TestAWorkerThatStopsWithoutItsAgentGivesUpTellingAfterItsDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		next := make(chan struct{})
		w := one(func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-next
			return nil, nil
		})
		w.Drain = 7 * time.Second
		r := a.runs(w)
		s := a.stream()
		s.more(1)
		s.hand(leased("a", ""))
		synctest.Wait()
		a.leave()
		begun := time.Now()
		r.stop()
		close(next)
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
		if took := time.Since(begun); took < 7*time.Second || took > 18*time.Second {
			t.Errorf("Run returned after %v; want 7 s and 10 s", took)
		}
	})
}

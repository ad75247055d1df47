package task

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// done is a handler that has nothing to do.
func done(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) { return nil, nil }

// forever is a handler that works until its context ends, and says why it did.
func forever(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
	<-ctx.Done()
	return nil, context.Cause(ctx)
}

func TestWorkerOpensWithItsKindsAndAsksForAsManyAsItDoesAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.runs(&Worker{Name: "shop-1", Concurrency: 2500, Kinds: map[string]Handler{"save": done, "delete": done}})

		s := a.stream()
		if got := s.open; strings.Join(got.GetKinds(), " ") != "delete save" || got.GetWorker() != "shop-1" {
			t.Errorf("the worker opened with %v", got)
		}
		s.more(1000)
		s.more(1000)
		s.more(500)
	})
}

func TestWorkerAsksForSixteenWhereItSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		a.runs(&Worker{Kinds: map[string]Handler{"save": done}})
		s := a.stream()
		s.more(16)
		if !strings.Contains(s.open.GetWorker(), ":") {
			t.Errorf("the worker's name is %q; want the host's and the process id", s.open.GetWorker())
		}
	})
}

func TestWorkerAsksForOneMoreWhenOneEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		next := make(chan struct{})
		a.runs(&Worker{Concurrency: 2, Kinds: map[string]Handler{"save": func(context.Context, *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-next
			return nil, nil
		}}})
		s := a.stream()
		s.more(2)
		s.hand(leased("a", ""))
		s.hand(leased("b", ""))
		synctest.Wait()
		if len(s.said) != 0 {
			t.Fatalf("the worker said %v while both were under way", s.hear())
		}
		for range 2 {
			next <- struct{}{}
			s.completes()
			s.more(1)
		}
	})
}

func TestWorkerNeedsKindsAndHandlers(t *testing.T) {
	for _, test := range []struct {
		worker Worker
		want   string
	}{
		{Worker{}, "has no kinds"},
		{Worker{Kinds: map[string]Handler{"save": nil}}, `no handler for "save"`},
		{Worker{Kinds: map[string]Handler{"save": done}, Concurrency: 10001}, "Concurrency is 10001; want 0 to 10000"},
		{Worker{Kinds: map[string]Handler{"save": done}, Concurrency: -1}, "Concurrency is -1; want 0 to 10000"},
	} {
		if err := test.worker.Run(t.Context(), newAgent(t).client()); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("Run: %v; want %q", err, test.want)
		}
	}
}

func TestWorkerReturnsWhatWaitingWontMend(t *testing.T) {
	for _, code := range []codes.Code{codes.InvalidArgument, codes.FailedPrecondition, codes.Unimplemented, codes.PermissionDenied} {
		synctest.Test(t, func(t *testing.T) {
			a := newAgent(t).come()
			a.refuse = status.Error(code, `"save" is no kind`)
			if err := a.runs(one(done)).err(); status.Code(err) != code || !strings.Contains(err.Error(), `"save" is no kind`) {
				t.Errorf("Run: %v; want %v", err, code)
			}
		})
	}
}

func TestWorkerWaitsForAnAgentThatIsAbsentAtFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t)
		var log bytes.Buffer
		w := one(done)
		w.Logger = slog.New(slog.NewTextHandler(&log, nil))
		a.runs(w)
		time.Sleep(5 * time.Minute) // for grpc alone it would be two more until the next try

		a.come()
		begun := time.Now()
		s := a.stream()
		if took := time.Since(begun); took > 3*time.Second {
			t.Errorf("the worker came after %v; want 3 s at most", took)
		}
		s.more(1)
		s.hand(leased("a", ""))
		s.completes()
		s.more(1)
		synctest.Wait()
		if n := strings.Count(log.String(), "the agent is not there"); n != 1 {
			t.Errorf("the log says %d times that the agent is not there; want once:\n%s", n, log.String())
		}
		if n := strings.Count(log.String(), "the agent is there"); n != 1 {
			t.Errorf("the log says %d times that the agent is there; want once:\n%s", n, log.String())
		}
	})
}

func TestWorkerTellsOfEachAbsence(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		var log bytes.Buffer
		w := one(done)
		w.Logger = slog.New(slog.NewTextHandler(&log, nil))
		a.runs(w)
		for range 3 {
			a.stream()
			synctest.Wait()
			a.leave()
			time.Sleep(time.Minute)
			a.come()
		}
		a.stream()
		synctest.Wait()
		if n := strings.Count(log.String(), "the agent is not there"); n != 3 {
			t.Errorf("the log says %d times that the agent is not there; want 3:\n%s", n, log.String())
		}
	})
}

func TestWorkerThatStopsEndsItsStreamAndReturnsNil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		r := a.runs(one(done))
		s := a.stream()
		s.more(1)
		r.stop()
		s.stops()
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
	})
}

func TestWorkerThatStopsLetsTasksFinishAndAsksForNoMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		r := a.runs(one(func(ctx context.Context, _ *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			time.Sleep(29 * time.Second)
			return nil, ctx.Err()
		}))
		s := a.stream()
		s.more(1)
		s.hand(leased("a", ""))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		if m := s.hear(); m.GetStop() == nil {
			t.Fatalf("the worker said %v; want stop", m)
		}
		s.completes()
		if took := time.Since(begun); took != 29*time.Second {
			t.Errorf("the task ended after %v; want 29 s", took)
		}
		s.over <- nil
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
		if len(s.said) != 0 {
			t.Errorf("the worker said %v at last; want nothing", s.hear())
		}
	})
}

func TestTasksThatOutlastTheDrainAreGivenBackUncounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		w := one(forever)
		w.Drain = 7 * time.Second
		r := a.runs(w)
		s := a.stream()
		s.more(1)
		s.hand(leased("a", ""))
		synctest.Wait()
		begun := time.Now()
		r.stop()
		s.hear() // stop
		f := s.fails()
		if took := time.Since(begun); took != 7*time.Second {
			t.Errorf("it was given back after %v; want 7 s", took)
		}
		if !f.GetSnooze() || f.GetRetryAfter() == nil || f.GetRetryAfter().AsDuration() != 0 || f.GetPermanent() {
			t.Errorf("it failed with %v; want a snooze of 0 s", f)
		}
		s.over <- nil
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
	})
}

func TestATaskThatFailsForGoodWhileTheWorkerStopsIsNotGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		w := one(func(ctx context.Context, t *outriggerv1.LeasedTask) (*outriggerv1.Payload, error) {
			<-ctx.Done()
			return nil, Permanent(errors.New("no such user"))
		})
		w.Drain = time.Second
		r := a.runs(w)
		s := a.stream()
		s.more(1)
		s.hand(leased("a", ""))
		synctest.Wait()
		r.stop()
		s.hear() // stop
		if f := s.fails(); f.GetSnooze() || !f.GetPermanent() || f.GetError() != "no such user" {
			t.Errorf("it failed with %v; want for good", f)
		}
	})
}

func TestAWorkerThatStopsIsNotHeldUpByAnAgentThatSaysNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		r := a.runs(one(done))
		s := a.stream()
		s.more(1)
		begun := time.Now()
		r.stop()
		s.hear() // stop
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
		if took := time.Since(begun); took != 10*time.Second {
			t.Errorf("Run returned after %v; want 10 s", took)
		}
	})
}

func TestATaskThatCameWhileTheWorkerStoppedIsDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAgent(t).come()
		r := a.runs(one(done))
		s := a.stream()
		s.more(1)
		r.stop()
		s.hear() // stop, which crossed the task on the way
		s.hand(leased("a", ""))
		if c := s.completes(); c.GetLease().GetId() != "a" {
			t.Errorf("the worker completed %v; want a", c)
		}
		s.over <- nil
		if err := r.err(); err != nil {
			t.Errorf("Run: %v; want nil", err)
		}
	})
}

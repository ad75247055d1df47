package guard

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

var errDown = status.Error(codes.Unavailable, "the server is down")

func retrying(attempts int) policy.Policy {
	return policy.Policy{
		LoadBalancing: balancer.Options{Policy: balancer.RoundRobin},
		Retry:         policy.RetryPolicy{MaxAttempts: attempts, BackoffBase: time.Millisecond, BackoffMax: time.Millisecond, Budget: policy.DefaultBudget()},
	}
}

func TestDoTriesAgainElsewhere(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", retrying(3), first, second)
	var tried []string
	err := h.client().Do(h.context(), Request{Service: "database"}, func(_ context.Context, p *Permit) error {
		tried = append(tried, p.Endpoint)
		if p.Attempt != len(tried) || p.PreviousAttempts != len(tried)-1 {
			t.Errorf("%+v", p)
		}
		if len(tried) == 1 {
			return errDown
		}
		return nil
	})
	if err != nil || len(tried) != 2 || tried[0] == tried[1] {
		t.Fatalf("%v after %v", err, tried)
	}
	eventually(t, "it was not reported", func() bool { return ended(s, "OK") == 1 })
}

func TestDoReturnsTheLastError(t *testing.T) {
	for _, tc := range []struct {
		about    string
		err      error
		attempts int
		code     string
	}{
		{"what is tried again", errDown, 3, "UNAVAILABLE"},
		{"what is not", errors.New("constraint violated"), 1, "UNKNOWN"},
		{"what is final", &AttemptError{Err: errDown, Outcome: Outcome{Final: true}}, 1, "UNAVAILABLE"},
		{"what says that it was lost", &AttemptError{Err: errors.New("EOF"), Outcome: Outcome{Progress: Lost}}, 1, "UNKNOWN"},
		{"what asks for no more", &AttemptError{Err: errDown, Outcome: Outcome{Pushback: -1}}, 1, "UNAVAILABLE"},
		{"what gave up by itself", context.Canceled, 1, "CANCELLED"},
	} {
		h := newHouse(t)
		s := h.add("database", retrying(3), first, second)
		n := 0
		err := h.client().Do(h.context(), Request{Service: "database"}, func(context.Context, *Permit) error { n++; return tc.err })
		if !errors.Is(err, tc.err) || n != tc.attempts || ended(s, tc.code) != 1 {
			t.Errorf("%s: %v after %d attempts, %v", tc.about, err, n, s.Codes())
		}
	}
}

func TestDoSaysWhyThereIsNoOtherAttempt(t *testing.T) {
	// Given a breaker of scope ENDPOINT that opens at the first failure of the
	// only endpoint,
	h := newHouse(t)
	p := retrying(3)
	p.Breaker = policy.BreakerPolicy{Scope: policy.ScopeEndpoint, Options: breaker.Reference()}
	p.Breaker.Options.ConsecutiveFailures = 1
	h.add("database", p, first)
	// when the first attempt fails,
	err := h.client().Do(h.context(), Request{Service: "database"}, func(context.Context, *Permit) error { return errDown })
	// then the error is the breaker's and the attempt's.
	if Reason(err) != "BREAKER_OPEN" || !errors.Is(err, errDown) {
		t.Fatal(err)
	}
}

func TestTheAttemptsContextEndsWithIt(t *testing.T) {
	h := newHouse(t)
	p := retrying(2)
	p.PerTryTimeout = 20 * time.Millisecond
	p.Idempotent = true
	s := h.add("database", p, first)
	n := 0
	err := h.client().Do(h.context(), Request{Service: "database"}, func(ctx context.Context, p *Permit) error {
		n++
		<-ctx.Done()
		return errors.New("interrupted")
	})
	if n != 2 || err == nil {
		t.Fatalf("%d attempts, %v", n, err)
	}
	if ended(s, "DEADLINE_EXCEEDED") != 1 || len(s.Refusals()) != 1 || s.Refusals()[0].Label != "TIMEOUT" {
		t.Errorf("%v %v", s.Codes(), s.Refusals())
	}
}

func TestACallersCancelIsNobodysFailure(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", retrying(3), first)
	ctx, cancel := context.WithCancel(h.context())
	err := h.client().Do(ctx, Request{Service: "database"}, func(context.Context, *Permit) error {
		cancel()
		return errDown
	})
	if !errors.Is(err, errDown) {
		t.Error(err)
	}
	eventually(t, "it was not reported", func() bool { return ended(s, "CANCELLED") == 1 })
	if n := s.Endpoints().All()[0].Failures(); n != 0 {
		t.Errorf("%d failures", n)
	}
}

func TestAPanicIsReported(t *testing.T) {
	h := newHouse(t)
	s := h.add("database", retrying(3), first)
	func() {
		defer func() {
			if p := recover(); p != "oh" {
				t.Errorf("recovered %v", p)
			}
		}()
		_ = h.client().Do(h.context(), Request{Service: "database"}, func(context.Context, *Permit) error { panic("oh") })
	}()
	eventually(t, "it was not reported", func() bool { return ended(s, "UNKNOWN") == 1 })
}

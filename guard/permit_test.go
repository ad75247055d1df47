package guard

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

func TestReportSaysWhatIsWrongWithIt(t *testing.T) {
	h := newHouse(t)
	h.add("database", policy.Policy{})
	p, err := h.client().Acquire(h.context(), Request{Service: "database"})
	if err != nil {
		t.Fatal(err)
	}
	if next, err := p.Report(h.context(), Outcome{Code: codes.OK, Progress: Lost}); next != nil || status.Code(err) != codes.InvalidArgument {
		t.Errorf("%v, %v", next, err)
	}
	if next, err := p.Report(h.context(), Outcome{}); next != nil || err != nil {
		t.Errorf("%v, %v", next, err)
	}
	if _, err := p.Report(h.context(), Outcome{}); status.Code(err) != codes.FailedPrecondition {
		t.Error(err)
	}
}

func TestAnOutcomeCarriesTheEndpointsLoad(t *testing.T) {
	h := newHouse(t)
	s := h.add("greeter", policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.WeightedRoundRobin, LoadReports: balancer.LoadReports{On: true, ErrorUtilizationPenalty: 1}}}, "127.0.0.1:1")
	client := h.client()
	for _, o := range []Outcome{{Load: LoadReport{ApplicationUtilization: 0.25, CPUUtilization: 0.9, RPS: 100, EPS: 25}}, {}} {
		p, err := client.Acquire(h.context(), Request{Service: "greeter"})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := p.Report(h.context(), o); err != nil {
			t.Fatal(err)
		}
		if w := s.ReportedWeight(s.Endpoints().Find("127.0.0.1:1"), time.Minute); w != 200 {
			t.Errorf("weighs %v; want 200", w)
		}
	}
	p, err := client.Acquire(h.context(), Request{Service: "greeter"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Report(h.context(), Outcome{Load: LoadReport{RPS: -1}}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
}

func TestALeaseIsRenewed(t *testing.T) {
	// Given a permit for 100 ms,
	h := newHouse(t)
	s := h.add("database", policy.Policy{})
	p, err := h.client().Acquire(h.context(), Request{Service: "database", Lease: 100 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(p.Lease); left > 100*time.Millisecond {
		t.Errorf("%v left", left)
	}
	// when it is renewed for an hour, then it outlives them.
	if err := p.Renew(h.context(), time.Hour); err != nil {
		t.Fatal(err)
	}
	time.Sleep(150 * time.Millisecond)
	if err := p.Renew(h.context(), time.Millisecond); err != nil {
		t.Fatal(err)
	}
	// When it is over, then it can't be renewed, and counts as failed.
	eventually(t, "it is not over", func() bool { return status.Code(p.Renew(h.context(), 0)) == codes.FailedPrecondition })
	if ended(s, "DEADLINE_EXCEEDED") != 1 {
		t.Error(s.Codes())
	}
}

func TestOutcomeOf(t *testing.T) {
	for err, want := range map[error]codes.Code{
		nil:                                   codes.OK,
		errors.New("x"):                       codes.Unknown,
		context.Canceled:                      codes.Canceled,
		context.DeadlineExceeded:              codes.DeadlineExceeded,
		status.Error(codes.Aborted, "x"):      codes.Aborted,
		&Error{Code: codes.ResourceExhausted}: codes.ResourceExhausted,
	} {
		if got := OutcomeOf(err).Code; got != want {
			t.Errorf("%v: %v, want %v", err, got, want)
		}
	}
	if got := OutcomeOf(fmt.Errorf("query: %w", context.Canceled)).Code; got != codes.Canceled {
		t.Error(got)
	}
	if got := OutcomeOf(fmt.Errorf("query: %w", status.Error(codes.Aborted, "x"))).Code; got != codes.Aborted {
		t.Error(got)
	}
}

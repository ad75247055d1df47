package api

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// noon is when tests with literal times begin.
const noon = 12 * time.Hour

// desk is a table of permits at literal times: nothing rings, and nothing is
// sent.
type desk struct {
	t     require
	house *house
	table *permits
	round round
}

type require interface {
	Helper()
	Fatalf(format string, args ...any)
}

func newDesk(t require) *desk {
	h := &house{origin: time.Now().Add(-noon)}
	s := New(Options{Origin: h.origin, Agent: h})
	h.server = s
	s.permits.alarm.stop()
	d := &desk{t: t, house: h, table: s.permits, round: round{now: noon}}
	d.table.now = func() policy.Instant { return d.round.now }
	return d
}

// stream returns the holder of another stream.
func (d *desk) stream() *holder {
	h, err := d.table.join()
	if err != nil {
		d.t.Fatalf("%v", err)
	}
	return h
}

// after lets time pass; what falls due on the way is handled in its order.
func (d *desk) after(wait time.Duration) {
	end := d.round.now + wait
	for {
		next := policy.Instant(0)
		for _, h := range d.table.all() {
			if len(h.due) > 0 {
				next = sooner(next, h.due[0].due)
			}
		}
		if next == 0 || next > end {
			break
		}
		d.round.now = max(next, d.round.now)
		for _, h := range d.table.all() {
			h.expire(&d.round)
		}
		d.table.wake(&d.round)
	}
	d.round.now = end
}

// answers returns what the stream would be sent, by tag.
func (d *desk) answers(h *holder) map[uint64]*outriggerv1.GuardAnswer {
	all := make(map[uint64]*outriggerv1.GuardAnswer)
	for _, a := range h.take(nil) {
		if all[a.GetTag()] != nil {
			d.t.Fatalf("two answers under %d", a.GetTag())
		}
		all[a.GetTag()] = a
	}
	return all
}

// acquire asks for a permit under a tag, and returns the answer, or nil where
// it does not come at once.
func (d *desk) acquire(h *holder, tag uint64, q *outriggerv1.AcquireRequest) *outriggerv1.GuardAnswer {
	h.handle(&d.round, &outriggerv1.GuardRequest{Acquires: []*outriggerv1.GuardAcquire{{Tag: tag, Request: q}}})
	d.table.wake(&d.round)
	return d.answers(h)[tag]
}

// permit is acquire where there must be a permit.
func (d *desk) permit(h *holder, tag uint64, q *outriggerv1.AcquireRequest) *outriggerv1.Permit {
	d.t.Helper()
	a := d.acquire(h, tag, q)
	if a.GetPermit() == nil {
		d.t.Fatalf("no permit: %v", a)
	}
	return a.GetPermit()
}

// report reports under tag 1000, and returns the answer, or nil where it does
// not come at once.
func (d *desk) report(h *holder, q *outriggerv1.ReportRequest) *outriggerv1.GuardAnswer {
	h.handle(&d.round, &outriggerv1.GuardRequest{Reports: []*outriggerv1.GuardReport{{Tag: 1000, Request: q}}})
	d.table.wake(&d.round)
	return d.answers(h)[1000]
}

func (d *desk) wantRefusal(a *outriggerv1.GuardAnswer, code policy.Code, reason policy.Reason, message string) {
	d.t.Helper()
	r := a.GetRefusal()
	if r.GetCode() != int32(code) || r.GetReason() != reason.String() || !strings.Contains(r.GetMessage(), message) {
		d.t.Fatalf("%v, want %v %q with %q", a, code, reason, message)
	}
}

func greet() *outriggerv1.AcquireRequest {
	return &outriggerv1.AcquireRequest{Service: "greeter", Method: sayHello}
}

// retrying sends what is UNAVAILABLE up to three times, 100 ms apart at most.
func retrying() policy.Policy {
	return policy.Policy{
		LoadBalancing: balancer.Options{Policy: balancer.RoundRobin},
		Retry:         policy.RetryPolicy{MaxAttempts: 3, BackoffBase: 100 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Budget: policy.DefaultBudget()},
	}
}

func count(all []policy.Count, label string) uint64 {
	for _, c := range all {
		if c.Label == label {
			return c.Total
		}
	}
	return 0
}

func TestAPermitSaysAllThatItsCallerMustKnow(t *testing.T) {
	// Given a policy of 3 s, 1 s a try and three attempts,
	d := newDesk(t)
	p := retrying()
	p.Timeout, p.PerTryTimeout = 3*time.Second, time.Second
	d.house.add("greeter", p, first)
	// when a permit is acquired,
	v := d.permit(d.stream(), 1, greet())
	// then it names the endpoint, the times and the attempts.
	if v.GetEndpoint() != first || v.GetAttempt() != 1 || v.GetAttemptsLeft() != 2 || v.GetPreviousAttempts() != 0 || len(v.GetId()) != 16 {
		t.Errorf("%v", v)
	}
	if v.GetTimeout().AsDuration() != 3*time.Second || v.GetTryTimeout().AsDuration() != time.Second || v.GetLease().AsDuration() != 2*time.Second {
		t.Errorf("%v", v)
	}
}

func TestAResourceHasNoEndpoint(t *testing.T) {
	d := newDesk(t)
	d.house.resource("greeter", policy.Policy{})
	v := d.permit(d.stream(), 1, greet())
	if v.GetEndpoint() != "" || v.GetTimeout() != nil || v.GetTryTimeout() != nil || v.GetAttemptsLeft() != 0 {
		t.Errorf("%v", v)
	}
}

func TestLeases(t *testing.T) {
	for _, tc := range []struct {
		about           string
		timeout, perTry time.Duration // of the policy
		allowed, asked  time.Duration // by the caller
		want            time.Duration
	}{
		{about: "nothing is said", want: 30 * time.Second},
		{about: "the policy's timeout and a second", timeout: 3 * time.Second, want: 4 * time.Second},
		{about: "the caller's and a second", timeout: 3 * time.Second, allowed: 2 * time.Second, want: 3 * time.Second},
		{about: "a long one", timeout: 5 * time.Minute, want: 301 * time.Second},
		{about: "one that is too long", timeout: 5 * time.Hour, want: time.Hour},
		{about: "a try's and a second", timeout: 3 * time.Second, perTry: time.Second, want: 2 * time.Second},
		{about: "as asked", asked: 45 * time.Second, want: 45 * time.Second},
		{about: "as asked, but no longer than the call", timeout: 3 * time.Second, asked: 45 * time.Second, want: 4 * time.Second},
		{about: "shorter than the call", timeout: 3 * time.Second, asked: time.Second, want: time.Second},
	} {
		d := newDesk(t)
		d.house.add("greeter", policy.Policy{Timeout: tc.timeout, PerTryTimeout: tc.perTry})
		q := greet()
		if tc.allowed > 0 {
			q.Timeout = durationpb.New(tc.allowed)
		}
		if tc.asked > 0 {
			q.Lease = durationpb.New(tc.asked)
		}
		if got := d.permit(d.stream(), 1, q).GetLease().AsDuration(); got != tc.want {
			t.Errorf("%s: %v, want %v", tc.about, got, tc.want)
		}
	}
}

func TestWhatIsNotReportedInItsLeaseCountsAsFailed(t *testing.T) {
	// Given a breaker that opens at the first failure, and a permit for 5 s,
	d := newDesk(t)
	p := reference(policy.ScopeService)
	p.Breaker.Options.ConsecutiveFailures = 1
	s := d.house.add("greeter", p, first)
	h := d.stream()
	q := greet()
	q.Lease = durationpb.New(5 * time.Second)
	v := d.permit(h, 1, q)
	d.after(4999 * time.Millisecond)
	if n := s.Endpoints().All()[0].InFlight(); n != 1 {
		t.Fatalf("%d in flight before the lease is over", n)
	}
	// when they are over,
	d.after(2 * time.Millisecond)
	// then the endpoint is free, the failure counts, and the report is late.
	if n := s.Endpoints().All()[0].InFlight(); n != 0 || h.busy() != 0 || d.table.outstanding.Load() != 0 {
		t.Errorf("%d in flight, %d out", n, h.busy())
	}
	if count(s.Refusals(), "TIMEOUT") != 1 || count(s.Codes(), "DEADLINE_EXCEEDED") != 1 {
		t.Errorf("%v %v", s.Refusals(), s.Codes())
	}
	d.wantRefusal(d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId()}), policy.FailedPrecondition, policy.ReasonNone, "not reported within its lease")
	d.wantRefusal(d.acquire(h, 2, q), policy.Unavailable, policy.BreakerOpen, "1 failures in a row")
}

func TestACallPastItsTimeEndsByThatName(t *testing.T) {
	for _, tc := range []struct {
		about   string
		policy  policy.Policy
		allowed time.Duration
		want    string
	}{
		{"the policy's timeout", policy.Policy{Timeout: time.Second}, 0, "TIMEOUT"},
		{"a try's", policy.Policy{PerTryTimeout: time.Second}, 0, "TIMEOUT"},
		{"the caller's", policy.Policy{Timeout: 2 * time.Second}, time.Second, "DEADLINE"},
	} {
		d := newDesk(t)
		s := d.house.add("greeter", tc.policy)
		q := greet()
		if tc.allowed > 0 {
			q.Timeout = durationpb.New(tc.allowed)
		}
		h := d.stream()
		d.permit(h, 1, q)
		d.after(2*time.Second + time.Millisecond)
		if count(s.Refusals(), tc.want) != 1 || h.busy() != 0 {
			t.Errorf("%s: %v", tc.about, s.Refusals())
		}
	}
}

func TestALeaseIsRenewed(t *testing.T) {
	// Given a permit for 5 s,
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{Timeout: 20 * time.Second})
	h := d.stream()
	q := greet()
	q.Lease = durationpb.New(5 * time.Second)
	v := d.permit(h, 1, q)
	renew := func(lease *durationpb.Duration) *outriggerv1.GuardAnswer {
		h.handle(&d.round, &outriggerv1.GuardRequest{Renewals: []*outriggerv1.GuardRenewal{{Tag: 7, PermitId: v.GetId(), Lease: lease}}})
		return d.answers(h)[7]
	}
	// when it is renewed after 4 s, then it holds 5 s more;
	d.after(4 * time.Second)
	if a := renew(nil); a == nil || a.GetRefusal() != nil {
		t.Fatalf("%v", a)
	}
	d.after(4 * time.Second)
	// when it is renewed for an hour, then it holds until the call is over, a
	// second included,
	if a := renew(durationpb.New(time.Hour)); a == nil || a.GetRefusal() != nil {
		t.Fatalf("%v", a)
	}
	d.after(12990 * time.Millisecond)
	if h.busy() != 1 {
		t.Fatal("it is over before 21 s")
	}
	d.after(20 * time.Millisecond)
	// and then it can't be renewed.
	d.wantRefusal(renew(nil), policy.FailedPrecondition, policy.ReasonNone, "not reported within its lease")
	if a := renew(&durationpb.Duration{Seconds: 3601}); a.GetRefusal().GetCode() != int32(policy.InvalidArgument) {
		t.Errorf("%v", a)
	}
}

func TestReportsThatAreNoneHaveNoEffect(t *testing.T) {
	d := newDesk(t)
	s := d.house.add("greeter", reference(policy.ScopeService), first)
	mine, other := d.stream(), d.stream()
	v := d.permit(mine, 1, greet())
	failed := func(id []byte) *outriggerv1.ReportRequest {
		return &outriggerv1.ReportRequest{PermitId: id, Code: 14}
	}
	// One that was never given,
	d.wantRefusal(d.report(mine, failed(make([]byte, 16))), policy.NotFound, policy.ReasonNone, "was never given")
	// of another agent,
	stranger := newDesk(t)
	stranger.house.add("greeter", policy.Policy{})
	d.wantRefusal(d.report(mine, failed(stranger.permit(stranger.stream(), 1, greet()).GetId())), policy.NotFound, policy.ReasonNone, "was never given")
	// that is no id,
	d.wantRefusal(d.report(mine, failed([]byte("short"))), policy.InvalidArgument, policy.ReasonNone, "has 5")
	// of another stream,
	d.wantRefusal(d.report(other, failed(v.GetId())), policy.PermissionDenied, policy.ReasonNone, "somebody else's")
	// and of one that ended:
	if len(s.Codes()) != 0 || s.Endpoints().All()[0].InFlight() != 1 {
		t.Fatalf("%v", s.Codes())
	}
	if a := d.report(mine, &outriggerv1.ReportRequest{PermitId: v.GetId()}); a == nil || a.GetRefusal() != nil || a.GetPermit() != nil {
		t.Fatalf("%v", a)
	}
	d.wantRefusal(d.report(mine, failed(v.GetId())), policy.FailedPrecondition, policy.ReasonNone, "was reported already")
	if count(s.Codes(), "OK") != 1 || len(s.Codes()) != 1 || s.Endpoints().All()[0].Failures() != 0 {
		t.Errorf("%v", s.Codes())
	}
	// One that ended long ago is over for a reason that is not known any more.
	for i := range uint64(remembered) {
		next := d.permit(mine, i+2, greet())
		d.report(mine, &outriggerv1.ReportRequest{PermitId: next.GetId()})
	}
	d.wantRefusal(d.report(mine, failed(v.GetId())), policy.FailedPrecondition, policy.ReasonNone, "more than 1024 permits ago")
	d.table.leave(mine)
	d.wantRefusal(d.report(other, failed(v.GetId())), policy.PermissionDenied, policy.ReasonNone, "somebody else's")
}

func TestAFailureIsTriedAgainElsewhere(t *testing.T) {
	// Given two endpoints and three attempts,
	d := newDesk(t)
	s := d.house.add("greeter", retrying())
	h := d.stream()
	v := d.permit(h, 1, greet())
	// when the first is reported to have failed, then nothing is answered until
	// the backoff is over,
	if a := d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId(), Code: 14}); a != nil {
		t.Fatalf("%v: that is at once", a)
	}
	d.wantRefusal(d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId()}), policy.FailedPrecondition, policy.ReasonNone, "was reported already")
	d.after(100 * time.Millisecond)
	// and then there is a permit for the other endpoint.
	again := d.answers(h)[1000].GetPermit()
	if again.GetAttempt() != 2 || again.GetAttemptsLeft() != 1 || again.GetPreviousAttempts() != 1 || again.GetEndpoint() == v.GetEndpoint() || slices.Equal(again.GetId(), v.GetId()) {
		t.Fatalf("%v after %v", again, v)
	}
	// When the third fails too, then nothing follows.
	d.report(h, &outriggerv1.ReportRequest{PermitId: again.GetId(), Code: 14})
	d.after(100 * time.Millisecond)
	last := d.answers(h)[1000].GetPermit()
	if last.GetAttempt() != 3 || last.GetAttemptsLeft() != 0 {
		t.Fatalf("%v", last)
	}
	if a := d.report(h, &outriggerv1.ReportRequest{PermitId: last.GetId(), Code: 14}); a == nil || a.GetPermit() != nil || a.GetRefusal() != nil {
		t.Fatalf("%v", a)
	}
	if count(s.Codes(), "UNAVAILABLE") != 1 || s.Retries() != 2 || h.busy() != 0 {
		t.Errorf("%v, %d retries", s.Codes(), s.Retries())
	}
}

func TestWhatFollowsAReport(t *testing.T) {
	id := func(v *outriggerv1.Permit) *outriggerv1.ReportRequest {
		return &outriggerv1.ReportRequest{PermitId: v.GetId()}
	}
	for _, tc := range []struct {
		about   string
		request func(*outriggerv1.AcquireRequest)
		report  func(*outriggerv1.ReportRequest)
		again   bool
		reason  string // that is counted where nothing follows
	}{
		{about: "a failure", report: func(q *outriggerv1.ReportRequest) { q.Code = 14 }, again: true},
		{about: "a failure of another code", report: func(q *outriggerv1.ReportRequest) { q.Code = 13 }},
		{about: "a failure that is final", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Final = 14, true }},
		{about: "a call without retries", request: func(q *outriggerv1.AcquireRequest) { q.NoRetry = true }, report: func(q *outriggerv1.ReportRequest) { q.Code = 14 }},
		{about: "pushback", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Pushback = 14, durationpb.New(-time.Second) }},
		{about: "pushback of 50 ms", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Pushback = 14, durationpb.New(50*time.Millisecond) }, again: true},
		{about: "no connection", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Progress = 14, outriggerv1.Progress_UNREACHED }, again: true},
		{about: "refused unprocessed", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Progress = 14, outriggerv1.Progress_UNPROCESSED }, again: true},
		{about: "lost in mid-work", report: func(q *outriggerv1.ReportRequest) { q.Code, q.Progress = 14, outriggerv1.Progress_LOST }, reason: "CONNECTION_LOST"},
		{about: "lost, idempotent", request: func(q *outriggerv1.AcquireRequest) { q.Idempotent = true },
			report: func(q *outriggerv1.ReportRequest) { q.Code, q.Progress = 14, outriggerv1.Progress_LOST }, again: true},
		{about: "the caller gave up", report: func(q *outriggerv1.ReportRequest) { q.Code = 1 }, reason: "CANCELLED"},
	} {
		t.Run(tc.about, func(t *testing.T) {
			d := newDesk(t)
			s := d.house.add("greeter", retrying())
			h := d.stream()
			q := greet()
			if tc.request != nil {
				tc.request(q)
			}
			r := id(d.permit(h, 1, q))
			tc.report(r)
			a := d.report(h, r)
			if a == nil {
				d.after(100 * time.Millisecond)
				a = d.answers(h)[1000]
			}
			if (a.GetPermit() != nil) != tc.again || a == nil || a.GetRefusal() != nil {
				t.Fatalf("%v", a)
			}
			if tc.reason != "" && count(s.Refusals(), tc.reason) != 1 {
				t.Errorf("%v", s.Refusals())
			}
		})
	}
}

func TestAHedgeIsMadeOnceTheAttemptFailed(t *testing.T) {
	// Given a policy that hedges after 10 ms,
	d := newDesk(t)
	s := d.house.add("greeter", policy.Policy{Idempotent: true, Retry: policy.RetryPolicy{Budget: policy.DefaultBudget()}, Hedge: policy.HedgePolicy{Delay: 10 * time.Millisecond, MaxAttempts: 2}})
	h := d.stream()
	// when the attempt is under way for 200 ms, then there is no other one:
	// whoever has one permit makes one attempt.
	v := d.permit(h, 1, greet())
	d.after(200 * time.Millisecond)
	if got := d.answers(h); len(got) != 0 || s.Retries() != 0 {
		t.Fatalf("%v", got)
	}
	// When it fails, then there is, at once.
	a := d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId(), Code: 14})
	if a.GetPermit().GetAttempt() != 2 || a.GetPermit().GetEndpoint() == v.GetEndpoint() {
		t.Errorf("%v after %v", a, v)
	}
}

func TestADeadlineThatPassedIsWhoseItWas(t *testing.T) {
	for _, tc := range []struct {
		about   string
		allowed time.Duration
		after   time.Duration
		want    string
	}{
		{"the endpoint's own", 0, 100 * time.Millisecond, ""},
		{"the try's", 0, time.Second, "TIMEOUT"},
		{"the caller's", 500 * time.Millisecond, 500 * time.Millisecond, "DEADLINE"},
	} {
		d := newDesk(t)
		s := d.house.add("greeter", policy.Policy{PerTryTimeout: time.Second}, first)
		h := d.stream()
		q := greet()
		if tc.allowed > 0 {
			q.Timeout = durationpb.New(tc.allowed)
		}
		v := d.permit(h, 1, q)
		d.after(tc.after)
		d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId(), Code: int32(policy.DeadlineExceeded)})
		if got := s.Refusals(); tc.want == "" && len(got) != 0 || tc.want != "" && count(got, tc.want) != 1 {
			t.Errorf("%s: %v", tc.about, got)
		}
	}
}

func TestTheCallersMeasureCountsForBreakers(t *testing.T) {
	// Given a breaker for calls slower than 1 s,
	p := policy.Policy{Breaker: policy.BreakerPolicy{Options: breaker.Options{SlowRate: 0.5, SlowerThan: time.Second, MinimumCalls: 1, Window: 10 * time.Second, OpenFor: time.Minute, MaxOpenFor: time.Minute, HalfOpenProbes: 1}}}
	for latency, refused := range map[time.Duration]bool{200 * time.Millisecond: false, 0: true, time.Minute: true} {
		d := newDesk(t)
		d.house.add("greeter", p, first)
		h := d.stream()
		// when work is reported after 2 s that took less,
		v := d.permit(h, 1, greet())
		d.after(2 * time.Second)
		q := &outriggerv1.ReportRequest{PermitId: v.GetId()}
		if latency > 0 {
			q.Latency = durationpb.New(latency)
		}
		d.report(h, q)
		// then it is not slow; one that took longer than the permit was out did not.
		if got := d.acquire(h, 2, greet()).GetRefusal() != nil; got != refused {
			t.Errorf("latency %v: refused %v", latency, got)
		}
	}
}

// bounded lets n in at a time; as many may wait for 10 s.
func TestAReportMayCarryTheEndpointsLoad(t *testing.T) {
	d := newDesk(t)
	s := d.house.add("greeter", policy.Policy{LoadBalancing: byReports}, first)
	h := d.stream()
	report := func(q *outriggerv1.ReportRequest) float64 {
		q.PermitId = d.permit(h, 1, greet()).GetId()
		d.report(h, q)
		return s.ReportedWeight(s.Endpoints().Find(first), d.round.now)
	}
	if w := report(&outriggerv1.ReportRequest{}); w != 0 {
		t.Errorf("nothing was said, and it weighs %v", w)
	}
	if w := report(&outriggerv1.ReportRequest{LoadReport: &outriggerv1.LoadReport{ApplicationUtilization: 0.5, CpuUtilization: 0.1, RpsFractional: 100}}); w != 200 {
		t.Errorf("weighs %v; want 200", w)
	}
	if w := report(&outriggerv1.ReportRequest{Code: 14, LoadReport: &outriggerv1.LoadReport{CpuUtilization: 0.25, RpsFractional: 100, Eps: 25}}); w != 200 {
		t.Errorf("weighs %v with errors; want 200", w)
	}
	d.permit(h, 2, greet())
	if a := d.report(h, &outriggerv1.ReportRequest{PermitId: make([]byte, 16), LoadReport: &outriggerv1.LoadReport{Eps: -1}}); !strings.Contains(a.GetRefusal().GetMessage(), "load_report: want numbers from 0 on") {
		t.Errorf("%v", a)
	}
}

func bounded(n int) policy.Policy {
	return policy.Policy{Concurrency: policy.ConcurrencyPolicy{MaxInFlight: n, MaxQueue: 100, QueueTimeout: 10 * time.Second}}
}

func TestWhoWaitsIsLetInInTurn(t *testing.T) {
	// Given a resource for two, which two have, and three of two streams who wait,
	d := newDesk(t)
	d.house.resource("greeter", bounded(2))
	mine, other := d.stream(), d.stream()
	one, two := d.permit(mine, 1, greet()), d.permit(other, 2, greet())
	for tag, h := range map[uint64]*holder{3: mine} {
		if a := d.acquire(h, tag, greet()); a != nil {
			t.Fatalf("%v", a)
		}
	}
	d.after(time.Millisecond)
	if a := d.acquire(other, 4, greet()); a != nil {
		t.Fatalf("%v", a)
	}
	d.after(time.Millisecond)
	if a := d.acquire(mine, 5, greet()); a != nil {
		t.Fatalf("%v", a)
	}
	// when the two report one after the other, then the first two of the three
	// have permits, in their order.
	d.report(other, &outriggerv1.ReportRequest{PermitId: two.GetId()})
	if got := d.answers(mine); len(got) != 1 || got[3].GetPermit() == nil || len(d.answers(other)) != 0 {
		t.Fatalf("%v", got)
	}
	d.report(mine, &outriggerv1.ReportRequest{PermitId: one.GetId()})
	if got := d.answers(other); len(got) != 1 || got[4].GetPermit() == nil {
		t.Fatalf("%v", got)
	}
	// When a stream breaks, then what it had goes to who waits.
	d.table.leave(other)
	if got := d.answers(mine); len(got) != 1 || got[5].GetPermit() == nil {
		t.Fatalf("%v", got)
	}
}

func TestHowLongACallerWaits(t *testing.T) {
	d := newDesk(t)
	s := d.house.add("greeter", bounded(1))
	h := d.stream()
	d.permit(h, 1, greet())
	// Not at all:
	q := greet()
	q.Wait = &durationpb.Duration{}
	a := d.acquire(h, 2, q)
	d.wantRefusal(a, policy.ResourceExhausted, policy.ConcurrencyLimit, "does not wait")
	if a.GetRefusal().GetPolicy() != "concurrency" || a.GetRefusal().GetRetryDelay() == nil {
		t.Errorf("%v", a)
	}
	// 50 ms:
	q.Wait = durationpb.New(50 * time.Millisecond)
	if a := d.acquire(h, 3, q); a != nil {
		t.Fatalf("%v", a)
	}
	d.after(49 * time.Millisecond)
	if got := d.answers(h); len(got) != 0 {
		t.Fatalf("%v", got)
	}
	d.after(time.Millisecond)
	d.wantRefusal(d.answers(h)[3], policy.ResourceExhausted, policy.QueueTimeout, "50ms")
	// as the policy says, which bounds it in any case:
	q.Wait = durationpb.New(time.Hour)
	for tag, q := range map[uint64]*outriggerv1.AcquireRequest{4: q, 5: greet()} {
		if a := d.acquire(h, tag, q); a != nil {
			t.Fatalf("%v", a)
		}
	}
	q = greet()
	q.Timeout = durationpb.New(3 * time.Second)
	d.acquire(h, 6, q)
	d.after(3 * time.Second)
	if got := d.answers(h); len(got) != 1 || got[6].GetRefusal() == nil {
		t.Fatalf("%v", got)
	}
	d.after(7 * time.Second)
	got := d.answers(h)
	d.wantRefusal(got[4], policy.ResourceExhausted, policy.QueueTimeout, "")
	d.wantRefusal(got[5], policy.ResourceExhausted, policy.QueueTimeout, "")
	if count(s.Refusals(), "CONCURRENCY_LIMIT") != 1 {
		t.Errorf("%v", s.Refusals())
	}
}

func TestAnInjectedDelayIsNoQueue(t *testing.T) {
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{Fault: policy.FaultPolicy{Delay: 200 * time.Millisecond, DelayPercent: 100}})
	h := d.stream()
	q := greet()
	q.Wait = &durationpb.Duration{}
	if a := d.acquire(h, 1, q); a != nil {
		t.Fatalf("%v", a)
	}
	d.after(200 * time.Millisecond)
	if a := d.answers(h)[1]; a.GetPermit() == nil {
		t.Fatalf("%v", a)
	}
}

func TestWhoGivesUpWaitsNoLonger(t *testing.T) {
	// Given two who wait for one slot,
	d := newDesk(t)
	s := d.house.add("greeter", bounded(1))
	h := d.stream()
	v := d.permit(h, 1, greet())
	d.acquire(h, 2, greet())
	d.acquire(h, 3, greet())
	// when the first of them gives up, and whoever has the slot too late,
	h.handle(&d.round, &outriggerv1.GuardRequest{Cancels: []uint64{2, 1, 99}})
	d.wantRefusal(d.answers(h)[2], policy.Canceled, policy.CallerCanceled, "gave up")
	// then the slot goes to the second.
	d.report(h, &outriggerv1.ReportRequest{PermitId: v.GetId()})
	if h.busy() != 1 || count(s.Refusals(), "CANCELLED") != 1 {
		t.Errorf("%d out, %v", h.busy(), s.Refusals())
	}
}

func TestAResultOfNoLimitIsKept(t *testing.T) {
	// Given a rate of one call a second for each user,
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{RateLimit: policy.RateLimitPolicy{PerSecond: 1, Burst: 1, KeyHeader: "x-user"}})
	h := d.stream()
	ask := func(tag uint64, user string) *outriggerv1.GuardAnswer {
		q := greet()
		q.Metadata = map[string]string{"x-user": user}
		return d.acquire(h, tag, q)
	}
	// when two users call, then each has a rate of its own.
	if a, b := ask(1, "ada"), ask(2, "bob"); a.GetPermit() == nil || b.GetPermit() == nil {
		t.Fatalf("%v %v", a, b)
	}
	a := ask(3, "ada")
	d.wantRefusal(a, policy.ResourceExhausted, policy.RateLimit, "1 calls a second")
	if a.GetRefusal().GetRetryDelay().AsDuration() <= 0 {
		t.Errorf("%v", a)
	}
}

func TestServicesAreKnownByName(t *testing.T) {
	d := newDesk(t)
	h := d.stream()
	d.wantRefusal(d.acquire(h, 1, greet()), policy.NotFound, policy.ReasonNone, "none is configured")
	d.house.add("billing", policy.Policy{})
	d.wantRefusal(d.acquire(h, 1, greet()), policy.NotFound, policy.ReasonNone, `there is no service "greeter"; known: billing`)
	d.house.add("greeter", policy.Policy{})
	d.permit(h, 1, greet())
}

func TestPermitsAreBounded(t *testing.T) {
	// Given a stream with as many permits as it may have,
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{})
	h := d.stream()
	ids := make([][]byte, 0, maxOfStream)
	for len(ids) < maxOfStream {
		ids = append(ids, slices.Clone(d.permit(h, 1, greet()).GetId()))
	}
	// when it asks for another, then it is told; another stream is not.
	d.wantRefusal(d.acquire(h, 1, greet()), policy.ResourceExhausted, policy.ConcurrencyLimit, "16384 permits of this stream")
	d.permit(d.stream(), 1, greet())
	// When one is reported, then there is room.
	d.report(h, &outriggerv1.ReportRequest{PermitId: ids[0]})
	d.permit(h, 1, greet())
	// Given as many as all may have,
	d.table.outstanding.Store(maxPermits)
	d.wantRefusal(d.acquire(d.stream(), 1, greet()), policy.ResourceExhausted, policy.ConcurrencyLimit, "65536 permits of all callers")
}

// TestPermitsAreConserved: whatever callers do, at no time are there more
// permits out than the limit lets in, each request has one answer in the end,
// and when all are over nothing is held.
func TestPermitsAreConserved(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDesk(t)
		p := bounded(rapid.IntRange(1, 4).Draw(t, "slots"))
		p.Concurrency.MaxQueue = rapid.IntRange(0, 4).Draw(t, "queue")
		p.Retry = retrying().Retry
		p.Timeout = 20 * time.Second
		s := d.house.add("greeter", p)
		streams := []*holder{d.stream(), d.stream()}
		type ticket struct {
			id []byte
			h  *holder
		}
		var outs []ticket
		tag, asked, answered, lost := uint64(0), 0, 0, 0
		open := map[uint64]*holder{}
		collect := func() {
			for _, h := range streams {
				for tag, a := range d.answers(h) {
					if open[tag] != h {
						t.Fatalf("an answer under %d, which nobody waits for", tag)
					}
					delete(open, tag)
					answered++
					if a.GetPermit() != nil {
						outs = append(outs, ticket{slices.Clone(a.GetPermit().GetId()), h})
					}
				}
			}
			inside := 0
			for _, h := range streams {
				for _, p := range h.slots {
					if p != nil && (p.standing == held || p.standing == pausing) {
						inside++
					}
				}
			}
			if inside > p.Concurrency.MaxInFlight {
				t.Fatalf("%d inside, %d slots", inside, p.Concurrency.MaxInFlight)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			i := rapid.IntRange(0, 1).Draw(t, "stream")
			h := streams[i]
			tag++
			switch rapid.SampledFrom([]string{"acquire", "acquire", "report", "report", "wait", "cancel", "break"}).Draw(t, "what") {
			case "acquire":
				asked++
				open[tag] = h
				h.handle(&d.round, &outriggerv1.GuardRequest{Acquires: []*outriggerv1.GuardAcquire{{Tag: tag, Request: greet()}}})
			case "report":
				if len(outs) == 0 {
					continue
				}
				n := rapid.IntRange(0, len(outs)-1).Draw(t, "which")
				o := outs[n]
				if rapid.Bool().Draw(t, "forget") {
					outs = slices.Delete(outs, n, n+1)
				}
				asked++
				open[tag] = o.h
				o.h.handle(&d.round, &outriggerv1.GuardRequest{Reports: []*outriggerv1.GuardReport{{Tag: tag, Request: &outriggerv1.ReportRequest{
					PermitId: o.id, Code: rapid.SampledFrom([]int32{0, 14, 13, 1}).Draw(t, "code"),
				}}}})
			case "wait":
				d.table.wake(&d.round)
				d.after(time.Duration(rapid.IntRange(1, 15_000).Draw(t, "ms")) * time.Millisecond)
			case "cancel":
				h.handle(&d.round, &outriggerv1.GuardRequest{Cancels: []uint64{rapid.Uint64Range(1, tag).Draw(t, "tag")}})
			case "break":
				d.table.wake(&d.round)
				collect()
				d.table.leave(h)
				for tag, of := range open {
					if of == h {
						delete(open, tag)
						lost++
					}
				}
				outs = slices.DeleteFunc(outs, func(o ticket) bool { return o.h == h })
				streams[i] = d.stream()
			}
			d.table.wake(&d.round)
			collect()
		}
		d.after(2 * time.Minute)
		collect()
		if answered+lost != asked || len(open) != 0 {
			t.Fatalf("%d asked, %d answered, %d lost", asked, answered, lost)
		}
		if n := d.table.outstanding.Load(); n != 0 {
			t.Fatalf("%d still out", n)
		}
		for _, e := range s.Endpoints().All() {
			if e.InFlight() != 0 {
				t.Fatalf("%s has %d in flight", e.Address(), e.InFlight())
			}
		}
		for i := range p.Concurrency.MaxInFlight {
			d.permit(streams[0], uint64(i+1_000_000), greet())
		}
	})
}

func BenchmarkPermit(b *testing.B) { // budget: 1 µs, 0 allocs
	d := newDesk(b)
	d.house.add("greeter", policy.Default(), first, second)
	h := d.stream()
	q, r := greet(), &outriggerv1.ReportRequest{}
	var answers []*outriggerv1.GuardAnswer
	b.ReportAllocs()
	for b.Loop() {
		h.mu.Lock()
		h.acquire(&d.round, q, 1, nil, "")
		h.mu.Unlock()
		answers = h.take(answers)
		r.PermitId = answers[0].GetPermit().GetId()
		h.mu.Lock()
		h.report(&d.round, r, 0, nil, "")
		h.mu.Unlock()
	}
	if fmt.Sprint(h.busy()) != "0" {
		b.Fatal("not given back")
	}
}

func TestAPermitIsNotKeptForLater(t *testing.T) {
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{})
	h := d.stream()
	q := greet()
	q.Metadata = map[string]string{"outrigger-defer": "true"}

	d.wantRefusal(d.acquire(h, 1, q), policy.FailedPrecondition, policy.NotDeferrable, "submit a task")

	d.permit(h, 2, greet()) // nothing is left of the other
}

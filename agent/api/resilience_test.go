package api

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

func (h *house) resilience() outriggerv1.ResilienceServiceClient {
	return outriggerv1.NewResilienceServiceClient(h.conn)
}

// acquire acquires a permit of greeter.
func (h *house) acquire() *outriggerv1.Permit {
	h.t.Helper()
	return must[*outriggerv1.AcquireResponse](h.t)(h.resilience().Acquire(h.context(), greet())).GetPermit()
}

// eventually looks until ok, or until the test's patience ends.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal(what)
		}
	}
}

func TestAcquireAndReport(t *testing.T) {
	h := newHouse(t)
	s := h.add("greeter", policy.Policy{Timeout: time.Minute}, first)
	v := h.acquire()
	if v.GetService() != "greeter" || v.GetMethod() != sayHello || v.GetEndpoint() != first || v.GetTimeout().AsDuration() != time.Minute {
		t.Fatalf("%v", v)
	}
	report := func(id []byte) error {
		r, err := h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: id})
		if r.GetPermit() != nil {
			t.Errorf("%v", r)
		}
		return err
	}
	if err := report(v.GetId()); err != nil {
		t.Fatal(err)
	}
	wantCode(t, report(v.GetId()), codes.FailedPrecondition)
	wantCode(t, report(make([]byte, 16)), codes.NotFound)
	wantCode(t, report(nil), codes.InvalidArgument)
	if count(s.Codes(), "OK") != 1 || s.Endpoints().All()[0].InFlight() != 0 {
		t.Errorf("%v", s.Codes())
	}
}

func TestARefusalHasDetails(t *testing.T) {
	h := newHouse(t)
	s := h.add("greeter", reference(policy.ScopeService))
	h.call(s, sayHello, 5, policy.Unavailable)
	_, err := h.resilience().Acquire(h.context(), greet())
	refused := wantCode(t, err, codes.Unavailable)
	var info *errdetails.ErrorInfo
	var retry *errdetails.RetryInfo
	for _, d := range refused.Details() {
		switch d := d.(type) {
		case *errdetails.ErrorInfo:
			info = d
		case *errdetails.RetryInfo:
			retry = d
		}
	}
	if info.GetReason() != "BREAKER_OPEN" || info.GetDomain() != "outrigger" || info.GetMetadata()["service"] != "greeter" || retry.GetRetryDelay().AsDuration() < 20*time.Second {
		t.Errorf("%v %v", info, retry)
	}
	_, err = h.resilience().Acquire(h.context(), &outriggerv1.AcquireRequest{Service: "greter"})
	if s := wantCode(t, err, codes.NotFound); s.Message() != `there is no service "greter"; known: greeter` {
		t.Error(s.Message())
	}
	_, err = h.resilience().Acquire(h.context(), &outriggerv1.AcquireRequest{Service: "greeter", Method: "x"})
	if s := wantCode(t, err, codes.InvalidArgument); !strings.Contains(s.Message(), "method") {
		t.Error(s.Message())
	}
}

func TestReportComesBackWithTheNextPermit(t *testing.T) {
	h := newHouse(t)
	s := h.add("greeter", retrying())
	v := h.acquire()
	endpoints := map[string]bool{v.GetEndpoint(): true}
	for attempt := uint32(2); attempt <= 3; attempt++ {
		v = must[*outriggerv1.ReportResponse](t)(h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: v.GetId(), Code: 14})).GetPermit()
		if v.GetAttempt() != attempt || v.GetService() != "greeter" {
			t.Fatalf("%v", v)
		}
		endpoints[v.GetEndpoint()] = true
	}
	last := must[*outriggerv1.ReportResponse](t)(h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: v.GetId(), Code: 14}))
	if last.GetPermit() != nil || len(endpoints) != 2 || count(s.Codes(), "UNAVAILABLE") != 1 {
		t.Errorf("%v, %v, %v", last, endpoints, s.Codes())
	}
}

func TestWhoGoesAwayLeavesNothing(t *testing.T) {
	// Given one slot, which is taken, and one who waits for it,
	h := newHouse(t)
	s := h.resource("greeter", bounded(1))
	v := h.acquire()
	ctx, cancel := context.WithTimeout(h.context(), 50*time.Millisecond)
	defer cancel()
	// when it goes away,
	_, err := h.resilience().Acquire(ctx, greet())
	wantCode(t, err, codes.DeadlineExceeded)
	eventually(t, "who went away still waits", func() bool { return h.server.permits.outstanding.Load() == 1 })
	// then the slot is the next one's.
	must[*outriggerv1.ReportResponse](t)(h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: v.GetId()}))
	h.acquire()
	if count(s.Refusals(), "CANCELLED") != 1 {
		t.Errorf("%v", s.Refusals())
	}
}

func TestALeaseEndsByItself(t *testing.T) {
	// Given one slot, and a permit for 50 ms that nobody reports,
	h := newHouse(t)
	h.resource("greeter", bounded(1))
	q := greet()
	q.Lease = durationpb.New(50 * time.Millisecond)
	v := must[*outriggerv1.AcquireResponse](t)(h.resilience().Acquire(h.context(), q)).GetPermit()
	// then who waits gets the slot, and the report is late.
	h.acquire()
	_, err := h.resilience().Report(h.context(), &outriggerv1.ReportRequest{PermitId: v.GetId()})
	if s := wantCode(t, err, codes.FailedPrecondition); !strings.Contains(s.Message(), "within its lease") {
		t.Error(s.Message())
	}
}

func TestAPermitIsItsHosts(t *testing.T) {
	d := newDesk(t)
	d.house.add("greeter", policy.Policy{})
	h := d.table.callers
	reply := make(chan answer, 1)
	h.acquire(&d.round, greet(), 0, reply, "10.0.0.1")
	id := (<-reply).permit.GetId()
	if _, refusal := h.find(id, "10.0.0.2"); refusal.Code() != policy.PermissionDenied {
		t.Errorf("%v", refusal)
	}
	if _, refusal := h.find(id, "10.0.0.1"); refusal != nil {
		t.Errorf("%v", refusal)
	}
	d.wantRefusal(d.report(d.stream(), &outriggerv1.ReportRequest{PermitId: id}), policy.PermissionDenied, policy.ReasonNone, "by Report after Acquire")
}

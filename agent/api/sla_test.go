package api

import (
	"math"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

func TestAReportComparesPromiseAndDeed(t *testing.T) {
	// Given 97 calls that succeed, 2 that fail, 1 that is not answered and 4
	// that their callers give up,
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	h.call(greeter, sayHello, 97, policy.OK)
	h.call(greeter, sayHello, 2, policy.Internal)
	h.call(greeter, sayHello, 1, policy.Unavailable)
	for range 4 {
		var c policy.Call
		now := time.Since(h.origin)
		c.Begin(greeter.Method(sayHello), now, policy.Arrival{Timeout: policy.NoTimeout})
		c.End(now, policy.Result{Code: policy.Canceled, Reason: policy.CallerCanceled}, 0)
	}
	// when a report is asked for,
	r := must[*outriggerv1.GetReportResponse](t)(h.reports().GetReport(h.context(), &outriggerv1.GetReportRequest{Service: "greeter", Window: durationpb.New(time.Minute)})).GetReport()
	// then it counts all of them,
	if r.GetService() != "greeter" || r.GetWindow() != "1m" || r.GetCalls() != 104 || r.GetCounted() != 100 || r.GetExcluded() != 4 {
		t.Errorf("%v", r)
	}
	// says what was kept,
	if f := r.GetAvailability(); f.GetValue() != 99 || f.GetTarget() != 99.9 || f.GetVerdict() != outriggerv1.Verdict_MISSED {
		t.Errorf("%v", f)
	}
	if f := r.GetSuccessRate(); f.GetValue() != 97 || f.GetTarget() != 99.5 || f.GetVerdict() != outriggerv1.Verdict_MISSED {
		t.Errorf("%v", f)
	}
	if len(r.GetLatency()) != 1 {
		t.Fatalf("%v", r.GetLatency())
	}
	if l := r.GetLatency()[0]; l.GetQuantile() != 0.95 || l.GetTargetMs() != 200 || l.GetVerdict() != outriggerv1.Verdict_MET || math.Abs(l.GetValueMs()-20) > 0.4 {
		t.Errorf("%v", l)
	}
	if math.Abs(r.GetMeanMs()-20) > 0.01 || math.Abs(r.GetP50Ms()-20) > 0.4 {
		t.Errorf("%v", r)
	}
	// and what is left of the budget.
	if math.Abs(r.GetBurnRate()-10) > 1e-6 || math.Abs(r.GetBudgetLeft()+9) > 1e-6 {
		t.Errorf("burn rate %v, budget left %v", r.GetBurnRate(), r.GetBudgetLeft())
	}
}

func TestAServiceWithoutCallsHasNoData(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	reports := must[*outriggerv1.ListReportsResponse](t)(h.reports().ListReports(h.context(), &outriggerv1.ListReportsRequest{})).GetReports()
	if len(reports) != 1 || reports[0].GetWindow() != "5m" || reports[0].GetBudgetLeft() != 1 {
		t.Fatalf("%v", reports)
	}
	for _, v := range []outriggerv1.Verdict_Value{reports[0].GetAvailability().GetVerdict(), reports[0].GetSuccessRate().GetVerdict(), reports[0].GetLatency()[0].GetVerdict()} {
		if v != outriggerv1.Verdict_NO_DATA {
			t.Error(v)
		}
	}
}

func TestWindowsAreThoseThatAreKept(t *testing.T) {
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	for window, name := range map[time.Duration]string{10 * time.Second: "10s", time.Minute: "1m", 5 * time.Minute: "5m", time.Hour: "1h"} {
		r := must[*outriggerv1.ListReportsResponse](t)(h.reports().ListReports(h.context(), &outriggerv1.ListReportsRequest{Window: durationpb.New(window)})).GetReports()
		if r[0].GetWindow() != name {
			t.Errorf("%q, want %q", r[0].GetWindow(), name)
		}
	}
	_, err := h.reports().ListReports(h.context(), &outriggerv1.ListReportsRequest{Window: durationpb.New(7 * time.Minute)})
	wantCode(t, err, codes.InvalidArgument)
}

func TestWatchReports(t *testing.T) {
	h := newHouse(t)
	greeter := h.add("greeter", reference(policy.ScopeService))
	stream := must[outriggerv1.SlaService_WatchReportsClient](t)(h.reports().WatchReports(h.context(), &outriggerv1.WatchReportsRequest{Interval: durationpb.New(100 * time.Millisecond)}))
	receive := must[*outriggerv1.WatchReportsResponse](t)
	if m := receive(stream.Recv()); len(m.GetReports()) != 1 || m.GetReports()[0].GetCalls() != 0 {
		t.Fatalf("%v", m)
	}
	h.call(greeter, sayHello, 7, policy.OK)
	for receive(stream.Recv()).GetReports()[0].GetCalls() != 7 {
	}
}

func TestKindsOfTasksHaveReportsBesideServices(t *testing.T) {
	// Given an e-mail that was sent after 2 s and one that was given up,
	h := newHouse(t)
	h.add("greeter", reference(policy.ScopeService))
	mails := sla.NewRecorder(sla.Options{})
	now := time.Since(h.origin)
	mails.Record(now, sla.Success, 2*time.Second)
	mails.Record(now, sla.Failure, 3*time.Second)
	h.promises = []Promise{{"tasks/email", mails, sla.Targets{SuccessRate: 99, Latency: []sla.LatencyTarget{{Quantile: 0.5, Target: time.Minute}}}}}

	list := must[*outriggerv1.ListReportsResponse](t)(h.reports().ListReports(h.context(), &outriggerv1.ListReportsRequest{})).GetReports()
	mail := must[*outriggerv1.GetReportResponse](t)(h.reports().GetReport(h.context(), &outriggerv1.GetReportRequest{Service: "tasks/email"})).GetReport()

	if len(list) != 2 || list[0].GetService() != "greeter" || list[1].GetService() != "tasks/email" {
		t.Fatalf("%v", list)
	}
	if f := mail.GetSuccessRate(); mail.GetCalls() != 2 || f.GetValue() != 50 || f.GetVerdict() != outriggerv1.Verdict_MISSED {
		t.Errorf("%v", mail)
	}
	if l := mail.GetLatency(); len(l) != 1 || l[0].GetTargetMs() != 60000 || l[0].GetVerdict() != outriggerv1.Verdict_MET {
		t.Errorf("%v", l)
	}
}

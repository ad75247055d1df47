package api

import (
	"context"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

// defaultWindow is what reports cover that name no window.
const defaultWindow = 5 * time.Minute

func windowOf(d *durationpb.Duration) time.Duration {
	if d == nil {
		return defaultWindow
	}
	return d.AsDuration()
}

// windowName writes a window as users do: "5m", not "5m0s".
func windowName(d time.Duration) string {
	name := d.String()
	if strings.HasSuffix(name, "m0s") {
		name = strings.TrimSuffix(name, "0s")
	}
	if strings.HasSuffix(name, "h0m") {
		name = strings.TrimSuffix(name, "0m")
	}
	return name
}

var verdicts = map[sla.Verdict]outriggerv1.Verdict_Value{
	sla.NoData: outriggerv1.Verdict_NO_DATA,
	sla.Met:    outriggerv1.Verdict_MET,
	sla.Missed: outriggerv1.Verdict_MISSED,
}

func showFigure(f sla.Figure) *outriggerv1.Figure {
	return &outriggerv1.Figure{Value: f.Value, Target: f.Target, Verdict: verdicts[f.Verdict]}
}

func (s *Server) report(service *policy.Service, window time.Duration) *outriggerv1.Report {
	now := s.now()
	totals := service.Recorder().Read(now, window)
	r := service.Recorder().Report(now, window, service.Policy().SLA)
	out := &outriggerv1.Report{
		Service: service.Name(),
		Window:  windowName(window),
		// Calls may have ended between the two readings: the sum agrees with
		// what the figures go by.
		Calls:        r.Calls + totals.Excluded,
		Counted:      r.Calls,
		Excluded:     totals.Excluded,
		MeanMs:       milliseconds(r.Mean),
		Availability: showFigure(r.Availability),
		SuccessRate:  showFigure(r.SuccessRate),
		BudgetLeft:   r.BudgetLeft,
		BurnRate:     r.BurnRate,
		P50Ms:        milliseconds(totals.Latency.Quantile(0.5)),
		P95Ms:        milliseconds(totals.Latency.Quantile(0.95)),
		P99Ms:        milliseconds(totals.Latency.Quantile(0.99)),
		Span:         durationpb.New(r.Span),
		BudgetSpan:   durationpb.New(r.BudgetSpan),
	}
	for _, l := range r.Latency {
		out.Latency = append(out.Latency, &outriggerv1.LatencyFigure{
			Quantile:   l.Quantile,
			ValueMs:    milliseconds(l.Value),
			TargetMs:   milliseconds(l.Target),
			Verdict:    verdicts[l.Verdict],
			Unanswered: l.Unanswered,
		})
	}
	return out
}

// slaService implements outrigger.v1.SlaService.
type slaService struct {
	outriggerv1.UnimplementedSlaServiceServer
	server *Server
}

func (s *slaService) ListReports(_ context.Context, r *outriggerv1.ListReportsRequest) (*outriggerv1.ListReportsResponse, error) {
	services, err := s.server.services(r.GetService())
	if err != nil {
		return nil, err
	}
	cut, next, err := page(services, (*policy.Service).Name, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &outriggerv1.ListReportsResponse{NextPageToken: next}
	for _, service := range cut {
		out.Reports = append(out.Reports, s.server.report(service, windowOf(r.GetWindow())))
	}
	return out, nil
}

func (s *slaService) GetReport(_ context.Context, r *outriggerv1.GetReportRequest) (*outriggerv1.GetReportResponse, error) {
	services, err := s.server.services(r.GetService())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.GetReportResponse{Report: s.server.report(services[0], windowOf(r.GetWindow()))}, nil
}

func (s *slaService) WatchReports(r *outriggerv1.WatchReportsRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchReportsResponse]) error {
	first := true
	return s.server.watch(stream.Context(), r.GetInterval(), func() error {
		services, err := s.server.servicesSince(r.GetService(), first)
		if err != nil {
			return err
		}
		first = false
		shown, omitted := s.server.busiest(services)
		out := &outriggerv1.WatchReportsResponse{Omitted: int32(omitted)}
		for _, service := range shown {
			out.Reports = append(out.Reports, s.server.report(service.Service, windowOf(r.GetWindow())))
		}
		return stream.Send(out)
	})
}

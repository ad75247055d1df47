package api

import (
	"cmp"
	"context"
	"slices"
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

// Promise is something that an SLA is kept of.
type Promise struct {
	// Name is the service's; of a kind of tasks "tasks/KIND".
	Name     string
	Recorder *sla.Recorder
	Targets  sla.Targets
}

// promises returns what SLAs are kept of, in the order of their names: services, and
// kinds of tasks. name narrows it down to one; empty: all.
func (s *Server) promises(name string) ([]Promise, error) {
	services := s.agent.Services()
	all := s.agent.TaskPromises()
	for _, service := range services {
		all = append(all, promiseOf(service))
	}
	slices.SortFunc(all, func(a, b Promise) int { return cmp.Compare(a.Name, b.Name) })
	if name == "" {
		return all, nil
	}
	known := make([]string, len(all))
	for i, p := range all {
		if p.Name == name {
			return all[i : i+1], nil
		}
		known[i] = p.Name
	}
	return nil, unknown("service", name, known, "none is configured and no call came yet")
}

func promiseOf(s *policy.Service) Promise { return Promise{s.Name(), s.Recorder(), s.Policy().SLA} }

// mostKept returns at most maxShown of them, those that had most to keep lately, in
// the order of their names, and how many are left out.
func (s *Server) mostKept(all []Promise) (shown []Promise, omitted int) {
	if len(all) <= maxShown {
		return all, 0
	}
	now, calls := s.now(), make(map[string]uint64, len(all))
	for _, p := range all {
		calls[p.Name] = p.Recorder.Read(now, rateWindow).Calls
	}
	slices.SortStableFunc(all, func(a, b Promise) int { return cmp.Compare(calls[b.Name], calls[a.Name]) })
	shown = all[:maxShown]
	slices.SortFunc(shown, func(a, b Promise) int { return cmp.Compare(a.Name, b.Name) })
	return shown, len(all) - maxShown
}

func (s *Server) report(p Promise, window time.Duration) *outriggerv1.Report {
	now := s.now()
	totals := p.Recorder.Read(now, window)
	r := p.Recorder.Report(now, window, p.Targets)
	out := &outriggerv1.Report{
		Service: p.Name,
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
	promises, err := s.server.promises(r.GetService())
	if err != nil {
		return nil, err
	}
	cut, next, err := page(promises, func(p Promise) string { return p.Name }, r.GetPageSize(), r.GetPageToken())
	if err != nil {
		return nil, err
	}
	out := &outriggerv1.ListReportsResponse{NextPageToken: next}
	for _, p := range cut {
		out.Reports = append(out.Reports, s.server.report(p, windowOf(r.GetWindow())))
	}
	return out, nil
}

func (s *slaService) GetReport(_ context.Context, r *outriggerv1.GetReportRequest) (*outriggerv1.GetReportResponse, error) {
	promises, err := s.server.promises(r.GetService())
	if err != nil {
		return nil, err
	}
	return &outriggerv1.GetReportResponse{Report: s.server.report(promises[0], windowOf(r.GetWindow()))}, nil
}

func (s *slaService) WatchReports(r *outriggerv1.WatchReportsRequest, stream grpc.ServerStreamingServer[outriggerv1.WatchReportsResponse]) error {
	first := true
	return s.server.watch(stream.Context(), r.GetInterval(), func() error {
		promises, err := s.server.promises(r.GetService())
		if err != nil && first {
			return err // one that left meanwhile is no mistake of the watcher's
		}
		first = false
		shown, omitted := s.server.mostKept(promises)
		out := &outriggerv1.WatchReportsResponse{Omitted: int32(omitted)}
		for _, p := range shown {
			out.Reports = append(out.Reports, s.server.report(p, windowOf(r.GetWindow())))
		}
		return stream.Send(out)
	})
}

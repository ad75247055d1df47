package demo

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/sla"
)

// printer writes the demo's lines. Safe for concurrent use.
type printer struct {
	mu    sync.Mutex
	w     io.Writer
	begun time.Time
}

func (p *printer) line(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.w, format+"\n", args...)
}

// event prints what happened, with the time since the calls began.
func (p *printer) event(mark, format string, args ...any) {
	p.line("%5.1fs %s %s", time.Since(p.begun).Seconds(), mark, fmt.Sprintf(format, args...))
}

func (p *printer) intro(d time.Duration) {
	p.line(`Two apps make the same %d calls a second to the same three gRPC servers, for %v:
one through the Outrigger agent, one directly (grpc-go, round_robin). Same faults, same time.
The agent has a timeout of 3s and a circuit breaker per endpoint: 5 failures in a row open it.
It stays open for %v here instead of the usual 30s, so that you see it close again.
`, perSecond, d, openFor(d))
}

func (p *printer) places(s *stage) {
	for _, one := range s.servers {
		p.line("  server %s  %s", one.name, one.address)
	}
	p.line("  agent     %s   (look yourself meanwhile: OUTRIGGER_API=%s outrigger status --watch)\n", s.agent.egress, s.agent.api)
}

// second prints one second of both apps.
func (p *printer) second(with, without lap) {
	p.event("  ", "with the agent %s   without %s", with.text(), without.text())
}

func (l lap) text() string {
	var shares []string
	answered := 0
	for _, n := range l.servers {
		answered += n
	}
	for _, name := range []string{"a", "b", "c"} {
		share := 0
		if answered > 0 {
			share = (100*l.servers[name] + answered/2) / answered
		}
		shares = append(shares, fmt.Sprintf("%s %2d%%", name, share))
	}
	return fmt.Sprintf("%3d calls %3d failed  p95 %6s  [%s]", l.calls, l.failed, short(l.latency.Quantile(0.95)), strings.Join(shares, " "))
}

// short writes a latency in a few characters.
func short(d time.Duration) string {
	switch {
	case d < 10*time.Millisecond:
		return fmt.Sprintf("%.1fms", float64(d)/float64(time.Millisecond))
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	}
	return fmt.Sprintf("%.2fs", d.Seconds())
}

// watchBreakers prints each change of a breaker as the agent tells it.
func (a *sidecar) watchBreakers(ctx context.Context, out *printer, s *stage) {
	stream, err := outriggerv1.NewBreakerServiceClient(a.conn).WatchBreakers(ctx, &outriggerv1.WatchBreakersRequest{})
	if err != nil {
		out.event("!!", "the agent's breakers can't be watched: %v", err)
		return
	}
	for {
		r, err := stream.Recv()
		if err != nil {
			return // the demo is over
		}
		b := r.GetBreaker()
		if b.GetTransitions() > 0 {
			out.event(">>", "the agent's breaker of server %s is %s: %s", s.nameOf(b.GetEndpoint()), strings.ReplaceAll(b.GetState().String(), "_", "-"), b.GetReason())
		}
	}
}

// report prints what was promised against what was kept, with and without the
// agent.
func report(ctx context.Context, out *printer, s *stage, with, without *load) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	reports, err := outriggerv1.NewSlaServiceClient(s.agent.conn).ListReports(ctx, &outriggerv1.ListReportsRequest{Service: serviceName})
	if err != nil {
		return fmt.Errorf("demo: the agent's report: %w", err)
	}
	endpoints, err := outriggerv1.NewEndpointServiceClient(s.agent.conn).ListEndpoints(ctx, &outriggerv1.ListEndpointsRequest{})
	if err != nil {
		return fmt.Errorf("demo: the agent's endpoints: %w", err)
	}
	breakers, err := outriggerv1.NewBreakerServiceClient(s.agent.conn).ListBreakers(ctx, &outriggerv1.ListBreakersRequest{})
	if err != nil {
		return fmt.Errorf("demo: the agent's breakers: %w", err)
	}
	status, err := outriggerv1.NewAgentServiceClient(s.agent.conn).GetStatus(ctx, &outriggerv1.GetStatusRequest{Service: serviceName})
	if err != nil {
		return fmt.Errorf("demo: the agent's status: %w", err)
	}
	const span = 5 * time.Minute
	targets := sla.DefaultTargets()
	a, b := with.recorder.Report(time.Since(with.begun), span, targets), without.recorder.Report(time.Since(without.begun), span, targets)
	at, bt := with.recorder.Read(time.Since(with.begun), span), without.recorder.Read(time.Since(without.begun), span)

	out.line("\nWhat was promised and what was kept, as the two apps saw it:\n")
	out.line("  %-14s %-12s %-24s %-24s", "", "target", "with the agent", "without")
	out.line("  %-14s %-12s %-24d %-24d", "calls", "", a.Calls, b.Calls)
	percent := func(name string, x, y sla.Figure) {
		out.line("  %-14s %-12s %-24s %-24s", name, fmt.Sprintf("%g %%", x.Target), fmt.Sprintf("%7.3f %%  %s", x.Value, x.Verdict), fmt.Sprintf("%7.3f %%  %s", y.Value, y.Verdict))
	}
	percent("availability", a.Availability, b.Availability)
	percent("success rate", a.SuccessRate, b.SuccessRate)
	row := func(q float64, target, x, y string) {
		out.line("  %-14s %-12s %-24s %-24s", fmt.Sprintf("p%g", 100*q), target, x, y)
	}
	row(0.5, "", short(at.Latency.Quantile(0.5)), short(bt.Latency.Quantile(0.5)))
	for i, l := range a.Latency {
		verdict := func(l sla.LatencyFigure) string { return fmt.Sprintf("%9s  %s", short(l.Value), l.Verdict) }
		row(l.Quantile, "≤ "+short(l.Target), verdict(l), verdict(b.Latency[i]))
	}
	row(0.99, "", short(at.Latency.Quantile(0.99)), short(bt.Latency.Quantile(0.99)))

	out.line("\nWhat the agent itself recorded:\n")
	for _, r := range reports.GetReports() {
		out.line("  %d calls, availability %.3f %% %s, success rate %.3f %% %s, error budget left %.0f %%", r.GetCalls(),
			r.GetAvailability().GetValue(), r.GetAvailability().GetVerdict(), r.GetSuccessRate().GetValue(), r.GetSuccessRate().GetVerdict(), 100*r.GetBudgetLeft())
	}
	for _, service := range status.GetStatus().GetServices() {
		out.line("  %d attempts were sent again, elsewhere", service.GetRetriesTotal())
	}
	for _, e := range endpoints.GetEndpoints() {
		out.line("  server %s  %-10s %5d calls %3d failed, breaker moved %d times", s.nameOf(e.GetAddress()), e.GetState(), e.GetCalls(), e.GetFailures(), transitionsOf(breakers.GetBreakers(), e.GetAddress()))
	}
	out.line("")
	return nil
}

func transitionsOf(breakers []*outriggerv1.Breaker, address string) uint64 {
	for _, b := range breakers {
		if b.GetEndpoint() == address {
			return b.GetTransitions()
		}
	}
	return 0
}

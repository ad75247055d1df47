package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newSLA() *cobra.Command {
	var r remote
	var service string
	var window time.Duration
	report := &cobra.Command{
		Use:     "report",
		Short:   "Compare what was promised with what was kept",
		Example: "  outrigger sla report --service greeter --window 5m",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				reports, err := outriggerv1.NewSlaServiceClient(cc).ListReports(ctx, &outriggerv1.ListReportsRequest{Service: service, Window: durationpb.New(window)})
				if err != nil {
					return err
				}
				return r.print(c, reports, func(t *table) {
					for _, report := range reports.GetReports() {
						slaRows(t, report)
					}
				})
			})
		},
	}
	r.flags(report)
	report.Flags().StringVar(&service, "service", "", "only this service")
	report.Flags().DurationVar(&window, "window", 5*time.Minute, "10s, 1m, 5m or 1h")
	return group("sla", "Service levels", report)
}

func slaRows(t *table, r *outriggerv1.Report) {
	t.row(fmt.Sprintf("%s: %d calls in %s, mean %s", r.GetService(), r.GetCalls(), r.GetWindow(), millis(r.GetMeanMs())))
	percent := func(name string, f *outriggerv1.Figure) {
		value := fmt.Sprintf("%.3f %%", f.GetValue())
		if f.GetVerdict() == outriggerv1.Verdict_NO_DATA {
			value = "–"
		}
		t.row("  "+name, value, fmt.Sprintf("target %g %%", f.GetTarget()), f.GetVerdict().String())
	}
	percent("availability", r.GetAvailability())
	percent("success rate", r.GetSuccessRate())
	for _, l := range r.GetLatency() {
		if l.GetTargetMs() == 0 {
			t.row("  "+quantile(l.GetQuantile()), millis(l.GetValueMs()))
			continue
		}
		t.row("  "+quantile(l.GetQuantile()), millis(l.GetValueMs()), "target "+millis(l.GetTargetMs()), l.GetVerdict().String())
	}
	t.row("  error budget", fmt.Sprintf("%.1f %% left", 100*r.GetBudgetLeft()), fmt.Sprintf("burn rate %.1f", r.GetBurnRate()))
}

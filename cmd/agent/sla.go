package main

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newSLA() *cobra.Command {
	return group("sla", "Compare what was promised with what was kept", "  outrigger sla report", newSLAReport())
}

func newSLAReport() *cobra.Command {
	var r remote
	var service string
	span := window(5 * time.Minute)
	c := r.flags(&cobra.Command{
		Use:   "report",
		Short: "Report availability, success rate and latency against their targets",
		Long: `Report availability (calls that were answered), success rate (answered without a
failure code) and latency against their targets. The error budget is what the
availability's target lets go unanswered; a burn rate above 1 spends it too fast.`,
		Example: `  outrigger sla report
  outrigger sla report --service greeter --window 1h -o json`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				client := outriggerv1.NewSlaServiceClient(agent)
				request := &outriggerv1.ListReportsRequest{Service: service, Window: durationpb.New(time.Duration(span)), PageSize: pageSize}
				all := &outriggerv1.ListReportsResponse{}
				for {
					page, err := client.ListReports(ctx, request)
					if err != nil {
						return err
					}
					all.Reports = append(all.Reports, page.GetReports()...)
					if request.PageToken = page.GetNextPageToken(); request.PageToken == "" {
						break
					}
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), all)
				}
				printReports(c.OutOrStdout(), all.GetReports(), coloursOf(c.OutOrStdout()))
				return nil
			})
		},
	})
	c.Flags().StringVar(&service, "service", "", "only this `SERVICE`")
	c.Flags().Var(&span, "window", "how far back: 10s, 1m, 5m or 1h")
	return c
}

// window is how far back a report looks. It implements pflag.Value.
type window time.Duration

func (w *window) Type() string { return "SPAN" }

func (w *window) String() string {
	for name, d := range windows {
		if d == time.Duration(*w) {
			return name
		}
	}
	return time.Duration(*w).String()
}

func (w *window) Set(s string) error {
	d, err := time.ParseDuration(s)
	for _, known := range windows {
		if err == nil && d == known {
			*w = window(d)
			return nil
		}
	}
	return fmt.Errorf("want 10s, 1m, 5m or 1h")
}

var windows = map[string]time.Duration{"10s": 10 * time.Second, "1m": time.Minute, "5m": 5 * time.Minute, "1h": time.Hour}

func printReports(w io.Writer, reports []*outriggerv1.Report, colours bool) {
	if len(reports) == 0 {
		fmt.Fprintln(w, "no services: none is configured, and no call came yet")
	}
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(w)
		}
		printReport(w, r, colours)
	}
}

func printReport(w io.Writer, r *outriggerv1.Report, colours bool) {
	fmt.Fprintf(w, "%s: %s in the last %s", r.GetService(), plural(r.GetCalls(), "call"), r.GetWindow())
	if r.GetExcluded() > 0 {
		fmt.Fprintf(w, ", %d of them given up by their callers", r.GetExcluded())
	}
	if r.GetCounted() > 0 {
		fmt.Fprintf(w, ", %s on average", milliseconds(r.GetMeanMs()))
	}
	fmt.Fprintln(w)
	t := &table{indent: "  ", right: []bool{false, true, false, false}}
	share := func(name string, f *outriggerv1.Figure) {
		value := "–"
		if f.GetVerdict() != outriggerv1.Verdict_NO_DATA {
			value = percentage(f.GetValue(), 3)
		}
		t.add(name, value, fmt.Sprintf("want ≥ %g %%", f.GetTarget()), verdictOf(f.GetVerdict()))
	}
	share("availability", r.GetAvailability())
	share("success rate", r.GetSuccessRate())
	promised := make(map[float64]bool)
	for _, l := range r.GetLatency() {
		promised[l.GetQuantile()] = true
		value := milliseconds(l.GetValueMs())
		if l.GetUnanswered() {
			value = "> " + value
		}
		t.add(quantile(l.GetQuantile()), value, "want ≤ "+milliseconds(l.GetTargetMs()), verdictOf(l.GetVerdict()))
	}
	for _, q := range []struct{ quantile, ms float64 }{{0.5, r.GetP50Ms()}, {0.95, r.GetP95Ms()}, {0.99, r.GetP99Ms()}} {
		if !promised[q.quantile] {
			t.add(quantile(q.quantile), milliseconds(q.ms))
		}
	}
	left := good
	if r.GetBudgetLeft() <= 0 {
		left = bad
	}
	t.add("error budget", cell{percentage(100*r.GetBudgetLeft(), 1), left}, fmt.Sprintf("left, burn rate %.1f", r.GetBurnRate()))
	t.print(w, colours)
}

func verdictOf(v outriggerv1.Verdict_Value) cell {
	switch v {
	case outriggerv1.Verdict_MET:
		return cell{v.String(), good}
	case outriggerv1.Verdict_MISSED:
		return cell{v.String(), bad}
	}
	return cell{v.String(), faint}
}

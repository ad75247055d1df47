package main

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newStatus() *cobra.Command {
	var r remote
	var watch bool
	var service string
	var interval time.Duration
	c := r.flags(&cobra.Command{
		Use:   "status",
		Short: "Show services, endpoints, breakers, rates and latency at a glance",
		Long: `Show services, endpoints, breakers, rates and latency at a glance. Rates and
latency are those of the last 10 seconds, counts are since the agent's start.

With --watch it is a live screen until Ctrl-C; where there is no terminal, a line
a service and interval; with -o json, a JSON object a line.`,
		Example: `  outrigger status
  outrigger status --watch
  outrigger status --watch --interval 5s -o json | jq .status.services`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if interval < 100*time.Millisecond || interval > time.Hour {
				return usageError{fmt.Errorf("--interval is %v; want 100ms to 1h", interval)}
			}
			if watch {
				return r.watchStatus(c, service, interval)
			}
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				answer, err := outriggerv1.NewAgentServiceClient(agent).GetStatus(ctx, &outriggerv1.GetStatusRequest{Service: service})
				if err != nil {
					return err
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), answer)
				}
				printStatus(c.OutOrStdout(), answer.GetStatus(), nil, coloursOf(c.OutOrStdout()))
				return nil
			})
		},
	})
	c.Flags().BoolVarP(&watch, "watch", "w", false, "show it live until Ctrl-C")
	c.Flags().StringVar(&service, "service", "", "only this `SERVICE`")
	c.Flags().DurationVar(&interval, "interval", time.Second, "how often --watch looks, 100ms to 1h")
	return c
}

// printStatus writes a status for people. before is the one that was shown
// before it, for the rates of endpoints; nil: none.
func printStatus(w io.Writer, s, before *outriggerv1.Status, colours bool) {
	printAgent(w, s, colours)
	if len(s.GetServices()) == 0 {
		fmt.Fprintf(w, "\nno services yet: configure some, or send calls to %s\n", s.GetAgent().GetEgressAddress())
		return
	}
	now := s.GetAt().AsTime()
	services := newTable("SERVICE", ">CALLS", ">AVAILABLE", ">SUCCESS", ">P50", ">P95", ">P99", ">IN FLIGHT", "REFUSED", "OBSERVE WOULD")
	endpoints := newTable("ENDPOINT", "OF", "STATE", "BREAKER", ">CALLS", ">IN FLIGHT", ">SENT", ">FAILED", "REASON")
	var breakers []*outriggerv1.Breaker
	earlier := endpointCalls(before)
	for _, service := range s.GetServices() {
		available, success := "–", "–"
		if service.GetCounted() > 0 {
			available, success = percentage(service.GetAvailability(), 2), percentage(service.GetSuccessRate(), 2)
		}
		services.add(service.GetName(), rate(service.GetCallsPerSecond()), available, success,
			milliseconds(service.GetP50Ms()), milliseconds(service.GetP95Ms()), milliseconds(service.GetP99Ms()),
			count(service.GetInFlight()), dash(counts(service.GetRefusals())), wouldRefuse(service))
		guard := guards(service.GetBreakers())
		for _, e := range service.GetEndpoints() {
			endpoints.add(e.GetAddress(), service.GetName(), endpointState(e), guard(e.GetAddress()),
				earlier.rate(e, now), count(e.GetInFlight()), count(e.GetCalls()), count(e.GetFailures()), dash(e.GetReason()))
		}
		breakers = append(breakers, service.GetBreakers()...)
	}
	fmt.Fprintln(w)
	services.print(w, colours)
	printDiscovery(w, s.GetServices(), colours)
	if policies := policyTable(s.GetServices()); policies != nil {
		fmt.Fprintln(w)
		policies.print(w, colours)
	}
	fmt.Fprintln(w)
	for _, service := range s.GetServices() {
		if service.GetPanicking() {
			fmt.Fprintln(w, paint(oneLine(service.GetName())+": too few endpoints are fit, so calls are spread over all that are connected", warning, colours))
		}
	}
	endpoints.print(w, colours)
	if len(breakers) > 0 {
		fmt.Fprintln(w)
		breakerTable(breakers, now).print(w, colours)
	}
	printOmitted(w, s)
}

func printAgent(w io.Writer, s *outriggerv1.Status, colours bool) {
	a := s.GetAgent()
	config := "built-in defaults"
	if a.GetConfigPath() != "" {
		config = fmt.Sprintf("%s (generation %d)", a.GetConfigPath(), a.GetConfigGeneration())
	}
	fmt.Fprintf(w, "outrigger %s · up %s · %s · egress %s\n", a.GetVersion(), elapsed(a.GetUptime().AsDuration()), oneLine(config), a.GetEgressAddress())
	fmt.Fprintf(w, "%s in flight · %s from apps, %d to endpoints · %s so far\n",
		plural(s.GetActiveCalls(), "call"), plural(s.GetDownstreamConnections(), "connection"), s.GetUpstreamConnections(), plural(s.GetCallsTotal(), "call"))
	if a.GetPhase() == outriggerv1.Agent_DRAINING {
		fmt.Fprintln(w, paint("the agent was told to end: it finishes the calls in flight", warning, colours))
	}
	if e := a.GetReloadError(); e != "" {
		fmt.Fprintln(w, paint("the last reload failed, the configuration from before holds:", bad, colours))
		for line := range strings.SplitSeq(e, "\n") {
			fmt.Fprintln(w, "  "+oneLine(line))
		}
	}
}

// printDiscovery tells of sources of endpoints that are not well.
func printDiscovery(w io.Writer, services []*outriggerv1.ServiceStatus, colours bool) {
	for _, service := range services {
		d := service.GetDiscovery()
		var what string
		switch {
		case d.GetStale():
			what = fmt.Sprintf("has been stale for %s: %s", elapsed(d.GetAge().AsDuration()), d.GetProblem())
		case d != nil && d.GetVersion() == 0:
			what = strings.TrimSuffix("has not answered yet: "+d.GetProblem(), ": ")
		case d.GetProblem() != "":
			what = d.GetProblem()
		default:
			continue
		}
		fmt.Fprintln(w, paint(oneLine(fmt.Sprintf("endpoints of %s (%s): %s", service.GetName(), d.GetSource(), what)), warning, colours))
	}
}

func printOmitted(w io.Writer, s *outriggerv1.Status) {
	if n := s.GetOmittedServices(); n > 0 {
		fmt.Fprintf(w, "\n%s more, all of them quieter: `outrigger status --service NAME` shows one\n", plural(n, "service"))
	}
	for _, service := range s.GetServices() {
		if n := service.GetOmittedEndpoints(); n > 0 {
			fmt.Fprintf(w, "\n%s more of %s: `outrigger endpoint list` shows them\n", plural(n, "endpoint"), service.GetName())
		}
		if n := service.GetOmittedBreakers(); n > 0 {
			fmt.Fprintf(w, "\n%s more of %s: `outrigger breaker list` shows them\n", plural(n, "breaker"), service.GetName())
		}
	}
}

// guards returns the breaker that a call to an endpoint meets, as a cell: the
// endpoint's own, else the service's.
func guards(breakers []*outriggerv1.Breaker) func(address string) cell {
	return func(address string) cell {
		var found *outriggerv1.Breaker
		for _, b := range breakers {
			switch {
			case b.GetMethod() != "":
			case b.GetEndpoint() == address:
				return breakerState(b)
			case b.GetEndpoint() == "":
				found = b
			}
		}
		if found == nil {
			return cell{"–", faint}
		}
		return breakerState(found)
	}
}

func wouldRefuse(s *outriggerv1.ServiceStatus) string {
	if s.GetWouldRefuse() == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s)", count(s.GetWouldRefuse()), percentage(s.GetWouldRefusePercent(), 1))
}

// counts writes totals by name, the largest first.
func counts(totals map[string]uint64) string {
	names := slices.SortedFunc(maps.Keys(totals), func(a, b string) int {
		return cmp.Or(cmp.Compare(totals[b], totals[a]), cmp.Compare(a, b))
	})
	for i, name := range names {
		names[i] = name + " " + count(totals[name])
	}
	return strings.Join(names, ", ")
}

// callsBefore is how many attempts each endpoint had at a time before.
type callsBefore struct {
	at    time.Time
	calls map[[2]string]uint64
}

func endpointCalls(s *outriggerv1.Status) callsBefore {
	b := callsBefore{calls: make(map[[2]string]uint64)}
	if s == nil {
		return b
	}
	b.at = s.GetAt().AsTime()
	for _, service := range s.GetServices() {
		for _, e := range service.GetEndpoints() {
			b.calls[[2]string{service.GetName(), e.GetAddress()}] = e.GetCalls()
		}
	}
	return b
}

// rate writes how many attempts a second the endpoint got since.
func (b callsBefore) rate(e *outriggerv1.Endpoint, now time.Time) string {
	calls, known := b.calls[[2]string{e.GetService(), e.GetAddress()}]
	since := now.Sub(b.at)
	if !known || since <= 0 || e.GetCalls() < calls {
		return "–"
	}
	return rate(float64(e.GetCalls()-calls) / since.Seconds())
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newStatus() *cobra.Command {
	var r remote
	var watch bool
	c := &cobra.Command{
		Use:     "status",
		Short:   "Services, endpoints, breakers, rates and latency at a glance",
		Example: "  outrigger status --watch",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				client := outriggerv1.NewAgentServiceClient(cc)
				if watch {
					return watchStatus(ctx, c.OutOrStdout(), client, r.output)
				}
				ctx, cancel := limited(ctx)
				defer cancel()
				response, err := client.GetStatus(ctx, &outriggerv1.GetStatusRequest{})
				if err != nil {
					return err
				}
				if r.output == "json" {
					return r.print(c, response, nil)
				}
				return printStatus(c.OutOrStdout(), response.GetStatus(), plain)
			})
		},
	}
	r.flags(c)
	c.Flags().BoolVar(&watch, "watch", false, "show it live until Ctrl-C")
	return c
}

// style marks words by what they mean; plain does nothing.
type style func(s string, good bool) string

func plain(s string, _ bool) string { return s }

func coloured(s string, good bool) string {
	if good {
		return "\x1b[32m" + s + "\x1b[0m"
	}
	return "\x1b[31;1m" + s + "\x1b[0m"
}

// watchStatus shows the status live: a screen on a terminal, a block of lines
// each time elsewhere.
func watchStatus(ctx context.Context, w io.Writer, client outriggerv1.AgentServiceClient, output string) error {
	stream, err := client.WatchStatus(ctx, &outriggerv1.WatchStatusRequest{})
	if err != nil {
		return err
	}
	file, isFile := w.(*os.File)
	screen := isFile && term.IsTerminal(int(file.Fd())) && output == "table"
	mark := style(plain)
	if screen {
		if os.Getenv("NO_COLOR") == "" {
			mark = coloured
		}
		fmt.Fprint(w, "\x1b[?1049h\x1b[?25l")
		defer fmt.Fprint(w, "\x1b[?25h\x1b[?1049l")
	}
	for {
		response, err := stream.Recv()
		if err == io.EOF || ctx.Err() != nil {
			return nil
		}
		if err != nil {
			return err
		}
		if output == "json" {
			text, err := json.Marshal(response)
			if err != nil {
				return err
			}
			fmt.Fprintln(w, string(text))
			continue
		}
		var page bytes.Buffer
		if err := printStatus(&page, response.GetStatus(), mark); err != nil {
			return err
		}
		if screen {
			fmt.Fprint(w, "\x1b[H"+strings.ReplaceAll(fit(page.String(), file), "\n", "\x1b[K\n")+"\x1b[J")
		} else {
			fmt.Fprintln(w, page.String())
		}
	}
}

// fit cuts the page to the terminal's height.
func fit(page string, file *os.File) string {
	_, height, err := term.GetSize(int(file.Fd()))
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	if err == nil && height > 2 && len(lines) > height-1 {
		lines = append(lines[:height-2], fmt.Sprintf("… %d more lines", len(lines)-height+2))
	}
	return strings.Join(lines, "\n")
}

func printStatus(w io.Writer, s *outriggerv1.Status, mark style) error {
	a := s.GetAgent()
	up := s.GetAt().AsTime().Sub(a.GetStarted().AsTime()).Round(time.Second)
	config := a.GetConfigPath()
	if config == "" {
		config = "built-in defaults"
	}
	fmt.Fprintf(w, "outrigger %s, up %v, %s (generation %d)\n", a.GetVersion(), up, config, a.GetConfigGeneration())
	if e := a.GetReloadError(); e != "" {
		fmt.Fprintf(w, "%s %s\n", mark("the last reload failed:", false), e)
	}
	fmt.Fprintf(w, "egress %s, %d calls in flight, connections: %d from apps, %d to endpoints\n",
		a.GetEgressAddress(), s.GetActiveCalls(), s.GetDownstreamConnections(), s.GetUpstreamConnections())
	if len(s.GetServices()) == 0 {
		fmt.Fprintln(w, "\nno services yet: configure some, or send calls to the egress address")
	}
	for _, service := range s.GetServices() {
		if err := printService(w, service, mark); err != nil {
			return err
		}
	}
	return nil
}

func printService(w io.Writer, s *outriggerv1.ServiceStatus, mark style) error {
	available := "no calls"
	if s.GetCallsPerSecond() > 0 {
		available = fmt.Sprintf("%.2f %% available", s.GetAvailability())
	}
	fmt.Fprintf(w, "\n%s  %s, %s, p50 %s, p95 %s, p99 %s, %d in flight\n", s.GetName(), rate(s.GetCallsPerSecond()), available,
		millis(s.GetP50Ms()), millis(s.GetP95Ms()), millis(s.GetP99Ms()), s.GetInFlight())
	if text := list(s.GetCodes()); text != "" {
		fmt.Fprintf(w, "  answers   %s\n", text)
	}
	if text := list(s.GetRefusals()); text != "" {
		fmt.Fprintf(w, "  refused   %s\n", text)
	}
	if p := s.GetWouldRefusePercent(); p > 0 {
		fmt.Fprintf(w, "  observed  would have refused %.1f %%\n", p)
	}
	for _, b := range s.GetBreakers() {
		state := mark(fmt.Sprintf("%-9s", b.GetState()), b.GetState() == outriggerv1.Breaker_CLOSED)
		text := b.GetReason()
		if in := probeIn(b); in != "" {
			text += ", probe in " + in
		}
		fmt.Fprintf(w, "  breaker   %s %-7s %s  %s\n", state, b.GetMode(), b.GetName(), text)
	}
	t := newTable(w)
	for _, e := range s.GetEndpoints() {
		t.row("  endpoint", e.GetState().String(), e.GetAddress(), fmt.Sprintf("%d calls", e.GetCalls()), fmt.Sprintf("%d failed", e.GetFailures()), fmt.Sprintf("%d in flight", e.GetInFlight()), e.GetReason())
	}
	return t.flush()
}

// list writes counts by name, the largest first.
func list(counts map[string]uint64) string {
	names := make([]string, 0, len(counts))
	for name := range counts {
		names = append(names, name)
	}
	slices.SortFunc(names, func(a, b string) int {
		if counts[a] != counts[b] {
			return int(min(max(int64(counts[b])-int64(counts[a]), -1), 1))
		}
		return strings.Compare(a, b)
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return strings.Join(names, ", ")
}

package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// rateSpan is how far apart two statuses should be that the rates of endpoints
// are reckoned from: a change of state brings one early.
const rateSpan = 900 * time.Millisecond

// watchStatus shows the status live until the context ends. An agent that goes
// away is waited for, as a restart is what one may want to watch.
func (r *remote) watchStatus(c *cobra.Command, service string, interval time.Duration) error {
	show := r.shower(c.OutOrStdout())
	defer show.close()
	return r.connect(c.Context(), func(ctx context.Context, agent *grpc.ClientConn) error {
		client := outriggerv1.NewAgentServiceClient(agent)
		request := &outriggerv1.WatchStatusRequest{Service: service, Interval: durationpb.New(interval)}
		seen := false
		for {
			stream, err := client.WatchStatus(ctx, request, grpc.WaitForReady(seen))
			for err == nil {
				var answer *outriggerv1.WatchStatusResponse
				if answer, err = stream.Recv(); err == nil {
					seen, err = true, show.status(answer)
				}
			}
			switch {
			case ctx.Err() != nil:
				return nil
			case !seen || status.Code(err) != codes.Unavailable:
				return err
			}
			if err := show.gone(r.address); err != nil {
				return err
			}
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(interval):
			}
		}
	})
}

// shower shows statuses as they come.
type shower interface {
	status(*outriggerv1.WatchStatusResponse) error
	// gone says that the agent at the address does not answer any more.
	gone(address string) error
	close()
}

// shower returns what fits the output: JSON lines, a screen, or plain lines.
func (r *remote) shower(w io.Writer) shower {
	if r.output == outputJSON {
		return jsonLines{w}
	}
	if terminal, ok := terminalOf(w); ok {
		return &screen{terminal: terminal, colours: coloursOf(terminal)}
	}
	return &plainLines{w: w}
}

// jsonLines is a JSON object a line.
type jsonLines struct{ w io.Writer }

func (j jsonLines) status(answer *outriggerv1.WatchStatusResponse) error {
	return printMessageLine(j.w, answer)
}

func (jsonLines) gone(string) error { return nil }
func (jsonLines) close()            {}

// plainLines is a line a service, and one for each breaker that moved.
type plainLines struct {
	w      io.Writer
	states map[string]outriggerv1.Breaker_State
	lost   bool
}

func (p *plainLines) status(answer *outriggerv1.WatchStatusResponse) error {
	s := answer.GetStatus()
	at := s.GetAt().AsTime().Local().Format(time.TimeOnly)
	p.lost = false
	states := make(map[string]outriggerv1.Breaker_State)
	var page bytes.Buffer
	if len(s.GetServices()) == 0 {
		fmt.Fprintf(&page, "%s  no services yet\n", at)
	}
	for _, service := range s.GetServices() {
		ready := 0
		for _, e := range service.GetEndpoints() {
			if e.GetState() == outriggerv1.Endpoint_READY {
				ready++
			}
		}
		success := "no calls"
		if service.GetCounted() > 0 {
			success = percentage(service.GetSuccessRate(), 2) + " ok"
		}
		fmt.Fprintf(&page, "%s  %s  %s  %s  p50 %s  p95 %s  p99 %s  %d in flight  %d/%d endpoints ready",
			at, service.GetName(), rate(service.GetCallsPerSecond()), success,
			milliseconds(service.GetP50Ms()), milliseconds(service.GetP95Ms()), milliseconds(service.GetP99Ms()),
			service.GetInFlight(), ready, len(service.GetEndpoints()))
		if refused := counts(service.GetRefusals()); refused != "" {
			fmt.Fprintf(&page, "  refused %s", refused)
		}
		fmt.Fprintln(&page)
		for _, b := range service.GetBreakers() {
			states[b.GetName()] = b.GetState()
			if before, known := p.states[b.GetName()]; known && before != b.GetState() {
				fmt.Fprintf(&page, "%s  breaker %s  %s → %s  %s\n", at, oneLine(b.GetName()), before, b.GetState(), oneLine(b.GetReason()))
			}
		}
	}
	p.states = states
	_, err := p.w.Write(page.Bytes())
	return err
}

func (p *plainLines) gone(address string) error {
	if p.lost {
		return nil
	}
	p.lost = true
	_, err := fmt.Fprintf(p.w, "%s  no agent answers at %s any more: waiting\n", time.Now().Format(time.TimeOnly), address)
	return err
}

func (p *plainLines) close() {}

// screen is a terminal that is drawn over and over.
type screen struct {
	terminal *os.File
	colours  bool
	entered  bool
	// shown is the last status, before the one that its rates go by.
	shown, before *outriggerv1.Status
}

// The terminal's own words: the alternate screen without a cursor and without
// line wrapping, and back.
const (
	enterScreen = "\x1b[?1049h\x1b[?25l\x1b[?7l\x1b[2J"
	leaveScreen = "\x1b[?7h\x1b[?25h\x1b[?1049l"
	home        = "\x1b[H"
	clearRight  = "\x1b[K"
	clearBelow  = "\x1b[J"
)

func (s *screen) close() {
	if s.entered {
		fmt.Fprint(s.terminal, leaveScreen)
	}
}

func (s *screen) status(answer *outriggerv1.WatchStatusResponse) error {
	if !s.entered {
		// Not before: where no agent answers, the message stands on its own.
		s.entered = true
		fmt.Fprint(s.terminal, enterScreen)
	}
	next := answer.GetStatus()
	if s.shown != nil && (s.before == nil || next.GetAt().AsTime().Sub(s.shown.GetAt().AsTime()) >= rateSpan) {
		s.before = s.shown
	}
	s.shown = next
	return s.draw("Ctrl-C ends this")
}

func (s *screen) gone(address string) error {
	return s.draw(paint(fmt.Sprintf("no agent answers at %s any more: this is the last it said; waiting for it (Ctrl-C ends this)", address), bad, s.colours))
}

func (s *screen) draw(footer string) error {
	var page bytes.Buffer
	printStatus(&page, s.shown, s.before, s.colours)
	_, height, err := term.GetSize(int(s.terminal.Fd()))
	if err != nil {
		height = 24
	}
	_, err = io.WriteString(s.terminal, frame(page.String(), footer, height))
	return err
}

// frame fits a page and its footer into a number of lines.
func frame(page, footer string, height int) string {
	lines := strings.Split(strings.TrimRight(page, "\n"), "\n")
	if room := max(height-2, 1); len(lines) > room {
		hidden := len(lines) - room + 1
		lines = append(lines[:room-1], fmt.Sprintf("… %s more: a taller window shows them", plural(hidden, "line")))
	}
	lines = append(lines, "", footer)
	return home + strings.Join(lines, clearRight+"\r\n") + clearRight + clearBelow
}

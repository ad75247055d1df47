package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-rpc/outrigger/agent"
)

func newRun() *cobra.Command {
	var path, level, format string
	var drain time.Duration
	c := &cobra.Command{
		Use:   "run [-c FILE]",
		Short: "Run the agent",
		Long: `Run the agent. Without -c it has the built-in defaults: every authority that an
app calls is dialled and watched, and nothing is enforced.

SIGTERM or SIGINT drains: apps are asked to go elsewhere, calls under way finish.
A second one ends at once. SIGHUP and a changed file reload the configuration; a
file with a mistake changes nothing.`,
		Example: `  outrigger run
  outrigger run -c outrigger.yaml --drain-timeout 10s`,
		Args: exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if drain <= 0 {
				return usageError{fmt.Errorf("--drain-timeout is %v; want more than 0", drain)}
			}
			logger, err := newLogger(c.ErrOrStderr(), level, format)
			if err != nil {
				return err
			}
			a, err := agent.New(agent.Options{ConfigPath: path, Version: buildVersion(), Logger: logger, DrainTimeout: drain})
			if err != nil {
				// As check prints it, so that editors find the lines.
				fmt.Fprintf(c.ErrOrStderr(), "%v\noutrigger: not started\n", err)
				return errSaid
			}
			return serve(c.Context(), c.ErrOrStderr(), a)
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`; none: the built-in defaults")
	c.Flags().DurationVar(&drain, "drain-timeout", agent.DefaultDrainTimeout, "how long calls under way may take when the agent ends")
	c.Flags().StringVar(&level, "log-level", "info", "`LEVEL`: debug, info, warn or error")
	c.Flags().StringVar(&format, "log-format", "text", "`FORMAT`: text or json")
	return c
}

func newLogger(w io.Writer, level, format string) (*slog.Logger, error) {
	options := &slog.HandlerOptions{}
	var least slog.Level
	if err := least.UnmarshalText([]byte(level)); err != nil {
		return nil, usageError{fmt.Errorf("--log-level is %q; want debug, info, warn or error", level)}
	}
	options.Level = least
	switch format {
	case "text":
		return slog.New(slog.NewTextHandler(w, options)), nil
	case "json":
		return slog.New(slog.NewJSONHandler(w, options)), nil
	}
	return nil, usageError{fmt.Errorf("--log-format is %q; want text or json", format)}
}

// serve runs the agent until ctx ends, as the first SIGTERM or SIGINT makes it,
// and then for as long as it drains. It says when the agent is ready.
func serve(ctx context.Context, stderr io.Writer, a *agent.Agent) error {
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	reload := make(chan struct{}, 1)
	ended := make(chan error, 1)
	var running sync.WaitGroup
	defer running.Wait()
	defer close(reload)
	running.Go(func() {
		for range reload {
			_ = a.Reload() // the agent logs it, and shows it in `status`
		}
	})
	running.Go(func() { ended <- a.Run(ctx) })
	ready := a.Ready()
	for asked := 0; ; {
		select {
		case <-ready:
			ready = nil
			at := a.Addresses()
			fmt.Fprintf(stderr, "outrigger: ready egress=%s api=%s admin=%s\n", at.Egress, at.API, at.Admin)
		case err := <-ended:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				select {
				case reload <- struct{}{}:
				default: // one is on its way, and will read what is there then
				}
			} else if asked++; asked > 1 {
				a.Stop()
			}
		}
	}
}

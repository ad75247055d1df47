package main

import (
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-rpc/outrigger/agent"
)

func newRun() *cobra.Command {
	var path, level string
	var drain time.Duration
	c := &cobra.Command{
		Use:   "run",
		Short: "Run the agent",
		Long: `Run the agent. Without -c it runs with the built-in defaults: every authority
that a call names is called and watched, nothing is enforced.

SIGTERM or SIGINT drains: clients are asked to leave, calls under way finish.
A second one ends at once. SIGHUP and a changed file reload the configuration.`,
		Example: "  outrigger run -c outrigger.yaml",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			var min slog.Level
			if err := min.UnmarshalText([]byte(level)); err != nil {
				return usageError{fmt.Errorf("--log-level %q: want debug, info, warn or error", level)}
			}
			if drain <= 0 {
				return usageError{fmt.Errorf("--drain-timeout %v: want more than 0", drain)}
			}
			logger := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: min}))
			a, err := agent.New(agent.Options{ConfigPath: path, Version: version, Logger: logger, DrainTimeout: drain})
			if err != nil {
				return err
			}
			return serve(c, a)
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`; none: the built-in defaults")
	c.Flags().DurationVar(&drain, "drain-timeout", agent.DefaultDrainTimeout, "how long calls under way may take when the agent stops")
	c.Flags().StringVar(&level, "log-level", "info", "debug, info, warn or error")
	return c
}

// serve runs the agent under the signals.
func serve(c *cobra.Command, a *agent.Agent) error {
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, syscall.SIGHUP, syscall.SIGTERM, os.Interrupt)
	defer signal.Stop(signals)
	done := make(chan error, 1)
	go func() { done <- a.Run(c.Context()) }()
	ready := a.Ready()
	ends := 0
	for {
		select {
		case <-ready:
			ready = nil
			at := a.Addresses()
			fmt.Fprintf(os.Stderr, "outrigger: ready egress=%s api=%s admin=%s\n", at.Egress, at.API, at.Admin)
		case err := <-done:
			return err
		case s := <-signals:
			if s == syscall.SIGHUP {
				_ = a.Reload() // it is logged, and shown on /readyz?verbose
			} else if ends++; ends > 1 {
				a.Stop()
			}
		}
	}
}

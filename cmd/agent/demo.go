package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/outrigger-rpc/outrigger/agent"
)

func newDemo() *cobra.Command {
	var duration time.Duration
	var upstream string
	c := &cobra.Command{
		Use:   "demo",
		Short: "See what the agent does: real upstreams, real calls, faults, the report",
		Long: `Starts three gRPC servers and the agent in processes of their own on loopback,
sends real calls, makes one server slow, failing and dead, and compares what
callers got with and without the agent.`,
		Example: "  outrigger demo --duration 20s",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if upstream != "" {
				return agent.DemoUpstream(c.Context(), upstream)
			}
			if duration < 5*time.Second || duration > 10*time.Minute {
				return usageError{fmt.Errorf("--duration is %v; want 5s to 10m", duration)}
			}
			return agent.Demo(c.Context(), c.OutOrStdout(), duration)
		},
	}
	c.Flags().DurationVar(&duration, "duration", 20*time.Second, "how long the calls go on, 5s to 10m")
	c.Flags().StringVar(&upstream, "upstream", "", "internal: be an upstream of this name")
	_ = c.Flags().MarkHidden("upstream")
	return c
}

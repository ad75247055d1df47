package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

func newReload() *cobra.Command {
	var r remote
	return r.flags(&cobra.Command{
		Use:   "reload",
		Short: "Make the agent read its configuration file again",
		Long: `Make the agent read its configuration file again. A file with a mistake changes
nothing; its issues are printed, and reload ends with 1.`,
		Example: "  outrigger reload",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c, func(ctx context.Context, agent *grpc.ClientConn) error {
				answer, err := outriggerv1.NewAgentServiceClient(agent).Reload(ctx, &outriggerv1.ReloadRequest{})
				if err != nil {
					return err
				}
				if r.output == outputJSON {
					return printMessage(c.OutOrStdout(), answer)
				}
				_, err = fmt.Fprintf(c.OutOrStdout(), "reloaded %s (generation %d)\n", answer.GetAgent().GetConfigPath(), answer.GetAgent().GetConfigGeneration())
				return err
			})
		},
	})
}

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
		Use:     "reload",
		Short:   "Make the agent read its configuration file again",
		Example: "  outrigger reload",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			return r.call(c.Context(), func(ctx context.Context, cc *grpc.ClientConn) error {
				ctx, cancel := limited(ctx)
				defer cancel()
				response, err := outriggerv1.NewAgentServiceClient(cc).Reload(ctx, &outriggerv1.ReloadRequest{})
				if err != nil {
					return err
				}
				return r.print(c, response, func(t *table) {
					t.row(fmt.Sprintf("reloaded %s, generation %d", response.GetAgent().GetConfigPath(), response.GetAgent().GetConfigGeneration()))
				})
			})
		},
	})
}

package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/outrigger-rpc/outrigger/agent"
)

func newCheck() *cobra.Command {
	var path string
	c := &cobra.Command{
		Use:     "check",
		Short:   "Validate a configuration file",
		Long:    "Validate a configuration file. Prints FILE:LINE:COL: what is wrong and what was\nexpected, a line an issue, and exits with 1; or one line that it is fine.",
		Example: "  outrigger check -c outrigger.yaml",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{fmt.Errorf("want -c FILE")}
			}
			summary, err := agent.Check(path)
			if err != nil {
				c.PrintErrln(err)
				return errSaid
			}
			fmt.Fprintf(c.OutOrStdout(), "%s: ok: %s\n", path, summary)
			return nil
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`")
	return c
}

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/outrigger-rpc/outrigger/agent"
)

func newCheck() *cobra.Command {
	var path string
	var out output
	c := &cobra.Command{
		Use:   "check -c FILE",
		Short: "Validate a configuration file",
		Long: `Validate a configuration file. Prints a line for each issue, FILE:LINE:COL: what is
wrong and what was expected, and ends with 1; or one line that says what it holds.`,
		Example: "  outrigger check -c outrigger.yaml",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if path == "" {
				return usageError{fmt.Errorf("which file? Name it by -c FILE")}
			}
			summary, err := agent.Check(path)
			if out == outputJSON {
				if err := printJSON(c.OutOrStdout(), checked(path, summary, err)); err != nil {
					return err
				}
			}
			switch {
			case err != nil && out == outputJSON:
				return errSaid
			case err != nil:
				fmt.Fprintln(c.ErrOrStderr(), err)
				return errSaid
			case out == outputTable:
				_, err = fmt.Fprintf(c.OutOrStdout(), "%s: ok: %s\n", path, summary)
			}
			return err
		},
	}
	c.Flags().StringVarP(&path, "config", "c", "", "configuration `FILE`")
	out.flag(c)
	return c
}

// verdict is what check says of a file to a script.
type verdict struct {
	File    string   `json:"file"`
	OK      bool     `json:"ok"`
	Summary string   `json:"summary"`
	Issues  []string `json:"issues"` // FILE:LINE:COL: MESSAGE
}

func checked(path, summary string, err error) verdict {
	v := verdict{File: path, OK: err == nil, Summary: summary, Issues: []string{}}
	if err != nil {
		v.Issues = strings.Split(err.Error(), "\n")
	}
	return v
}

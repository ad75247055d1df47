package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// version is set by the linker: -X main.version=v1.2.3.
var version = "dev"

// buildVersion returns the linker's version, or the module's where the binary
// comes from `go install …@VERSION`.
func buildVersion() string {
	if info, ok := debug.ReadBuildInfo(); version == "dev" && ok && info.Main.Version != "" && info.Main.Version != "(devel)" {
		return info.Main.Version
	}
	return version
}

func newVersion() *cobra.Command {
	var out output
	c := &cobra.Command{
		Use:     "version",
		Short:   "Say which version this is",
		Example: "  outrigger version -o json",
		Args:    exactly(0, ""),
		RunE: func(c *cobra.Command, _ []string) error {
			if out == outputJSON {
				return printJSON(c.OutOrStdout(), map[string]string{
					"version": buildVersion(), "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(c.OutOrStdout(), "outrigger %s (%s, %s/%s)\n", buildVersion(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	out.flag(c)
	return c
}

// Command outrigger runs the agent, and talks to one that runs.
//
//	outrigger run -c outrigger.yaml
//	outrigger status --watch
//
// A verb is a file of its own, added to newRoot by one line. It ends with 0, with
// 1 when what was asked for failed, with 2 when it was asked for wrongly.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
)

// Exit codes.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := execute(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// usageError marks a mistake in how a verb was called.
type usageError struct{ error }

// errSaid is a failure that the verb has told of already.
var errSaid = errors.New("failed")

// execute runs the verb that args name and returns its exit code.
func execute(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	root := newRoot()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	verb, err := root.ExecuteContextC(ctx)
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.Is(err, errSaid):
		return exitFailed
	case errors.As(err, &usage), strings.HasPrefix(err.Error(), "unknown command"):
		fmt.Fprintf(stderr, "outrigger: %s\n`%s --help` shows how.\n", strings.TrimSpace(err.Error()), verb.CommandPath())
		return exitUsage
	}
	fmt.Fprintf(stderr, "outrigger: %v\n", err)
	return exitFailed
}

func newRoot() *cobra.Command {
	var version bool
	root := &cobra.Command{
		Use:   "outrigger",
		Short: "A sidecar that keeps outgoing gRPC calls upright",
		Long: `A sidecar that keeps outgoing gRPC calls upright: timeouts, circuit breakers,
load balancing, and a report of what was promised and kept.

Verbs that talk to an agent find it by --api ADDR, or the environment's
` + apiVariable + `; by default at ` + defaultAPI + `. They end with 0, with 1 when what was
asked for failed, with 2 when it was asked for wrongly.`,
		Example: `  outrigger run                      # watch any app, with no configuration at all
  outrigger run -c outrigger.yaml    # protect it
  outrigger status --watch           # see what happens`,
		// Not cobra's Version with a template of ours: a template can call any
		// method by name, for which the linker keeps every one that there is.
		RunE: func(c *cobra.Command, _ []string) error {
			if version {
				_, err := fmt.Fprintf(c.OutOrStdout(), "outrigger %s\n", buildVersion())
				return err
			}
			return c.Help()
		},
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.Flags().BoolVarP(&version, "version", "v", false, "version for outrigger")
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return usageError{err} })
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(
		newRun(),
		newCheck(),
		newDemo(),
		newStatus(),
		newBreaker(),
		newEndpoint(),
		newSLA(),
		newTask(),
		newReload(),
		newVersion(),
	)
	return root
}

// group makes a verb that only holds others.
func group(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	c := &cobra.Command{
		Use:     use,
		Short:   short,
		Example: example,
		RunE: func(c *cobra.Command, args []string) error {
			var names []string
			for _, v := range c.Commands() {
				names = append(names, v.Name())
			}
			want := strings.Join(names, ", ")
			if len(args) == 0 {
				return usageError{fmt.Errorf("what about the %s? Want one of %s", c.Name(), want)}
			}
			return usageError{fmt.Errorf("%s has no verb %q; want one of %s", c.Name(), args[0], want)}
		},
	}
	c.AddCommand(verbs...)
	return c
}

// exactly refuses any other number of arguments than n; what names them.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		switch {
		case len(args) == n:
			return nil
		case n == 0:
			return usageError{fmt.Errorf("got %q; want no arguments", args)}
		}
		return usageError{fmt.Errorf("got %d arguments; want %s", len(args), what)}
	}
}

// Package stage is what the examples share and what is not their point: the
// agent from source, servers that can be killed, apps of other languages
// installed in a scratch folder, and an end that leaves nothing running.
package stage

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// patience is how long a process of an example gets to end once it was asked.
const patience = 5 * time.Second

// skipped says that an example can't run on this machine.
type skipped string

// Error says what is missing.
func (s skipped) Error() string { return string(s) }

// Main runs an example in the repository's root, with a context that ends at
// Ctrl-C, and ends the process: with 0 if run returns nil, or visibly SKIPPED
// where this machine lacks what the example needs, else with 1.
func Main(name string, run func(context.Context) error) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := enterRoot(ctx)
	if err == nil {
		err = run(ctx)
	}
	interrupted := ctx.Err() != nil
	stop()
	var missing skipped
	switch {
	case err == nil:
		os.Exit(0)
	case interrupted:
		err = errors.New("interrupted")
	case errors.As(err, &missing):
		fmt.Printf("SKIPPED %s: %v\n", name, missing)
		os.Exit(0)
	}
	fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
	os.Exit(1)
}

// enterRoot makes the repository's root the working folder, so that an example
// can be started in any folder of it.
func enterRoot(ctx context.Context) error {
	out, err := exec.CommandContext(ctx, "go", "env", "GOMOD").Output()
	if err != nil {
		return fmt.Errorf("go env GOMOD: %w", err)
	}
	return os.Chdir(filepath.Dir(strings.TrimSpace(string(out))))
}

// command is one that is asked to end when ctx does, and killed if it doesn't.
func command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = patience
	return cmd
}

// finish runs a command to its end. Its error shows the first lines that were printed.
func finish(cmd *exec.Cmd) error {
	out, err := cmd.CombinedOutput()
	if err == nil {
		return nil
	}
	said := strings.Split(strings.TrimSpace(string(out)), "\n")
	return fmt.Errorf("%s: %w %s", strings.Join(cmd.Args, " "), err, strings.Join(said[:min(len(said), 6)], "\n"))
}

// unproxied is this process's environment without proxy variables.
func unproxied() (env []string) {
	for _, pair := range os.Environ() {
		if name, _, _ := strings.Cut(pair, "="); !strings.HasSuffix(strings.ToLower(name), "_proxy") {
			env = append(env, pair)
		}
	}
	return env
}

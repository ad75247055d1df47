package stage

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// Agent is a running agent.
type Agent struct {
	// Egress and API are the addresses where it listens.
	Egress, API string

	dir    string
	binary string
	cmd    *exec.Cmd
	unread chan struct{} // closed when its standard error is at its end
}

// StartAgent builds the agent from source and runs it with the configuration.
// It is ready when StartAgent returns, and ends with Stop or with ctx.
func StartAgent(ctx context.Context, config string) (*Agent, error) {
	dir, err := os.MkdirTemp("", "outrigger-example")
	if err != nil {
		return nil, err
	}
	a := &Agent{dir: dir, binary: filepath.Join(dir, "outrigger")}
	if err := a.start(ctx, config); err != nil {
		_ = os.RemoveAll(dir)
		return nil, err
	}
	return a, nil
}

func (a *Agent) start(ctx context.Context, config string) error {
	if err := finish(command(ctx, "go", "build", "-o", a.binary, "./cmd/agent")); err != nil {
		return err
	}
	return a.Restart(ctx, config)
}

// Kill ends the agent as a crash does: at once, with no chance to say a word.
func (a *Agent) Kill() {
	_ = a.cmd.Process.Kill() // it may be gone already
	<-a.unread
	_ = a.cmd.Wait() // its error is that it was killed
}

// Restart runs an agent again that was killed.
func (a *Agent) Restart(ctx context.Context, config string) error {
	cmd := command(ctx, a.binary, "run", "-c", config, "--log-level", "warn", "--drain-timeout", "1s")
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		rest, ok := strings.CutPrefix(lines.Text(), "outrigger: ready ")
		if !ok {
			fmt.Fprintln(os.Stderr, lines.Text())
			continue
		}
		for _, field := range strings.Fields(rest) {
			switch name, address, _ := strings.Cut(field, "="); name {
			case "egress":
				a.Egress = address
			case "api":
				a.API = address
			}
		}
		unread := make(chan struct{})
		a.cmd, a.unread = cmd, unread
		go func() {
			defer close(unread)
			_, _ = io.Copy(io.Discard, stderr)
		}()
		return nil
	}
	return errors.Join(errors.New("the agent does not start"), cmd.Wait())
}

// Run runs one of the agent's verbs, such as breaker list, against this agent.
func (a *Agent) Run(ctx context.Context, args ...string) error {
	return finish(command(ctx, a.binary, append(args, "--api", a.API)...))
}

// Show does so and prints what the verb prints.
func (a *Agent) Show(ctx context.Context, args ...string) error {
	cmd := command(ctx, a.binary, append(args, "--api", a.API)...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	return cmd.Run()
}

// Stop lets the agent drain and waits for its end.
func (a *Agent) Stop() {
	_ = a.cmd.Process.Signal(os.Interrupt) // it may be gone already
	last := time.AfterFunc(patience, func() { _ = a.cmd.Process.Kill() })
	<-a.unread
	_ = a.cmd.Wait()
	last.Stop()
	_ = os.RemoveAll(a.dir) // a temporary folder: the system clears what is left
}

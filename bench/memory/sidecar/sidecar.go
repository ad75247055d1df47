// Package sidecar runs the agent as a process of its own for a measurement,
// and reads from outside what it uses.
//
//	agent, err := sidecar.Start("bin/outrigger", "egress: {address: \"127.0.0.1:0\"}\n…")
//	…
//	defer agent.Stop()
//	before, err := agent.Usage()
//	… // calls to agent.Egress
//	after, err := agent.Usage()
package sidecar

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Agent is a running agent. Make one with Start.
type Agent struct {
	// Egress, API and Admin are the addresses that it listens on.
	Egress, API, Admin string

	cmd     *exec.Cmd
	dir     string
	config  string        // the file's path
	drained chan struct{} // closed when its log ended
}

// Start runs the agent's binary with a configuration (YAML) and returns when
// it is ready. The agent inherits this process's limit of open files.
func Start(binary, config string) (*Agent, error) {
	dir, err := os.MkdirTemp("", "outrigger-bench")
	if err != nil {
		return nil, err
	}
	a := &Agent{dir: dir, drained: make(chan struct{})}
	a.config = filepath.Join(dir, "outrigger.yaml")
	if err := a.Configure(config); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a.cmd = exec.Command(binary, "run", "-c", a.config)
	stderr, err := a.cmd.StderrPipe()
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	if err := a.cmd.Start(); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	var said strings.Builder
	for lines := bufio.NewScanner(stderr); lines.Scan(); {
		rest, ready := strings.CutPrefix(lines.Text(), "outrigger: ready ")
		if !ready {
			fmt.Fprintln(&said, lines.Text())
			continue
		}
		for _, field := range strings.Fields(rest) {
			switch name, address, _ := strings.Cut(field, "="); name {
			case "egress":
				a.Egress = address
			case "api":
				a.API = address
			case "admin":
				a.Admin = address
			}
		}
		go func() {
			defer close(a.drained)
			_, _ = io.Copy(io.Discard, stderr)
		}()
		return a, nil
	}
	return nil, errors.Join(fmt.Errorf("the agent did not become ready:\n%s", said.String()), a.cmd.Wait(), os.RemoveAll(dir))
}

// Configure puts another configuration into the place of the agent's file, all
// at once. The agent takes it over when it sees that, or is told to reload.
func (a *Agent) Configure(config string) error {
	next := a.config + ".next"
	if err := os.WriteFile(next, []byte(config), 0o600); err != nil {
		return err
	}
	return os.Rename(next, a.config)
}

// Stop kills the agent and waits for its end.
func (a *Agent) Stop() {
	_ = a.cmd.Process.Kill()
	<-a.drained
	_ = a.cmd.Wait()
	_ = os.RemoveAll(a.dir)
}

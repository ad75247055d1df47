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
	// Egress and Admin are the addresses that it listens on.
	Egress, Admin string

	cmd     *exec.Cmd
	dir     string
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
	path := filepath.Join(dir, "outrigger.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	a.cmd = exec.Command(binary, "run", "-c", path)
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

// Stop kills the agent and waits for its end.
func (a *Agent) Stop() {
	_ = a.cmd.Process.Kill()
	<-a.drained
	_ = a.cmd.Wait()
	_ = os.RemoveAll(a.dir)
}

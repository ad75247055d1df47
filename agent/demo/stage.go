package demo

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// startTimeout is how long a process of the demo may take to serve.
const startTimeout = 10 * time.Second

// stage is everything that the demo starts.
type stage struct {
	dir     string
	servers []*server
	agent   *sidecar
}

// newStage starts three servers and the agent. What it started ends with stop.
func newStage(ctx context.Context, d time.Duration) (*stage, error) {
	dir, err := os.MkdirTemp("", "outrigger-demo")
	if err != nil {
		return nil, err
	}
	s := &stage{dir: dir}
	for _, name := range []string{"a", "b", "c"} {
		s.servers = append(s.servers, &server{name: name})
	}
	for _, one := range s.servers {
		if err := one.start(); err != nil {
			s.stop()
			return nil, err
		}
	}
	if s.agent, err = startAgent(ctx, dir, s.config(d)); err != nil {
		s.stop()
		return nil, err
	}
	return s, nil
}

func (s *stage) stop() {
	if s.agent != nil {
		s.agent.stop()
	}
	for _, one := range s.servers {
		_ = one.kill() // it may be dead already
	}
	_ = os.RemoveAll(s.dir) // a temporary folder: the system clears what is left
}

// openFor is how long breakers stay open: 30 s is the reference, but the whole
// demo is shorter.
func openFor(d time.Duration) time.Duration {
	return max((d / 15).Round(100*time.Millisecond), 500*time.Millisecond)
}

// config is the agent's: the reference figures, but for openFor.
func (s *stage) config(d time.Duration) string {
	var endpoints []string
	for _, one := range s.servers {
		endpoints = append(endpoints, fmt.Sprintf("{address: %q}", one.address))
	}
	return fmt.Sprintf(`egress: {address: "127.0.0.1:0"}
api:    {address: "127.0.0.1:0"}
admin:  {address: "127.0.0.1:0"}
services:
  - name: %s
    endpoints: {static: [%s]}
    policy:
      timeout: 3s
      idempotent: true
      retry: {max_attempts: 3, codes: [UNAVAILABLE, INTERNAL]}
      circuit_breaker: {scope: ENDPOINT, consecutive_failures: 5, open_for: %v}
`, serviceName, strings.Join(endpoints, ", "), openFor(d))
}

// nameOf returns the letter of the server at an address.
func (s *stage) nameOf(address string) string {
	for _, one := range s.servers {
		if one.address == address {
			return one.name
		}
	}
	return address
}

// server is one upstream in a process of its own.
type server struct {
	name    string
	address string // fixed by the first start

	mu    sync.Mutex
	cmd   *exec.Cmd
	stdin io.WriteCloser
}

func (s *server) start() error {
	self, err := executable()
	if err != nil {
		return err
	}
	cmd := exec.Command(self, "demo", "--upstream", s.name)
	cmd.Env = append(os.Environ(), envAddress+"="+s.address)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("server %s does not start: %w", s.name, err)
	}
	line, err := bufio.NewReader(stdout).ReadString('\n')
	if err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return fmt.Errorf("server %s does not start: %w", s.name, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.cmd, s.stdin, s.address = cmd, stdin, strings.TrimSpace(line)
	return nil
}

// say changes the server's mood.
func (s *server) say(mood string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := fmt.Fprintln(s.stdin, mood)
	return err
}

// kill is kill -9.
func (s *server) kill() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cmd == nil {
		return nil
	}
	err := s.cmd.Process.Kill()
	_ = s.cmd.Wait() // it says that it was killed
	s.cmd = nil
	return err
}

// sidecar is the agent in a process of its own.
type sidecar struct {
	cmd         *exec.Cmd
	egress, api string
	conn        *grpc.ClientConn
}

func startAgent(ctx context.Context, dir, config string) (*sidecar, error) {
	self, err := executable()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "outrigger.yaml")
	if err := os.WriteFile(path, []byte(config), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self, "run", "-c", path, "--log-level", "error", "--drain-timeout", "1s")
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	ready := &readyLine{found: make(chan string, 1)}
	cmd.Stderr = ready
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("the agent does not start: %w", err)
	}
	a := &sidecar{cmd: cmd}
	select {
	case line := <-ready.found:
		for _, f := range strings.Fields(line) {
			if address, ok := strings.CutPrefix(f, "egress="); ok {
				a.egress = address
			}
			if address, ok := strings.CutPrefix(f, "api="); ok {
				a.api = address
			}
		}
	case <-time.After(startTimeout):
		a.stop()
		return nil, fmt.Errorf("the agent is not ready after %v:\n%s", startTimeout, ready.text())
	}
	if a.conn, err = connect("passthrough:///" + a.api); err != nil {
		a.stop()
		return nil, err
	}
	return a, nil
}

// stop lets the agent drain.
func (a *sidecar) stop() {
	if a.conn != nil {
		a.conn.Close()
	}
	if err := a.cmd.Process.Signal(os.Interrupt); errors.Is(err, os.ErrProcessDone) {
		_ = a.cmd.Wait()
		return
	}
	late := time.AfterFunc(startTimeout, func() { _ = a.cmd.Process.Kill() })
	defer late.Stop()
	_ = a.cmd.Wait()
}

// readyLine takes what the agent prints and finds the line that says where it
// serves.
type readyLine struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	done  bool
	found chan string
}

func (r *readyLine) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.buf.Len() < 64<<10 {
		r.buf.Write(p)
	}
	for _, line := range strings.Split(r.buf.String(), "\n") {
		if !r.done && strings.HasPrefix(line, "outrigger: ready") && strings.Contains(line, "admin=") {
			r.done = true
			r.found <- line
		}
	}
	return len(p), nil
}

func (r *readyLine) text() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.String()
}

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

// authority is what every client calls the service.
const authority = "attack"

// configuration has the agent's defaults everywhere: no policy ends a call
// that an attacker holds up, only the limits do. %q is the server's address.
const configuration = `egress: {address: "127.0.0.1:0"}
api:    {address: "127.0.0.1:0"}
admin:  {address: "127.0.0.1:0"}
services:
  - name: attack
    endpoints: {static: [{address: %q}]}
`

// startTimeout is how long the server and the agent may take to be ready.
const startTimeout = 10 * time.Second

// logLines bounds what is kept of the agent's log: an attack that makes it log
// without end is found by the number of lines, not by their text.
const logLines = 200_000

// agent is the process under attack, with the server behind it.
type agent struct {
	egress, admin string
	upstream      string // the server's address
	cmd, server   *exec.Cmd
	serverStdin   io.Closer
	dir           string
	exited        chan struct{}

	mu  sync.Mutex
	log []string
}

// startAgent runs the server and the agent in front of it.
func startAgent() (a *agent, err error) {
	a = &agent{exited: make(chan struct{})}
	defer func() {
		if err != nil {
			a.stop()
		}
	}()
	if a.upstream, err = a.startServer(); err != nil {
		return nil, fmt.Errorf("the gRPC server: %w", err)
	}
	if a.dir, err = os.MkdirTemp("", "attack"); err != nil {
		return nil, err
	}
	config := filepath.Join(a.dir, "outrigger.yaml")
	if err := os.WriteFile(config, fmt.Appendf(nil, configuration, a.upstream), 0o600); err != nil {
		return nil, err
	}
	cmd := exec.Command(*agentPath, "run", "-c", config)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stderr, err := cmd.StderrPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("%w; `make build` makes it, -agent says where it is", err)
	}
	a.cmd = cmd
	ready := make(chan string, 1)
	go a.follow(stderr, ready)
	select {
	case line := <-ready:
		for _, field := range strings.Fields(line) {
			name, value, _ := strings.Cut(field, "=")
			switch name {
			case "egress":
				a.egress = value
			case "admin":
				a.admin = value
			}
		}
		return a, nil
	case <-a.exited:
		return nil, fmt.Errorf("the agent ended:\n%s", strings.Join(a.lines(), "\n"))
	case <-time.After(startTimeout):
		return nil, fmt.Errorf("the agent is not ready after %v", startTimeout)
	}
}

func (a *agent) startServer() (address string, err error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	cmd := exec.Command(self, "-role", roleServer)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return "", err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := cmd.Start(); err != nil {
		return "", err
	}
	a.server, a.serverStdin = cmd, stdin
	line, err := bufio.NewReader(stdout).ReadString('\n')
	return strings.TrimSpace(line), err
}

// follow keeps the agent's log and sends its ready line. It waits for the
// process's end.
func (a *agent) follow(stderr io.Reader, ready chan<- string) {
	defer close(a.exited)
	lines := bufio.NewScanner(stderr)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "outrigger: ready "); ok {
			ready <- rest
		}
		a.mu.Lock()
		if len(a.log) < logLines {
			a.log = append(a.log, lines.Text())
		}
		a.mu.Unlock()
	}
	_, _ = io.Copy(io.Discard, stderr) // a line longer than the buffer
	_ = a.cmd.Wait()
}

// lines returns what the agent has logged so far.
func (a *agent) lines() []string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]string(nil), a.log...)
}

// alive reports whether the agent still runs.
func (a *agent) alive() bool {
	select {
	case <-a.exited:
		return false
	default:
		return true
	}
}

// stop kills both processes. What the agent does on SIGTERM is not the matter
// here.
func (a *agent) stop() {
	if a.cmd != nil {
		_ = a.cmd.Process.Kill()
		<-a.exited
	}
	if a.server != nil {
		a.serverStdin.Close()
		_ = a.server.Wait()
	}
	if a.dir != "" {
		_ = os.RemoveAll(a.dir)
	}
}

// resident returns the agent's resident memory in KiB.
func (a *agent) resident() (int, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", a.cmd.Process.Pid))
	if err != nil {
		return 0, err
	}
	_, rest, found := strings.Cut(string(text), "VmRSS:")
	fields := strings.Fields(rest)
	if !found || len(fields) == 0 {
		return 0, errors.New("the agent has no VmRSS: it has ended")
	}
	return strconv.Atoi(fields[0])
}

// peakEvery is how often the agent's memory is looked at.
const peakEvery = 10 * time.Millisecond

// peak watches the agent's memory until ctx ends and returns the most that it
// was, in KiB.
func (a *agent) peak(ctx context.Context) int {
	most := 0
	for ctx.Err() == nil {
		if kib, err := a.resident(); err == nil {
			most = max(most, kib)
		}
		time.Sleep(peakEvery)
	}
	return most
}

// metrics reads every series of the admin port's /metrics.
func (a *agent) metrics() (map[string]float64, error) {
	client := http.Client{Timeout: 5 * time.Second}
	answer, err := client.Get("http://" + a.admin + "/metrics")
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	return parseMetrics(answer.Body)
}

// parseMetrics reads the Prometheus text format: series, with their labels as
// they are written, to values.
func parseMetrics(r io.Reader) (map[string]float64, error) {
	series := make(map[string]float64)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		space := strings.LastIndexByte(line, ' ')
		if line == "" || line[0] == '#' || space < 0 {
			continue
		}
		value, err := strconv.ParseFloat(line[space+1:], 64)
		if err != nil {
			return nil, fmt.Errorf("/metrics: %q has no number: %w", line, err)
		}
		series[line[:space]] = value
	}
	return series, lines.Err()
}

package main

import (
	"context"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"
)

func TestEveryVerbExplainsItself(t *testing.T) {
	var check func(c *cobra.Command)
	check = func(c *cobra.Command) {
		if c.Hidden || c.Name() == "help" || c.Name() == "completion" {
			return
		}
		t.Run(c.CommandPath(), func(t *testing.T) {
			if c.Short == "" || !strings.Contains(c.Example, "outrigger") {
				t.Errorf("short %q, example %q", c.Short, c.Example)
			}
			path := strings.Fields(c.CommandPath())[1:]
			got := outrigger(append(path, "--help")...)
			if got.code != exitOK || !strings.Contains(got.stdout, "Examples:") || got.stderr != "" {
				t.Errorf("%+v", got)
			}
		})
		for _, sub := range c.Commands() {
			check(sub)
		}
	}
	check(newRoot())
}

func TestWrongUsageEndsWith2(t *testing.T) {
	t.Setenv(apiVariable, "")
	for _, c := range []struct{ args, says string }{
		{"bogus", `unknown command "bogus"`},
		{"--bogus", "unknown flag: --bogus"},
		{"breaker", "want one of close, list, open, reset"},
		{"breaker bogus", `breaker has no verb "bogus"`},
		{"breaker open", "got 0 arguments; want the NAME of one breaker"},
		{"breaker open a b", "got 2 arguments"},
		{"breaker list x", "want no arguments"},
		{"breaker list --bogus", "unknown flag: --bogus"},
		{"endpoint drain", "want the ADDR of one endpoint"},
		{"status -o xml", "want table or json"},
		{"status --interval 1ms", "want 100ms to 1h"},
		{"status --api nowhere", "want host:port or unix:PATH"},
		{"sla report --window 7m", "want 10s, 1m, 5m or 1h"},
		{"check", "which file? Name it by -c FILE"},
		{"run --log-level loud", "want debug, info, warn or error"},
		{"run --log-format xml", "want text or json"},
		{"run --drain-timeout 0s", "want more than 0"},
		{"run extra", "want no arguments"},
	} {
		t.Run(c.args, func(t *testing.T) {
			got := outrigger(strings.Fields(c.args)...)
			if got.code != exitUsage || !strings.Contains(strings.ToLower(got.stderr), strings.ToLower(c.says)) || got.stdout != "" {
				t.Errorf("%+v; want 2 and %q", got, c.says)
			}
			if !strings.HasPrefix(got.stderr, "outrigger: ") || !strings.Contains(got.stderr, "--help` shows how") {
				t.Errorf("%q", got.stderr)
			}
		})
	}
}

func TestNoAgentAnswers(t *testing.T) {
	// Given an address at which nobody listens,
	t.Setenv(apiVariable, "127.0.0.1:1")
	for _, args := range []string{"status", "status --watch", "breaker list", "breaker open x", "endpoint drain x", "sla report", "reload"} {
		// when a verb needs an agent, then it says so, and what to do.
		got := outrigger(strings.Fields(args)...)
		if got.code != exitFailed || got.stdout != "" {
			t.Errorf("%s: %+v", args, got)
		}
		for _, says := range []string{"no agent answers at 127.0.0.1:1: is `outrigger run` up?", "--api ADDR or OUTRIGGER_API", "connection refused"} {
			if !strings.Contains(got.stderr, says) {
				t.Errorf("%s: %q does not say %q", args, got.stderr, says)
			}
		}
	}
}

func TestSomethingElseAnswers(t *testing.T) {
	// Given a web server where the API should be, such as the agent's own admin
	// port,
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	// when a verb asks it, then the answer is no riddle.
	got := outrigger("status", "--api", web.Listener.Addr().String())
	if got.code != exitFailed || !strings.Contains(got.stderr, "is no agent's API: it does not speak HTTP/2") {
		t.Errorf("%+v", got)
	}
	// Given a gRPC server without the API, as the agent's egress may lead to,
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	other := grpc.NewServer()
	defer other.Stop()
	go other.Serve(listener)
	if got := outrigger("status", "--api", listener.Addr().String()); got.code != exitFailed || !strings.Contains(got.stderr, "is no agent, or one of another version") {
		t.Errorf("%+v", got)
	}
}

func TestTheAPICanBeAUnixSocket(t *testing.T) {
	s := newStage(t)
	path := filepath.Join(t.TempDir(), "api.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.server.Serve(listener) }()
	if got := outrigger("endpoint", "drain", "127.0.0.1:50051", "--api", "unix:"+path); got.code != exitOK || !strings.Contains(got.stdout, "DRAINING") {
		t.Errorf("%+v", got)
	}
	s.server.Shutdown(context.Background())
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestTheFlagGoesBeforeTheEnvironment(t *testing.T) {
	s := newStage(t)
	t.Setenv(apiVariable, "127.0.0.1:1")
	if got := outrigger("status", "--api", s.address); got.code != exitOK {
		t.Errorf("%+v", got)
	}
}

func TestVersion(t *testing.T) {
	defer func(v string) { version = v }(version)
	version = "v1.2.3"
	if got := outrigger("version"); got.code != exitOK || !strings.HasPrefix(got.stdout, "outrigger v1.2.3 (go1.") {
		t.Errorf("%+v", got)
	}
	if got := outrigger("version", "-o", "json"); got.code != exitOK || !strings.Contains(got.stdout, `"version": "v1.2.3"`) {
		t.Errorf("%+v", got)
	}
	if got := outrigger("--version"); got.stdout != "outrigger v1.2.3\n" {
		t.Errorf("%+v", got)
	}
}

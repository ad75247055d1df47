package main

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "o.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

const fine = `
egress: {address: "127.0.0.1:0"}
api: {address: "127.0.0.1:0"}
admin: {address: "127.0.0.1:0"}
services:
  - {name: greeter, endpoints: {static: [{address: "127.0.0.1:50051"}]}}
`

func TestCheck(t *testing.T) {
	path := write(t, fine)
	if got := outrigger("check", "-c", path); got.code != exitOK || !strings.HasPrefix(got.stdout, path+": ok: ") || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("%+v", got)
	}
	if got := outrigger("check", "-c", path, "-o", "json"); got.code != exitOK || !strings.Contains(got.stdout, `"ok": true`) || !strings.Contains(got.stdout, `"issues": []`) {
		t.Errorf("%+v", got)
	}
	// Given a file with two mistakes, then each has a line of its own,
	path = write(t, "egress: {address: 1.2.3.4}\nadmin: {address: nowhere}\n")
	got := outrigger("check", "-c", path)
	lines := strings.Split(strings.TrimSpace(got.stderr), "\n")
	if got.code != exitFailed || got.stdout != "" || len(lines) != 2 {
		t.Fatalf("%+v", got)
	}
	for i, prefix := range []string{path + ":1:", path + ":2:"} {
		if !strings.HasPrefix(lines[i], prefix) {
			t.Errorf("%q does not begin with %q", lines[i], prefix)
		}
	}
	// and run prints the same, and does not start.
	if ran := outrigger("run", "-c", path); ran.code != exitFailed || ran.stderr != got.stderr+"outrigger: not started\n" {
		t.Errorf("%+v", ran)
	}
	if got := outrigger("check", "-c", path, "-o", "json"); got.code != exitFailed || !strings.Contains(got.stdout, `"ok": false`) || got.stderr != "" {
		t.Errorf("%+v", got)
	}
	if got := outrigger("check", "-c", filepath.Join(t.TempDir(), "nowhere.yaml")); got.code != exitFailed || !strings.Contains(got.stderr, "no such file") {
		t.Errorf("%+v", got)
	}
}

func TestRunServesUntilItIsAskedToEnd(t *testing.T) {
	// Given an agent that runs,
	path := write(t, fine)
	out := newRecord()
	ctx, cancel := context.WithCancel(context.Background())
	code := make(chan int, 1)
	go func() { code <- execute(ctx, []string{"run", "-c", path}, out, out) }()
	ready := regexp.MustCompile(`(?m)^outrigger: ready egress=127\.0\.0\.1:\d+ api=(127\.0\.0\.1:\d+) admin=127\.0\.0\.1:\d+$`)
	text := out.await(t, ready.MatchString)
	// when it is asked what it does, then it answers,
	t.Setenv(apiVariable, ready.FindStringSubmatch(text)[1])
	if got := outrigger("status"); got.code != exitOK || !strings.Contains(got.stdout, "greeter") || !strings.Contains(got.stdout, "127.0.0.1:50051") {
		t.Errorf("%+v", got)
	}
	if got := outrigger("reload"); got.code != exitOK || got.stdout != "reloaded "+path+" (generation 2)\n" {
		t.Errorf("%+v", got)
	}
	// when it is told to by SIGHUP, then it reloads,
	if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	out.await(t, func(text string) bool { return strings.Contains(text, "generation=3") })
	// and when it is asked to end, then it ends well.
	cancel()
	if got := <-code; got != exitOK {
		t.Errorf("ended with %d: %s", got, out)
	}
}

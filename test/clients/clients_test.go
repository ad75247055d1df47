package clients

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cases is how many lines each client prints.
const cases = 11

// startAgent runs the agent with a service for the server, and DIAL for
// everything else, and returns its egress address and its access log.
func startAgent(t *testing.T, server string) (egress string) {
	t.Helper()
	dir := t.TempDir()
	binary, path := filepath.Join(dir, "outrigger"), filepath.Join(dir, "outrigger.yaml")
	build := exec.Command("go", "build", "-o", binary, "./cmd/agent")
	build.Dir = "../.."
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	text := fmt.Sprintf("egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\nunmatched: {mode: DIAL}\n"+
		"services:\n  - name: echo\n    endpoints: {static: [{address: %q}]}\n", server)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(binary, "run", "-c", path)
	stderr, err := agent.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = agent.Process.Kill()
		_ = agent.Wait()
	})
	lines := bufio.NewScanner(stderr)
	for lines.Scan() {
		if _, rest, ok := strings.Cut(lines.Text(), "ready egress="); ok {
			go io.Copy(io.Discard, stderr)
			return strings.Fields(rest)[0]
		}
	}
	t.Fatal("the agent is not ready")
	return ""
}

// prepare runs a command that installs a client, or skips the test.
func prepare(t *testing.T, dir, name string, args ...string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		if len(out) > 400 {
			out = out[len(out)-400:]
		}
		t.Skipf("SKIPPED: %s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
}

// cache is a folder that outlives the test and that git ignores.
func cache(t *testing.T, name string) string {
	t.Helper()
	path, err := filepath.Abs(filepath.Join("../../.cache/clients", name))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(path, 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// both runs a client to the agent's own address, and to the server's address
// with grpc_proxy alone.
func both(t *testing.T, command func(args ...string) *exec.Cmd) {
	server := startServer(t)
	egress := startAgent(t, server)
	for about, run := range map[string]*exec.Cmd{
		"to the agent":  command(egress, "echo"),
		"by grpc_proxy": command(server),
	} {
		t.Run(about, func(t *testing.T) {
			if run.Env == nil {
				run.Env = os.Environ()
			}
			if about == "by grpc_proxy" {
				run.Env = append(run.Env, "grpc_proxy=http://"+egress, "no_grpc_proxy=", "no_proxy=")
			}
			out, err := run.CombinedOutput()
			if n := strings.Count(string(out), "ok "); err != nil || n != cases {
				t.Fatalf("%d of %d cases passed, %v\n%s", n, cases, err, out)
			}
			t.Logf("%d of %d cases passed", cases, cases)
		})
	}
}

func TestGRPCJS(t *testing.T) {
	if _, err := exec.LookPath("npm"); err != nil {
		t.Skip("SKIPPED: no npm on this machine (Debian: nodejs npm)")
	}
	dir := cache(t, "node")
	for _, name := range []string{"package.json", "client.js"} {
		text, err := os.ReadFile(filepath.Join("node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	prepare(t, dir, "npm", "install", "--no-audit", "--no-fund", "--no-package-lock")
	both(t, func(args ...string) *exec.Cmd {
		return exec.Command("node", append([]string{filepath.Join(dir, "client.js")}, args...)...)
	})
}

func TestGRPCIO(t *testing.T) {
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("SKIPPED: no python3 on this machine (Debian: python3 python3-venv)")
	}
	dir := cache(t, "python")
	prepare(t, ".", "python3", "-m", "venv", dir)
	prepare(t, ".", filepath.Join(dir, "bin/pip"), "install", "--quiet", "--disable-pip-version-check", "-r", "python/requirements.txt")
	both(t, func(args ...string) *exec.Cmd {
		return exec.Command(filepath.Join(dir, "bin/python"), append([]string{"python/client.py"}, args...)...)
	})
}

func TestCurlByHTTPProxy(t *testing.T) {
	if _, err := exec.LookPath("curl"); err != nil {
		t.Skip("SKIPPED: no curl on this machine (Debian: curl)")
	}
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "hello ", r.Host) }))
	defer web.Close()
	egress := startAgent(t, web.Listener.Addr().String())
	for target, want := range map[string]string{web.URL + "/": "hello " + web.Listener.Addr().String(), "http://echo/": "hello echo"} {
		cmd := exec.Command("curl", "-sS", "--max-time", "10", "-H", "outrigger-explain: true", "-i", target)
		cmd.Env = append(os.Environ(), "http_proxy=http://"+egress, "no_proxy=")

		out, err := cmd.CombinedOutput()

		if text := strings.ToLower(string(out)); err != nil || !strings.HasSuffix(text, want) || !strings.Contains(text, "outrigger-endpoint: ") {
			t.Errorf("%s: %v\n%s", target, err, out)
		}
	}
}

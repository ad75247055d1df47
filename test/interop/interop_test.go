package interop

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// cases are all of grpc-go's interop cases that need no TLS and no special
// server: credentials, pick_first_unary and out-of-band ORCA, of which the agent
// knows nothing, are left out.
var cases = []string{
	"empty_unary", "large_unary", "client_streaming", "server_streaming", "ping_pong", "empty_stream", "timeout_on_sleeping_server",
	"cancel_after_begin", "cancel_after_first_response", "status_code_and_message", "special_status_message", "custom_metadata",
	"unimplemented_method", "unimplemented_service", "orca_per_rpc",
}

// backendMetrics is a service configuration with the balancer of grpc-go's that
// ORCA's cases look for reports with.
const backendMetrics = `{"loadBalancingConfig":[{"test_backend_metrics_load_balancer":{}}]}`

func build(t *testing.T, dir, output, pkg string, env ...string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), output)
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

func start(t *testing.T, cmd *exec.Cmd) {
	t.Helper()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

// startAgent runs the agent on free ports with the services, and returns where
// its egress and its API are.
func startAgent(t *testing.T, agent, services string) (egress, api string) {
	t.Helper()
	config := filepath.Join(t.TempDir(), "outrigger.yaml")
	text := "egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n" + services
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := exec.Command(agent, "run", "-c", config)
	stderr, err := run.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	start(t, run)
	lines := bufio.NewScanner(stderr)
	var said []string
	for lines.Scan() {
		said = append(said, lines.Text())
		if !strings.HasPrefix(lines.Text(), "outrigger: ready") {
			continue
		}
		for _, f := range strings.Fields(lines.Text()) {
			if a, ok := strings.CutPrefix(f, "egress="); ok {
				egress = a
			}
			if a, ok := strings.CutPrefix(f, "api="); ok {
				api = a
			}
		}
		break
	}
	if egress == "" || api == "" {
		t.Fatalf("the agent is not ready: %q", said)
	}
	go io.Copy(io.Discard, stderr)
	return egress, api
}

func TestGRPCGoInteropThroughTheAgent(t *testing.T) {
	client := build(t, ".", "client", "google.golang.org/grpc/interop/client")
	server := build(t, ".", "server", "google.golang.org/grpc/interop/server")
	agent := build(t, "../..", "outrigger", "./cmd/agent")
	port := freePort(t)
	start(t, exec.Command(server, "-port", port))
	for range 100 {
		if c, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
			c.Close()
			break
		}
		time.Sleep(50 * time.Millisecond)
	}
	egress, _ := startAgent(t, agent, fmt.Sprintf("services:\n  - name: interop\n    match: {methods: [/grpc.testing.]}\n    endpoints: {static: [{address: \"127.0.0.1:%s\"}]}\n", port))
	_, egressPort, err := net.SplitHostPort(egress)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range cases {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
			defer cancel()
			args := []string{"-server_host", "127.0.0.1", "-server_port", egressPort, "-test_case", name}
			if strings.HasPrefix(name, "orca") {
				args = append(args, "-service_config_json", backendMetrics)
			}
			out, err := exec.CommandContext(ctx, client, args...).CombinedOutput()
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
		})
	}
}

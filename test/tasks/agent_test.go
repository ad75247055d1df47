//go:build linux

package tasks

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/task"
)

// thorough asks for everything; without it each test does as much as shows that
// it works.
var thorough = os.Getenv("OUTRIGGER_TEST_TASKS") == "all"

// some returns all where everything is asked for, and few elsewhere.
func some[T any](few, all T) T {
	if thorough {
		return all
	}
	return few
}

// binary builds the agent once for all tests, and returns its path.
var binary = sync.OnceValues(func() (string, error) {
	if path := os.Getenv("OUTRIGGER_BINARY"); path != "" {
		return filepath.Abs(path)
	}
	dir, err := os.MkdirTemp("", "outrigger-test")
	if err != nil {
		return "", err
	}
	buildDir = dir
	path := filepath.Join(dir, "outrigger")
	if out, err := exec.Command("go", append(append([]string{"build"}, buildFlags...), "-o", path, "../../cmd/agent")...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, out)
	}
	return path, nil
})

var buildDir string

func TestMain(m *testing.M) {
	if path := os.Getenv(envLock); path != "" {
		if err := lockDatabase(path, os.Stdin, os.Stdout); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	code := m.Run()
	if buildDir != "" {
		os.RemoveAll(buildDir)
	}
	os.Exit(code)
}

// agent is the agent's process, which can be killed and started again where it
// was. Its listeners are sockets in its folder: no other process takes them
// meanwhile.
type agent struct {
	t      *testing.T
	name   string
	dir    string
	cmd    *exec.Cmd
	exited chan struct{}
	log    *os.File
	starts int
	admin  http.Client
}

// configure writes an agent's configuration. tasks is the tasks block, w where its
// calls go.
func configure(t *testing.T, name string, w *world, tasks string) *agent {
	t.Helper()
	dir, err := os.MkdirTemp("", "agent") // t.TempDir's are too long for sockets
	if err != nil {
		t.Fatal(err)
	}
	a := &agent{t: t, name: name, dir: dir}
	a.admin = http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", filepath.Join(dir, "admin.sock"))
	}}}
	text := fmt.Sprintf(`egress: {address: "unix:%[1]s/egress.sock"}
api: {address: "unix:%[1]s/api.sock"}
admin: {address: "unix:%[1]s/admin.sock"}
services:
  - name: calls
    endpoints: {static: [{address: %[2]q}]}
  - name: hooks
    match: {authorities: [%[3]q]}
    endpoints: {static: [{address: %[3]q}]}
tasks:
%[4]s
`, dir, w.calls, w.hooks, indent(tasks))
	if err := os.WriteFile(filepath.Join(dir, "outrigger.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if a.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if a.cmd != nil {
			a.kill()
		}
		a.log.Close()
		text, _ := os.ReadFile(a.log.Name())
		if at := bytes.Index(text, []byte("DATA RACE")); at >= 0 {
			t.Errorf("%s had a race:\n%s", name, text[at:min(at+4000, len(text))])
		}
		if at := bytes.Index(text, []byte("panic: ")); at >= 0 {
			t.Errorf("%s panicked:\n%s", name, text[at:min(at+4000, len(text))])
		}
		if t.Failed() {
			t.Logf("the last words of %s:\n%s", name, text[max(0, len(text)-4000):])
		}
		os.RemoveAll(dir)
	})
	return a
}

func indent(text string) string {
	return "  " + strings.ReplaceAll(strings.TrimSpace(text), "\n", "\n  ")
}

// spawn starts the process and does not wait for it.
func (a *agent) spawn() {
	a.t.Helper()
	path, err := binary()
	if err != nil {
		a.t.Fatal(err)
	}
	a.cmd = exec.Command(path, "run", "-c", filepath.Join(a.dir, "outrigger.yaml"))
	a.cmd.Dir, a.cmd.Stderr = a.dir, a.log
	a.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := a.cmd.Start(); err != nil {
		a.t.Fatal(err)
	}
	a.starts++
	exited := make(chan struct{})
	a.exited = exited
	go func(cmd *exec.Cmd) {
		_ = cmd.Wait()
		close(exited)
	}(a.cmd)
}

// start starts the process and waits until it serves calls and takes tasks.
func (a *agent) start() {
	a.t.Helper()
	a.spawn()
	a.ready()
	client := a.dial()
	within(a.t, 30*time.Second, a.name+" has opened its store", func() error {
		ctx, cancel := context.WithTimeout(a.t.Context(), 10*time.Second)
		defer cancel()
		_, err := client.API().ListQueues(ctx, &outriggerv1.ListQueuesRequest{})
		return err
	})
}

// ready waits until the agent serves calls.
func (a *agent) ready() {
	a.t.Helper()
	within(a.t, 30*time.Second, a.name+" is ready", func() error {
		select {
		case <-a.exited:
			text, _ := os.ReadFile(a.log.Name())
			a.t.Fatalf("%s ended:\n%s", a.name, text[max(0, len(text)-4000):])
		default:
		}
		_, code, err := a.get("/readyz")
		if err == nil && code != http.StatusOK {
			err = fmt.Errorf("/readyz answers %d", code)
		}
		return err
	})
}

// kill ends the process at once: no signal handler, no flush, no farewell.
func (a *agent) kill() {
	a.signal(syscall.SIGKILL)
	<-a.exited
	a.cmd = nil
}

func (a *agent) signal(s os.Signal) {
	a.t.Helper()
	if err := a.cmd.Process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
		a.t.Fatal(err)
	}
}

// get reads a page of the admin port.
func (a *agent) get(path string) (text string, code int, err error) {
	response, err := a.admin.Get("http://agent" + path)
	if err != nil {
		return "", 0, err
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	return string(body), response.StatusCode, err
}

// cli runs a verb of the command line against the agent and returns all that it
// printed.
func (a *agent) cli(args ...string) string {
	a.t.Helper()
	path, err := binary()
	if err != nil {
		a.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(a.t.Context(), 30*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, path, append(args, "--api", "unix:"+filepath.Join(a.dir, "api.sock"))...)
	out, _ := cmd.CombinedOutput()
	return string(out)
}

// dial returns a client of the agent's API, which survives its restarts.
func (a *agent) dial() *task.Client {
	a.t.Helper()
	conn, err := grpc.NewClient("unix:"+filepath.Join(a.dir, "api.sock"), grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithNoProxy(),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { conn.Close() })
	return task.New(conn)
}

// tail is the end of what it logged.
func (a *agent) tail() string {
	text, _ := os.ReadFile(a.log.Name())
	lines := bytes.Split(bytes.TrimSpace(text), []byte("\n"))
	return string(bytes.Join(lines[max(0, len(lines)-20):], []byte("\n")))
}

// within asks until nothing is wrong, for as long as d.
func within(t *testing.T, d time.Duration, what string, ask func() error) time.Duration {
	t.Helper()
	began := time.Now()
	for {
		err := ask()
		if err == nil {
			return time.Since(began)
		}
		if time.Since(began) > d {
			t.Fatalf("not within %v: %s: %v", d, what, err)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

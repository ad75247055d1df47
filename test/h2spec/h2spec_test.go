package h2spec

import (
	"bufio"
	"encoding/xml"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// report is h2spec's own, in JUnit's form.
type report struct {
	Suites []struct {
		Package string `xml:"package,attr"`
		ID      string `xml:"id,attr"`
		Name    string `xml:"name,attr"`
		Cases   []struct {
			Name    string `xml:"package,attr"`
			Class   string `xml:"classname,attr"`
			Failure *struct {
				Text string `xml:",innerxml"`
			} `xml:"failure"`
			Error *struct {
				Text string `xml:",innerxml"`
			} `xml:"error"`
			Skipped *struct{} `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

func build(t *testing.T, dir, pkg string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), filepath.Base(pkg))
	cmd := exec.Command("go", "build", "-o", path, pkg)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return path
}

// startUpstream serves plain HTTP/2 with a body, which some cases want.
func startUpstream(t *testing.T) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	server := &http.Server{Protocols: &protocols, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "an answer with a body")
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// startAgent runs the agent in front of the upstream and returns its egress
// port.
func startAgent(t *testing.T, upstream string) (port string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "outrigger.yaml")
	text := fmt.Sprintf("egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n"+
		"services:\n  - name: web\n    match: {methods: [/]}\n    endpoints: {static: [{address: %q}]}\n", upstream)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	agent := exec.Command(build(t, "../..", "./cmd/agent"), "run", "-c", path)
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
			_, port, _ = net.SplitHostPort(strings.Fields(rest)[0])
			return port
		}
	}
	t.Fatal("the agent is not ready")
	return ""
}

func TestH2spec(t *testing.T) {
	h2spec := build(t, ".", "github.com/summerwind/h2spec/cmd/h2spec")
	port := startAgent(t, startUpstream(t))
	junit := filepath.Join(t.TempDir(), "report.xml")

	out, runErr := exec.Command(h2spec, "-h", "127.0.0.1", "-p", port, "-P", "/", "-o", "5", "-j", junit).CombinedOutput()

	text, err := os.ReadFile(junit)
	if err != nil {
		t.Fatalf("%v\n%s", runErr, out)
	}
	var r report
	if err := xml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	passed, failed := 0, 0
	for _, suite := range r.Suites {
		for _, c := range suite.Cases {
			switch {
			case c.Failure != nil, c.Error != nil, c.Skipped != nil:
				failed++
				t.Errorf("%s %s: %s", suite.ID, c.Class, c.Name)
			default:
				passed++
			}
		}
	}
	t.Logf("h2spec: %d passed, %d failed or skipped, 0 excluded", passed, failed)
	if passed < 145 || runErr != nil {
		t.Errorf("want 145 cases and no failure: %v\n%s", runErr, out)
	}
}

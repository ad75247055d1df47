package admin

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// start serves o on loopback and returns the base URL.
func start(t *testing.T, o Options) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(o)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		http.DefaultClient.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Errorf("Shutdown: %v", err)
		}
		if err := <-done; err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url string) (status int, body string) {
	t.Helper()
	response, err := http.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(b)
}

func TestReadyz(t *testing.T) {
	serving := Part{Name: "egress", Detail: "127.0.0.1:7600"}
	reload := Part{Name: "configuration", State: Warning, Detail: "the last reload failed\na.yaml:1:2: unknown key"}
	starting := Part{Name: "egress", State: Down, Detail: "not listening yet"}
	for _, test := range []struct {
		name, query string
		parts       []Part
		status      int
		want        string
	}{
		{"nothing to wait for", "", nil, 200, "ready\n"},
		{"serving", "", []Part{serving}, 200, "ready\n"},
		{"a failed reload keeps the agent ready", "", []Part{serving, reload}, 200, "ready\n"},
		{"verbose names every part", "?verbose", []Part{serving, reload}, 200,
			"[+] egress: 127.0.0.1:7600\n[!] configuration: the last reload failed; a.yaml:1:2: unknown key\nready\n"},
		{"down", "", []Part{starting, reload}, 503, "not ready: egress\n"},
		{"down, verbose", "?verbose", []Part{starting}, 503, "[-] egress: not listening yet\nnot ready: egress\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			url := start(t, Options{Parts: func() []Part { return test.parts }})
			status, body := get(t, url+"/readyz"+test.query)
			if status != test.status || body != test.want {
				t.Errorf("got %d %q, want %d %q", status, body, test.status, test.want)
			}
		})
	}
}

func TestHealthzIsAliveWhileNotReady(t *testing.T) {
	url := start(t, Options{Parts: func() []Part { return []Part{{Name: "egress", State: Down}} }})
	if status, body := get(t, url+"/healthz"); status != 200 || body != "alive\n" {
		t.Errorf("got %d %q", status, body)
	}
}

func TestMetricsFollowTheHandlerOfTheMoment(t *testing.T) {
	var handler http.Handler
	url := start(t, Options{Metrics: func() http.Handler { return handler }})

	if status, body := get(t, url+"/metrics"); status != 404 || !strings.Contains(body, "telemetry.prometheus") {
		t.Errorf("off: got %d %q", status, body)
	}
	handler = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "a 1\n") })
	if status, body := get(t, url+"/metrics"); status != 200 || body != "a 1\n" {
		t.Errorf("on: got %d %q", status, body)
	}
}

func TestIndexListsWhatThereIs(t *testing.T) {
	url := start(t, Options{})
	status, body := get(t, url+"/")
	if status != 200 {
		t.Fatalf("got %d", status)
	}
	for _, path := range []string{"/healthz", "/readyz", "/metrics", "/debug/pprof/"} {
		if !strings.Contains(body, path) {
			t.Errorf("%s is missing in %q", path, body)
		}
	}
	if status, _ := get(t, url+"/nothing-here"); status != 404 {
		t.Errorf("an unknown path: got %d, want 404", status)
	}
}

func TestProfiles(t *testing.T) {
	url := start(t, Options{})
	for _, path := range []string{"/debug/pprof/", "/debug/pprof/heap?debug=1", "/debug/pprof/goroutine?debug=1", "/debug/pprof/cmdline"} {
		if status, body := get(t, url+path); status != 200 || body == "" {
			t.Errorf("%s: got %d, %d bytes", path, status, len(body))
		}
	}
}

func TestOnlyReads(t *testing.T) {
	url := start(t, Options{})
	for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"} {
		request, err := http.NewRequest(method, url+"/healthz", strings.NewReader(""))
		if err != nil {
			t.Fatal(err)
		}
		response, err := http.DefaultClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		response.Body.Close()
		if response.StatusCode != 405 || response.Header.Get("Allow") != "GET, HEAD" {
			t.Errorf("%s: got %d, Allow %q", method, response.StatusCode, response.Header.Get("Allow"))
		}
	}
	response, err := http.Head(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != 200 {
		t.Errorf("HEAD: got %d", response.StatusCode)
	}
}

func TestHugeHeaderIsRefused(t *testing.T) {
	url := start(t, Options{})
	request, err := http.NewRequest("GET", url+"/healthz", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("X-Padding", strings.Repeat("x", 2*maxHeaderBytes))
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	response.Body.Close()
	if response.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
		t.Errorf("got %d, want 431", response.StatusCode)
	}
}

func TestShutdownCutsRequestsThatOutliveIt(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	entered := make(chan struct{})
	s := New(Options{Metrics: func() http.Handler {
		return http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			close(entered)
			<-r.Context().Done()
		})
	}})
	served := make(chan error, 1)
	go func() { served <- s.Serve(l) }()
	answered := make(chan struct{})
	go func() {
		defer close(answered)
		if response, err := http.Get("http://" + l.Addr().String() + "/metrics"); err == nil {
			response.Body.Close()
		}
	}()
	<-entered

	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("Shutdown: %v", err)
	}
	<-answered
	if err := <-served; err != nil {
		t.Errorf("Serve: %v", err)
	}
}

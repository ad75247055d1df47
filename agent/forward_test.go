package agent

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// webServer answers with what it was asked, and with the status in ?status=.
func webServer(t *testing.T) (*httptest.Server, *atomic.Int64) {
	t.Helper()
	var calls atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if d, err := time.ParseDuration(r.URL.Query().Get("sleep")); err == nil {
			select {
			case <-time.After(d):
			case <-r.Context().Done():
			}
		}
		body, _ := io.ReadAll(r.Body)
		code := 200
		_, _ = fmt.Sscan(r.URL.Query().Get("status"), &code)
		w.Header().Set("X-Metadata", r.Header.Get("Outrigger-Service")+r.Header.Get("Outrigger-Explain"))
		w.WriteHeader(code)
		fmt.Fprintf(w, "%s %s %s %s", r.Method, r.Host, r.URL.Path, body)
	}))
	t.Cleanup(s.Close)
	return s, &calls
}

func webConfig(policy string, addresses ...string) string {
	var endpoints []string
	for _, a := range addresses {
		endpoints = append(endpoints, fmt.Sprintf("{address: %q}", a))
	}
	return fmt.Sprintf("%sservices:\n  - name: web\n    endpoints: {static: [%s]}\n    policy: {%s}\n", ports, strings.Join(endpoints, ", "), policy)
}

// browser is an HTTP client that has the agent as its http_proxy.
func (r *running) browser() *http.Client {
	proxy := &url.URL{Scheme: "http", Host: r.Addresses().Egress}
	transport := &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
	r.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}
}

func read(t *testing.T, res *http.Response, err error) (int, string) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res.StatusCode, string(body)
}

// problem is what a refusal says.
type problem struct {
	Status                     int
	Reason, Detail, Service    string
	Retry                      int `json:"retry_after_ms"`
	Type, Title, Endpoint      string
	Policy, Domain, Unexpected string
}

func problemOf(t *testing.T, res *http.Response, err error) problem {
	t.Helper()
	code, body := read(t, res, err)
	var p problem
	if err := json.Unmarshal([]byte(body), &p); err != nil {
		t.Fatalf("%d %q: %v", code, body, err)
	}
	if res.Header.Get("Content-Type") != "application/problem+json" || p.Status != code || p.Domain != "outrigger" || res.Header.Get("Outrigger-Reason") != p.Reason {
		t.Errorf("got %d %v %s", code, res.Header, body)
	}
	return p
}

func TestHTTP1InOriginFormIsRoutedByHost(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig("", web.Listener.Addr().String()))
	req, _ := http.NewRequest("POST", "http://"+a.Addresses().Egress+"/orders", strings.NewReader("two"))
	req.Host = "web"
	req.Header.Set("Outrigger-Explain", "true")
	defer http.DefaultClient.CloseIdleConnections()

	res, err := http.DefaultClient.Do(req)

	if code, body := read(t, res, err); code != 200 || body != "POST web /orders two" {
		t.Errorf("got %d %q", code, body)
	}
	if res.Header.Get("Outrigger-Endpoint") != web.Listener.Addr().String() || res.Header.Get("Outrigger-Attempts") != "1" || res.Header.Get("X-Metadata") != "" {
		t.Errorf("got %v", res.Header)
	}
}

func TestHTTPProxyInAbsoluteForm(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig("", web.Listener.Addr().String()))

	res, err := a.browser().Get("http://web/a")

	if code, body := read(t, res, err); code != 200 || body != "GET web /a " {
		t.Errorf("got %d %q", code, body)
	}
}

func TestAnHTTPServiceThatFailsOpensItsBreaker(t *testing.T) {
	web, calls := webServer(t)
	a := startAgent(t, webConfig("circuit_breaker: {consecutive_failures: 5, open_for: 30s}", web.Listener.Addr().String()))
	browser := a.browser()
	for range 5 {
		res, err := browser.Get("http://web/?status=500")
		if code, _ := read(t, res, err); code != 500 {
			t.Fatalf("got %d", code)
		}
	}

	res, err := browser.Get("http://web/")
	p := problemOf(t, res, err)

	if p.Status != 503 || p.Reason != "BREAKER_OPEN" || p.Service != "web" || p.Policy != "circuit_breaker" || p.Retry == 0 || res.Header.Get("Retry-After") == "" {
		t.Errorf("got %+v %v", p, res.Header)
	}
	if n := calls.Load(); n != 5 {
		t.Errorf("%d calls arrived", n)
	}
}

func TestHTTPPushbackOpensNoBreaker(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig("circuit_breaker: {consecutive_failures: 2}", web.Listener.Addr().String()))
	browser := a.browser()
	for range 6 {
		res, err := browser.Get("http://web/?status=429")
		if code, _ := read(t, res, err); code != 429 {
			t.Fatalf("got %d", code)
		}
	}
}

func TestWhatAFailureIsCanBeConfigured(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig(`circuit_breaker: {consecutive_failures: 2, open_for: 30s}, http: {failure_statuses: ["201-599"]}`, web.Listener.Addr().String()))
	browser := a.browser()
	for range 2 {
		res, err := browser.Get("http://web/?status=404")
		read(t, res, err)
	}

	res, err := browser.Get("http://web/")

	if p := problemOf(t, res, err); p.Reason != "BREAKER_OPEN" {
		t.Errorf("got %+v", p)
	}
}

func TestAnHTTPCallTimesOut(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig("timeout: 100ms", web.Listener.Addr().String()))

	res, err := a.browser().Get("http://web/?sleep=5s")

	if p := problemOf(t, res, err); p.Status != 504 || p.Reason != "TIMEOUT" || p.Endpoint != web.Listener.Addr().String() || !strings.Contains(p.Detail, "100ms") {
		t.Errorf("got %+v", p)
	}
}

func TestAnHTTPCallToADeadEndpointGoesElsewhere(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, webConfig("", "127.0.0.1:1", web.Listener.Addr().String()))
	for range 10 {
		res, err := a.browser().Post("http://web/", "text/plain", strings.NewReader("body"))
		if code, body := read(t, res, err); code != 200 || !strings.HasSuffix(body, "body") {
			t.Fatalf("got %d %q", code, body)
		}
	}
}

func TestHTTPWithoutARouteIsExplained(t *testing.T) {
	a := startAgent(t, webConfig("", "127.0.0.1:1"))

	res, err := a.browser().Get("http://nobody/")
	noRoute := problemOf(t, res, err)
	res, err = a.browser().Get("http://web/")
	dead := problemOf(t, res, err)

	if noRoute.Status != 404 || noRoute.Reason != "NO_ROUTE" || !strings.Contains(noRoute.Detail, "services: web") {
		t.Errorf("got %+v", noRoute)
	}
	if dead.Status != 503 || dead.Reason != "CONNECT_FAILED" || !strings.Contains(dead.Detail, "connection refused") {
		t.Errorf("got %+v", dead)
	}
}

func TestAnHTTPRequestThatMayBeRepeatedIs(t *testing.T) {
	var fail atomic.Bool
	flaky := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if fail.CompareAndSwap(true, false) {
			w.WriteHeader(503)
			return
		}
		w.Write(body)
	}))
	defer flaky.Close()
	config := webConfig("retry: {max_attempts: 3, backoff: {base: 1ms, max: 1ms}}", flaky.Listener.Addr().String())
	a := startAgent(t, strings.Replace(config, "egress: {", "egress: {limits: {replay_bytes: 2000}, ", 1))
	for _, tc := range []struct {
		method string
		bytes  int
		code   int
	}{{"GET", 0, 200}, {"PUT", 2000, 200}, {"PUT", 2001, 503}, {"POST", 10, 503}} {
		fail.Store(true)
		req, _ := http.NewRequest(tc.method, "http://web/", strings.NewReader(strings.Repeat("x", tc.bytes)))

		res, err := a.browser().Do(req)

		if code, body := read(t, res, err); code != tc.code || code == 200 && len(body) != tc.bytes {
			t.Errorf("%s of %d bytes: got %d with %d bytes, want %d", tc.method, tc.bytes, code, len(body), tc.code)
		}
	}
}

// dialThrough opens a tunnel by CONNECT.
func (r *running) dialThrough(ctx context.Context, target string) (net.Conn, error) {
	var d net.Dialer
	c, err := d.DialContext(ctx, "tcp", r.Addresses().Egress)
	if err != nil {
		return nil, err
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
	res, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, 39)), &http.Request{Method: "CONNECT"})
	if err != nil {
		return nil, err
	}
	if res.StatusCode != 200 {
		return nil, fmt.Errorf("CONNECT: %s", res.Status)
	}
	return c, nil
}

func TestGRPCInsideCONNECTIsRelayedUnderPolicy(t *testing.T) {
	u := startUpstream(t)
	a := startAgent(t, ports+"unmatched: {mode: DIAL}\ndefaults: {circuit_breaker: {consecutive_failures: 2, open_for: 30s}}\n")
	cc, err := grpc.NewClient("passthrough:///"+u.address, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(a.dialThrough))
	if err != nil {
		t.Fatal(err)
	}
	defer cc.Close()
	call := func() error {
		return cc.Invoke(t.Context(), "/test.Echo/Call", wrapperspb.String("hello"), new(wrapperspb.StringValue))
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	u.fail.Store(true)
	_, _ = call(), call()

	err = call()

	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "circuit breaker of "+u.address) {
		t.Fatal(err)
	}
}

func TestHTTP1InsideCONNECTIsServedUnderPolicy(t *testing.T) {
	web, _ := webServer(t)
	a := startAgent(t, ports+"unmatched: {mode: DIAL}\n")
	transport := &http.Transport{DialContext: func(ctx context.Context, _, address string) (net.Conn, error) { return a.dialThrough(ctx, address) }}
	defer transport.CloseIdleConnections()

	res, err := (&http.Client{Transport: transport}).Get(web.URL + "/inside")

	if code, body := read(t, res, err); code != 200 || !strings.HasSuffix(body, "/inside ") {
		t.Errorf("got %d %q", code, body)
	}
}

func TestTLSInsideCONNECTIsTunnelled(t *testing.T) {
	web := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "secret") }))
	defer web.Close()
	a := startAgent(t, ports+"unmatched: {mode: DIAL}\ntelemetry: {access_log: {mode: ALL}}\n")

	browser := a.browser()
	res, err := browser.Get(web.URL)

	if code, body := read(t, res, err); code != 200 || body != "secret" {
		t.Errorf("got %d %q", code, body)
	}
	browser.CloseIdleConnections()
	a.end()
	if log := a.log.String(); !strings.Contains(log, "method=CONNECT") {
		t.Errorf("no line about the tunnel:\n%s", log)
	}
}

func TestDIALAndCONNECTDoNotReachWhatTheyMustNot(t *testing.T) {
	a := startAgent(t, ports+"unmatched: {mode: DIAL}\n")
	for _, target := range []string{a.Addresses().API, a.Addresses().Admin, a.Addresses().Egress, "169.254.169.254:80", "[fe80::1]:80"} {
		c, err := net.Dial("tcp", a.Addresses().Egress)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", target, target)
		res, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: "GET"})
		if p := problemOf(t, res, err); p.Status != 404 || p.Reason != "NO_ROUTE" {
			t.Errorf("CONNECT %s: %+v", target, p)
		}
		c.Close()
		res, err = a.browser().Get("http://" + target + "/")
		if p := problemOf(t, res, err); p.Status != 404 || p.Reason != "NO_ROUTE" {
			t.Errorf("GET %s: %+v", target, p)
		}
	}
}

func TestSmugglingShapesAreRefused(t *testing.T) {
	web, calls := webServer(t)
	a := startAgent(t, webConfig("", web.Listener.Addr().String()))
	for about, send := range map[string]string{
		"CL and TE":       "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"two CLs":         "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
		"bare LF":         "GET / HTTP/1.1\nHost: web\n\n",
		"obs-fold":        "GET / HTTP/1.1\r\nHost: web\r\nX-A: b\r\n c\r\n\r\n",
		"space in a name": "GET / HTTP/1.1\r\nHost: web\r\nX-A : b\r\n\r\n",
	} {
		c, err := net.Dial("tcp", a.Addresses().Egress)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, send)
		res, err := http.ReadResponse(bufio.NewReader(c), nil)
		if p := problemOf(t, res, err); p.Status != 400 || p.Reason != "PROTOCOL" {
			t.Errorf("%s: %+v", about, p)
		}
		c.Close()
	}
	if calls.Load() > 0 {
		t.Errorf("%d requests arrived", calls.Load())
	}
}

func TestAnUpgradePasses(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			return
		}
		defer c.Close()
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
		_, _ = io.Copy(c, rw)
	}))
	defer web.Close()
	a := startAgent(t, webConfig("timeout: 100ms", web.Listener.Addr().String()))
	c, err := net.Dial("tcp", a.Addresses().Egress)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	io.WriteString(c, "GET /socket HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n")
	in := bufio.NewReader(c)
	res, err := http.ReadResponse(in, nil)
	if err != nil || res.StatusCode != 101 || res.Header.Get("Upgrade") != "echo" {
		t.Fatalf("got %v, %v", res, err)
	}

	time.Sleep(200 * time.Millisecond) // a unary timeout never ends it
	io.WriteString(c, "\x00not HTTP\n")

	got := make([]byte, 10)
	if _, err := io.ReadFull(in, got); err != nil || string(got) != "\x00not HTTP\n" {
		t.Fatalf("got %q, %v", got, err)
	}
}

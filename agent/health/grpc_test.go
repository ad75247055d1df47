package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"
)

var quiet = log.New(io.Discard, "", 0)

// server is a grpc-go server with the health service.
type server struct {
	*grpc.Server
	health  *grpchealth.Server
	address string
}

func serve(t *testing.T, l net.Listener, options ...grpc.ServerOption) *server {
	t.Helper()
	s := &server{grpc.NewServer(options...), grpchealth.NewServer(), l.Addr().String()}
	healthpb.RegisterHealthServer(s, s.health)
	run(t, s.Server, l)
	return s
}

func run(t *testing.T, s *grpc.Server, l net.Listener) {
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
}

// answering has a Check that answers with an error, and no Watch.
type answering struct {
	healthpb.UnimplementedHealthServer
	err error
}

func (a answering) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return nil, a.err
}

func TestGRPCChecks(t *testing.T) {
	s := serve(t, listen(t))
	s.health.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	s.health.SetServingStatus("odd", healthpb.HealthCheckResponse_UNKNOWN)
	for service, want := range map[string]string{
		"":         "passed",
		"sick":     "failed: NOT_SERVING",
		"odd":      "failed: UNKNOWN",
		"stranger": `failed: SERVICE_UNKNOWN: the endpoint does not know the health of "stranger"`,
	} {
		if got := once(t, s.address, direct{}, Settings{Service: service}); got != want {
			t.Errorf("%q: %s, want %s", service, got, want)
		}
	}

	without, l := grpc.NewServer(), listen(t)
	run(t, without, l)
	if got := once(t, l.Addr().String(), direct{}, Settings{}); got != "unsupported: the endpoint has no gRPC health service (UNIMPLEMENTED)" {
		t.Errorf("without the service: %s", got)
	}

	for want, err := range map[string]error{
		"failed: gRPC INTERNAL: 100 % broken": status.Error(codes.Internal, "100 % broken"),
		"failed: gRPC PERMISSION_DENIED":      status.Error(codes.PermissionDenied, ""),
	} {
		failing, l := grpc.NewServer(), listen(t)
		healthpb.RegisterHealthServer(failing, answering{err: err})
		run(t, failing, l)
		if got := once(t, l.Addr().String(), direct{}, Settings{}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

func TestGRPCChecksOverAUnixSocket(t *testing.T) {
	path := t.TempDir() + "/s"
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serve(t, l)
	if got := once(t, "unix:"+path, direct{}, Settings{}); got != "passed" {
		t.Error(got)
	}
}

func TestGRPCChecksOfWhatSpeaksNoGRPC(t *testing.T) {
	plain := httptest.NewServer(http.NotFoundHandler())
	defer plain.Close()
	if got := once(t, plain.Listener.Addr().String(), direct{}, Settings{}); got == "passed" {
		t.Error("HTTP/1.1 alone passed")
	}
	for want, handler := range map[string]http.Handler{
		"unsupported: the endpoint has no gRPC health service (UNIMPLEMENTED)": http.NotFoundHandler(),
		"failed: HTTP 403 in answer to a gRPC call":                            http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(403) }),
		`failed: no gRPC: the answer's content-type is "text/html"`: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "text/html")
		}),
		"failed: gRPC UNKNOWN: the answer has no grpc-status": http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/grpc")
		}),
	} {
		s := httptest.NewUnstartedServer(handler)
		s.EnableHTTP2 = true
		s.Config.ErrorLog = quiet
		s.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		if got := once(t, s.Listener.Addr().String(), direct{roots}, Settings{}); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		s.Close()
	}
}

func TestGRPCChecksOverTLS(t *testing.T) {
	keeper := httptest.NewUnstartedServer(nil) // has a certificate for example.com
	keeper.StartTLS()
	defer keeper.Close()
	s := serve(t, listen(t), grpc.Creds(credentials.NewServerTLSFromCert(&keeper.TLS.Certificates[0])))
	roots := x509.NewCertPool()
	roots.AddCert(keeper.Certificate())

	if got := once(t, s.address, direct{roots}, Settings{}); got != "passed" {
		t.Error(got)
	}
	// grpc-go ends the handshake itself where it misses the protocol; others
	// answer without one.
	without, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: keeper.TLS.Certificates[:1]})
	if err != nil {
		t.Fatal(err)
	}
	defer without.Close()
	go func() {
		if nc, err := without.Accept(); err == nil {
			_ = nc.(*tls.Conn).Handshake()
			nc.Close()
		}
	}()
	if got := once(t, without.Addr().String(), direct{roots}, Settings{}); got != "unreachable: "+errNoALPN.Error() {
		t.Errorf("TLS without HTTP/2: %s", got)
	}
}

// watched follows one endpoint by gRPC; its checks come so seldom that only a
// watch can be as fast as the tests want.
func watched(t *testing.T, address string, interval time.Duration) (*Checker, *place) {
	t.Helper()
	c := New(Options{Logger: slog.New(slog.DiscardHandler)})
	t.Cleanup(c.Close)
	p := &place{address: address}
	c.Follow(Service{Name: "greeter", Transport: direct{}, Settings: Settings{Interval: interval, Timeout: 5 * time.Second}, Endpoints: []Endpoint{p}})
	c.mu.Lock() // the first check now, not any time within the hour
	if e := c.entries[p]; e.place > 0 {
		c.queue.put(e, 0)
	}
	c.look()
	c.mu.Unlock()
	return c, p
}

func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !condition(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func (c *Checker) watching() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.watches
}

func TestAWatchTellsAtOnce(t *testing.T) {
	s := serve(t, listen(t))
	c, p := watched(t, s.address, time.Hour)
	eventually(t, "a watch stands", func() bool { return c.watching() == 1 })

	s.health.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	eventually(t, "unhealthy", func() bool { return p.told() == "health check: NOT_SERVING" })
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
	eventually(t, "healthy again", func() bool { return p.told() == "health check: NOT_SERVING; READY" })

	if n := c.Counts()[Passed].Total; n != 1 {
		t.Errorf("%d checks passed, want 1: the rest was told", n)
	}
}

func TestChecksGoOverTheConnectionOfTheWatch(t *testing.T) {
	connections := &counted{Listener: listen(t), taken: make(chan struct{}, 100)}
	s := serve(t, connections)
	c, _ := watched(t, s.address, 100*time.Millisecond)

	eventually(t, "ten checks", func() bool { return c.Counts()[Passed].Total >= 10 })

	if n := len(connections.taken); n != 1 {
		t.Errorf("%d connections for ten checks", n)
	}
}

type counted struct {
	net.Listener
	taken chan struct{}
}

func (l *counted) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err == nil {
		l.taken <- struct{}{}
	}
	return nc, err
}

func TestWithoutWatchItIsAsked(t *testing.T) {
	l, s := listen(t), grpc.NewServer()
	healthpb.RegisterHealthServer(s, checkOnly{})
	run(t, s, l)
	c, p := watched(t, l.Addr().String(), 100*time.Millisecond)

	eventually(t, "five checks", func() bool { return c.Counts()[Passed].Total >= 5 })

	eventually(t, "no watch", func() bool { return c.watching() == 0 })
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.entries[p].noWatch {
		t.Error("it is tried again and again")
	}
}

type checkOnly struct {
	healthpb.UnimplementedHealthServer
}

func (checkOnly) Check(context.Context, *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// A server that stops in good order waits for its streams: a watch must not
// hold it up.
func TestAWatchDoesNotHoldUpAGracefulStop(t *testing.T) {
	s := serve(t, listen(t))
	c, _ := watched(t, s.address, time.Hour)
	eventually(t, "a watch stands", func() bool { return c.watching() == 1 })

	stopped := make(chan struct{})
	go func() { s.GracefulStop(); close(stopped) }()

	select {
	case <-stopped:
	case <-time.After(10 * time.Second):
		t.Fatal("the server still waits for the watch")
	}
}

func TestAWatchThatBreaksIsFollowedByACheck(t *testing.T) {
	s := serve(t, listen(t))
	c, p := watched(t, s.address, time.Second)
	eventually(t, "a watch stands", func() bool { return c.watching() == 1 })

	s.Stop()

	eventually(t, "unhealthy", func() bool { return p.told() == "health check: connection refused (3 in a row)" })
}

func TestWatchesAreBounded(t *testing.T) {
	s := serve(t, listen(t))
	c := New(Options{Watches: 2, Logger: slog.New(slog.DiscardHandler)})
	defer c.Close()
	service := Service{Name: "greeter", Transport: direct{}, Settings: Settings{Interval: 100 * time.Millisecond}}
	for range 5 {
		service.Endpoints = append(service.Endpoints, &place{address: s.address})
	}
	c.Follow(service)

	eventually(t, "fifty checks", func() bool { return c.Counts()[Passed].Total >= 50 })

	if n := c.watching(); n != 2 {
		t.Errorf("%d watches, want 2", n)
	}
}

func TestRenewEndsTheConnectionsThatAreKept(t *testing.T) {
	connections := &counted{Listener: listen(t), taken: make(chan struct{}, 100)}
	s := serve(t, connections)
	c, p := watched(t, s.address, time.Second)
	eventually(t, "a watch stands", func() bool { return c.watching() == 1 })

	c.Renew("greeter")

	eventually(t, "another connection", func() bool { return len(connections.taken) == 2 && c.watching() == 1 })
	if p.told() != "" {
		t.Errorf("told %q", p.told())
	}
}

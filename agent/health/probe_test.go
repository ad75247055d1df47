package health

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// direct connects as services without TLS are; with roots, as those with.
type direct struct{ roots *x509.CertPool }

func (d direct) Dial(ctx context.Context, address string) (net.Conn, error) {
	var dialer net.Dialer
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return dialer.DialContext(ctx, "unix", path)
	}
	return dialer.DialContext(ctx, "tcp", address)
}

func (d direct) TLS(_ string, protocols ...string) (*tls.Config, error) {
	if d.roots == nil {
		return nil, nil
	}
	return &tls.Config{RootCAs: d.roots, ServerName: "example.com", NextProtos: protocols}, nil
}

// once makes one check.
func once(t *testing.T, address string, d direct, s Settings) string {
	t.Helper()
	c := New(Options{Watches: -1})
	defer c.Close()
	s = s.withDefaults()
	ctx, cancel := context.WithTimeout(context.Background(), s.Timeout)
	defer cancel()
	r := c.ask(ctx, c, &job{entry: &entry{}, address: address, transport: d, settings: s})
	return strings.TrimSuffix(r.outcome.String()+": "+r.cause, ": ")
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// nowhere is an address that refuses connections.
func nowhere(t *testing.T) string {
	l := listen(t)
	l.Close()
	return l.Addr().String()
}

// silent accepts and says nothing.
func silent(t *testing.T) string {
	l := listen(t)
	go func() {
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			t.Cleanup(func() { nc.Close() })
		}
	}()
	return l.Addr().String()
}

func TestEveryKindSaysWhyThereIsNoAnswer(t *testing.T) {
	closed, mute := nowhere(t), silent(t)
	for _, kind := range []Kind{GRPC, HTTP, TCP, TLS} {
		s := Settings{Kind: kind, Path: "/", Timeout: 100 * time.Millisecond}
		if got := once(t, closed, direct{}, s); got != "unreachable: connection refused" {
			t.Errorf("%d, refused: %s", kind, got)
		}
		want := "timed_out: no answer within 100ms"
		if kind == TCP {
			want = "passed"
		}
		roots := x509.NewCertPool()
		if got := once(t, mute, direct{roots}, s); got != want {
			t.Errorf("%d, silent: %s", kind, got)
		}
	}
	if got := once(t, "unix:"+t.TempDir()+"/none", direct{}, Settings{Kind: TCP}); got != "unreachable: connect: no such file or directory" {
		t.Errorf("no socket: %s", got)
	}
}

func TestTLSIsAHandshake(t *testing.T) {
	secure, plain := httptest.NewUnstartedServer(http.NotFoundHandler()), httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog, plain.Config.ErrorLog = quiet, quiet
	secure.StartTLS()
	defer secure.Close()
	plain.Start()
	defer plain.Close()
	known, stranger := x509.NewCertPool(), x509.NewCertPool()
	known.AddCert(secure.Certificate())
	for _, test := range []struct {
		address string
		roots   *x509.CertPool
		want    string
	}{
		{secure.Listener.Addr().String(), known, "passed"},
		{secure.Listener.Addr().String(), stranger, "unreachable: tls: failed to verify certificate"},
		{plain.Listener.Addr().String(), known, "unreachable: tls: first record does not look like a TLS handshake"},
		{plain.Listener.Addr().String(), nil, "unsupported: the service has no tls block"},
	} {
		if got := once(t, test.address, direct{test.roots}, Settings{Kind: TLS}); !strings.HasPrefix(got, test.want) {
			t.Errorf("got %s, want %s", got, test.want)
		}
	}
}

func TestHTTPChecks(t *testing.T) {
	handler := http.NewServeMux()
	handler.HandleFunc("/health", func(w http.ResponseWriter, r *http.Request) { w.Write([]byte("ok " + r.Host + r.URL.RawQuery)) })
	handler.HandleFunc("/sick", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) })
	handler.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/health", http.StatusFound) })
	handler.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			if _, err := w.Write(make([]byte, 32<<10)); err != nil {
				return
			}
		}
	})
	handler.HandleFunc("/torn", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "10")
		w.Write([]byte("12345"))
	})
	s := httptest.NewUnstartedServer(handler)
	s.Config.ErrorLog = quiet
	s.Start()
	defer s.Close()
	address := s.Listener.Addr().String()
	for _, test := range []struct {
		settings Settings
		want     string
	}{
		{Settings{Path: "/health"}, "passed"},
		{Settings{Path: "/sick"}, "failed: HTTP 503, want 2xx"},
		{Settings{Path: "/sick", Statuses: []policy.StatusRange{{First: 204, Last: 204}, {First: 500, Last: 502}}}, "failed: HTTP 503, want 204, 500-502"},
		{Settings{Path: "/sick", Statuses: []policy.StatusRange{{First: 503, Last: 503}}}, "passed"},
		{Settings{Path: "/moved"}, "failed: HTTP 302, want 2xx"},
		{Settings{Path: "/health", Text: "ok " + address}, "passed"},
		{Settings{Path: "/health", Host: "greeter.example.org", Text: "ok greeter.example.org"}, "passed"},
		{Settings{Path: "/health?deep=1", Text: "deep=1"}, "passed"},
		{Settings{Path: "/health", Text: "well"}, `failed: HTTP 200 without "well" in its first 64 KiB`},
		{Settings{Path: "/endless"}, "passed"},
		{Settings{Path: "/endless", Text: "end"}, `failed: HTTP 200 without "end" in its first 64 KiB`},
		{Settings{Path: "/torn"}, "unreachable: the endpoint closed the connection without an answer"},
	} {
		test.settings.Kind = HTTP
		if got := once(t, address, direct{}, test.settings); got != test.want {
			t.Errorf("%+v: %s, want %s", test.settings, got, test.want)
		}
	}
}

func TestHTTPChecksOverTLSSpeakWhatIsAgreedOn(t *testing.T) {
	for _, http2 := range []bool{false, true} {
		s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { w.Write([]byte(r.Proto)) }))
		s.EnableHTTP2 = http2
		s.Config.ErrorLog = quiet
		s.StartTLS()
		roots := x509.NewCertPool()
		roots.AddCert(s.Certificate())
		want := "HTTP/1.1"
		if http2 {
			want = "HTTP/2.0"
		}
		if got := once(t, s.Listener.Addr().String(), direct{roots}, Settings{Kind: HTTP, Path: "/", Text: want}); got != "passed" {
			t.Errorf("%s: %s", want, got)
		}
		s.Close()
	}
}

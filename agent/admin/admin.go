// Package admin is the agent's HTTP side for operators and their tools:
// probes, metrics, profiles.
//
//	server := admin.New(admin.Options{
//		Parts:   func() []admin.Part { … }, // what /readyz answers from
//		Metrics: telemetry.MetricsHandler(),
//	})
//	go server.Serve(listener)
//	…
//	server.Shutdown(ctx)
//
// It only reads. Whatever changes the agent goes over the API.
package admin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"
	"time"

	"golang.org/x/net/netutil"
)

// The server's limits. The listener is a loopback address by default, but may
// be a pod's, so one client must not be able to hold it.
const (
	maxConnections    = 64
	maxHeaderBytes    = 16 << 10
	readHeaderTimeout = 5 * time.Second
	// writeTimeout is extended by pprof for profiles that take longer.
	writeTimeout = 30 * time.Second
	idleTimeout  = 60 * time.Second
)

// State says how a part of the agent is.
type State uint8

// The states.
const (
	// OK, the zero value: it works.
	OK State = iota
	// Warning: something is wrong, calls are served all the same.
	Warning
	// Down: the agent can't take calls for want of it.
	Down
)

// Part is one part of the agent as /readyz?verbose shows it.
type Part struct {
	// Name is a short word, for example "egress".
	Name string
	// State decides the answer: one part that is Down makes the agent not
	// ready.
	State State
	// Detail says what stands behind the state: an address, or what is wrong
	// and what to do.
	Detail string
}

// Options says what the server shows.
type Options struct {
	// Parts lists what readiness depends on. It is asked at each probe, must
	// not block and must be safe for concurrent use. nil: always ready.
	Parts func() []Part
	// Metrics answers /metrics at the time of a request. nil, or a nil
	// handler: metrics are off, and the answer says so.
	Metrics func() http.Handler
	// Logger hears of HTTP errors. nil: nobody does.
	Logger *slog.Logger
}

// Server serves the admin pages. Make it with New.
type Server struct {
	options Options
	http    *http.Server
}

// New returns a server that is not serving yet.
func New(o Options) *Server {
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{options: o}
	s.http = &http.Server{
		Handler: s.Handler(),
		// No ReadTimeout: it would end a profile's request as well as slow ones.
		ReadHeaderTimeout: readHeaderTimeout,
		WriteTimeout:      writeTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeaderBytes,
		ErrorLog:          slog.NewLogLogger(o.Logger.Handler(), slog.LevelDebug),
	}
	return s
}

// Serve answers requests on l until Shutdown or Close; then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	err := s.http.Serve(netutil.LimitListener(l, maxConnections))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return err
}

// Shutdown stops accepting and waits for the requests under way, until ctx
// ends; those left are cut then.
func (s *Server) Shutdown(ctx context.Context) error {
	if err := s.http.Shutdown(ctx); err != nil {
		return s.http.Close()
	}
	return nil
}

// page is one path of the server with what / says about it.
type page struct {
	path, about string
	handler     http.HandlerFunc
}

func (s *Server) pages() []page {
	return []page{
		{"/healthz", "200 while the process is alive", s.healthz},
		{"/readyz", "200 while calls are served; ?verbose lists every part with its state", s.readyz},
		{"/metrics", "metrics in Prometheus's format", s.metrics},
		{"/debug/pprof/", "profiles for go tool pprof", pprof.Index},
	}
}

// Handler returns the pages for a server of the caller's own.
func (s *Server) Handler() http.Handler {
	mux := http.NewServeMux()
	pages := s.pages()
	for _, p := range pages {
		mux.HandleFunc(p.path, p.handler)
	}
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		plain(w)
		fmt.Fprint(w, "Outrigger agent\n\n")
		for _, p := range pages {
			fmt.Fprintf(w, "%-14s %s\n", p.path, p.about)
		}
	})
	return readOnly(mux)
}

// readOnly refuses what is not a read.
func readOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Body != http.NoBody {
			// Nothing here takes a body. The server discards it after the
			// answer, and must not wait for it for ever.
			_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(readHeaderTimeout))
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD: changes go over the API", http.StatusMethodNotAllowed)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) {
	plain(w)
	io.WriteString(w, "alive\n")
}

func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	var parts []Part
	if s.options.Parts != nil {
		parts = s.options.Parts()
	}
	var down []string
	for _, p := range parts {
		if p.State == Down {
			down = append(down, p.Name)
		}
	}
	plain(w)
	verdict := "ready"
	if len(down) > 0 {
		w.WriteHeader(http.StatusServiceUnavailable)
		verdict = "not ready: " + strings.Join(down, ", ")
	}
	if r.URL.Query().Has("verbose") {
		for _, p := range parts {
			fmt.Fprintf(w, "[%s] %s: %s\n", marks[p.State], p.Name, oneLine(p.Detail))
		}
	}
	fmt.Fprintln(w, verdict)
}

var marks = [...]string{OK: "+", Warning: "!", Down: "-"}

// oneLine keeps a part on its line: errors of a configuration have several.
func oneLine(s string) string { return strings.ReplaceAll(strings.TrimSpace(s), "\n", "; ") }

func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	var handler http.Handler
	if s.options.Metrics != nil {
		handler = s.options.Metrics()
	}
	if handler == nil {
		http.Error(w, "metrics are off; set telemetry.prometheus to true", http.StatusNotFound)
		return
	}
	handler.ServeHTTP(w, r)
}

func plain(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Set("X-Content-Type-Options", "nosniff")
}

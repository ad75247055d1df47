// Package forward is the data plane of everything that is not HTTP/2: HTTP/1
// requests in origin form and in absolute form (http_proxy), and CONNECT.
//
//	first bytes ─▶ HTTP/1 ─▶ framing ─▶ net/http ─▶ policy.Call ─▶ http.Transport ─▶ endpoint
//	                             └─ CONNECT ─▶ first bytes inside: HTTP/2 goes back to the relay,
//	                                           HTTP/1 comes back here, anything else is a tunnel
//
// It goes through net/http, off the hot path, under the same policies as the
// relay: one policy.Call a request. A refusal is RFC 9457 problem details with
// the same reason. A request is sent again only where its method (RFC 9110,
// 9.2.2) or its policy says that it may be processed twice, or where nothing of
// it was sent. Fallbacks and caches hold for gRPC calls: HTTP has no place for a
// gRPC message, and caches of its own.
package forward

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Query is what a request is routed by.
type Query struct {
	// Authority is the Host of a request, or what CONNECT names.
	Authority string
	Path      string
	// Service is outrigger-service.
	Service string
	// Tunnel is what CONNECT named before the request came.
	Tunnel string
}

// Target is where a request goes. A nil Service: nowhere.
type Target struct {
	Service   *policy.Service
	Transport Transport
}

// Transport connects a service's endpoints. Safe for concurrent use; values
// are compared.
type Transport interface {
	// Dial opens a TCP or unix connection to "host:port" or "unix:PATH".
	Dial(ctx context.Context, address string) (net.Conn, error)
	// TLS returns what to speak TLS with to the address, or nil for plaintext.
	TLS(address string, protocols ...string) (*tls.Config, error)
}

// Options make a Server.
type Options struct {
	// Origin is where all Instants count from.
	Origin time.Time
	// Route finds the target of a request; why says in plain words that there
	// is none.
	Route func(Query) (target Target, why string)
	// Reaches reports whether anything inside a tunnel to the authority could
	// be routed; why says why not.
	Reaches func(authority string) (why string, ok bool)
	// Tunnel takes a connection back whose client was told that it is
	// connected to target; early was read from it already.
	Tunnel func(nc net.Conn, early []byte, target string) error
	// Observer hears of each request at its end. nil: nobody.
	Observer policy.Observer
	// Tracer makes spans. nil: none.
	Tracer policy.Tracer
	// Logger gets one line a connection that misbehaves.
	Logger *slog.Logger
	// ConnectTimeout bounds connects to endpoints.
	ConnectTimeout time.Duration
	// HeaderTimeout bounds how long a client takes over a request's head,
	// HeaderBytes how long the head is.
	HeaderTimeout time.Duration
	HeaderBytes   int
	// ReplayBytes is how much of a request's body is kept so that it can be sent
	// again; a longer one is sent once. Zero: DefaultReplayBytes.
	ReplayBytes int
	// BufferedBytes bounds what is kept of all bodies together; those that come
	// past it are sent once. Zero: DefaultBufferedBytes.
	BufferedBytes int64
	// ExplainTLS says in plain words why a handshake failed.
	ExplainTLS func(error) string
}

// Defaults that zero values of Options stand for.
const (
	DefaultReplayBytes   = 256 << 10
	DefaultBufferedBytes = 64 << 20
)

// Server serves connections that it is handed. Make it with New, end it with
// Shutdown. Safe for concurrent use. It implements relay.Guests.
type Server struct {
	options Options
	http    *http.Server
	proxy   *httputil.ReverseProxy
	queue   queue

	replayed atomic.Int64 // bytes that are kept of bodies

	mu         sync.Mutex
	transports map[Transport]*http.Transport
	tunnels    map[*tunnel]struct{}
	closed     bool
	work       sync.WaitGroup
}

// idleTimeout ends a client's connection without a request.
const idleTimeout = 5 * time.Minute

// New returns a server without connections. It starts when it is handed the
// first.
func New(o Options) *Server {
	o.ReplayBytes = cmp.Or(o.ReplayBytes, DefaultReplayBytes)
	o.BufferedBytes = cmp.Or(o.BufferedBytes, DefaultBufferedBytes)
	s := &Server{
		options:    o,
		transports: make(map[Transport]*http.Transport),
		tunnels:    make(map[*tunnel]struct{}),
		queue:      queue{conns: make(chan net.Conn), done: make(chan struct{})},
	}
	quiet := log.New(quietLog{}, "", 0)
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: o.HeaderTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    o.HeaderBytes,
		ErrorLog:          quiet,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, clientKey{}, c)
		},
	}
	s.proxy = &httputil.ReverseProxy{
		Rewrite:        rewrite,
		Transport:      roundTripper{s},
		ModifyResponse: explain,
		ErrorHandler:   s.failed,
		FlushInterval:  -1,
		BufferPool:     &copyBuffers,
		ErrorLog:       quiet,
	}
	return s
}

// quietLog drops what net/http says about single connections: the access log
// and the metrics have it.
type quietLog struct{}

func (quietLog) Write(p []byte) (int, error) { return len(p), nil }

// now reads the clock.
func (s *Server) now() policy.Instant { return time.Since(s.options.Origin) }

// clientKey is where a request's context has its client.
type clientKey struct{}

// HTTP1 implements relay.Guests.
func (s *Server) HTTP1(nc net.Conn, tunnel string) {
	if s.start() {
		s.queue.put(&client{Conn: nc, tunnel: tunnel, server: s})
	} else {
		nc.Close()
	}
}

// start runs the HTTP server once. It reports false after Shutdown.
func (s *Server) start() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	if !s.queue.open {
		s.queue.open = true
		s.work.Go(func() { _ = s.http.Serve(&s.queue) }) // ends with Shutdown only
	}
	return true
}

// Renew ends the idle connections of a transport whose settings changed.
func (s *Server) Renew(t Transport) {
	s.mu.Lock()
	h := s.transports[t]
	s.mu.Unlock()
	if h != nil {
		h.CloseIdleConnections()
	}
}

// Forget drops a transport that no service has any more. Requests under way on
// it finish.
func (s *Server) Forget(t Transport) {
	s.mu.Lock()
	h := s.transports[t]
	delete(s.transports, t)
	s.mu.Unlock()
	if h != nil {
		h.CloseIdleConnections()
	}
}

// Shutdown lets requests under way finish until ctx ends, then cuts off what is
// left, tunnels included. It returns once nothing runs any more; the error is
// ctx's when something was cut off.
func (s *Server) Shutdown(ctx context.Context) error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	err := s.http.Shutdown(ctx)
	if err != nil {
		s.http.Close()
	}
	err = errors.Join(err, s.endTunnels(ctx))
	s.queue.end()
	s.work.Wait()
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.transports {
		h.CloseIdleConnections()
	}
	return err
}

// copyBuffers lends memory for bodies.
var copyBuffers bufferPool

type bufferPool struct{ pool sync.Pool }

const copyBufferLen = 32 << 10

// Get implements httputil.BufferPool.
func (p *bufferPool) Get() []byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return *b
	}
	return make([]byte, copyBufferLen)
}

// Put implements httputil.BufferPool.
func (p *bufferPool) Put(b []byte) { p.pool.Put(&b) }

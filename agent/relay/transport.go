package relay

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Transport connects a service's endpoints. It is asked for each connect, so
// that what it answers may change; connections that are open stay as they are
// until Renew. Safe for concurrent use.
type Transport interface {
	// Dial opens a TCP or unix connection to "host:port" or "unix:PATH".
	Dial(ctx context.Context, address string) (net.Conn, error)
	// TLS returns what to speak TLS with to the address, offering protocols by
	// ALPN. nil: plaintext.
	TLS(address string, protocols ...string) (*tls.Config, error)
}

// Direct is the Transport of services that have none: plaintext, any address.
type Direct struct{}

// Dial implements Transport.
func (Direct) Dial(ctx context.Context, address string) (net.Conn, error) {
	var d net.Dialer
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return d.DialContext(ctx, "unix", path)
	}
	return d.DialContext(ctx, "tcp", address)
}

// TLS implements Transport.
func (Direct) TLS(string, ...string) (*tls.Config, error) { return nil, nil }

// tlsError is a handshake that failed, as opposed to a connect.
type tlsError struct{ err error }

func (e *tlsError) Error() string { return e.err.Error() }
func (e *tlsError) Unwrap() error { return e.err }

// protocolHTTP2 is HTTP/2 in ALPN (RFC 9113, 3.2).
const protocolHTTP2 = "h2"

// errNoALPN ends a connection to an endpoint that has TLS, but not HTTP/2.
var errNoALPN = errors.New("the endpoint speaks TLS, but did not agree to HTTP/2 (ALPN h2)")

// open connects to an endpoint and, where asked to, speaks TLS.
func (r *Relay) open(ctx context.Context, t Transport, address string) (*socket, error) {
	nc, err := t.Dial(ctx, address)
	if err != nil {
		return nil, err
	}
	config, err := t.TLS(address, protocolHTTP2)
	if err != nil {
		nc.Close()
		return nil, &tlsError{err}
	}
	var s *secure
	if config != nil {
		if s, err = handshake(ctx, nc, config, true); err == nil && s.protocol() != protocolHTTP2 {
			err = errNoALPN
		}
		if err != nil {
			nc.Close()
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, &tlsError{err}
		}
	}
	sock, err := newSocket(nc, nil, s)
	if err != nil {
		nc.Close()
		return nil, err
	}
	return sock, nil
}

// handshakeTimeout bounds a client's TLS handshake.
func (r *Relay) handshakeTimeout() time.Duration { return r.limits.PrefaceTimeout }

// secureServer answers a client's TLS handshake. nil: the connection is over.
func (r *Relay) secureServer(nc net.Conn, peer string) *secure {
	ctx, cancel := context.WithTimeout(r.ctx, r.handshakeTimeout())
	defer cancel()
	s, err := handshake(ctx, nc, r.serverTLS, false)
	if err != nil {
		nc.Close()
		r.stats.handshakeFailures.Add(1)
		if ctx.Err() != nil {
			err = fmt.Errorf("no TLS handshake within %v", r.handshakeTimeout())
		}
		r.logger.Warn("connection refused: the TLS handshake failed", "peer", peer, "error", r.explainTLS(err))
		return nil
	}
	return s
}

// Renew ends the connections to a service's endpoints, each after the calls
// under way on it: its Transport changed.
func (r *Relay) Renew(s *policy.Service) {
	b := newBatch()
	b.now = r.now()
	for _, e := range s.Endpoints().All() {
		if u, ok := r.upstreams.Load(e); ok {
			u.(*upstream).renew(b)
		}
	}
	b.flush()
}

// renew takes the open connections out of use. Calls that wait get a new one.
func (u *upstream) renew(b *batch) {
	u.mu.Lock()
	conns := slices.Clone(u.conns)
	u.conns = nil
	u.leaving = append(u.leaving, conns...)
	u.current.Store(nil)
	u.retryAt, u.failures = 0, 0
	u.warm(b.now)
	u.mu.Unlock()
	for _, up := range conns {
		up.leave(b)
	}
}

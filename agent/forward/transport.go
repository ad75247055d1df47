package forward

import (
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"syscall"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

const (
	idlePerEndpoint    = 64
	endpointIdle       = 90 * time.Second
	answerHeaderBytes  = 64 << 10
	unixHost           = ".unix.invalid:80"
	protocolHTTP11     = "http/1.1"
	expectContinueWait = time.Second
)

// hostOf writes an endpoint's address so that it fits into a URL.
func hostOf(address string) string {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return hex.EncodeToString([]byte(path)) + unixHost
	}
	return address
}

func addressOf(host string) string {
	if encoded, ok := strings.CutSuffix(host, unixHost); ok {
		if path, err := hex.DecodeString(encoded); err == nil {
			return "unix:" + string(path)
		}
	}
	return host
}

// transport returns the connections that belong to t.
func (s *Server) transport(t Transport) *http.Transport {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.transports[t]
	if h == nil {
		h = &http.Transport{
			DialContext: func(ctx context.Context, _, host string) (net.Conn, error) {
				return s.dial(ctx, t, addressOf(host), protocolHTTP11)
			},
			DisableCompression:     true, // bodies pass as they are
			MaxIdleConnsPerHost:    idlePerEndpoint,
			IdleConnTimeout:        endpointIdle,
			MaxResponseHeaderBytes: answerHeaderBytes,
			ExpectContinueTimeout:  expectContinueWait,
		}
		s.transports[t] = h
	}
	return h
}

// connectError is an endpoint that was not reached.
type connectError struct {
	reason policy.Reason
	why    string
}

func (e *connectError) Error() string { return e.why }

// dial connects to an endpoint, and speaks TLS where its transport asks to.
func (s *Server) dial(ctx context.Context, t Transport, address string, protocols ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, s.options.ConnectTimeout)
	defer cancel()
	nc, err := t.Dial(ctx, address)
	if err != nil {
		return nil, &connectError{policy.ConnectFailed, s.plain(ctx, err)}
	}
	config, err := t.TLS(address, protocols...)
	if err == nil && config != nil {
		secure := tls.Client(nc, config)
		err = secure.HandshakeContext(ctx)
		nc = secure
	}
	if err != nil {
		nc.Close()
		if ctx.Err() != nil {
			return nil, &connectError{policy.ConnectFailed, s.plain(ctx, err)}
		}
		return nil, &connectError{policy.TLS, s.options.ExplainTLS(err)}
	}
	return nc, nil
}

// plain says in a few words why a connect failed.
func (s *Server) plain(ctx context.Context, err error) string {
	var op *net.OpError
	switch {
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return fmt.Sprintf("no connection within the connect timeout of %v", s.options.ConnectTimeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused"
	case errors.As(err, &op):
		return op.Err.Error()
	}
	return err.Error()
}

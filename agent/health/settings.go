package health

import (
	"context"
	"crypto/tls"
	"net"
	"reflect"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Kind says how an endpoint is asked.
type Kind uint8

// The kinds.
const (
	// GRPC, the zero value: Check of grpc.health.v1.Health, and its Watch where
	// the endpoint has it.
	GRPC Kind = iota
	// HTTP: GET of a path.
	HTTP
	// TCP: a connect.
	TCP
	// TLS: a handshake.
	TLS
)

// Settings say how the endpoints of a service are checked, and what comes of
// it.
type Settings struct {
	Kind Kind
	// Service is what the gRPC health service is asked for. Empty: the server.
	Service string
	// Path is what HTTP asks for.
	Path string
	// Host is the Host header of HTTP. Empty: the endpoint's address.
	Host string
	// Statuses of HTTP are healthy. nil: 200 to 299.
	Statuses []policy.StatusRange
	// Text must stand in the first 64 KiB of HTTP's answer. Empty: anything
	// may.
	Text string
	// Interval is from the end of a check to the next one. Zero: 5 s.
	Interval time.Duration
	// Timeout bounds a check, its connect included. Zero: 1 s.
	Timeout time.Duration
	// UnhealthyAfter and HealthyAfter are how many results in a row turn the
	// verdict. Zero: 3 and 2.
	UnhealthyAfter, HealthyAfter int
	// Observe decides and counts, and leaves the endpoints as they are.
	Observe bool
}

// The figures that zero values stand for.
const (
	DefaultInterval       = 5 * time.Second
	DefaultTimeout        = time.Second
	DefaultUnhealthyAfter = 3
	DefaultHealthyAfter   = 2
)

func (s Settings) withDefaults() Settings {
	if s.Interval == 0 {
		s.Interval = DefaultInterval
	}
	if s.Timeout == 0 {
		s.Timeout = DefaultTimeout
	}
	if s.UnhealthyAfter == 0 {
		s.UnhealthyAfter = DefaultUnhealthyAfter
	}
	if s.HealthyAfter == 0 {
		s.HealthyAfter = DefaultHealthyAfter
	}
	if s.Statuses == nil {
		s.Statuses = []policy.StatusRange{{First: 200, Last: 299}}
	}
	return s
}

func (s Settings) equal(other Settings) bool { return reflect.DeepEqual(s, other) }

// Transport connects endpoints. Safe for concurrent use.
type Transport interface {
	// Dial opens a TCP or unix connection to "host:port" or "unix:PATH".
	Dial(ctx context.Context, address string) (net.Conn, error)
	// TLS returns what to speak TLS with to the address, offering protocols by
	// ALPN. nil: plaintext.
	TLS(address string, protocols ...string) (*tls.Config, error)
}

// Endpoint is what is checked; *balancer.Endpoint is one. Safe for concurrent
// use, and comparable.
type Endpoint interface {
	// Address returns "host:port" or "unix:PATH".
	Address() string
	// SetHealthy says what the checks have come to, and why.
	SetHealthy(ok bool, reason string, now Instant)
}

// Service is a set of endpoints that are checked alike.
type Service struct {
	Name      string
	Transport Transport
	Settings  Settings
	Endpoints []Endpoint
}

package agent

import (
	"net"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/forward"
	"github.com/outrigger-rpc/outrigger/agent/identity"
	"github.com/outrigger-rpc/outrigger/agent/relay"
)

// Bounds of a request's head where the configuration names none.
const (
	defaultHeaderTimeout = 4 * time.Second
	defaultHeaderBytes   = 64 << 10
)

// startPlanes makes the two data planes, which hand connections to each other:
// the relay what is not HTTP/2, the forward proxy what turns out to be HTTP/2
// inside a CONNECT.
func (a *Agent) startPlanes(c *config.Config, d *doors) {
	limits := relayLimits(c.Limits)
	a.forward = forward.New(forward.Options{
		Origin: a.origin, Route: a.route,
		Reaches:  func(authority string) (string, bool) { return a.relay.Table().Reaches(authority) },
		Tunnel:   func(nc net.Conn, early []byte, target string) error { return a.relay.Tunnel(nc, early, target) },
		Observer: a.accessLog, Tracer: tracer{&a.telemetry}, Logger: a.logger,
		ConnectTimeout: relay.DefaultConnectTimeout,
		HeaderTimeout:  orDefault(limits.HeaderTimeout, defaultHeaderTimeout),
		HeaderBytes:    orDefault(limits.HeaderList, defaultHeaderBytes),
		ReplayBytes:    limits.ReplayBytes,
		BufferedBytes:  limits.BufferedBytes,
		ExplainTLS:     identity.Explain,
	})
	o := relay.Options{
		Origin: a.origin, Observer: a.accessLog, Tracer: tracer{&a.telemetry}, Logger: a.logger, Limits: limits,
		TLS: d.egress.tls("h2", "http/1.1"), ExplainTLS: identity.Explain, Guests: a.forward,
	}
	if c.Tasks != nil {
		a.deferrals = newDeferrals()
		o.Deferrer = a.deferrals
	}
	a.relay = relay.New(o)
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}

// route finds the target of a request by the relay's table.
func (a *Agent) route(q forward.Query) (forward.Target, string) {
	tunnel := q.Tunnel
	if _, _, err := net.SplitHostPort(q.Authority); err != nil && tunnel == "" {
		tunnel = net.JoinHostPort(q.Authority, "80") // what http:// means without a port
	}
	target, why := a.relay.Table().Find(relay.Query{Authority: q.Authority, Path: q.Path, Service: q.Service, Tunnel: tunnel})
	if target == nil {
		return forward.Target{}, why
	}
	return forward.Target{Service: target.Service, Transport: target.Transport}, ""
}

func relayLimits(l config.Limits) relay.Limits {
	return relay.Limits{
		StreamWindow: l.StreamWindowBytes, ConnectionWindow: l.ConnectionWindowBytes, BufferedBytes: l.BufferedBytes, ReplayBytes: l.ReplayBytes,
		DownstreamStreams: l.StreamsPerConnection, UpstreamConnections: l.UpstreamConnections, WaitingCalls: l.WaitingCalls, HeaderList: l.HeaderListBytes,
		PrefaceTimeout: l.PrefaceTimeout, HeaderTimeout: l.HeaderTimeout, Connections: l.Connections, ConnectionsPerPeer: l.ConnectionsPerPeer,
		ControlFrames: l.ControlFrames, ControlFramesPerSecond: l.ControlFramesPerSecond, Resets: l.Resets, ResetsPerSecond: l.ResetsPerSecond,
		StalledBytes: l.StalledBytes, StallTimeout: l.StallTimeout,
	}
}

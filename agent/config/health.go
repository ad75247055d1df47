package config

import (
	"net/url"
	"time"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// HealthKind says how endpoints are asked how they are.
type HealthKind uint8

// The kinds.
const (
	// HealthGRPC, the zero value: the gRPC health service.
	HealthGRPC HealthKind = iota
	HealthHTTP
	HealthTCP
	HealthTLS
)

// HealthCheck is how a service's endpoints are asked how they are.
type HealthCheck struct {
	Kind HealthKind
	// Service is asked for by gRPC. Empty: the server.
	Service string
	// Path, Host, Statuses and Text are HTTP's. Host empty: the endpoint's
	// address. Statuses nil: 2xx. Text empty: anything may be answered.
	Path, Host, Text string
	Statuses         []policy.StatusRange

	Interval, Timeout            time.Duration
	UnhealthyAfter, HealthyAfter int
	// Observe decides and does not act.
	Observe bool
}

// Reference figures for what a health_check block leaves out.
const (
	defaultCheckInterval  = 5 * time.Second
	defaultCheckTimeout   = time.Second
	defaultUnhealthyAfter = 3
	defaultHealthyAfter   = 2
)

// healthCheck makes plain values of a block. nil: endpoints are not asked.
func healthCheck(m *configv1.HealthCheck) *HealthCheck {
	if m == nil || m.GetMode() == configv1.Mode_OFF {
		return nil
	}
	h := &HealthCheck{
		Service: m.GetGrpc().GetService(),
		Path:    m.GetHttp().GetPath(), Host: m.GetHttp().GetHost(), Text: m.GetHttp().GetExpectedText(),
		Interval:       duration(m.GetInterval(), defaultCheckInterval),
		UnhealthyAfter: int(or(m.UnhealthyAfter, defaultUnhealthyAfter)),
		HealthyAfter:   int(or(m.HealthyAfter, defaultHealthyAfter)),
		Observe:        m.GetMode() == configv1.Mode_OBSERVE,
	}
	h.Timeout = duration(m.GetTimeout(), min(defaultCheckTimeout, h.Interval))
	for _, text := range m.GetHttp().GetExpectedStatuses() {
		if r, ok := statusRange(text); ok {
			h.Statuses = append(h.Statuses, r)
		}
	}
	switch {
	case m.GetHttp() != nil:
		h.Kind = HealthHTTP
	case m.GetTcp() != nil:
		h.Kind = HealthTCP
	case m.GetTls() != nil:
		h.Kind = HealthTLS
	}
	return h
}

// asks reports whether a block says how.
func asks(m *configv1.HealthCheck) bool {
	return m.GetGrpc() != nil || m.GetHttp() != nil || m.GetTcp() != nil || m.GetTls() != nil
}

// forgetKind makes room for another one.
func forgetKind(m *configv1.HealthCheck, next *configv1.HealthCheck) {
	if m == nil {
		return
	}
	if next.GetGrpc() == nil {
		m.Grpc = nil
	}
	if next.GetHttp() == nil {
		m.Http = nil
	}
	if next.GetTcp() == nil {
		m.Tcp = nil
	}
	if next.GetTls() == nil {
		m.Tls = nil
	}
}

// checkHealth holds what one level writes (own) together with what it inherits
// (whole) against the rules about several fields.
func (f *file) checkHealth(l level, own, whole *configv1.HealthCheck) {
	path := l.path + ".health_check"
	if l.override {
		f.refuse(path, "endpoints are checked for all methods alike; want it in the service's policy")
		return
	}
	h := healthCheck(whole)
	if h == nil {
		return
	}
	if !asks(whole) {
		f.refuse(path, `does not say how; want grpc: {}, http: {path: /health}, tcp: {} or tls: {}, or mode: OFF`)
	}
	if http := own.GetHttp(); http != nil {
		f.statuses(path+".http.expected_statuses", http.GetExpectedStatuses())
		if _, err := url.ParseRequestURI(whole.GetHttp().GetPath()); err != nil {
			f.refuse(path+".http.path", "%q is no path; want one such as /health", whole.GetHttp().GetPath())
		}
	}
	switch tooLong := h.Timeout > h.Interval; {
	case tooLong && own.GetTimeout() != nil:
		f.refuseTogether(path+".timeout", "%s is longer than the interval (%s), so checks would overlap; want at most that", short(h.Timeout), short(h.Interval))
	case tooLong && own.GetInterval() != nil:
		f.refuseTogether(path+".interval", "%s is shorter than timeout (%s), which is inherited; want at least that, or a timeout here too", short(h.Interval), short(h.Timeout))
	}
}

// serviceHealth resolves a service's health check, own of which is written for
// it.
func (f *file) serviceHealth(path string, own, whole *configv1.HealthCheck, tls bool) *HealthCheck {
	h := healthCheck(whole)
	if h != nil && h.Kind == HealthTLS && !tls {
		at := path
		if own.GetTls() != nil {
			at += ".policy.health_check.tls"
		}
		f.refuse(at, "the health check by a TLS handshake wants TLS to the endpoints; want tls: {…} for the service, or a check by grpc, http or tcp")
	}
	return h
}

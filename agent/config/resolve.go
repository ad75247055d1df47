package config

import (
	"fmt"
	"strings"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// resolve makes plain values of the message. What is wrong with policies is
// noted on the way, where it is known which level wrote what.
func (f *file) resolve(m *configv1.Config) *Config {
	address := func(l *configv1.Listener, fallback string) string {
		if l == nil || l.Address == nil {
			return fallback
		}
		return l.GetAddress()
	}
	f.chaos, f.zone, f.tasksWritten = m.GetChaos().GetEnabled(), m.GetZone(), m.GetTasks() != nil
	if f.upstreamConnections = int(m.GetEgress().GetLimits().GetUpstreamConnections()); f.upstreamConnections == 0 {
		f.upstreamConnections = defaultUpstreamConnections
	}
	defaults, inherited := f.policy(level{path: "defaults", who: "every service"}, nil, m.GetDefaults())
	c := &Config{
		Egress:    address(m.GetEgress(), DefaultEgress),
		API:       address(m.GetApi(), DefaultAPI),
		Admin:     address(m.GetAdmin(), DefaultAdmin),
		Unmatched: f.unmatched(m.GetUnmatched(), defaults, inherited),
		Limits:    resolveLimits(m.GetEgress().GetLimits()),
		Telemetry: resolveTelemetry(m.GetTelemetry()),
		StateDir:  m.GetState().GetDir(),
		Chaos:     f.chaos,
		Tasks:     f.tasks(m.GetTasks()),
	}
	c.Listeners = Listeners{
		Egress: f.listenerOptions("egress", c.Egress, m.GetEgress()),
		API:    f.listenerOptions("api", c.API, m.GetApi()),
		Admin:  f.listenerOptions("admin", c.Admin, m.GetAdmin()),
	}
	for i, s := range m.GetServices() {
		c.Services = append(c.Services, f.service(fmt.Sprintf("services[%d]", i), s, inherited))
	}
	return c
}

func (f *file) service(path string, m *configv1.Service, defaults *configv1.Policy) Service {
	p, inherited := f.policy(level{path: path + ".policy", who: "service " + m.GetName()}, defaults, m.GetPolicy())
	s := Service{
		Name:           m.GetName(),
		Methods:        m.GetMatch().GetMethods(),
		Policy:         p,
		TLS:            f.tls(m.GetTls()),
		MethodPolicies: make(map[string]policy.Policy, len(m.GetMethods())),
	}
	if s.TLS != nil {
		f.checkTLS(path+".tls", s.TLS, false)
	}
	s.Connections = connections(inherited.GetConnections())
	s.Health = f.serviceHealth(path, m.GetPolicy().GetHealthCheck(), inherited.GetHealthCheck(), s.TLS != nil)
	for _, a := range m.GetMatch().GetAuthorities() {
		s.Authorities = append(s.Authorities, strings.ToLower(a))
	}
	if len(s.Authorities) == 0 && len(s.Methods) == 0 {
		s.Authorities = []string{strings.ToLower(m.GetName())}
	}
	s.Resource = m.GetEndpoints().GetNone() != nil
	if s.Resource && p.Breaker.Scope == policy.ScopeEndpoint && p.Breaker.Options.Mode != policy.Off {
		f.refuse(path+".endpoints.none", "the circuit breaker of %s is by ENDPOINT, and there are none; want scope: SERVICE or METHOD", m.GetName())
	}
	if s.Resource {
		f.checkDeferOfResource(path, m)
	}
	s.Endpoints, s.Discovery = written(m.GetEndpoints().GetStatic()), f.discovery(path+".endpoints", m.GetEndpoints())
	if s.TLS != nil && s.TLS.ServerName == "" && s.TLS.WorkloadAPI == "" {
		s.TLS.ServerName = s.Discovery.tlsName()
	}
	for i, override := range m.GetMethods() {
		at := fmt.Sprintf("%s.methods[%d]", path, i)
		method := override.GetMethod()
		if _, twice := s.MethodPolicies[method]; twice {
			f.refuse(at+".method", "%s has an override already; want one for each method", method)
		}
		if !reaches(method, s.Methods) {
			f.refuse(at+".method", "%s matches none of the service's methods (%s), so the override would never hold; want a method of the service's",
				method, strings.Join(s.Methods, ", "))
		}
		s.MethodPolicies[method], _ = f.policy(level{path: at + ".policy", who: "method " + method, override: true}, inherited, override.GetPolicy())
	}
	return s
}

// reaches reports whether a call to the service can match the override.
func reaches(method string, prefixes []string) bool {
	if len(prefixes) == 0 {
		return true
	}
	for _, p := range prefixes {
		if strings.HasPrefix(method, p) || strings.HasSuffix(method, "/") && strings.HasPrefix(p, method) {
			return true
		}
	}
	return false
}

func resolveTelemetry(m *configv1.Telemetry) Telemetry {
	t := Telemetry{OTLPEndpoint: m.GetOtlp().GetEndpoint(), SampleRatio: DefaultSampleRatio, Prometheus: true}
	if traces := m.GetTraces(); traces != nil {
		t.SampleRatio = or(traces.SampleRatio, DefaultSampleRatio)
	}
	if m != nil {
		t.Prometheus = or(m.Prometheus, true)
	}
	switch m.GetAccessLog().GetMode() {
	case configv1.AccessLog_OFF:
		t.AccessLog = LogNothing
	case configv1.AccessLog_ALL:
		t.AccessLog = LogAll
	}
	return t
}

func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

package agent

import (
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/health"
	"github.com/outrigger-rpc/outrigger/agent/identity"
	"github.com/outrigger-rpc/outrigger/agent/telemetry"
	"github.com/outrigger-rpc/outrigger/balancer"
)

// newHealth makes what checks the endpoints of services.
func (a *Agent) newHealth() *health.Checker {
	return health.New(health.Options{
		Origin: a.origin, Logger: a.logger, ExplainTLS: identity.Explain,
		Changed: func() {
			if c := a.control.Load(); c != nil {
				c.Changed()
			}
		},
		Passed: func(e health.Endpoint, news bool) {
			if e, ok := e.(*balancer.Endpoint); ok {
				a.relay.Hurry(e, news)
			}
		},
	})
}

// check has the members of a service, and no other endpoint of it, checked.
// settings nil: none is.
func (a *Agent) check(name string, t *transport, settings *config.HealthCheck, members []*balancer.Endpoint) {
	if settings == nil {
		a.health.Forget(name)
		return
	}
	endpoints := make([]health.Endpoint, len(members))
	for i, e := range members {
		endpoints[i] = e
	}
	a.health.Follow(health.Service{Name: name, Transport: t, Settings: healthSettings(settings), Endpoints: endpoints})
}

var healthKinds = map[config.HealthKind]health.Kind{
	config.HealthGRPC: health.GRPC, config.HealthHTTP: health.HTTP, config.HealthTCP: health.TCP, config.HealthTLS: health.TLS,
}

func healthSettings(c *config.HealthCheck) health.Settings {
	return health.Settings{
		Kind: healthKinds[c.Kind], Service: c.Service, Path: c.Path, Host: c.Host, Statuses: c.Statuses, Text: c.Text,
		Interval: c.Interval, Timeout: c.Timeout, UnhealthyAfter: c.UnhealthyAfter, HealthyAfter: c.HealthyAfter, Observe: c.Observe,
	}
}

// healthCounts are the checks as telemetry names them.
func (a *Agent) healthCounts() []telemetry.HealthCount {
	counts := a.health.Counts()
	out := make([]telemetry.HealthCount, len(counts))
	for i, n := range counts {
		out[i] = telemetry.HealthCount{Service: n.Service, Outcome: n.Outcome.String(), Total: n.Total}
	}
	return out
}

// Note says what a policy in OBSERVE would have made of the endpoint. It
// implements api.Agent.
func (s source) Note(e *balancer.Endpoint) string { return s.agent.health.Note(e) }

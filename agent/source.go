package agent

import (
	"time"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/policy"
)

// source is the agent as the API reads it.
type source struct{ agent *Agent }

func (s source) Info() api.Info {
	a := s.agent
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	return api.Info{
		Version: a.options.Version, Started: a.origin, ConfigPath: a.options.ConfigPath,
		Generation: a.reload.generation, ReloadError: a.reload.problem,
		Egress: a.addresses.Egress, API: a.addresses.API, Admin: a.addresses.Admin,
	}
}

func (s source) Services() []*policy.Service { return s.agent.registry.all() }

func (s source) Now() policy.Instant { return s.agent.Now() }

func (s source) Wall(i policy.Instant) time.Time { return s.agent.origin.Add(i) }

func (s source) Reload() error { return s.agent.Reload() }

func (s source) Load() api.Load {
	stats := s.agent.relay.Stats()
	return api.Load{ActiveCalls: stats.ActiveCalls, Downstream: stats.DownstreamConnections, Upstream: stats.UpstreamConnections}
}

package agent

import (
	"context"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/policy"
)

// source is the agent as the API reads and moves it. It implements api.Agent.
type source struct{ agent *Agent }

// Info says what runs.
func (s source) Info() api.Info {
	a := s.agent
	a.reload.mu.Lock()
	defer a.reload.mu.Unlock()
	return api.Info{
		Version: a.options.Version, ConfigPath: a.options.ConfigPath,
		ConfigGeneration: a.reload.generation, ConfigLoaded: a.reload.loaded, LastReload: a.reload.tried, ReloadError: a.reload.problem,
		Egress: a.addresses.Egress, API: a.addresses.API, Admin: a.addresses.Admin,
		Draining: a.draining.Load(),
	}
}

// Services returns the live services.
func (s source) Services() []*policy.Service { return s.agent.registry.all() }

// Traffic reads the data plane's figures.
func (s source) Traffic() api.Traffic {
	stats := s.agent.relay.Stats()
	return api.Traffic{
		Calls: stats.CallsTotal, ActiveCalls: stats.ActiveCalls, BufferedBytes: stats.BufferedBytes,
		DownstreamConnections: stats.DownstreamConnections, UpstreamConnections: stats.UpstreamConnections,
	}
}

// Reload reads the configuration file again.
func (s source) Reload(context.Context) error { return s.agent.Reload() }

// TaskPromises returns what SLAs are kept of tasks.
func (s source) TaskPromises() []api.Promise { return s.agent.taskPromises() }

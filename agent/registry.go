package agent

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/relay"
	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// registry holds the live services: those of the configuration, and those that
// were dialled. Safe for concurrent use.
type registry struct {
	agent   *Agent
	dialled *dialled

	mu         sync.Mutex
	configured map[string]*policy.Service
	fallback   policy.Policy // what dialled services are under
}

func newRegistry(a *Agent, own ownPorts) *registry {
	r := &registry{agent: a, configured: make(map[string]*policy.Service)}
	r.dialled = newDialled(maxDialled, own, r.dial, a.relay.Forget)
	return r
}

// apply takes a configuration over and returns its routes. A service that was
// there before keeps its breakers, windows and connections.
func (r *registry) apply(c *config.Config) *relay.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*policy.Service, len(c.Services))
	var routes []relay.Route
	var gone []*balancer.Endpoint
	for _, s := range c.Services {
		service := r.configured[s.Name]
		if service == nil {
			service = policy.NewService(s.Name, policy.Settings{Policy: s.Policy, Methods: s.MethodPolicies}, r.agent.breakerMoved)
		} else {
			service.Update(policy.Settings{Policy: s.Policy, Methods: s.MethodPolicies})
		}
		gone = append(gone, service.SetEndpoints(s.Endpoints)...)
		next[s.Name] = service
		routes = append(routes, relay.Route{Target: relay.Target{Service: service}, Authorities: s.Authorities, Prefixes: s.Methods})
	}
	for name, s := range r.configured {
		if next[name] == nil {
			gone = append(gone, s.Endpoints().All()...)
		}
	}
	r.configured, r.fallback = next, c.Unmatched.Policy
	for _, s := range r.dialled.all() {
		s.Update(policy.Settings{Policy: c.Unmatched.Policy})
	}
	r.agent.relay.Forget(gone)
	if !c.Unmatched.Dial {
		r.dialled.clear()
		return relay.NewTable(routes, nil)
	}
	return relay.NewTable(routes, r.dialled.target)
}

// dial makes the service of an authority that no route matches.
func (r *registry) dial(authority string) *policy.Service {
	r.mu.Lock()
	p := r.fallback
	r.mu.Unlock()
	s := policy.NewService(authority, policy.Settings{Policy: p}, r.agent.breakerMoved)
	s.SetEndpoints([]balancer.Spec{{Address: authority}})
	return s
}

// all returns every live service in the order of their names.
func (r *registry) all() []*policy.Service {
	r.mu.Lock()
	services := make([]*policy.Service, 0, len(r.configured))
	for _, s := range r.configured {
		services = append(services, s)
	}
	r.mu.Unlock()
	services = append(services, r.dialled.all()...)
	slices.SortFunc(services, func(a, b *policy.Service) int { return strings.Compare(a.Name(), b.Name()) })
	return services
}

func (r *registry) close() { r.dialled.clear() }

// breakerMoved hears of every breaker's change of state.
func (a *Agent) breakerMoved(k breaker.Key, t breaker.Transition) {
	a.transitions.Count(k.Service, t.From.String(), t.To.String())
	if c := a.control.Load(); c != nil {
		c.Changed()
	}
	level := slog.LevelWarn
	if t.To == breaker.Closed {
		level = slog.LevelInfo
	}
	attributes := []any{"service", k.Service, "from", t.From.String(), "to", t.To.String(), "reason", t.Reason}
	if k.Method != "" {
		attributes = append(attributes, "method", k.Method)
	}
	if k.Endpoint != "" {
		attributes = append(attributes, "endpoint", k.Endpoint)
	}
	if t.OpenUntil > 0 {
		attributes = append(attributes, "open_until", a.origin.Add(t.OpenUntil).Format("15:04:05.000"))
	}
	a.logger.Log(context.Background(), level, "circuit breaker", attributes...)
}

package agent

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"os"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/discovery"
	"github.com/outrigger-rpc/outrigger/agent/identity"
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
	leases  *discovery.Leases
	outside *transport // what dialled services are connected by
	self    uint64     // tells this agent from others; see selfOf

	mu         sync.Mutex
	configured map[string]*configured
	fallback   policy.Policy // what dialled services are under
	attended   attended
}

// configured is a service of the configuration.
type configured struct {
	service   *policy.Service
	transport *transport
	care      atomic.Pointer[care]
	origins   origins
	feed      atomic.Pointer[discovery.Feed]

	tending sync.Mutex // held while endpoints are told how they are looked after
	reach   uint64     // service.Reach as of then
}

// care is how a service's endpoints are looked after.
type care struct {
	health      *config.HealthCheck // nil: they are not checked
	connections relay.Connections
}

func careOf(h *config.HealthCheck, c config.Connections) *care {
	return &care{h, relay.Connections{Warm: c.Warm, Max: c.Max, MaxAge: c.MaxAge, IdleTimeout: c.IdleTimeout}}
}

func newRegistry(a *Agent, own ownPorts) *registry {
	r := &registry{agent: a, leases: discovery.NewLeases(), configured: make(map[string]*configured), self: selfOf(a.reload.config().Egress)}
	r.outside = &transport{guard: &dialGuard{own: own}}
	r.dialled = newDialled(maxDialled, r.outside, r.dial, a.relay.Forget)
	return r
}

// selfOf returns a number that tells an agent from others: which endpoints are
// in its subset, and where its turns begin. It is the same after a restart as
// long as the host's name and the egress address are, so that the subset stays.
// Where the host has no name it is a random one.
func selfOf(egress string) uint64 {
	host, err := os.Hostname()
	if err != nil || host == "" {
		return rand.Uint64()
	}
	return balancer.HashKey(host + " " + egress)
}

// own returns the settings as those of this agent.
func (r *registry) own(s policy.Settings) policy.Settings {
	s.Policy.LoadBalancing.Identity = r.self
	s.Methods = maps.Clone(s.Methods)
	for method, p := range s.Methods {
		p.LoadBalancing.Identity = r.self
		s.Methods[method] = p
	}
	return s
}

// identities are the TLS identities that a configuration asks for and that are
// not in use yet, by service.
type identities map[string]*identity.Source

func (i identities) close() {
	for _, source := range i {
		source.Close()
	}
}

// prepare opens what apply needs and what can fail.
func (r *registry) prepare(c *config.Config) (identities, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	opened := make(identities)
	for i := range c.Services {
		s := &c.Services[i]
		if s.TLS == nil || r.configured[s.Name] != nil && reflect.DeepEqual(r.configured[s.Name].transport.settings, s.TLS) {
			continue
		}
		source, err := identity.Open(fmt.Sprintf("services[%d].tls", i), identitySettings(s.TLS), r.agent.logger)
		if err != nil {
			opened.close()
			return nil, err
		}
		opened[s.Name] = source
	}
	return opened, nil
}

// apply takes a configuration over, with what prepare opened for it, and
// returns its routes. A service that was there before keeps its breakers,
// windows and connections.
func (r *registry) apply(c *config.Config, opened identities) *relay.Table {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := make(map[string]*configured, len(c.Services))
	var routes []relay.Route
	var gone []*balancer.Endpoint
	for i := range c.Services {
		s := &c.Services[i]
		settings := r.own(s.Settings())
		entry := r.configured[s.Name]
		if entry == nil {
			entry = &configured{service: policy.NewService(s.Name, settings, r.agent.breakerMoved), transport: &transport{settings: s.TLS}}
			entry.service.OnEjection(r.agent.endpointMoved(s.Name))
			entry.transport.secure.Store(opened[s.Name])
		} else {
			entry.service.Update(settings)
			r.secure(entry, s.TLS, opened[s.Name])
		}
		entry.care.Store(careOf(s.Health, s.Connections))
		r.feed(entry, c, s)
		r.tend(entry)
		next[s.Name] = entry
		routes = append(routes, relay.Route{Target: relay.Target{Service: entry.service, Transport: entry.transport}, Authorities: s.Authorities, Prefixes: s.Methods})
	}
	for name, s := range r.configured {
		if next[name] == nil {
			s.feed.Load().Stop()
			r.leases.Close(name)
			gone = append(gone, s.service.Endpoints().All()...)
			r.agent.forward.Forget(s.transport)
			r.agent.health.Forget(name)
			s.transport.swap(nil)
		}
	}
	r.configured, r.fallback = next, c.Unmatched.Policy
	rules := c.Unmatched.Allow
	r.outside.guard.rules.Store(&rules)
	for _, s := range r.dialled.all() {
		s.Update(policy.Settings{Policy: c.Unmatched.Policy})
	}
	r.agent.relay.Forget(gone)
	if !c.Unmatched.Dial {
		r.dialled.clear()
	}
	r.attended.care = careOf(c.Unmatched.Health, c.Unmatched.Connections)
	r.attend(r.agent.Now())
	if !c.Unmatched.Dial {
		return relay.NewTable(routes, nil)
	}
	return relay.NewTable(routes, r.dialled.target)
}

// tend has the endpoints that the service uses now checked and connected as its
// configuration asks, and drained as operators did. It is called whenever one of
// these changed.
func (r *registry) tend(s *configured) {
	s.tending.Lock()
	defer s.tending.Unlock()
	s.reach = s.service.Reach() // before the members: what changes meanwhile is seen next time
	all, members := s.service.Endpoints().All(), s.service.Members()
	r.agent.drains.apply(s.service.Name(), all)
	r.agent.check(s.service.Name(), s.transport, s.care.Load().health, members)
	r.agent.relay.Keep(members, s.transport, s.care.Load().connections)
	if len(members) < len(all) {
		r.agent.relay.Release(others(all, members))
	}
}

// others returns those of all that are not among some.
func others(all, some []*balancer.Endpoint) []*balancer.Endpoint {
	among := make(map[*balancer.Endpoint]bool, len(some))
	for _, e := range some {
		among[e] = true
	}
	return slices.DeleteFunc(slices.Clone(all), func(e *balancer.Endpoint) bool { return among[e] })
}

// follow tends the services of which a subset reaches other endpoints than it
// did, and attends to what is dialled.
func (r *registry) follow() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.configured {
		s.tending.Lock()
		same := s.reach == s.service.Reach()
		s.tending.Unlock()
		if !same {
			r.tend(s)
		}
	}
	r.attend(r.agent.Now())
}

// secure changes a living service's TLS where it differs. New connections use
// it; those that are open finish their calls.
func (r *registry) secure(s *configured, settings *config.TLS, opened *identity.Source) {
	if reflect.DeepEqual(s.transport.settings, settings) {
		return
	}
	s.transport.settings = settings
	s.transport.swap(opened)
	r.agent.relay.Renew(s.service)
	r.agent.health.Renew(s.service.Name())
	r.agent.forward.Renew(s.transport)
}

// problems says what is wrong with the services' TLS identities, by service.
func (r *registry) problems() map[string]string {
	r.mu.Lock()
	defer r.mu.Unlock()
	wrong := make(map[string]string)
	for name, s := range r.configured {
		if source := s.transport.secure.Load(); source != nil {
			if why := source.Problem(); why != "" {
				wrong[name] = why
			}
		}
	}
	return wrong
}

// dial makes the service of an authority that no route matches.
func (r *registry) dial(authority string) *policy.Service {
	r.mu.Lock()
	p := r.fallback
	r.mu.Unlock()
	s := policy.NewService(authority, policy.Settings{Policy: p}, r.agent.breakerMoved)
	s.OnEjection(r.agent.endpointMoved(authority))
	s.SetEndpoints([]balancer.Spec{{Address: authority}})
	r.agent.drains.apply(authority, s.Endpoints().All())
	return s
}

// all returns every live service in the order of their names.
func (r *registry) all() []*policy.Service {
	r.mu.Lock()
	services := make([]*policy.Service, 0, len(r.configured))
	for _, s := range r.configured {
		services = append(services, s.service)
	}
	r.mu.Unlock()
	services = append(services, r.dialled.all()...)
	slices.SortFunc(services, func(a, b *policy.Service) int { return strings.Compare(a.Name(), b.Name()) })
	return services
}

func (r *registry) close() {
	r.dialled.clear()
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, s := range r.configured {
		s.feed.Load().Stop()
		s.transport.swap(nil)
	}
}

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

package agent

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/outrigger-rpc/outrigger/agent/api"
	"github.com/outrigger-rpc/outrigger/agent/config"
	"github.com/outrigger-rpc/outrigger/agent/discovery"
	"github.com/outrigger-rpc/outrigger/agent/telemetry"
	"github.com/outrigger-rpc/outrigger/balancer"
)

// origins is where a service's endpoints come from, as its configuration says.
type origins struct {
	written   []balancer.Spec
	discovery config.Discovery
}

func originsOf(s *config.Service) origins { return origins{s.Endpoints, s.Discovery} }

// feed makes the service's endpoints come from where its configuration says. A
// source that differs takes over once it has answered: until then the service
// keeps the endpoints that it has. r.mu is held.
func (r *registry) feed(entry *configured, c *config.Config, s *config.Service) {
	next := originsOf(s)
	// A file of endpoints is read with c, for the addresses that are the agent's:
	// they don't change while it runs.
	if entry.feed.Load() != nil && reflect.DeepEqual(entry.origins, next) {
		return
	}
	if old := entry.feed.Load(); old != nil {
		old.Stop()
	}
	if s.Discovery.Registered == nil {
		r.leases.Close(s.Name)
	}
	entry.origins = next
	discovered := !s.Discovery.None()
	feed := discovery.NewFeed(discovery.FeedOptions{
		Source:  r.source(c, s),
		Deliver: func(set discovery.Snapshot) { r.deliver(entry, set, discovered) },
		Hold:    holdOf(s.Discovery),
		Logger:  r.agent.logger.With("service", s.Name),
	})
	entry.feed.Store(feed)
	entry.service.SetWithoutEndpoints(func() string { return withoutEndpoints(feed.Status()) })
	entry.transport.failed.Store(feed)
	feed.Start()
}

// holdOf is how long an endpoint that is missing is waited for: not longer than
// until the source is asked again.
func holdOf(d config.Discovery) time.Duration {
	if d.DNS != nil {
		return min(d.DNS.Refresh, discovery.DefaultHold)
	}
	return discovery.DefaultHold
}

// source makes what the service's configuration asks for.
func (r *registry) source(c *config.Config, s *config.Service) discovery.Source {
	switch d := s.Discovery; {
	case d.DNS != nil:
		return discovery.NewDNS(discovery.DNSOptions{Host: d.DNS.Host, Port: d.DNS.Port, SRV: d.DNS.SRV, Refresh: d.DNS.Refresh, Servers: d.DNS.Servers})
	case d.File != "":
		return discovery.NewFile(discovery.FileOptions{
			Path: d.File, Load: c.ReadEndpoints,
			Watch: func(ctx context.Context, path string, changed func()) error {
				return config.Watch(ctx, path, config.Digest{}, changed)
			},
		})
	case d.Kubernetes != nil:
		return discovery.NewKubernetes(discovery.KubernetesOptions(*d.Kubernetes))
	case d.Registered != nil:
		return r.leases.Open(s.Name, discovery.LeaseLimits{MaxLease: d.Registered.MaxLease, MaxEndpoints: d.Registered.MaxEndpoints})
	}
	return discovery.NewStatic(s.Endpoints)
}

// deliver gives a service its endpoints. Those that lead back to the agent are
// left out: the configuration's were checked when it was read.
func (r *registry) deliver(entry *configured, set discovery.Snapshot, discovered bool) {
	s := entry.service
	specs := make([]balancer.Spec, 0, len(set.Endpoints))
	terminating := make(map[string]bool)
	for _, e := range set.Endpoints {
		if discovered && r.outside.guard.own.lead(e.Address) {
			r.agent.logger.Warn("an endpoint is left out: it is the agent itself", "service", s.Name(), "endpoint", e.Address)
			continue
		}
		specs = append(specs, e.Spec)
		if e.Terminating {
			terminating[e.Address] = true
		}
	}
	gone := s.SetEndpoints(specs)
	for _, e := range s.Endpoints().All() {
		out := e.Barred()
		e.SetTerminating(terminating[e.Address()])
		if out && !e.Barred() {
			r.agent.relay.Hurry(e, true) // it was announced anew
		}
	}
	r.agent.relay.Forget(gone)
	r.tend(entry)
	if c := r.agent.control.Load(); c != nil {
		c.Changed()
	}
}

// hurry has an endpoint of a service connected at once, where it has no
// connection: somebody said that it is back.
func (r *registry) hurry(service, address string) {
	for _, s := range r.all() {
		if s.Name() != service {
			continue
		}
		if e := s.Endpoints().Find(address); e != nil {
			r.agent.relay.Hurry(e, true)
		}
	}
}

// withoutEndpoints says why a service has none, for the calls that are refused.
func withoutEndpoints(s discovery.Status) string {
	switch {
	case s.Version == 0 && s.Problem == "":
		return fmt.Sprintf("its source (%s) has not answered yet", s.Source)
	case s.Version == 0:
		return fmt.Sprintf("its source (%s) has not answered yet: %s", s.Source, s.Problem)
	}
	return s.Problem
}

// discovered returns how each service's source is, in the order of their names.
func (r *registry) discovered() []sourceStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]sourceStatus, 0, len(r.configured))
	for name, s := range r.configured {
		if feed := s.feed.Load(); feed != nil {
			all = append(all, sourceStatus{name, !s.origins.discovery.None(), feed.Status()})
		}
	}
	slices.SortFunc(all, func(a, b sourceStatus) int { return strings.Compare(a.service, b.service) })
	return all
}

// sourceStatus is a service's source and how it is.
type sourceStatus struct {
	service    string
	discovered bool // not written in the configuration
	discovery.Status
}

// complaint says what is wrong with the source; empty: nothing.
func (s sourceStatus) complaint() string {
	switch {
	case s.Stale:
		return fmt.Sprintf("%s: the last good set of %s is %v old: %s", s.Source, count(s.Endpoints, "endpoint"), s.Age.Round(100*time.Millisecond), s.Problem)
	case s.Version == 0:
		return withoutEndpoints(s.Status)
	case s.Problem != "":
		return fmt.Sprintf("%s: %s", s.Source, s.Problem)
	}
	return ""
}

// discoveryStats are the sources' figures as telemetry names them. Lists in the
// configuration have none: they are always right.
func (r *registry) discoveryStats() []telemetry.DiscoveryStats {
	var stats []telemetry.DiscoveryStats
	for _, s := range r.discovered() {
		if s.discovered {
			stats = append(stats, telemetry.DiscoveryStats{Service: s.service, Age: s.Age, Stale: s.Stale, Endpoints: s.Endpoints, Changes: s.Version})
		}
	}
	return stats
}

// Discovery implements api.Agent.
func (s source) Discovery(service string) (api.Discovery, bool) {
	r := s.agent.registry
	r.mu.Lock()
	entry := r.configured[service]
	r.mu.Unlock()
	if entry == nil || entry.feed.Load() == nil {
		return api.Discovery{}, false
	}
	now := entry.feed.Load().Status()
	return api.Discovery{Source: now.Source, Version: now.Version, Endpoints: now.Endpoints, Stale: now.Stale, Age: now.Age, Problem: now.Problem}, true
}

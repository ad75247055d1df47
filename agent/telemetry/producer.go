package telemetry

import (
	"context"
	"time"

	"go.opentelemetry.io/otel/sdk/instrumentation"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
)

// producer makes metrics out of what the agent's rooms count for themselves.
// OpenTelemetry asks it at each collection. It holds nothing between two, so
// that services come and go without a trace left here.
type producer struct {
	source  Source
	version string
}

func newProducer(source Source, version string) *producer {
	return &producer{source: source, version: version}
}

// Produce returns everything as it is now. It implements sdk/metric.Producer.
func (p *producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	now := time.Now()
	c := newCollection(p.source.Origin, now)
	if p.source.Services != nil {
		instant := now.Sub(p.source.Origin)
		for _, s := range p.source.Services() {
			collectService(c, s, instant)
		}
	}
	if t := p.source.Transitions; t != nil {
		t.each(func(service, from, to string, n uint64) {
			c.counter(breakerTransitions, n, keyService.String(service), keyFrom.String(from), keyTo.String(to))
		})
	}
	if p.source.Health != nil {
		for _, n := range p.source.Health() {
			c.counter(healthChecks, n.Total, keyService.String(n.Service), keyOutcome.String(n.Outcome))
		}
	}
	if p.source.Relay != nil {
		collectRelay(c, p.source.Relay())
	}
	if p.source.Discovery != nil {
		for _, d := range p.source.Discovery() {
			collectDiscovery(c, d)
		}
	}
	if p.source.Tasks != nil {
		if stats, there := p.source.Tasks(); there {
			collectTasks(c, stats)
		}
	}
	if p.source.Reloads != nil {
		succeeded, failed := p.source.Reloads()
		c.counter(reloads, succeeded, keyOutcome.String("succeeded"))
		c.counter(reloads, failed, keyOutcome.String("failed"))
	}
	collectProcess(c, p.version)
	return []metricdata.ScopeMetrics{{
		Scope:   instrumentation.Scope{Name: scopeName, Version: p.version},
		Metrics: c.metrics,
	}}, nil
}

func collectDiscovery(c *collection, d DiscoveryStats) {
	name, stale := keyService.String(d.Service), 0.0
	if d.Stale {
		stale = 1
	}
	c.gauge(discoveryAge, d.Age.Seconds(), name)
	c.gauge(discoveryStale, stale, name)
	c.level(discoveryEndpoints, int64(d.Endpoints), name)
	c.counter(discoveryChanges, d.Changes, name)
}

func collectRelay(c *collection, s RelayStats) {
	c.level(relayConnections, s.DownstreamConnections, keySide.String("downstream"))
	c.level(relayConnections, s.UpstreamConnections, keySide.String("upstream"))
	c.level(relayActive, s.ActiveCalls)
	c.counter(relayCalls, s.Calls)
	c.counter(relayBytes, s.BytesUp, keyDirection.String("up"))
	c.counter(relayBytes, s.BytesDown, keyDirection.String("down"))
	for _, e := range s.ProtocolErrors {
		c.counter(relayErrors, e.Total, keyKind.String(e.Label))
	}
	for _, cut := range s.CutOffs {
		c.counter(relayCutOffs, cut.Total, keyLimit.String(cut.Label))
	}
	c.counter(relayHandshakes, s.HandshakeFailures)
	c.counter(relaySilent, s.SilentDeaths)
}

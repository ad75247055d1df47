package telemetry

import (
	"time"

	"go.opentelemetry.io/otel/attribute"

	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

// latencyBounds are the buckets of the call duration histogram, in seconds:
// those that OpenTelemetry advises for RPCs, finer below 10 ms, where calls
// between neighbours lie.
var latencyBounds = []float64{.0005, .001, .0025, .005, .01, .025, .05, .075, .1, .25, .5, .75, 1, 2.5, 5, 7.5, 10}

var (
	breakerStates   = []string{"CLOSED", "OPEN", "HALF_OPEN"}
	endpointStates  = []string{"READY", "CONNECTING", "UNHEALTHY", "EJECTED", "DRAINING"}
	verdicts        = []string{"MET", "MISSED", "NO_DATA"}
	slaWindowLabel  = keyWindow.String("5m")
	availabilityKey = keyObjective.String("availability")
	successKey      = keyObjective.String("success_rate")
)

// slaWindow is what the SLA's figures are over.
const slaWindow = 5 * time.Minute

// percent is one per cent: shares are exported from 0 to 1.
const percent = 0.01

// collectService adds what is known of one service.
func collectService(c *collection, s *policy.Service, now policy.Instant) {
	name := keyService.String(s.Name())
	collectCalls(c, s, name)
	collectLimits(c, s, name, now)
	collectEndpoints(c, s, name, now)
	collectBreakers(c, s, name, now)
	collectSLA(c, s.Recorder().Report(now, slaWindow, s.Policy().SLA), name)
}

func collectCalls(c *collection, s *policy.Service, name attribute.KeyValue) {
	for _, n := range s.Codes() {
		c.counter(calls, n.Total, name, keyRPCStatusName.String(n.Label))
	}
	for _, n := range s.Refusals() {
		c.counter(refusals, n.Total, name, keyReason.String(n.Label))
	}
	for _, n := range s.Observed() {
		c.counter(observedRefusals, n.Total, name, keyReason.String(n.Label))
	}
	c.counter(retries, s.Retries(), name)
	for _, n := range s.Actions() {
		c.counter(actions, n.Total, name, keyAction.String(n.Label))
	}
	latency := s.Recorder().Lifetime().Latency
	distribution(c, callDuration, latencyBounds, &latency, name, keyRPCSystem.String("grpc"))
}

// collectLimits adds the concurrency limit and the cache, where there are any.
func collectLimits(c *collection, s *policy.Service, name attribute.KeyValue, now policy.Instant) {
	if l := s.Limiter(); l != nil {
		at := l.Snapshot(now)
		c.level(concurrencyLimit, int64(at.Limit), name)
		c.level(concurrencyCalls, int64(at.InFlight), name, keyState.String("IN_FLIGHT"))
		c.level(concurrencyCalls, int64(at.Waiting), name, keyState.String("WAITING"))
	}
	if kept := s.Cache(); kept != nil {
		at := kept.Snapshot()
		for _, n := range []policy.Count{{Label: "hit", Total: at.Hits}, {Label: "stale", Total: at.StaleHits}, {Label: "miss", Total: at.Misses}, {Label: "follow", Total: at.Followed}} {
			c.counter(cacheLookups, n.Total, name, keyOutcome.String(n.Label))
		}
		c.level(cacheBytes, at.Bytes, name)
	}
}

func collectEndpoints(c *collection, s *policy.Service, name attribute.KeyValue, now policy.Instant) {
	byReports := s.Policy().LoadBalancing.LoadReports.On
	states := make(map[string]int64, len(endpointStates))
	for _, e := range s.Endpoints().All() {
		address := keyEndpoint.String(e.Address())
		condition, _, _ := e.Condition()
		states[condition.String()]++
		c.counter(endpointAttempts, e.Calls(), name, address)
		c.counter(endpointFailures, e.Failures(), name, address)
		c.level(endpointActive, e.InFlight(), name, address)
		if byReports {
			c.gauge(endpointWeight, s.ReportedWeight(e, now), name, address)
		}
	}
	for _, state := range endpointStates {
		c.level(endpoints, states[state], name, keyState.String(state))
	}
}

func collectBreakers(c *collection, s *policy.Service, name attribute.KeyValue, now policy.Instant) {
	for _, b := range s.Breakers() {
		snapshot := b.Breaker.Snapshot(now)
		labels := []attribute.KeyValue{name, keyMode.String(snapshot.Mode.String())}
		if b.Key.Method != "" {
			labels = append(labels, keyMethod.String(b.Key.Method))
		}
		if b.Key.Endpoint != "" {
			labels = append(labels, keyEndpoint.String(b.Key.Endpoint))
		}
		if b.Override != "" {
			labels = append(labels, keyMethod.String(b.Override))
		}
		c.oneOf(breakerState, keyState, breakerStates, snapshot.State.String(), labels...)
	}
}

func collectSLA(c *collection, r sla.Report, name attribute.KeyValue) {
	figure := func(objective attribute.KeyValue, f sla.Figure) {
		if f.Verdict != sla.NoData {
			c.gauge(slaAttained, f.Value*percent, name, objective, slaWindowLabel)
		}
		c.gauge(slaTarget, f.Target*percent, name, objective, slaWindowLabel)
		c.oneOf(slaVerdict, keyVerdict, verdicts, f.Verdict.String(), name, objective, slaWindowLabel)
	}
	figure(availabilityKey, r.Availability)
	figure(successKey, r.SuccessRate)
	for _, l := range r.Latency {
		quantile := keyQuantile.Float64(l.Quantile)
		if l.Verdict != sla.NoData {
			c.gauge(slaLatency, l.Value.Seconds(), name, quantile, slaWindowLabel)
		}
		c.gauge(slaLatencyTarget, l.Target.Seconds(), name, quantile, slaWindowLabel)
		c.oneOf(slaVerdict, keyVerdict, verdicts, l.Verdict.String(), name, keyObjective.String("latency"), quantile, slaWindowLabel)
	}
	c.gauge(slaBudget, r.BudgetLeft, name)
	c.gauge(slaBurn, r.BurnRate, name, slaWindowLabel)
}

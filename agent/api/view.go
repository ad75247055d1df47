package api

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

// view turns what the source has into messages.
type view struct{ Source }

// breakerName is a breaker's public name: stable, and easy to type.
func breakerName(b policy.NamedBreaker) string {
	name := b.Key.Service
	switch {
	case b.Key.Method != "":
		name += b.Key.Method // begins with a slash
	case b.Override != "":
		name += b.Override
	}
	if b.Key.Endpoint != "" {
		name += "@" + b.Key.Endpoint
	}
	return name
}

// named is a breaker with its name.
type named struct {
	name string
	policy.NamedBreaker
}

// breakers returns those of one service, or of all, in the order of names.
func (v view) breakers(service string) []named {
	var all []named
	for _, s := range v.Services() {
		if service != "" && s.Name() != service {
			continue
		}
		for _, b := range s.Breakers() {
			all = append(all, named{breakerName(b), b})
		}
	}
	slices.SortFunc(all, func(a, b named) int { return strings.Compare(a.name, b.name) })
	return all
}

func (v view) breaker(b named) *outriggerv1.Breaker {
	s := b.Breaker.Snapshot(v.Now())
	m := &outriggerv1.Breaker{
		Name: b.name, Service: b.Key.Service, Method: b.Key.Method, Endpoint: b.Key.Endpoint,
		State: breakerStates[s.State], Mode: breakerModes[s.Mode], Reason: s.Reason,
		ConsecutiveFailures: uint32(s.ConsecutiveFailures), Refused: s.Refused, WouldRefuse: s.WouldRefuse,
		Transitions: s.Transitions, ProbesInFlight: uint32(s.ProbesInFlight), Forced: s.Forced,
	}
	if s.OpenUntil > 0 {
		m.OpenUntil = timestamppb.New(v.Wall(s.OpenUntil))
	}
	return m
}

var breakerStates = map[breaker.State]outriggerv1.Breaker_State{
	breaker.Closed: outriggerv1.Breaker_CLOSED, breaker.Open: outriggerv1.Breaker_OPEN, breaker.HalfOpen: outriggerv1.Breaker_HALF_OPEN,
}

var breakerModes = map[breaker.Mode]outriggerv1.Breaker_Mode{
	breaker.Enforce: outriggerv1.Breaker_ENFORCE, breaker.Observe: outriggerv1.Breaker_OBSERVE, breaker.Off: outriggerv1.Breaker_OFF,
}

var endpointStates = map[balancer.Condition]outriggerv1.Endpoint_State{
	balancer.Ready: outriggerv1.Endpoint_READY, balancer.Connecting: outriggerv1.Endpoint_CONNECTING,
	balancer.Unhealthy: outriggerv1.Endpoint_UNHEALTHY, balancer.Ejected: outriggerv1.Endpoint_EJECTED,
	balancer.Draining: outriggerv1.Endpoint_DRAINING,
}

func endpoint(service string, e *balancer.Endpoint) *outriggerv1.Endpoint {
	condition, reason, _ := e.Condition()
	return &outriggerv1.Endpoint{
		Service: service, Address: e.Address(), State: endpointStates[condition], Reason: reason,
		InFlight: e.InFlight(), Calls: e.Calls(), Failures: e.Failures(), Weight: e.Spec().Weight, Zone: e.Spec().Zone,
	}
}

// endpoints returns those of one service, or of all, in the order of service
// and address.
func (v view) endpoints(service string) []*outriggerv1.Endpoint {
	var all []*outriggerv1.Endpoint
	for _, s := range v.Services() {
		if service != "" && s.Name() != service {
			continue
		}
		from := len(all)
		for _, e := range s.Endpoints().All() {
			all = append(all, endpoint(s.Name(), e))
		}
		slices.SortFunc(all[from:], func(a, b *outriggerv1.Endpoint) int { return strings.Compare(a.GetAddress(), b.GetAddress()) })
	}
	return all
}

func (v view) names() []string {
	var names []string
	for _, s := range v.Services() {
		names = append(names, s.Name())
	}
	return names
}

// statusSpan is what the figures of a status are over.
const statusSpan = 10 * time.Second

func (v view) status() *outriggerv1.Status {
	load := v.Load()
	m := &outriggerv1.Status{
		At: timestamppb.New(v.Wall(v.Now())), Agent: v.agent(),
		ActiveCalls: int64(load.ActiveCalls), DownstreamConnections: int32(load.Downstream), UpstreamConnections: int32(load.Upstream),
	}
	for _, s := range v.Services() {
		m.Services = append(m.Services, v.service(s))
	}
	return m
}

func (v view) service(s *policy.Service) *outriggerv1.ServiceStatus {
	recent := s.Recorder().Read(v.Now(), statusSpan)
	m := &outriggerv1.ServiceStatus{
		Name: s.Name(), P50Ms: millis(recent.Latency.Quantile(0.5)), P95Ms: millis(recent.Latency.Quantile(0.95)), P99Ms: millis(recent.Latency.Quantile(0.99)),
		Refusals: counts(s.Refusals()), Codes: counts(s.Codes()), Endpoints: v.endpoints(s.Name()),
	}
	if recent.Span > 0 {
		m.CallsPerSecond = float64(recent.Calls) / recent.Span.Seconds()
	}
	if n := recent.Counted(); n > 0 {
		m.Availability = 100 * float64(recent.Answered()) / float64(n)
	}
	for _, e := range s.Endpoints().All() {
		m.InFlight += e.InFlight()
	}
	var would, calls uint64
	for _, b := range v.breakers(s.Name()) {
		m.Breakers = append(m.Breakers, v.breaker(b))
		would += b.Breaker.Snapshot(v.Now()).WouldRefuse
	}
	for _, n := range s.Codes() {
		calls += n.Total
	}
	if calls > 0 {
		m.WouldRefusePercent = 100 * float64(would) / float64(calls)
	}
	return m
}

func counts(list []policy.Count) map[string]uint64 {
	m := make(map[string]uint64, len(list))
	for _, c := range list {
		m[c.Label] = c.Total
	}
	return m
}

func (v view) agent() *outriggerv1.Agent {
	i := v.Info()
	return &outriggerv1.Agent{
		Version: i.Version, Started: timestamppb.New(i.Started), ConfigPath: i.ConfigPath, ConfigGeneration: i.Generation,
		ReloadError: i.ReloadError, EgressAddress: i.Egress, ApiAddress: i.API, AdminAddress: i.Admin,
	}
}

var verdicts = map[sla.Verdict]outriggerv1.Verdict_Value{
	sla.NoData: outriggerv1.Verdict_NO_DATA, sla.Met: outriggerv1.Verdict_MET, sla.Missed: outriggerv1.Verdict_MISSED,
}

// shownQuantiles stand in every report, whether they have a target or not.
var shownQuantiles = []float64{0.5, 0.95, 0.99}

func (v view) report(s *policy.Service, window time.Duration) *outriggerv1.Report {
	now := v.Now()
	targets := s.Policy().SLA
	r := s.Recorder().Report(now, window, targets)
	totals := s.Recorder().Read(now, window)
	figure := func(f sla.Figure) *outriggerv1.Figure {
		return &outriggerv1.Figure{Value: f.Value, Target: f.Target, Verdict: verdicts[f.Verdict]}
	}
	m := &outriggerv1.Report{
		Service: s.Name(), Window: window.String(), Calls: totals.Calls, Counted: r.Calls, MeanMs: millis(r.Mean),
		Availability: figure(r.Availability), SuccessRate: figure(r.SuccessRate), BudgetLeft: r.BudgetLeft, BurnRate: r.BurnRate,
	}
	for _, q := range shownQuantiles {
		if slices.ContainsFunc(r.Latency, func(l sla.LatencyFigure) bool { return l.Quantile == q }) {
			continue
		}
		m.Latency = append(m.Latency, &outriggerv1.LatencyFigure{Quantile: q, ValueMs: millis(totals.Latency.Quantile(q)), Verdict: outriggerv1.Verdict_NO_DATA})
	}
	for _, l := range r.Latency {
		m.Latency = append(m.Latency, &outriggerv1.LatencyFigure{Quantile: l.Quantile, ValueMs: millis(l.Value), TargetMs: millis(l.Target), Verdict: verdicts[l.Verdict]})
	}
	slices.SortFunc(m.Latency, func(a, b *outriggerv1.LatencyFigure) int {
		if a.GetQuantile() < b.GetQuantile() {
			return -1
		}
		return 1
	})
	return m
}

func millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

package config

import (
	"fmt"
	"strings"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

var algorithms = map[configv1.LoadBalancing_Algorithm]balancer.Policy{
	configv1.LoadBalancing_ALGORITHM_UNSPECIFIED: balancer.LeastRequest,
	configv1.LoadBalancing_LEAST_REQUEST:         balancer.LeastRequest,
	configv1.LoadBalancing_ROUND_ROBIN:           balancer.RoundRobin,
	configv1.LoadBalancing_RANDOM:                balancer.Random,
}

// resolve makes plain values of the message. What is wrong is noted in f.
func (f *file) resolve(m *configv1.Config) *Config {
	address := func(l *configv1.Listener, fallback string) string {
		if l == nil {
			return fallback
		}
		return l.GetAddress()
	}
	c := &Config{
		Egress: address(m.GetEgress(), DefaultEgress),
		API:    address(m.GetApi(), DefaultAPI),
		Admin:  address(m.GetAdmin(), DefaultAdmin),
		Unmatched: Unmatched{
			Dial:   m.GetUnmatched().GetMode() == configv1.Unmatched_DIAL,
			Policy: f.policy("defaults", m.GetDefaults()),
		},
		Telemetry: resolveTelemetry(m.GetTelemetry()),
	}
	for i, s := range m.GetServices() {
		c.Services = append(c.Services, f.service(fmt.Sprintf("services[%d]", i), s, m.GetDefaults()))
	}
	return c
}

func (f *file) service(path string, s *configv1.Service, defaults *configv1.Policy) Service {
	own := inherit(defaults, s.GetPolicy())
	service := Service{
		Name:           s.GetName(),
		Methods:        s.GetMatch().GetMethods(),
		Policy:         f.policy(path+".policy", own),
		MethodPolicies: make(map[string]policy.Policy, len(s.GetMethods())),
	}
	for _, a := range s.GetMatch().GetAuthorities() {
		service.Authorities = append(service.Authorities, strings.ToLower(a))
	}
	if len(service.Authorities) == 0 && len(service.Methods) == 0 {
		service.Authorities = []string{strings.ToLower(s.GetName())}
	}
	for _, e := range s.GetEndpoints().GetStatic() {
		weight := uint32(1)
		if e.Weight != nil {
			weight = e.GetWeight()
		}
		service.Endpoints = append(service.Endpoints, balancer.Spec{Address: e.GetAddress(), Weight: weight, Zone: e.GetZone()})
	}
	for i, m := range s.GetMethods() {
		at := fmt.Sprintf("%s.methods[%d]", path, i)
		if _, twice := service.MethodPolicies[m.GetMethod()]; twice {
			f.refuse(at+".method", "%s has an override already; put both into one", m.GetMethod())
		}
		if !reaches(m.GetMethod(), service.Methods) {
			f.refuse(at+".method", "%s matches none of the service's methods (%s), so the override would never hold", m.GetMethod(), strings.Join(service.Methods, ", "))
		}
		service.MethodPolicies[m.GetMethod()] = f.policy(at+".policy", inherit(own, m.GetPolicy()))
	}
	return service
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

// inherit returns the parent with what the child writes on top, field by
// field; a list is replaced whole.
func inherit(parent, child *configv1.Policy) *configv1.Policy {
	merged := &configv1.Policy{}
	if parent != nil {
		merged = proto.CloneOf(parent)
	}
	if child != nil {
		overlay(merged.ProtoReflect(), proto.CloneOf(child).ProtoReflect())
	}
	return merged
}

func overlay(base, top protoreflect.Message) {
	top.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		_, leaf := v.Interface().(protoreflect.Message)
		if leaf && !field.IsList() && base.Has(field) && field.Message().FullName() != "google.protobuf.Duration" {
			overlay(base.Mutable(field).Message(), v.Message())
		} else {
			base.Set(field, v)
		}
		return true
	})
}

// policy makes a plain policy. path is where the innermost block would stand,
// for messages.
func (f *file) policy(path string, m *configv1.Policy) policy.Policy {
	p := policy.Policy{
		Timeout:       duration(m.GetTimeout(), 0),
		PerTryTimeout: duration(m.GetPerTryTimeout(), 0),
		Stream: policy.StreamLimits{
			IdleTimeout: duration(m.GetStream().GetIdleTimeout(), 0),
			MaxDuration: duration(m.GetStream().GetMaxDuration(), 0),
		},
		Breaker:       f.breaker(path, m.GetCircuitBreaker()),
		LoadBalancing: algorithms[m.GetLoadBalancing().GetPolicy()],
		SLA:           f.sla(path, m.GetSla()),
	}
	if p.Timeout > 0 && p.PerTryTimeout > p.Timeout {
		f.refuse(path+".per_try_timeout", "%v is longer than the timeout of %v that bounds all tries; want at most that", p.PerTryTimeout, p.Timeout)
	}
	return p
}

// Reference figures for what a circuit_breaker block leaves out.
const (
	defaultFailureRate  = 0.5
	defaultSlowRate     = 0.8
	defaultMinimumCalls = 20
)

func (f *file) breaker(path string, m *configv1.CircuitBreaker) policy.BreakerPolicy {
	if m == nil {
		return policy.Default().Breaker
	}
	o := breaker.Reference()
	o.OpenFor = duration(m.GetOpenFor(), o.OpenFor)
	o.MaxOpenFor = duration(m.GetMaxOpenFor(), max(o.MaxOpenFor, o.OpenFor))
	if o.MaxOpenFor < o.OpenFor {
		f.refuse(path+".circuit_breaker.max_open_for", "%v is shorter than open_for (%v); want at least that", o.MaxOpenFor, o.OpenFor)
	}
	if m.HalfOpenProbes != nil {
		o.HalfOpenProbes = int(m.GetHalfOpenProbes())
	}
	rate, slow := m.GetFailureRate(), m.GetSlowCalls()
	if m.ConsecutiveFailures != nil {
		o.ConsecutiveFailures = int(m.GetConsecutiveFailures())
	} else if rate != nil || slow != nil {
		o.ConsecutiveFailures = 0 // another threshold was chosen
	}
	if rate != nil {
		o.FailureRate = or(rate.Threshold, defaultFailureRate)
	}
	if slow != nil {
		o.SlowRate = or(slow.Threshold, defaultSlowRate)
		o.SlowerThan = duration(slow.GetSlowerThan(), 0)
	}
	if rate != nil || slow != nil {
		o.MinimumCalls, o.Window = defaultMinimumCalls, duration(rate.GetWindow(), breaker.DefaultWindow)
		if rate != nil && rate.MinimumCalls != nil {
			o.MinimumCalls = int(rate.GetMinimumCalls())
		}
	}
	if o.ConsecutiveFailures == 0 && rate == nil && slow == nil {
		f.refuse(path+".circuit_breaker", "no threshold is left: want consecutive_failures, failure_rate or slow_calls, or mode: OFF")
	}
	switch m.GetMode() {
	case configv1.Mode_OBSERVE:
		o.Mode = breaker.Observe
	case configv1.Mode_OFF:
		o.Mode = breaker.Off
	}
	scope := policy.ScopeService
	switch m.GetScope() {
	case configv1.CircuitBreaker_METHOD:
		scope = policy.ScopeMethod
	case configv1.CircuitBreaker_ENDPOINT:
		scope = policy.ScopeEndpoint
	}
	return policy.BreakerPolicy{Scope: scope, Options: o}
}

func (f *file) sla(path string, m *configv1.Sla) sla.Targets {
	t := sla.DefaultTargets()
	if m == nil {
		return t
	}
	t.Availability = or(m.Availability, t.Availability)
	t.SuccessRate = or(m.SuccessRate, t.SuccessRate)
	t.Window = duration(m.GetWindow(), t.Window)
	if list := m.GetLatency(); len(list) > 0 {
		t.Latency = nil
		for _, l := range list {
			t.Latency = append(t.Latency, sla.LatencyTarget{Quantile: l.GetQuantile(), Target: l.GetTarget().AsDuration()})
		}
	}
	if err := t.Validate(); err != nil {
		f.refuse(path+".sla", "%v", err)
	}
	return t
}

func resolveTelemetry(m *configv1.Telemetry) Telemetry {
	t := Telemetry{
		OTLPEndpoint: m.GetOtlp().GetEndpoint(),
		SampleRatio:  DefaultSampleRatio,
		Prometheus:   true,
	}
	if r := m.GetTraces(); r != nil && r.SampleRatio != nil {
		t.SampleRatio = r.GetSampleRatio()
	}
	if m != nil && m.Prometheus != nil {
		t.Prometheus = m.GetPrometheus()
	}
	switch m.GetAccessLog().GetMode() {
	case configv1.AccessLog_OFF:
		t.AccessLog = LogNothing
	case configv1.AccessLog_ALL:
		t.AccessLog = LogAll
	}
	return t
}

func duration(d *durationpb.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return d.AsDuration()
}

func or[T any](p *T, fallback T) T {
	if p == nil {
		return fallback
	}
	return *p
}

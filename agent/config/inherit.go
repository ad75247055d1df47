package config

import (
	"fmt"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
	"github.com/outrigger-rpc/outrigger/sla"
)

// level is one of the places where a policy is written.
type level struct {
	path     string // such as "services[0].policy"
	who      string // whose policy it is, such as "service greeter"
	override bool   // a method's
}

// policy makes a plain policy of what one level writes on top of what it
// inherits, and returns the two as one too, for the level below.
func (f *file) policy(l level, inherited, own *configv1.Policy) (policy.Policy, *configv1.Policy) {
	m, path := inherit(inherited, own), l.path
	p := policy.Policy{
		Timeout:       duration(m.GetTimeout(), 0),
		PerTryTimeout: duration(m.GetPerTryTimeout(), 0),
		Stream: policy.StreamLimits{
			IdleTimeout: duration(m.GetStream().GetIdleTimeout(), 0),
			MaxDuration: duration(m.GetStream().GetMaxDuration(), 0),
		},
		Idempotent:    m.GetIdempotent(),
		Retry:         retryPolicy(m.GetRetry()),
		Hedge:         hedgePolicy(m.GetHedge()),
		Breaker:       breakerPolicy(m.GetCircuitBreaker()),
		Outlier:       outlierOptions(m.GetOutlierDetection()),
		Concurrency:   concurrencyPolicy(m.GetConcurrency()),
		RateLimit:     rateLimitPolicy(m.GetRateLimit()),
		Throttle:      throttlePolicy(m.GetClientThrottle()),
		Fallback:      f.fallbackPolicy(path+".fallback", own.GetFallback(), m.GetFallback()),
		Cache:         cachePolicy(m.GetCache()),
		Fault:         faultPolicy(m.GetFault()),
		Defer:         deferPolicy(m.GetDefer()),
		LoadBalancing: f.loadBalancing(m.GetLoadBalancing()),
		HTTP: policy.HTTPStatuses{
			Failures: f.statuses(path+".http.failure_statuses", m.GetHttp().GetFailureStatuses()),
			Pushback: f.statuses(path+".http.pushback_statuses", m.GetHttp().GetPushbackStatuses()),
		},
		SLA: targets(m.GetSla()),
	}
	p.HashOn = hashPolicy(p.LoadBalancing.Policy, m.GetHashOn())
	if own != nil {
		f.check(l, own, m, p)
	}
	return p, m
}

// check holds the rules about several fields. Each is told where one of its
// fields is written: what is wrong with the defaults is not told again of every
// service.
func (f *file) check(l level, own, m *configv1.Policy, p policy.Policy) {
	path := l.path
	switch tooLong := p.Timeout > 0 && p.PerTryTimeout > p.Timeout; {
	case tooLong && own.GetPerTryTimeout() != nil:
		f.refuseTogether(path+".per_try_timeout", "%s is longer than the timeout (%s) that bounds all tries; want at most that", short(p.PerTryTimeout), short(p.Timeout))
	case tooLong && own.GetTimeout() != nil:
		f.refuseTogether(path+".timeout", "%s is shorter than per_try_timeout (%s), which is inherited; want at least that, or a per_try_timeout here too", short(p.Timeout), short(p.PerTryTimeout))
	}
	if b := own.GetCircuitBreaker(); b != nil {
		f.checkBreaker(path+".circuit_breaker", b, m.GetCircuitBreaker(), p.Breaker.Options)
	}
	if b := own.GetOutlierDetection(); b != nil {
		f.checkOutlier(l, b, m.GetOutlierDetection(), p.Outlier)
	}
	if own.GetSla() != nil {
		f.checkTargets(path+".sla", p.SLA)
	}
	if b := own.GetRetry(); b != nil {
		f.checkRetry(l, b, p.Retry)
	}
	f.checkHedge(l, own, p)
	if b := own.GetConcurrency(); b != nil {
		f.checkConcurrency(path+".concurrency", b, p.Concurrency)
	}
	if b := own.GetRateLimit(); b != nil {
		f.checkRateLimit(path+".rate_limit", b, p.RateLimit)
	}
	f.checkCache(l, own, p)
	if b := own.GetConnections(); b != nil {
		f.checkConnections(l, b, m.GetConnections(), f.upstreamConnections)
	}
	if b := own.GetHealthCheck(); b != nil {
		f.checkHealth(l, b, m.GetHealthCheck())
	}
	f.checkHashOn(l, own.GetHashOn(), p.LoadBalancing.Policy)
	if b := own.GetLoadBalancing(); b != nil {
		f.checkLoadBalancing(l, b, m.GetLoadBalancing(), p.LoadBalancing)
	}
	if b := own.GetFault(); b != nil {
		f.checkFault(path+".fault", b, m.GetFault())
	}
	f.checkDefer(path+".defer", own.GetDefer())
}

// inherit returns the parent with what the child writes on top, field by
// field; a list is replaced whole, and so are a fallback's answer, a health
// check's kind and what is hashed.
func inherit(parent, child *configv1.Policy) *configv1.Policy {
	merged := &configv1.Policy{}
	if parent != nil {
		merged = proto.CloneOf(parent)
	}
	if child != nil {
		if answers(child.GetFallback()) {
			forgetAnswer(merged.GetFallback())
		}
		if check := child.GetHealthCheck(); asks(check) {
			forgetKind(merged.GetHealthCheck(), check)
		}
		if child.GetHashOn() != nil {
			merged.HashOn = nil
		}
		overlay(merged.ProtoReflect(), proto.CloneOf(child).ProtoReflect())
	}
	return merged
}

func overlay(base, top protoreflect.Message) {
	top.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		block := field.Message() != nil && !field.IsList() && field.Message().FullName() != durationName
		if block && base.Has(field) {
			overlay(base.Mutable(field).Message(), v.Message())
		} else {
			base.Set(field, v)
		}
		return true
	})
}

func targets(m *configv1.Sla) sla.Targets {
	t := sla.DefaultTargets()
	if m == nil {
		return t
	}
	t.Availability = or(m.Availability, t.Availability)
	t.SuccessRate = or(m.SuccessRate, t.SuccessRate)
	t.Window = duration(m.GetWindow(), t.Window)
	if list := m.GetLatency(); len(list) > 0 {
		t.Latency = make([]sla.LatencyTarget, len(list))
		for i, l := range list {
			t.Latency[i] = sla.LatencyTarget{Quantile: l.GetQuantile(), Target: l.GetTarget().AsDuration()}
		}
	}
	return t
}

func (f *file) checkTargets(path string, t sla.Targets) {
	first := make(map[float64]int)
	for i, l := range t.Latency {
		if j, twice := first[l.Quantile]; twice {
			f.refuse(fmt.Sprintf("%s.latency[%d].quantile", path, i), "%v has a target already, in latency[%d]; want one for each quantile", l.Quantile, j)
			continue
		}
		first[l.Quantile] = i
	}
}

func duration(d *durationpb.Duration, fallback time.Duration) time.Duration {
	if d == nil {
		return fallback
	}
	return d.AsDuration()
}

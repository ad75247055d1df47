package config

import (
	"github.com/outrigger-rpc/outrigger/breaker"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Reference figures for what a circuit_breaker block leaves out.
const (
	defaultFailureRate  = 0.5
	defaultSlowRate     = 0.8
	defaultMinimumCalls = 20
)

// breakerPolicy makes plain options of a block. None written: the reference
// figures, observed. A block takes the reference figures for what it leaves
// out, except that who asks for a rate gets no consecutive failures unasked:
// they would open the breaker that the rate was to keep closed.
func breakerPolicy(m *configv1.CircuitBreaker) policy.BreakerPolicy {
	if m == nil {
		return policy.Default().Breaker
	}
	o := breaker.Reference()
	o.OpenFor = duration(m.GetOpenFor(), o.OpenFor)
	o.MaxOpenFor = duration(m.GetMaxOpenFor(), max(o.MaxOpenFor, o.OpenFor))
	o.HalfOpenProbes = int(or(m.HalfOpenProbes, uint32(o.HalfOpenProbes)))
	rate, slow := m.GetFailureRate(), m.GetSlowCalls()
	if rate != nil || slow != nil {
		o.ConsecutiveFailures = 0
		o.MinimumCalls, o.Window = defaultMinimumCalls, duration(rate.GetWindow(), breaker.DefaultWindow)
	}
	if m.ConsecutiveFailures != nil {
		o.ConsecutiveFailures = int(m.GetConsecutiveFailures())
	}
	if rate != nil {
		o.FailureRate = or(rate.Threshold, defaultFailureRate)
		o.MinimumCalls = int(or(rate.MinimumCalls, defaultMinimumCalls))
	}
	if slow != nil {
		o.SlowRate = or(slow.Threshold, defaultSlowRate)
		o.SlowerThan = duration(slow.GetSlowerThan(), 0)
	}
	o.Mode = mode(m.GetMode())
	scope := policy.ScopeService
	switch m.GetScope() {
	case configv1.CircuitBreaker_METHOD:
		scope = policy.ScopeMethod
	case configv1.CircuitBreaker_ENDPOINT:
		scope = policy.ScopeEndpoint
	}
	return policy.BreakerPolicy{Scope: scope, Options: o}
}

// checkBreaker holds what one level writes (own) together with what it
// inherits (whole) against the rules about several fields.
func (f *file) checkBreaker(path string, own, whole *configv1.CircuitBreaker, o breaker.Options) {
	switch tooShort := o.MaxOpenFor < o.OpenFor; {
	case tooShort && own.GetMaxOpenFor() != nil:
		f.refuseTogether(path+".max_open_for", "%s is shorter than open_for (%s); want at least that", short(o.MaxOpenFor), short(o.OpenFor))
	case tooShort && own.GetOpenFor() != nil:
		f.refuseTogether(path+".open_for", "%s is longer than max_open_for (%s), which is inherited; want at most that, or a max_open_for here too", short(o.OpenFor), short(o.MaxOpenFor))
	}
	if whole.GetSlowCalls() != nil && whole.GetSlowCalls().GetSlowerThan() == nil {
		f.refuse(path+".slow_calls.slower_than", "is missing; want from when on a call is slow, such as slower_than: 1s")
	}
	if o.Mode != breaker.Off && o.ConsecutiveFailures == 0 && o.FailureRate == 0 && o.SlowRate == 0 {
		f.refuse(path, "no threshold is left; want consecutive_failures, failure_rate or slow_calls, or mode: OFF")
	}
}

package config

import (
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// What retry and hedge blocks leave out.
const (
	defaultRetryAttempts = 3
	defaultHedgeAttempts = 2
)

// retryPolicy makes plain values of a block. None written: no retry, and still
// the budget, which hedges draw on and which is the service's where only a
// method writes retry.
func retryPolicy(m *configv1.Retry) policy.RetryPolicy {
	budget := policy.DefaultBudget()
	if m == nil {
		return policy.RetryPolicy{Budget: budget}
	}
	if b := m.GetBudget(); b != nil {
		budget = policy.BudgetPolicy{Ratio: or(b.Ratio, budget.Ratio), MinPerSecond: or(b.MinPerSecond, budget.MinPerSecond)}
	}
	base := duration(m.GetBackoff().GetBase(), policy.DefaultBackoffBase)
	return policy.RetryPolicy{
		MaxAttempts: int(or(m.MaxAttempts, defaultRetryAttempts)),
		Codes:       codeSet(m.GetCodes()),
		BackoffBase: base,
		BackoffMax:  duration(m.GetBackoff().GetMax(), max(policy.DefaultBackoffMax, base)),
		Budget:      budget,
		Mode:        mode(m.GetMode()),
	}
}

// checkRetry holds what one level writes together with what it inherits
// against the rules about several fields.
func (f *file) checkRetry(l level, own *configv1.Retry, p policy.RetryPolicy) {
	path := l.path + ".retry"
	if l.override && own.GetBudget() != nil {
		f.refuse(path+".budget", "is the service's: the retries and hedges of all its methods share it; want it in the service's policy")
	}
	switch tooShort := p.BackoffMax < p.BackoffBase; {
	case tooShort && own.GetBackoff().GetMax() != nil:
		f.refuseTogether(path+".backoff.max", "%s is shorter than base (%s); want at least that", short(p.BackoffMax), short(p.BackoffBase))
	case tooShort && own.GetBackoff().GetBase() != nil:
		f.refuseTogether(path+".backoff.base", "%s is longer than max (%s), which is inherited; want at most that, or a max here too", short(p.BackoffBase), short(p.BackoffMax))
	}
}

// hedgePolicy makes plain values of a block. None written: no hedge.
func hedgePolicy(m *configv1.Hedge) policy.HedgePolicy {
	if m == nil {
		return policy.HedgePolicy{}
	}
	return policy.HedgePolicy{
		Delay:         duration(m.GetDelay(), 0),
		DelayQuantile: m.GetDelayQuantile(),
		MaxAttempts:   int(or(m.MaxAttempts, defaultHedgeAttempts)),
		NonFatal:      codeSet(m.GetNonFatalCodes()),
		Mode:          mode(m.GetMode()),
	}
}

// checkHedge holds a hedge against what it needs and what ends it.
func (f *file) checkHedge(l level, own *configv1.Policy, p policy.Policy) {
	h := p.Hedge
	if h.Mode == policy.Off || h.MaxAttempts < 2 {
		return
	}
	written := own.GetHedge() != nil
	if written && h.Delay == 0 && h.DelayQuantile == 0 {
		f.refuse(l.path+".hedge", "does not say when; want delay or delay_quantile, or mode: OFF")
	}
	f.checkIdempotent(l, "hedge", "a hedge sends a call twice", written, own, p)
	timeout, field, here := p.Timeout, "timeout", own.GetTimeout() != nil
	if p.PerTryTimeout > 0 && (timeout <= 0 || p.PerTryTimeout < timeout) {
		timeout, field, here = p.PerTryTimeout, "per_try_timeout", own.GetPerTryTimeout() != nil
	}
	switch never := h.Delay > 0 && timeout > 0 && h.Delay >= timeout; {
	case never && own.GetHedge().GetDelay() != nil:
		f.refuseTogether(l.path+".hedge.delay", "%s is not shorter than %s (%s), so the hedge would never be sent; want less", short(h.Delay), field, short(timeout))
	case never && here:
		f.refuseTogether(l.path+"."+field, "%s is over before hedge.delay (%s), which is inherited; want more than that, or a hedge.delay here too", short(timeout), short(h.Delay))
	case never && written:
		f.refuse(l.path+".hedge", "delay (%s) is not shorter than %s (%s), and both are inherited; want a delay here that is", short(h.Delay), field, short(timeout))
	}
}

// checkIdempotent refuses a block that needs calls which may be processed
// twice where they may not.
func (f *file) checkIdempotent(l level, block, why string, written bool, own *configv1.Policy, p policy.Policy) {
	switch {
	case p.Idempotent:
	case written:
		f.refuseTogether(l.path+"."+block, "wants idempotent: true for %s, as %s; write that if it holds, or mode: OFF here", l.who, why)
	case own.Idempotent != nil:
		f.refuseTogether(l.path+".idempotent", "false for %s under a %s that is inherited, and %s; want true, or %s: {mode: OFF} here too", l.who, block, why, block)
	}
}

// codeSet returns the set of the codes; none written: UNAVAILABLE.
func codeSet(names []string) policy.CodeSet {
	if len(names) == 0 {
		return policy.Codes(policy.Unavailable)
	}
	var codes []policy.Code
	for _, name := range names {
		if c, ok := policy.ParseCode(name); ok { // else the field's own rule told
			codes = append(codes, c)
		}
	}
	return policy.Codes(codes...)
}

// mode is that of a block that is written.
func mode(m configv1.Mode) policy.Mode {
	switch m {
	case configv1.Mode_OBSERVE:
		return policy.Observe
	case configv1.Mode_OFF:
		return policy.Off
	}
	return policy.Enforce
}

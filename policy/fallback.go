package policy

// Fallback returns what answers a gRPC call in place of the refusal, or nil:
// the breaker is open, or no endpoint can be had. Ask once a refused call.
func (c *Call) Fallback(r *Refusal) *FallbackPolicy {
	p := &c.method.rule.policy.Fallback
	if !p.Enabled || p.Mode == Off {
		return nil
	}
	switch r.Reason {
	case BreakerOpen, NoEndpoints, AllUnhealthy, ConnectFailed:
	default:
		return nil
	}
	counts := &c.method.service.counts
	if p.Mode == Observe {
		counts.wouldFallBack.Add(1)
		return nil
	}
	counts.fallbacks.Add(1)
	return p
}

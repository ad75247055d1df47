package config

import (
	"github.com/outrigger-rpc/outrigger/balancer"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

var algorithms = map[configv1.LoadBalancing_Algorithm]balancer.Policy{
	configv1.LoadBalancing_ALGORITHM_UNSPECIFIED: balancer.LeastRequest,
	configv1.LoadBalancing_LEAST_REQUEST:         balancer.LeastRequest,
	configv1.LoadBalancing_ROUND_ROBIN:           balancer.RoundRobin,
	configv1.LoadBalancing_WEIGHTED_ROUND_ROBIN:  balancer.WeightedRoundRobin,
	configv1.LoadBalancing_RANDOM:                balancer.Random,
	configv1.LoadBalancing_PEAK_EWMA:             balancer.PeakEWMA,
	configv1.LoadBalancing_RING_HASH:             balancer.RingHash,
	configv1.LoadBalancing_MAGLEV:                balancer.Maglev,
}

// loadBalancing makes plain options of a block. None written: LEAST_REQUEST.
// What is inherited and belongs to another algorithm is left out, so that
// options compare equal where calls are balanced alike.
func (f *file) loadBalancing(m *configv1.LoadBalancing) balancer.Options {
	o := balancer.Options{
		Policy:         algorithms[m.GetPolicy()],
		PanicThreshold: balancer.DefaultPanicThreshold,
		Subset:         int(m.GetSubset()),
	}
	if m == nil {
		return o
	}
	o.PanicThreshold = or(m.PanicThreshold, balancer.DefaultPanicThreshold)
	if m.GetZoneAware() {
		o.ZoneAware, o.Zone, o.MinZonePercent = true, f.zone, m.GetMinZonePercent()
	}
	if !o.Policy.Hashes() {
		o.SlowStart = duration(m.GetSlowStart(), 0)
	}
	switch o.Policy {
	case balancer.WeightedRoundRobin:
		o.LoadReports = loadReports(m.GetLoadReports())
	case balancer.LeastRequest:
		o.Choices = int(m.GetChoices())
	case balancer.PeakEWMA:
		o.Choices, o.Decay = int(m.GetChoices()), duration(m.GetDecay(), 0)
	case balancer.RingHash:
		o.RingSize, o.BoundedLoad = int(m.GetRingSize()), m.GetBoundedLoad()
	case balancer.Maglev:
		o.TableSize = int(m.GetTableSize())
	}
	return o
}

// loadReports makes plain options of a block. None written: off.
func loadReports(m *configv1.LoadReports) balancer.LoadReports {
	if m == nil {
		return balancer.LoadReports{}
	}
	return balancer.LoadReports{
		On:                      true,
		BlackoutPeriod:          duration(m.GetBlackoutPeriod(), balancer.DefaultBlackoutPeriod),
		WeightExpirationPeriod:  duration(m.GetWeightExpirationPeriod(), balancer.DefaultWeightExpirationPeriod),
		WeightUpdatePeriod:      duration(m.GetWeightUpdatePeriod(), balancer.DefaultWeightUpdatePeriod),
		ErrorUtilizationPenalty: or(m.ErrorUtilizationPenalty, balancer.DefaultErrorUtilizationPenalty),
	}
}

// checkLoadBalancing refuses what one level writes (own) and what would change
// nothing beside what it inherits (whole).
func (f *file) checkLoadBalancing(l level, own, whole *configv1.LoadBalancing, o balancer.Options) {
	path := l.path + ".load_balancing"
	for _, of := range []struct {
		field   string
		written bool
		holds   bool
		want    string
	}{
		{"choices", own.Choices != nil, o.Policy == balancer.LeastRequest || o.Policy == balancer.PeakEWMA, "LEAST_REQUEST and PEAK_EWMA"},
		{"slow_start", own.GetSlowStart().AsDuration() > 0, !o.Policy.Hashes(), "those that do not hash, as calls would lose their endpoint"},
		{"decay", own.GetDecay() != nil, o.Policy == balancer.PeakEWMA, "PEAK_EWMA"},
		{"ring_size", own.RingSize != nil, o.Policy == balancer.RingHash, "RING_HASH"},
		{"table_size", own.TableSize != nil, o.Policy == balancer.Maglev, "MAGLEV"},
		{"bounded_load", own.BoundedLoad != nil, o.Policy == balancer.RingHash, "RING_HASH"},
		{"load_reports", own.GetLoadReports() != nil, o.Policy == balancer.WeightedRoundRobin, "WEIGHTED_ROUND_ROBIN"},
	} {
		if of.written && !of.holds {
			f.refuseTogether(path+"."+of.field, "does nothing for %s; it is for %s", o.Policy, of.want)
		}
	}
	if l.override && own.GetDecay() != nil && o.Policy == balancer.PeakEWMA {
		f.refuse(path+".decay", "is the service's: latencies are measured for all methods alike; want it in the service's policy")
	}
	if n := own.GetBoundedLoad(); n > 0 && n < 1 {
		f.refuse(path+".bounded_load", "%v of its share is less than an endpoint must bear; want at least 1, such as 1.25, or 0 for no bound", n)
	}
	if own.GetZoneAware() && f.zone == "" && !f.refused("zone") {
		f.refuse(path+".zone_aware", "wants to know where the agent is; want zone: NAME at the top of the file")
	}
	if own.MinZonePercent != nil && !whole.GetZoneAware() {
		f.refuseTogether(path+".min_zone_percent", "is about zones that are not told apart; want zone_aware: true beside it")
	}
}

// hashPolicy makes plain values of a block. None written, or an algorithm that
// does not hash: nothing.
func hashPolicy(p balancer.Policy, m *configv1.HashOn) policy.HashPolicy {
	if !p.Hashes() {
		return policy.HashPolicy{}
	}
	return policy.HashPolicy{Header: m.GetHeader(), Cookie: m.GetCookie(), Source: m.GetSource(), Method: m.GetMethod()}
}

// checkHashOn refuses to hash for an algorithm that does not.
func (f *file) checkHashOn(l level, own *configv1.HashOn, p balancer.Policy) {
	if hashPolicy(balancer.RingHash, own) != (policy.HashPolicy{}) && !p.Hashes() && !f.refused(l.path+".load_balancing") {
		f.refuse(l.path+".hash_on", "%s does not hash; want load_balancing: {policy: RING_HASH} or MAGLEV beside it", p)
	}
}

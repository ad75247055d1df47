package config

import (
	"github.com/outrigger-rpc/outrigger/balancer"
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// outlierOptions makes plain options of a block. None written: the reference
// figures, observed. A block takes the reference figures for what it leaves
// out.
func outlierOptions(m *configv1.OutlierDetection) balancer.OutlierOptions {
	if m == nil {
		return policy.Default().Outlier
	}
	if mode(m.GetMode()) == policy.Off {
		return balancer.OutlierOptions{}
	}
	reference := balancer.ReferenceOutliers()
	o := balancer.OutlierOptions{
		ConsecutiveFailures:  int(or(m.ConsecutiveFailures, uint32(reference.ConsecutiveFailures))),
		ConsecutiveLocal:     int(m.GetConsecutiveLocal()),
		FailureRate:          m.GetFailureRate(),
		SuccessRateDeviation: m.GetSuccessRateDeviation(),
		LatencyFactor:        m.GetLatencyFactor(),
		MinimumCalls:         int(or(m.MinimumCalls, balancer.DefaultMinimumCalls)),
		MinimumHosts:         int(or(m.MinimumHosts, balancer.DefaultMinimumHosts)),
		Interval:             duration(m.GetInterval(), reference.Interval),
		EjectFor:             duration(m.GetEjectFor(), reference.EjectFor),
		MaxEjected:           or(m.MaxEjected, reference.MaxEjected),
		ObserveOnly:          mode(m.GetMode()) == policy.Observe,
	}
	o.MaxEjectFor = duration(m.GetMaxEjectFor(), balancer.EjectGrowth*o.EjectFor)
	if o.MaxEjected == 0 {
		o.MaxEjected = -1 // none, which is not the same as nothing written
	}
	return o
}

// checkOutlier holds what one level writes (own) together with what it
// inherits (whole) against the rules about several fields.
func (f *file) checkOutlier(l level, own, whole *configv1.OutlierDetection, o balancer.OutlierOptions) {
	path := l.path + ".outlier_detection"
	if l.override {
		f.refuse(path, "is the service's: all its methods share the endpoints; want it in the service's policy")
		return
	}
	switch tooShort := o.MaxEjectFor < o.EjectFor; {
	case tooShort && own.GetMaxEjectFor() != nil:
		f.refuseTogether(path+".max_eject_for", "%s is shorter than eject_for (%s); want at least that", short(o.MaxEjectFor), short(o.EjectFor))
	case tooShort && own.GetEjectFor() != nil:
		f.refuseTogether(path+".eject_for", "%s is longer than max_eject_for (%s), which is inherited; want at most that, or a max_eject_for here too", short(o.EjectFor), short(o.MaxEjectFor))
	}
	if !o.On() && whole.GetMode() != configv1.Mode_OFF {
		f.refuse(path, "no threshold is left; want consecutive_failures, consecutive_local, failure_rate, success_rate_deviation or latency_factor, or mode: OFF")
	}
}

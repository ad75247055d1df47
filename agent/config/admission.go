package config

import (
	"math"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// minPerSecond is the lowest rate that a limit can have: below it the next
// call would wait longer than anybody does.
const minPerSecond = 0.001

// concurrencyPolicy makes plain values of a block. None written: no bound.
func concurrencyPolicy(m *configv1.Concurrency) policy.ConcurrencyPolicy {
	if m == nil {
		return policy.ConcurrencyPolicy{}
	}
	return policy.ConcurrencyPolicy{
		MaxInFlight:  int(m.GetMaxInFlight()),
		MaxQueue:     int(m.GetMaxQueue()),
		QueueTimeout: duration(m.GetQueueTimeout(), policy.DefaultQueueTimeout),
		Adaptive:     m.GetAdaptive(),
		Mode:         mode(m.GetMode()),
	}
}

// checkConcurrency refuses a queue in front of nothing.
func (f *file) checkConcurrency(path string, own *configv1.Concurrency, p policy.ConcurrencyPolicy) {
	if own.GetMaxQueue() > 0 && p.Mode != policy.Off && !p.On() {
		f.refuseTogether(path+".max_queue", "%d calls would wait for no bound; want max_in_flight or adaptive: true beside it", own.GetMaxQueue())
	}
}

// rateLimitPolicy makes plain values of a block. None written: no limit.
func rateLimitPolicy(m *configv1.RateLimit) policy.RateLimitPolicy {
	if m == nil {
		return policy.RateLimitPolicy{}
	}
	p := policy.RateLimitPolicy{
		PerSecond: m.GetPerSecond(),
		Burst:     int(m.GetBurst()),
		PerMethod: m.GetPerMethod(),
		KeyHeader: m.GetKey().GetHeader(),
		Mode:      mode(m.GetMode()),
	}
	if p.PerSecond > 0 && p.Burst == 0 {
		p.Burst = max(1, int(math.Ceil(p.PerSecond)))
	}
	if p.KeyHeader != "" {
		p.MaxKeys = int(or(m.MaxKeys, policy.DefaultRateKeys))
	}
	return p
}

// checkRateLimit refuses what shapes a limit where there is none.
func (f *file) checkRateLimit(path string, own *configv1.RateLimit, p policy.RateLimitPolicy) {
	if own.MaxKeys != nil && p.KeyHeader == "" {
		f.refuseTogether(path+".max_keys", "bounds the callers that key tells apart; want key: {header: …} beside it")
	}
	switch {
	case p.Mode == policy.Off:
	case p.PerSecond > 0 && p.PerSecond < minPerSecond:
		f.refuse(path+".per_second", "%v is less than a call in %d s; want 0 for no limit, or at least %v", p.PerSecond, int(1/minPerSecond), minPerSecond)
	case p.PerSecond > 0:
	case own.GetBurst() > 0:
		f.refuseTogether(path+".burst", "%d calls at once of a limit that there is not; want per_second beside it", own.GetBurst())
	case own.GetPerMethod():
		f.refuseTogether(path+".per_method", "is about a limit that there is not; want per_second beside it")
	case own.GetKey().GetHeader() != "":
		f.refuseTogether(path+".key", "is about a limit that there is not; want per_second beside it")
	}
}

// throttlePolicy makes plain values of a block. None written: nothing is
// dropped.
func throttlePolicy(m *configv1.ClientThrottle) policy.ThrottlePolicy {
	if m == nil {
		return policy.ThrottlePolicy{}
	}
	return policy.ThrottlePolicy{
		Ratio:  or(m.Ratio, policy.DefaultThrottleRatio),
		Window: duration(m.GetWindow(), policy.DefaultThrottleWindow),
		Mode:   mode(m.GetMode()),
	}
}

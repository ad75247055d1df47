package config

import (
	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// faultPolicy makes plain values of a block. None written: no fault.
func faultPolicy(m *configv1.Fault) policy.FaultPolicy {
	if m == nil {
		return policy.FaultPolicy{}
	}
	p := policy.FaultPolicy{
		Delay:        duration(m.GetDelay().GetDelay(), 0),
		DelayPercent: m.GetDelay().GetPercent(),
		AbortPercent: m.GetAbort().GetPercent(),
		Header:       m.GetHeader().GetName(),
		Value:        m.GetHeader().GetValue(),
		Mode:         mode(m.GetMode()),
	}
	if abort := m.GetAbort(); abort != nil {
		p.Abort = policy.Unavailable
		if c, ok := policy.ParseCode(abort.GetCode()); ok {
			p.Abort = c
		}
	}
	return p
}

// checkFault refuses faults without leave, and such as ask for nothing.
func (f *file) checkFault(path string, own, whole *configv1.Fault) {
	if !f.chaos && !f.refused("chaos") {
		f.refuse(path, "wants chaos: {enabled: true} at top level, since it harms calls on purpose; write that for as long as it should, or leave the block out")
	}
	if whole.GetMode() == configv1.Mode_OFF {
		return
	}
	delay, abort := whole.GetDelay(), whole.GetAbort()
	if delay == nil && abort == nil {
		f.refuse(path, "asks for no fault; want delay or abort, or mode: OFF")
	}
	if delay != nil && delay.Percent == nil {
		f.refuse(path+".delay.percent", "is missing; want how many of the calls are slow, such as percent: 10")
	}
	if delay != nil && delay.GetDelay() == nil {
		f.refuse(path+".delay.delay", "is missing; want how slow they are, such as delay: 200ms")
	}
	if abort != nil && abort.Percent == nil {
		f.refuse(path+".abort.percent", "is missing; want how many of the calls fail, such as percent: 1")
	}
	if header := own.GetHeader(); header.GetValue() != "" && whole.GetHeader().GetName() == "" {
		f.refuseTogether(path+".header.value", "%q of no metadata; want its name beside it", header.GetValue())
	}
}

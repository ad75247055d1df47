package config

import (
	"fmt"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// deferPolicy makes plain values of a block. None written: nothing is deferred.
func deferPolicy(m *configv1.Defer) policy.DeferPolicy {
	switch m.GetMode() {
	case configv1.Defer_ON_REQUEST:
		return policy.DeferPolicy{Mode: policy.DeferOnRequest}
	case configv1.Defer_ON_FAILURE:
		return policy.DeferPolicy{Mode: policy.DeferOnFailure}
	}
	return policy.DeferPolicy{}
}

// checkDefer refuses to keep calls where there is nothing to keep them in.
func (f *file) checkDefer(path string, own *configv1.Defer) {
	if defers(own) && !f.tasksWritten && !f.refused("tasks") {
		f.refuse(path+".mode", "%s wants a tasks block at top level, which keeps the calls; write that, such as tasks: {}, or defer: {mode: OFF}", own.GetMode())
	}
}

// checkDeferOfResource refuses to keep calls of a service that has none.
func (f *file) checkDeferOfResource(path string, m *configv1.Service) {
	refuse := func(path string, own *configv1.Policy) {
		if defers(own.GetDefer()) {
			f.refuse(path+".policy.defer.mode", "%s is for calls, and %s has endpoints: {none: {}}: programs ask permits for it and call it themselves; leave it out", own.GetDefer().GetMode(), m.GetName())
		}
	}
	refuse(path, m.GetPolicy())
	for i, override := range m.GetMethods() {
		refuse(fmt.Sprintf("%s.methods[%d]", path, i), override.GetPolicy())
	}
}

func defers(m *configv1.Defer) bool { return m.GetMode() > configv1.Defer_OFF }

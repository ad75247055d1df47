package config

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// unsupported are the fields that a later version brings to life. A value that
// asks for nothing is accepted; every other is refused, never ignored.
var unsupported = map[protoreflect.FullName]func(protoreflect.Value) (asksForNothing bool){
	"outrigger.config.v1.Config.tasks":             never,
	"outrigger.config.v1.State.dir":                func(v protoreflect.Value) bool { return v.String() == "" },
	"outrigger.config.v1.Endpoints.dns":            never,
	"outrigger.config.v1.Endpoints.file":           never,
	"outrigger.config.v1.Endpoints.kubernetes":     never,
	"outrigger.config.v1.Policy.retry":             off,
	"outrigger.config.v1.Policy.idempotent":        func(v protoreflect.Value) bool { return !v.Bool() },
	"outrigger.config.v1.Policy.hedge":             off,
	"outrigger.config.v1.Policy.concurrency":       off,
	"outrigger.config.v1.Policy.rate_limit":        noRate,
	"outrigger.config.v1.Policy.hash_on":           never,
	"outrigger.config.v1.Policy.health_check":      off,
	"outrigger.config.v1.Policy.outlier_detection": off,
	"outrigger.config.v1.Policy.defer":             deferOff,
	"outrigger.config.v1.LoadBalancing.policy":     supportedAlgorithm,
}

func never(protoreflect.Value) bool { return false }

// off reports whether a policy block says mode: OFF.
func off(v protoreflect.Value) bool {
	m := v.Message()
	mode := m.Descriptor().Fields().ByName("mode")
	return m.Get(mode).Enum() == configv1.Mode_OFF.Number()
}

func noRate(v protoreflect.Value) bool {
	r, ok := v.Message().Interface().(*configv1.RateLimit)
	return off(v) || ok && r.GetPerSecond() == 0 && r.GetBurst() == 0
}

func deferOff(v protoreflect.Value) bool {
	d, ok := v.Message().Interface().(*configv1.Defer)
	return ok && d.GetMode() <= configv1.Defer_OFF
}

func supportedAlgorithm(v protoreflect.Value) bool {
	_, ok := algorithms[configv1.LoadBalancing_Algorithm(v.Enum())]
	return ok
}

// refuseUnsupported looks through everything that is written.
func (f *file) refuseUnsupported(m proto.Message) { f.search(m.ProtoReflect(), "") }

func (f *file) search(m protoreflect.Message, prefix string) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(field.Name())
		if asksForNothing, known := unsupported[field.FullName()]; known {
			if !asksForNothing(v) {
				f.refuse(path, "not supported by this version: %s", describe(path, field, v))
			}
			return true
		}
		if field.Kind() != protoreflect.MessageKind {
			return true
		}
		if !field.IsList() {
			f.search(v.Message(), path+".")
			return true
		}
		for i := range v.List().Len() {
			f.search(v.List().Get(i).Message(), fmt.Sprintf("%s[%d].", path, i))
		}
		return true
	})
}

func describe(path string, field protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if field.Kind() == protoreflect.EnumKind {
		return string(field.Enum().Values().ByNumber(v.Enum()).Name()) + "; want LEAST_REQUEST, ROUND_ROBIN or RANDOM"
	}
	return path
}

package config

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// unsupportedPrefix begins the message about a field that is not alive yet;
// its path follows.
const unsupportedPrefix = "not supported by this version: "

// later is a field that a later version brings to life: refused until then,
// never ignored.
type later struct {
	// asksForNothing reports whether a value changes nothing, so that it can
	// stand. nil: none does.
	asksForNothing func(protoreflect.Value) bool
	// instead says what to write.
	instead string
}

const orOff = "leave it out, or write mode: OFF"

var unsupported = map[protoreflect.FullName]later{
	"outrigger.config.v1.Policy.defer": {defersNothing, orOff},
}

func defersNothing(v protoreflect.Value) bool {
	d, ok := v.Message().Interface().(*configv1.Defer)
	return ok && d.GetMode() <= configv1.Defer_OFF
}

// refuseUnsupported looks through everything that is written.
func (f *file) refuseUnsupported(m proto.Message) { f.search(m.ProtoReflect(), "") }

func (f *file) search(m protoreflect.Message, prefix string) {
	m.Range(func(field protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := prefix + string(field.Name())
		if l, ok := unsupported[field.FullName()]; ok {
			if l.asksForNothing == nil || !l.asksForNothing(v) {
				f.refuse(path, "%s%s%s; %s", unsupportedPrefix, path, enumValue(field, v), l.instead)
			}
			return true
		}
		switch {
		case field.Kind() != protoreflect.MessageKind:
		case field.IsList():
			for i := range v.List().Len() {
				f.search(v.List().Get(i).Message(), fmt.Sprintf("%s[%d].", path, i))
			}
		default:
			f.search(v.Message(), path+".")
		}
		return true
	})
}

// enumValue names the value where it is not the field that is unsupported.
func enumValue(field protoreflect.FieldDescriptor, v protoreflect.Value) string {
	if field.Kind() != protoreflect.EnumKind {
		return ""
	}
	return " " + string(field.Enum().Values().ByNumber(v.Enum()).Name())
}

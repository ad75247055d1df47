package tasks

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/outrigger-rpc/outrigger/agent/tasks/chain"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// specDescriptor describes what expressions of a chain fill.
var specDescriptor = (&outriggerv1.TaskSpec{}).ProtoReflect().Descriptor()

// Names of messages that are filled from one value.
var (
	payloadName  = (&outriggerv1.Payload{}).ProtoReflect().Descriptor().FullName()
	headerName   = (&outriggerv1.TaskHeader{}).ProtoReflect().Descriptor().FullName()
	durationName = (&durationpb.Duration{}).ProtoReflect().Descriptor().FullName()
)

// findField returns the field of a path such as "email.to", from its message on.
func findField(in protoreflect.MessageDescriptor, path string) (protoreflect.FieldDescriptor, error) {
	name, rest, more := strings.Cut(path, ".")
	f := in.Fields().ByName(protoreflect.Name(name))
	switch {
	case f == nil:
		return nil, fmt.Errorf("there is no field %q; known: %s", name, strings.Join(fieldNames(in), ", "))
	case !more:
		return f, nil
	case f.Message() == nil || f.IsList() || f.IsMap():
		return nil, fmt.Errorf("%q holds no fields", name)
	}
	return findField(f.Message(), rest)
}

func fieldNames(in protoreflect.MessageDescriptor) (names []string) {
	for i := range in.Fields().Len() {
		names = append(names, string(in.Fields().Get(i).Name()))
	}
	return names
}

// fill sets fields of a task by their paths, the shorter paths first: what a path
// says of a part of another's value counts.
func fill(spec *outriggerv1.TaskSpec, fields map[string]any) *FieldError {
	for _, path := range slices.Sorted(maps.Keys(fields)) {
		if err := setPath(spec.ProtoReflect(), path, fields[path]); err != nil {
			return &FieldError{path, err.Error()}
		}
	}
	return nil
}

func setPath(m protoreflect.Message, path string, value any) error {
	name, rest, more := strings.Cut(path, ".")
	if !more {
		return setField(m, name, value)
	}
	f, err := findField(m.Descriptor(), name)
	if err != nil {
		return err
	}
	if f.Message() == nil || f.IsList() || f.IsMap() {
		return fmt.Errorf("%q holds no fields", name)
	}
	return setPath(m.Mutable(f).Message(), rest, value)
}

// setField sets one field of a message to what an expression gave; nil clears it.
func setField(m protoreflect.Message, name string, value any) error {
	f, err := findField(m.Descriptor(), name)
	if err != nil {
		return err
	}
	if value == nil {
		m.Clear(f)
		return nil
	}
	switch {
	case f.IsList():
		return setList(m, f, value)
	case f.Message() != nil:
		return setMessage(m.Mutable(f).Message(), value)
	}
	v, err := scalar(f, value)
	if err != nil {
		return err
	}
	m.Set(f, v)
	return nil
}

// setList fills a list; one value is a list of one, and a map is one of headers.
func setList(m protoreflect.Message, f protoreflect.FieldDescriptor, value any) error {
	items, isList := value.([]any)
	if pairs, ok := value.(map[string]any); ok && f.Message() != nil && f.Message().FullName() == headerName {
		items, isList = headerItems(pairs), true
	}
	if !isList {
		items = []any{value}
	}
	m.Clear(f)
	list := m.Mutable(f).List()
	for i, item := range items {
		if f.Message() != nil {
			if err := setMessage(list.AppendMutable().Message(), item); err != nil {
				return fmt.Errorf("[%d]: %w", i, err)
			}
			continue
		}
		v, err := scalar(f, item)
		if err != nil {
			return fmt.Errorf("[%d]: %w", i, err)
		}
		list.Append(v)
	}
	return nil
}

// headerItems makes headers of a map, in the order of their names; a value that is
// a list makes several.
func headerItems(pairs map[string]any) (items []any) {
	for _, name := range slices.Sorted(maps.Keys(pairs)) {
		values, several := pairs[name].([]any)
		if !several {
			values = []any{pairs[name]}
		}
		for _, v := range values {
			items = append(items, map[string]any{"name": name, "value": v})
		}
	}
	return items
}

// setMessage fills a message: a payload from anything, a duration from a text such
// as "30s" or from seconds, others from a map of their fields.
func setMessage(m protoreflect.Message, value any) error {
	switch m.Descriptor().FullName() {
	case payloadName:
		v, err := chain.ValueOf(value)
		if err != nil {
			return err
		}
		p := m.Interface().(*outriggerv1.Payload)
		p.Data, p.ContentType = v.Data, ""
		if v.JSON {
			p.ContentType = jsonType
		}
		return nil
	case durationName:
		d, err := durationFrom(value)
		if err != nil {
			return err
		}
		into := m.Interface().(*durationpb.Duration)
		of := durationpb.New(d)
		into.Seconds, into.Nanos = of.Seconds, of.Nanos
		return nil
	}
	fields, ok := value.(map[string]any)
	if !ok {
		return fmt.Errorf("it is %s; want a map of fields: %s", kindOfValue(value), strings.Join(fieldNames(m.Descriptor()), ", "))
	}
	for _, name := range slices.Sorted(maps.Keys(fields)) {
		if err := setField(m, name, fields[name]); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

func durationFrom(value any) (time.Duration, error) {
	switch v := value.(type) {
	case string:
		d, err := time.ParseDuration(v)
		if err != nil {
			return 0, fmt.Errorf("%q is no duration such as 30s", v)
		}
		return d, nil
	case int64:
		if v >= 0 && v <= math.MaxInt64/int64(time.Second) {
			return time.Duration(v) * time.Second, nil
		}
	case float64:
		if v >= 0 && v <= float64(math.MaxInt64/int64(time.Second)) {
			return time.Duration(v * float64(time.Second)), nil
		}
	}
	return 0, fmt.Errorf("it is %s; want a duration such as \"30s\", or seconds", kindOfValue(value))
}

// scalar makes a field's value.
func scalar(f protoreflect.FieldDescriptor, value any) (none protoreflect.Value, _ error) {
	switch f.Kind() {
	case protoreflect.StringKind:
		if v, ok := value.(string); ok {
			return protoreflect.ValueOfString(v), nil
		}
		return none, fmt.Errorf("it is %s; want a string, by string(…) or json(…)", kindOfValue(value))
	case protoreflect.BytesKind:
		switch v := value.(type) {
		case []byte:
			return protoreflect.ValueOfBytes(v), nil
		case string:
			return protoreflect.ValueOfBytes([]byte(v)), nil
		}
		v, err := chain.ValueOf(value)
		return protoreflect.ValueOfBytes(v.Data), err
	case protoreflect.BoolKind:
		if v, ok := value.(bool); ok {
			return protoreflect.ValueOfBool(v), nil
		}
		return none, fmt.Errorf("it is %s; want true or false", kindOfValue(value))
	case protoreflect.Uint32Kind:
		if v, ok := whole(value); ok && v <= math.MaxUint32 {
			return protoreflect.ValueOfUint32(uint32(v)), nil
		}
		return none, fmt.Errorf("it is %s; want a whole number from 0 on", kindOfValue(value))
	}
	return none, fmt.Errorf("a field of type %v can't be filled by an expression", f.Kind())
}

// whole returns a value that is a whole number from 0 on.
func whole(value any) (uint64, bool) {
	switch v := value.(type) {
	case int64:
		return uint64(v), v >= 0
	case uint64:
		return v, true
	case float64:
		return uint64(v), v >= 0 && v <= math.MaxUint32 && v == math.Trunc(v)
	}
	return 0, false
}

// kindOfValue says what a value is, and not what is in it: it may be secret.
func kindOfValue(value any) string {
	switch value.(type) {
	case nil:
		return "null"
	case bool:
		return "a bool"
	case int64, uint64, float64:
		return "a number"
	case string:
		return "a string"
	case []byte:
		return "bytes"
	case []any:
		return "a list"
	case map[string]any:
		return "a map"
	}
	return "something else"
}

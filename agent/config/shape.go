package config

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// durationName is the message that a duration is decoded into.
const durationName protoreflect.FullName = "google.protobuf.Duration"

// shape holds the text against the messages: names of fields, kinds of values.
// protoyaml would find most of it, but says neither the path nor what was
// meant, and lets pass what is surely a mistake: a key written twice, an
// enum's number, 010 for 10.
func (f *file) shape(node *yaml.Node, message protoreflect.MessageDescriptor, path string) {
	if !f.plain(node, path) || isNull(node) {
		return
	}
	if message.FullName() == durationName {
		f.duration(node, path)
		return
	}
	if node.Kind != yaml.MappingNode {
		f.refuseAt(node, path, "want fields (%s), got %s", strings.Join(fieldNames(message.Fields()), ", "), describe(node))
		return
	}
	written := make(map[string]int, len(node.Content)/2) // lines by key
	for i := 0; i+1 < len(node.Content); i += 2 {
		key, value := node.Content[i], node.Content[i+1]
		if key.Kind != yaml.ScalarNode {
			f.refuseAt(key, path, "want the name of a field, got %s", describe(key))
			continue
		}
		at := join(path, key.Value)
		field := message.Fields().ByName(protoreflect.Name(key.Value))
		line, twice := written[key.Value]
		switch {
		case key.Tag == "!!merge":
			f.refuseAt(key, at, "merge keys are not supported; write it out, or use defaults: every service inherits them")
		case field == nil:
			f.refuseAt(key, at, "unknown field; %s", meant(key.Value, fieldNames(message.Fields())))
		case twice:
			f.refuseAt(key, at, "written twice, first on line %d; want it once", line)
		default:
			written[key.Value] = key.Line
			f.field(value, field, at)
		}
	}
}

// field holds what one field has against its kind.
func (f *file) field(node *yaml.Node, field protoreflect.FieldDescriptor, path string) {
	switch {
	case field.IsList():
		f.list(node, field, path)
	case field.Message() != nil:
		f.shape(node, field.Message(), path)
	default:
		f.value(node, field, path)
	}
}

func (f *file) list(node *yaml.Node, field protoreflect.FieldDescriptor, path string) {
	if !f.plain(node, path) {
		return
	}
	if node.Kind != yaml.SequenceNode {
		f.refuseAt(node, path, "want a list, got %s", describe(node))
		return
	}
	for i, item := range node.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		switch {
		case isNull(item):
			f.refuseAt(item, at, "has no value; fill it in or take it out")
		case field.Message() != nil:
			f.shape(item, field.Message(), at)
		default:
			f.value(item, field, at)
		}
	}
}

// value holds one plain value against its kind.
func (f *file) value(node *yaml.Node, field protoreflect.FieldDescriptor, path string) {
	if !f.plain(node, path) {
		return
	}
	want, ok := "", node.Kind == yaml.ScalarNode && !isNull(node)
	switch field.Kind() {
	case protoreflect.StringKind:
		want = "text"
	case protoreflect.BoolKind:
		want = "true or false"
		ok = ok && node.Tag == "!!bool" && (node.Value == "true" || node.Value == "false")
	case protoreflect.Uint32Kind:
		want = "a whole number from 0 to 4294967295"
		n, err := strconv.ParseUint(node.Value, 10, 32)
		// 010 is 8 to some readers of YAML and 10 to others.
		ok = ok && node.Tag == "!!int" && err == nil && strconv.FormatUint(n, 10) == node.Value
	case protoreflect.Uint64Kind:
		want = "a whole number"
		n, err := strconv.ParseUint(node.Value, 10, 64)
		ok = ok && node.Tag == "!!int" && err == nil && strconv.FormatUint(n, 10) == node.Value
	case protoreflect.DoubleKind:
		want = "a number"
		n, err := strconv.ParseFloat(node.Value, 64)
		ok = ok && (node.Tag == "!!int" || node.Tag == "!!float") && err == nil && !math.IsNaN(n) && !math.IsInf(n, 0)
	case protoreflect.EnumKind:
		values := enumNames(field.Enum())
		want = oneOf(values)
		ok = ok && slices.Contains(values, node.Value)
	}
	if !ok {
		f.refuseAt(node, path, "want %s, got %s", want, describe(node))
	}
}

// duration holds a duration against its syntax.
func (f *file) duration(node *yaml.Node, path string) {
	if node.Kind == yaml.ScalarNode {
		if _, err := parseDuration(node.Value); err == nil {
			return
		}
	}
	f.refuseAt(node, path, "%s is no duration; want a number with its unit (ns us ms s m h d), such as 200ms or 1m30s", describe(node))
}

// plain refuses the parts of YAML that a configuration has no use for.
func (f *file) plain(node *yaml.Node, path string) bool {
	switch {
	case node.Kind == yaml.AliasNode:
		f.refuseAt(node, path, "aliases (*%s) are not supported; write it out, or use defaults: every service inherits them", node.Value)
		return false
	case node.Tag != "" && !strings.HasPrefix(node.Tag, "!!"):
		f.refuseAt(node, path, "tag %s is not supported; want the value itself", node.Tag)
		return false
	}
	return true
}

func isNull(node *yaml.Node) bool { return node.Kind == yaml.ScalarNode && node.Tag == "!!null" }

// describe says in a few words what is written.
func describe(node *yaml.Node) string {
	switch node.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	if isNull(node) {
		return "nothing"
	}
	text := clipped(node.Value)
	if node.Tag == "!!str" {
		return strconv.Quote(text)
	}
	return text
}

// clipped is as much of a text as a message has room for.
func clipped(text string) string {
	const longest = 64
	if len(text) > longest {
		text = strings.ToValidUTF8(text[:longest], "") + "…"
	}
	return text
}

func join(path, name string) string {
	if path == "" {
		return name
	}
	return path + "." + name
}

func fieldNames(fields protoreflect.FieldDescriptors) []string {
	list := make([]string, fields.Len())
	for i := range list {
		list[i] = string(fields.Get(i).Name())
	}
	return list
}

// enumNames are the values that may be written: all but the zero one, which
// stands for "not written".
func enumNames(enum protoreflect.EnumDescriptor) []string {
	var list []string
	for i := range enum.Values().Len() {
		if v := enum.Values().Get(i); v.Number() != 0 {
			list = append(list, string(v.Name()))
		}
	}
	return list
}

func oneOf(list []string) string {
	if len(list) < 2 {
		return strings.Join(list, "")
	}
	return strings.Join(list[:len(list)-1], ", ") + " or " + list[len(list)-1]
}

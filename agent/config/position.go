package config

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// file is a configuration being read: its text and what is wrong with it.
type file struct {
	name    string     // paths in it begin at its folder
	root    *yaml.Node // nil: nothing is written
	message protoreflect.MessageDescriptor
	chaos   bool // faults may be written
	// tasksWritten: there is a tasks block, so that calls may be deferred.
	tasksWritten bool
	zone         string // the agent's
	// upstreamConnections is what egress.limits allow to one endpoint.
	upstreamConnections int
	sets                map[string]*descriptors
	issues              []Issue
	earlier             int // how many of them are of earlier passes
	untold              int // how many were past maxIssues
}

// nextPass ends a pass: what it refused is not told again.
func (f *file) nextPass() { f.earlier = len(f.issues) }

// refuse notes that the field at path is wrong, unless an earlier pass refused
// it, what it is in, or a part of it.
func (f *file) refuse(path, format string, args ...any) {
	if f.refused(path) {
		return
	}
	line, column := f.position(path)
	f.add(Issue{Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// refused reports whether an earlier pass refused the field at path, what it
// is in, or a part of it.
func (f *file) refused(path string) bool {
	for _, issue := range f.issues[:f.earlier] {
		if within(path, issue.Path) || within(issue.Path, path) {
			return true
		}
	}
	return false
}

// refuseTogether is refuse for a rule about several fields of one block. It is
// silent too when an earlier pass refused a field beside path: that may be the
// reason.
func (f *file) refuseTogether(path, format string, args ...any) {
	for _, issue := range f.issues[:f.earlier] {
		if block(issue.Path) == block(path) {
			return
		}
	}
	f.refuse(path, format, args...)
}

// refuseAt is refuse for a node at hand.
func (f *file) refuseAt(node *yaml.Node, path, format string, args ...any) {
	f.add(Issue{Line: max(node.Line, 1), Column: max(node.Column, 1), Path: path, Message: fmt.Sprintf(format, args...)})
}

func (f *file) add(issue Issue) {
	if len(f.issues) >= maxIssues {
		f.untold++
		return
	}
	f.issues = append(f.issues, issue)
}

// within reports whether path is outer or a part of it.
func within(path, outer string) bool {
	rest, ok := strings.CutPrefix(path, outer)
	return ok && outer != "" && (rest == "" || rest[0] == '.' || rest[0] == '[')
}

// block is what the field at path stands in.
func block(path string) string { return path[:max(strings.LastIndexByte(path, '.'), 0)] }

// parts are the names and indexes of a path.
func parts(path string) []string {
	return strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' })
}

// position finds the field at path, or the innermost thing around it that is
// written: the value of a scalar, the key of a block.
func (f *file) position(path string) (line, column int) {
	if f.root == nil {
		return 1, 1
	}
	node := f.root
	line, column = node.Line, node.Column
	for _, part := range parts(path) {
		key, value := child(node, part)
		if value == nil {
			break
		}
		node = value
		line, column = value.Line, value.Column
		if key != nil && value.Kind != yaml.ScalarNode {
			line, column = key.Line, key.Column
		}
	}
	return max(line, 1), max(column, 1)
}

// scalar returns the text at path as it was written; empty where none stands.
func (f *file) scalar(path string) string {
	node := f.root
	for _, part := range parts(path) {
		if node == nil {
			return ""
		}
		_, node = child(node, part)
	}
	if node == nil || node.Kind != yaml.ScalarNode {
		return ""
	}
	return node.Value
}

func child(node *yaml.Node, part string) (key, value *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == part {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i >= 0 && i < len(node.Content) {
			return nil, node.Content[i]
		}
	}
	return nil, nil
}

package config

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"

	"buf.build/go/protovalidate"
	"buf.build/go/protoyaml"
	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// maxFileSize bounds a configuration: far above any real one.
const maxFileSize = 16 << 20

// Load reads a file.
func Load(path string) (*Config, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	if info.Size() > maxFileSize {
		return nil, fmt.Errorf("configuration: %s has %d bytes, at most %d are read", path, info.Size(), maxFileSize)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("configuration: %w", err)
	}
	return Parse(path, data)
}

// Parse reads a configuration's text; name stands for it in errors.
func Parse(name string, data []byte) (*Config, error) {
	if at := strangeBreak.FindIndex(data); at != nil {
		before := data[:at[0]]
		return nil, newError(name, data, []Issue{{
			Line: bytes.Count(before, []byte("\n")) + 1, Column: len(before) - bytes.LastIndexByte(before, '\n'),
			Message: "a line break that is none of LF and CRLF, which editors show differently; save the file with LF",
		}})
	}
	var document yaml.Node
	if err := yaml.Unmarshal(data, &document); err != nil {
		return nil, newError(name, data, []Issue{syntaxIssue(err)})
	}
	message := &configv1.Config{}
	var issues []Issue
	if document.Kind != 0 {
		options := protoyaml.UnmarshalOptions{Path: name, Validator: rules{}, CustomUnmarshaler: days{}}
		issues = readIssues(unmarshal(options, data, message))
	}
	if len(issues) > 0 {
		return nil, newError(name, data, issues)
	}
	f := &file{root: &document}
	f.refuseUnsupported(message)
	c := f.resolve(message)
	c.Digest = sha256.Sum256(data)
	f.cross(c)
	if len(f.issues) > 0 {
		return nil, newError(name, data, f.issues)
	}
	return c, nil
}

// unmarshal reads the text. A reader that panics (fuzzing found texts for which
// it does) must not take a running agent with it: the text is refused.
func unmarshal(o protoyaml.UnmarshalOptions, data []byte, m proto.Message) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the reader failed on this text (%v); please report it with the file", p)
		}
	}()
	return o.Unmarshal(data, m)
}

// strangeBreak is what YAML takes for a line break and editors don't: CR alone,
// NEL, LS, PS. Positions in messages would be wrong.
var strangeBreak = regexp.MustCompile("\r(?:[^\n]|$)|\u0085|\u2028|\u2029")

// validator is built at the first file that is read: it is the heaviest part
// of reading one.
var validator = sync.OnceValues(func() (protovalidate.Validator, error) {
	return protovalidate.New(protovalidate.WithMessages(&configv1.Config{}))
})

// rules are those of the proto files.
type rules struct{}

// Validate implements protoyaml.Validator.
func (rules) Validate(m proto.Message) error {
	v, err := validator()
	if err != nil {
		return err
	}
	return v.Validate(m)
}

// days lets a duration be written in days.
type days struct{}

var inDays = regexp.MustCompile(`^([0-9]{1,5})d$`)

// Unmarshal implements protoyaml.CustomUnmarshaler.
func (days) Unmarshal(node *yaml.Node, m proto.Message) (bool, error) {
	d, ok := m.(*durationpb.Duration)
	if !ok || node.Kind != yaml.ScalarNode {
		return false, nil
	}
	if match := inDays.FindStringSubmatch(node.Value); match != nil {
		n, err := strconv.Atoi(match[1])
		if err != nil {
			return false, err
		}
		d.Seconds = int64(n) * int64(24*time.Hour/time.Second)
		return true, nil
	}
	if _, err := protoyaml.ParseDuration(node.Value); err != nil {
		return true, fmt.Errorf("%q is no duration: want a number with a unit (ns us ms s m h d), such as 200ms or 1m30s", node.Value)
	}
	return false, nil
}

var (
	located   = regexp.MustCompile(`^.*?:(\d+):(\d+) ((?s).*)$`)
	yamlLine  = regexp.MustCompile(`line (\d+): (.*)`)
	fieldPath = regexp.MustCompile(`^([a-z_0-9]+(?:\[\d+\])?(?:\.[a-z_0-9]+(?:\[\d+\])?)*): (.*?)(?: \([a-z_.0-9]+\))?$`)
)

// readIssues takes protoyaml's errors apart.
func readIssues(err error) []Issue {
	if err == nil {
		return nil
	}
	all := []error{err}
	var joined interface{ Unwrap() []error }
	if errors.As(err, &joined) {
		all = joined.Unwrap()
	}
	issues := make([]Issue, 0, len(all))
	for _, e := range all {
		text, _, _ := strings.Cut(e.Error(), "\n")
		m := located.FindStringSubmatch(text)
		if m == nil {
			issues = append(issues, syntaxIssue(e))
			continue
		}
		line, _ := strconv.Atoi(m[1]) // digits, by the pattern
		column, _ := strconv.Atoi(m[2])
		issue := Issue{Line: line, Column: column, Message: m[3]}
		if p := fieldPath.FindStringSubmatch(m[3]); p != nil {
			issue.Path, issue.Message = p[1], p[2]
		}
		issues = append(issues, issue)
	}
	return issues
}

// syntaxIssue is for text that is no YAML.
func syntaxIssue(err error) Issue {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	if m := yamlLine.FindStringSubmatch(text); m != nil {
		line, _ := strconv.Atoi(m[1])
		return Issue{Line: max(line, 1), Column: 1, Message: "not YAML: " + m[2]}
	}
	return Issue{Line: 1, Column: 1, Message: "not YAML: " + text}
}

// file is a configuration being read: its text and what is wrong with it.
type file struct {
	root   *yaml.Node
	issues []Issue
}

// refuse notes that the field at path is wrong.
func (f *file) refuse(path, format string, args ...any) {
	line, column := f.position(path)
	f.issues = append(f.issues, Issue{Line: line, Column: column, Path: path, Message: fmt.Sprintf(format, args...)})
}

// position finds the field at path, or the innermost thing around it that is
// written.
func (f *file) position(path string) (line, column int) {
	node := f.root
	if node.Kind == yaml.DocumentNode && len(node.Content) == 1 {
		node = node.Content[0]
	}
	line, column = max(node.Line, 1), max(node.Column, 1)
	for _, part := range strings.FieldsFunc(path, func(r rune) bool { return r == '.' || r == '[' || r == ']' }) {
		key, value := child(node, part)
		if value == nil {
			return line, column
		}
		if value.Kind == yaml.AliasNode {
			value = value.Alias
		}
		node = value
		line, column = value.Line, value.Column
		if key != nil && value.Kind != yaml.ScalarNode {
			line, column = key.Line, key.Column
		}
	}
	return line, column
}

func child(node *yaml.Node, part string) (key, value *yaml.Node) {
	switch node.Kind {
	case yaml.MappingNode:
		for i := 0; i+1 < len(node.Content); i += 2 {
			if name := node.Content[i].Value; name == part || name == camel(part) {
				return node.Content[i], node.Content[i+1]
			}
		}
	case yaml.SequenceNode:
		if i, err := strconv.Atoi(part); err == nil && i < len(node.Content) {
			return nil, node.Content[i]
		}
	}
	return nil, nil
}

// camel is the JSON name of a field, which YAML may be written with too.
func camel(name string) string {
	parts := strings.Split(name, "_")
	for i := 1; i < len(parts); i++ {
		if p := parts[i]; p != "" {
			parts[i] = strings.ToUpper(p[:1]) + p[1:]
		}
	}
	return strings.Join(parts, "")
}

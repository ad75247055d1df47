package config

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Issue is one thing that is wrong with a file.
type Issue struct {
	// Line and Column count from 1.
	Line, Column int
	// Path is the field, such as services[0].policy.timeout. Empty where the
	// text is no YAML.
	Path string
	// Message says what is wrong and what was expected.
	Message string
}

// Error is everything that is wrong with a file, in the order of the file.
type Error struct {
	File   string
	Issues []Issue
}

// Error returns a line an issue: FILE:LINE:COL: PATH: MESSAGE.
func (e *Error) Error() string {
	lines := make([]string, len(e.Issues))
	for i, issue := range e.Issues {
		path := ""
		if issue.Path != "" {
			path = issue.Path + ": "
		}
		lines[i] = fmt.Sprintf("%s:%d:%d: %s%s", e.File, issue.Line, issue.Column, path, issue.Message)
	}
	return strings.Join(lines, "\n")
}

// newError sorts the issues and drops repeats. YAML ends lines at a lone
// carriage return too, editors don't: no issue lies below the text's last line.
func newError(file string, text []byte, issues []Issue) *Error {
	last := bytes.Count(text, []byte("\n")) + 1
	for i := range issues {
		issues[i].Line = min(issues[i].Line, last)
	}
	slices.SortStableFunc(issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	return &Error{File: file, Issues: slices.Compact(issues)}
}

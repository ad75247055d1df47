package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Issue is one thing that is wrong with a file.
type Issue struct {
	// Line and Column count from 1; Column counts characters.
	Line, Column int
	// Path is the field, such as services[0].policy.timeout. Empty where it is
	// the text as a whole.
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
	var text strings.Builder
	for i, issue := range e.Issues {
		if i > 0 {
			text.WriteByte('\n')
		}
		fmt.Fprintf(&text, "%s:%d:%d: ", e.File, issue.Line, issue.Column)
		if issue.Path != "" {
			text.WriteString(issue.Path + ": ")
		}
		text.WriteString(issue.Message)
	}
	return text.String()
}

// maxIssues bounds what is told of one file: past it nobody reads on.
const maxIssues = 100

// newError puts the issues into the order of the file.
func newError(file string, issues []Issue, untold int) *Error {
	slices.SortStableFunc(issues, func(a, b Issue) int {
		return cmp.Or(cmp.Compare(a.Line, b.Line), cmp.Compare(a.Column, b.Column))
	})
	if untold > 0 {
		last := issues[len(issues)-1]
		issues = append(issues, Issue{Line: last.Line, Column: last.Column, Message: fmt.Sprintf("and %d more issues, not told here", untold)})
	}
	return &Error{File: file, Issues: issues}
}

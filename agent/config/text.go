package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"
)

// readText reads YAML into nodes; nil where nothing is written.
func readText(data []byte) (*yaml.Node, *Issue) {
	if issue := badText(data); issue != nil {
		return nil, issue
	}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	var document, second yaml.Node
	switch err := decoder.Decode(&document); {
	case errors.Is(err, io.EOF):
		return nil, nil
	case err != nil:
		return nil, syntaxIssue(err, data)
	}
	switch err := decoder.Decode(&second); {
	case err == nil:
		return nil, &Issue{Line: max(second.Line, 1), Column: max(second.Column, 1), Message: "a second document begins here; want one a file"}
	case !errors.Is(err, io.EOF):
		return nil, syntaxIssue(err, data)
	}
	if len(document.Content) != 1 {
		return nil, nil
	}
	return document.Content[0], nil
}

// badText refuses what is no text, and line ends that YAML knows but editors
// and protoyaml don't: the lines would be counted differently.
func badText(data []byte) *Issue {
	line, column := 1, 1
	for i := 0; i < len(data); {
		r, size := utf8.DecodeRune(data[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			return &Issue{Line: line, Column: column, Message: fmt.Sprintf("byte 0x%02x is not UTF-8; want the file in UTF-8", data[i])}
		case r == '\r' && (i+1 == len(data) || data[i+1] != '\n'), r == '\u0085', r == '\u2028', r == '\u2029':
			return &Issue{Line: line, Column: column, Message: fmt.Sprintf("a line ends with %U; want a newline", r)}
		case r == '\n':
			line, column = line+1, 0
		}
		column++
		i += size
	}
	return nil
}

// syntaxIssue is for text that is no YAML. The library tells the line only in
// words, and sometimes one past the end.
func syntaxIssue(err error, data []byte) *Issue {
	text := strings.TrimPrefix(err.Error(), "yaml: ")
	line := 1
	if rest, ok := strings.CutPrefix(text, "line "); ok {
		if number, what, ok := strings.Cut(rest, ": "); ok {
			if n, err := strconv.Atoi(number); err == nil {
				line, text = n, what
			}
		}
	}
	line = min(max(line, 1), bytes.Count(data, []byte("\n"))+1)
	return &Issue{Line: line, Column: 1, Message: "not YAML: " + text}
}

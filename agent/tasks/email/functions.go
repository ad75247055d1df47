package email

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	texttemplate "text/template"
)

const (
	// maxText is how much text a function takes and makes, in bytes.
	maxText = 64 << 10
	// maxVerbs is how many verbs the format of printf may have.
	maxVerbs = 32
	// maxDepth is how deep data may be nested.
	maxDepth = 100
)

// functions stand in for those of text/template that make text out of text: in a
// loop, "$x = print $x $x" would fill any memory.
var functions = texttemplate.FuncMap{
	"print":    bounded(fmt.Sprint),
	"println":  bounded(fmt.Sprintln),
	"html":     bounded(texttemplate.HTMLEscaper),
	"js":       bounded(texttemplate.JSEscaper),
	"urlquery": bounded(texttemplate.URLQueryEscaper),
	"printf": func(format string, args ...any) (string, error) {
		if err := checkFormat(format); err != nil {
			return "", err
		}
		return bounded(func(args ...any) string { return fmt.Sprintf(format, args...) })(args...)
	},
}

// bounded makes a function refuse what is too long, and what isn't plain.
func bounded(make func(...any) string) func(...any) (string, error) {
	return func(args ...any) (string, error) {
		total := 0
		for _, arg := range args {
			if arg == nil {
				continue
			}
			switch value := reflect.ValueOf(arg); value.Kind() {
			case reflect.String:
				total += value.Len()
			case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64, reflect.Uint, reflect.Uint8,
				reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr, reflect.Float32, reflect.Float64:
			default:
				return "", errors.New("it takes text, numbers and booleans; lists and objects are walked by range")
			}
		}
		if total > maxText {
			return "", fmt.Errorf("it takes at most %d bytes of text, and this is %d", maxText, total)
		}
		text := make(args...)
		if len(text) > maxText {
			return "", fmt.Errorf("it makes at most %d bytes of text, and this is %d", maxText, len(text))
		}
		return text, nil
	}
}

// checkFormat refuses formats that would make much out of little: widths and
// precisions of more than three digits or out of arguments, and many verbs.
func checkFormat(format string) error {
	if len(format) > maxText {
		return fmt.Errorf("the format has %d bytes; at most %d are allowed", len(format), maxText)
	}
	if verbs := strings.Count(format, "%"); verbs > maxVerbs {
		return fmt.Errorf("the format has %d verbs; at most %d are allowed", verbs, maxVerbs)
	}
	for rest := format; ; {
		_, after, found := strings.Cut(rest, "%")
		if !found {
			return nil
		}
		end := strings.IndexFunc(after, func(r rune) bool { return !strings.ContainsRune("0123456789.+-# [*]", r) })
		if end < 0 {
			end = len(after)
		}
		digits := 0
		for _, c := range after[:end] {
			switch {
			case c == '*':
				return errors.New("the format takes a width from an argument, which is not allowed")
			case '0' <= c && c <= '9':
				digits++
			default:
				digits = 0
			}
			if digits > 3 {
				return errors.New("the format has a width of more than three digits")
			}
		}
		rest = strings.TrimPrefix(after[end:], "%")
	}
}

// Data reads the data of a template: a JSON object, or nothing. Whole numbers
// stay whole: an order's number is not printed as 1.2345678e+07.
func Data(text []byte) (map[string]any, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		return map[string]any{}, nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var data map[string]any
	if err := decoder.Decode(&data); err != nil {
		var wrong *json.UnmarshalTypeError
		if errors.As(err, &wrong) {
			return nil, fmt.Errorf("must be a JSON object, and is a JSON %s", wrong.Value)
		}
		return nil, fmt.Errorf("must be a JSON object: %s", oneLine(err.Error()))
	}
	if data == nil {
		return nil, errors.New("must be a JSON object, and is null")
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("must be one JSON object, and goes on behind it")
	}
	for key, value := range data {
		converted, err := numbers(value, 1)
		if err != nil {
			return nil, err
		}
		data[key] = converted
	}
	return data, nil
}

// numbers replaces numbers by int64 where they are whole and fit, else float64;
// what fits neither stays as it was written.
func numbers(value any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("is nested more than %d deep", maxDepth)
	}
	var err error
	switch value := value.(type) {
	case json.Number:
		if whole, err := value.Int64(); err == nil {
			return whole, nil
		}
		if float, err := value.Float64(); err == nil {
			return float, nil
		}
		return value.String(), nil
	case []any:
		for i := range value {
			if value[i], err = numbers(value[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for key := range value {
			if value[key], err = numbers(value[key], depth+1); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

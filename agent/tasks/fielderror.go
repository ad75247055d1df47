package tasks

import "strings"

// FieldError says what is wrong with one field.
type FieldError struct {
	// Field is its path, such as "email.to[0]".
	Field string
	// Problem says what is wrong with it, with its value, and what to do.
	Problem string
}

// Error names the field and says what is wrong.
func (e *FieldError) Error() string { return e.Field + ": " + e.Problem }

// within prefixes the field with that of the message which holds it.
func (e *FieldError) within(outer string) *FieldError {
	switch {
	case outer == "":
		return e
	case e.Field == "":
		return &FieldError{outer, e.Problem}
	case strings.HasPrefix(e.Field, "["):
		return &FieldError{outer + e.Field, e.Problem}
	}
	return &FieldError{outer + "." + e.Field, e.Problem}
}

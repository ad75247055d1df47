package email

import (
	"errors"
	"fmt"
	htmltemplate "html/template"
	"io"
	"regexp"
	"strings"
	texttemplate "text/template"
	"time"
	"unicode/utf8"
)

// Template makes a mail's subject and bodies. It doesn't change, and is safe for
// concurrent use.
type Template struct {
	subject, text, html executable
	// within is how long each of them may take.
	within time.Duration
}

// executable is what both kinds of templates have in common.
type executable interface {
	Execute(w io.Writer, data any) error
	Name() string
}

// source is a template's text, and what errors call it.
type source struct{ name, text string }

// sources are the texts of a template; nil for what it doesn't have.
type sources struct{ subject, text, html *source }

// Inline makes a template of texts that came with a task: subject and text are
// of Go's text/template, html of html/template. Empty ones are left out, but there
// must be a subject and one body. Errors begin with subject, text or html, and
// name the line.
func Inline(subject, text, html string) (*Template, error) {
	of := func(name, text string) *source {
		if text == "" {
			return nil
		}
		return &source{name: name, text: text}
	}
	return compile(sources{subject: of("subject", subject), text: of("text", text), html: of("html", html)})
}

func compile(s sources) (*Template, error) {
	switch {
	case s.subject == nil:
		return nil, errors.New("it has no subject")
	case s.text == nil && s.html == nil:
		return nil, errors.New("it has neither text nor html")
	}
	t := &Template{within: maxTime}
	var err error
	if t.subject, err = parseText(*s.subject); err != nil {
		return nil, err
	}
	if s.text != nil {
		if t.text, err = parseText(*s.text); err != nil {
			return nil, err
		}
	}
	if s.html != nil {
		if t.html, err = parseHTML(*s.html); err != nil {
			return nil, err
		}
	}
	return t, nil
}

func parseText(s source) (executable, error) {
	if err := checkSource(s); err != nil {
		return nil, err
	}
	t, err := texttemplate.New(s.name).Option("missingkey=error").Funcs(functions).Parse(s.text)
	if err != nil {
		return nil, plainTemplate(err)
	}
	l := leash{}
	for _, part := range t.Templates() {
		l.add(part.Name(), part.Tree)
	}
	if err := l.tighten(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	return t, nil
}

func parseHTML(s source) (executable, error) {
	if err := checkSource(s); err != nil {
		return nil, err
	}
	t, err := htmltemplate.New(s.name).Option("missingkey=error").Funcs(functions).Parse(s.text)
	if err != nil {
		return nil, plainTemplate(err)
	}
	l := leash{}
	for _, part := range t.Templates() {
		l.add(part.Name(), part.Tree)
	}
	if err := l.tighten(); err != nil {
		return nil, fmt.Errorf("%s: %w", s.name, err)
	}
	// html/template works out how to escape when it is first executed; what it
	// can't escape is found now. The writer stops it before it does anything.
	var escaping *htmltemplate.Error
	if err := t.Execute(stopped{}, nil); errors.As(err, &escaping) {
		return nil, plainTemplate(err)
	}
	return t, nil
}

// stopped takes nothing.
type stopped struct{}

func (stopped) Write([]byte) (int, error) { return 0, errStopped }

var errStopped = errors.New("stopped")

func checkSource(s source) error {
	switch {
	case len(s.text) > MaxTemplate:
		return fmt.Errorf("%s has %d bytes; at most %d are allowed", s.name, len(s.text), MaxTemplate)
	case !utf8.ValidString(s.text):
		return fmt.Errorf("%s is not UTF-8", s.name)
	case strings.TrimSpace(s.text) == "":
		return fmt.Errorf("%s is empty", s.name)
	}
	return nil
}

// Render makes a mail's subject and bodies out of data, which should come from
// Data: a template can do with it whatever its methods do. A key that is missing
// is an error. White space around the subject is taken off.
func (t *Template) Render(data any) (Rendered, error) {
	var r Rendered
	for _, part := range []struct {
		executable executable
		into       *string
	}{{t.subject, &r.Subject}, {t.text, &r.Text}, {t.html, &r.HTML}} {
		if part.executable == nil {
			continue
		}
		m := &meter{within: t.within, until: time.Now().Add(t.within)}
		if err := part.executable.Execute(m, data); err != nil {
			var bound *boundError
			if errors.As(err, &bound) {
				return Rendered{}, fmt.Errorf("%s: %w", part.executable.Name(), bound)
			}
			return Rendered{}, plainTemplate(err)
		}
		*part.into = m.out.String()
	}
	r.Subject = strings.TrimSpace(r.Subject)
	return r, nil
}

// place is where an error of a template begins: its name and line, and maybe the
// column.
var place = regexp.MustCompile(`^(?:html/)?template: ?([^:]+):(\d+)(?::\d+)?: `)

// plainTemplate says file and line as "welcome.txt, line 3".
func plainTemplate(err error) error {
	text := err.Error()
	if found := place.FindStringSubmatch(text); found != nil {
		return fmt.Errorf("%s, line %s: %s", found[1], found[2], oneLine(text[len(found[0]):]))
	}
	return errors.New(oneLine(strings.TrimPrefix(text, "template: ")))
}

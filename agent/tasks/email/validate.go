package email

import (
	"fmt"
	"maps"
	"mime"
	"slices"
	"strings"
	"unicode/utf8"
)

// Problem is what is wrong with one field of a message.
type Problem struct {
	// Field is the field: "from", "to[1]", "attachments[0].name",
	// "headers[X-Color]".
	Field string
	// Description says what is wrong; it goes on after the field's name.
	Description string
}

func (p Problem) String() string { return p.Field + " " + p.Description }

// Validate says what is wrong with a message; nothing if it can be sent. MessageID
// and Date, which Send requires, may be missing.
func Validate(m Message) []Problem {
	_, problems := check(m)
	return problems
}

// envelope is what check found out about a message.
type envelope struct {
	from, replyTo address
	to, cc, bcc   []address
}

// recipients are all recipients or, if there are any, only those given: each
// once, whatever the case of its domain.
func (e envelope) recipients(only []string) []address {
	var list []address
	seen := make(map[string]bool)
	for _, group := range [][]address{e.to, e.cc, e.bcc} {
		for _, a := range group {
			if seen[a.bare()] || len(only) > 0 && !slices.Contains(only, a.bare()) {
				continue
			}
			seen[a.bare()] = true
			list = append(list, a)
		}
	}
	return list
}

// checking gathers problems.
type checking struct{ problems []Problem }

func (c *checking) fail(field, format string, args ...any) {
	c.problems = append(c.problems, Problem{Field: field, Description: fmt.Sprintf(format, args...)})
}

func (c *checking) failWith(field string, err error) {
	if err != nil {
		c.fail(field, "%v", err)
	}
}

func (c *checking) address(field, text string) address {
	a, err := parseAddress(text)
	c.failWith(field, err)
	return a
}

func (c *checking) addresses(field string, texts []string) []address {
	var list []address
	for i, text := range texts {
		list = append(list, c.address(fmt.Sprintf("%s[%d]", field, i), text))
	}
	return list
}

func check(m Message) (envelope, []Problem) {
	c := &checking{}
	var e envelope
	e.from = c.address("from", m.From)
	if m.ReplyTo != "" {
		e.replyTo = c.address("reply_to", m.ReplyTo)
	}
	switch count := len(m.To) + len(m.Cc) + len(m.Bcc); {
	case count == 0:
		c.fail("to", "must have a recipient, as there is none in cc and bcc either")
	case count > MaxRecipients:
		c.fail("to", "has %d recipients, with cc and bcc; at most %d are allowed", count, MaxRecipients)
		return e, c.problems // with no wall of text about each of them
	}
	e.to, e.cc, e.bcc = c.addresses("to", m.To), c.addresses("cc", m.Cc), c.addresses("bcc", m.Bcc)
	if len(c.problems) == 0 {
		all := e.recipients(nil)
		for i, only := range m.Only {
			if !slices.ContainsFunc(all, func(a address) bool { return a.bare() == only }) {
				c.fail(fmt.Sprintf("only[%d]", i), "%q is none of the recipients", clip(only))
			}
		}
	}
	c.subject(m.Subject)
	c.content(m)
	for i, attachment := range m.Attachments[:min(len(m.Attachments), MaxAttachments)] {
		c.attachment(fmt.Sprintf("attachments[%d].", i), attachment)
	}
	c.headers(m.Headers)
	if m.MessageID != "" {
		c.failWith("message_id", checkMessageID(m.MessageID))
	}
	if !m.Date.IsZero() && (m.Date.Year() < 1970 || m.Date.Year() > 9999) {
		c.fail("date", "is in the year %d, which no mail has", m.Date.Year())
	}
	return e, c.problems
}

func (c *checking) subject(subject string) {
	if len(subject) > MaxSubject {
		c.fail("subject", "has %d bytes; at most %d are allowed", len(subject), MaxSubject)
		return
	}
	c.failWith("subject", checkValue(subject))
}

// content checks the bodies, and what everything adds up to.
func (c *checking) content(m Message) {
	if m.Text == "" && m.HTML == "" {
		c.fail("text", "must not be empty, as there is no html either")
	}
	for _, body := range []struct{ field, text string }{{"text", m.Text}, {"html", m.HTML}} {
		switch {
		case !utf8.ValidString(body.text):
			c.fail(body.field, "is not UTF-8")
		case strings.Contains(body.text, "\x00"):
			c.fail(body.field, "has a NUL character")
		}
	}
	if len(m.Attachments) > MaxAttachments {
		c.fail("attachments", "has %d; at most %d are allowed", len(m.Attachments), MaxAttachments)
	}
	total := len(m.Text) + len(m.HTML)
	for _, attachment := range m.Attachments {
		total += len(attachment.Content)
	}
	if total > MaxContent {
		c.fail("attachments", "and the bodies have %d bytes; at most %d are allowed", total, MaxContent)
	}
}

func (c *checking) attachment(prefix string, a Attachment) {
	switch {
	case a.Name == "":
		c.fail(prefix+"name", "is missing")
	case len(a.Name) > 255:
		c.fail(prefix+"name", "has %d bytes; at most 255 are allowed", len(a.Name))
	case a.Name == "." || a.Name == ".." || strings.ContainsAny(a.Name, `/\`):
		c.fail(prefix+"name", "%q must be a name without a folder", a.Name)
	default:
		c.failWith(prefix+"name", checkText(a.Name))
	}
	if a.ContentType != "" {
		c.failWith(prefix+"content_type", checkContentType(a.ContentType))
	}
}

func checkContentType(text string) error {
	if len(text) > 255 {
		return fmt.Errorf("has %d bytes; at most 255 are allowed", len(text))
	}
	if err := checkText(text); err != nil {
		return err
	}
	kind, _, err := mime.ParseMediaType(text)
	if err != nil || !strings.Contains(kind, "/") {
		return fmt.Errorf(`%q is no content type, such as "application/pdf"`, text)
	}
	// Parts in parts, and messages that readers open as mails of their own, are
	// not what an attachment's bytes were checked for.
	if strings.HasPrefix(kind, "multipart/") || strings.HasPrefix(kind, "message/") {
		return fmt.Errorf("%q can't be an attachment's; send it as application/octet-stream", text)
	}
	return nil
}

func (c *checking) headers(headers map[string]string) {
	if len(headers) > MaxHeaders {
		c.fail("headers", "has %d; at most %d are allowed", len(headers), MaxHeaders)
		return
	}
	seen := make(map[string]bool)
	for _, name := range slices.Sorted(maps.Keys(headers)) {
		field := fmt.Sprintf("headers[%s]", clip(name))
		value := headers[name]
		switch {
		case !isHeaderName(name):
			c.fail(field, `must have a name of 1 to 70 letters, digits, "-" and "_"`)
		case !AllowedHeader(name):
			c.fail(field, "can't be set: allowed are X-…, List-…, In-Reply-To, References, Auto-Submitted, Precedence, Importance, Priority, Sensitivity, Organization, Keywords, Comments and Feedback-ID")
		case seen[strings.ToLower(name)]:
			c.fail(field, "is given twice, in different case")
		case len(value) > maxHeaderValue:
			c.fail(field, "has %d bytes; at most %d are allowed", len(value), maxHeaderValue)
		case strings.TrimSpace(value) == "":
			c.fail(field, "is empty")
		default:
			c.failWith(field, checkValue(value))
		}
		seen[strings.ToLower(name)] = true
	}
}

// checkValue refuses what can't be a header's value.
func checkValue(value string) error {
	if err := checkText(value); err != nil {
		return err
	}
	// Lines are folded between words, and none may have more than 998 bytes.
	// Words that aren't ASCII are encoded, and folded anywhere.
	for word := range strings.SplitSeq(value, " ") {
		if len(word) > 900 {
			return fmt.Errorf("has a word of %d bytes; with more than 900 it would not fit into a line", len(word))
		}
	}
	return nil
}

// checkMessageID takes what RFC 5322 calls dot-atom-text, an "@" and the same
// again.
func checkMessageID(id string) error {
	left, right, ok := strings.Cut(id, "@")
	if !ok || len(id) > 250 || !isDotAtom(left) || !isDotAtom(right) {
		return fmt.Errorf(`%q must be like "id@example.com", of at most 250 characters`, clip(id))
	}
	return nil
}

func isDotAtom(text string) bool {
	for atom := range strings.SplitSeq(text, ".") {
		if atom == "" {
			return false
		}
		for _, c := range []byte(atom) {
			switch {
			case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
			case strings.IndexByte("!#$%&'*+-/=?^_`{|}~", c) >= 0:
			default:
				return false
			}
		}
	}
	return true
}

// listed is what is wrong with a message, in one line.
func listed(problems []Problem) string {
	list := make([]string, 0, len(problems))
	for _, p := range problems {
		list = append(list, p.String())
	}
	return strings.Join(list, "; ")
}

// clip bounds what is quoted in a text.
func clip(text string) string {
	const most = 100
	if len(text) <= most {
		return text
	}
	cut := most
	for cut > 0 && !utf8.RuneStart(text[cut]) {
		cut--
	}
	return text[:cut] + "…"
}

package email

import (
	"bytes"
	"fmt"
	"mime"
	"net/mail"
	"net/textproto"
	"strings"

	gomail "github.com/wneessen/go-mail"
)

// compose writes a message that was checked as it goes over the wire, but for
// the dots.
func compose(m Message, e envelope) ([]byte, error) {
	msg := gomail.NewMsg(gomail.WithNoDefaultUserAgent())
	msg.FromMailAddress(e.from.header())
	if m.ReplyTo != "" {
		msg.ReplyToMailAddress(e.replyTo.header())
	}
	// Bcc is for the envelope alone.
	for _, group := range []struct {
		header gomail.AddrHeader
		list   []address
	}{{gomail.HeaderTo, e.to}, {gomail.HeaderCc, e.cc}} {
		if list := headers(group.list); len(list) > 0 {
			msg.SetAddrHeaderFromMailAddress(group.header, list...)
		}
	}
	msg.SetMessageIDWithValue(m.MessageID)
	msg.SetDateWithValue(m.Date)
	msg.Subject(spaced(m.Subject))
	for name, value := range m.Headers {
		msg.SetGenHeader(gomail.Header(name), spaced(value))
	}
	switch {
	case m.HTML == "":
		msg.SetBodyString(gomail.TypeTextPlain, m.Text)
	case m.Text == "":
		msg.SetBodyString(gomail.TypeTextHTML, m.HTML)
	default:
		msg.SetBodyString(gomail.TypeTextPlain, m.Text)
		msg.AddAlternativeString(gomail.TypeTextHTML, m.HTML)
	}
	for i, attachment := range m.Attachments {
		header, err := partHeader(attachment)
		if err != nil {
			return nil, fmt.Errorf("attachments[%d]: %w", i, err)
		}
		msg.AttachReadSeeker(attachment.Name, bytes.NewReader(attachment.Content), func(f *gomail.File) {
			f.Header = header
		})
	}
	var text bytes.Buffer
	if _, err := msg.WriteTo(&text); err != nil {
		return nil, err
	}
	return text.Bytes(), nil
}

func headers(list []address) []*mail.Address {
	var addresses []*mail.Address
	for _, a := range list {
		addresses = append(addresses, a.header())
	}
	return addresses
}

// spaced has single spaces alone: a line is folded at a space, and one that
// consists of nothing but spaces is read by some as the end of the headers.
func spaced(value string) string { return strings.Join(strings.Fields(value), " ") }

// partHeader is how an attachment begins. go-mail would write a name that is not
// ASCII as encoded words in quotes, which RFC 2047 forbids; this is RFC 2231.
func partHeader(a Attachment) (textproto.MIMEHeader, error) {
	contentType := a.ContentType
	if contentType == "" {
		contentType = "application/octet-stream"
	}
	kind, parameters, err := mime.ParseMediaType(contentType)
	if err != nil {
		return nil, err
	}
	header := textproto.MIMEHeader{}
	header.Set("Content-Type", mime.FormatMediaType(kind, parameters))
	header.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": a.Name}))
	header.Set("Content-Transfer-Encoding", "base64")
	for _, name := range []string{"Content-Type", "Content-Disposition"} {
		if header.Get(name) == "" {
			return nil, fmt.Errorf("%s can't be written for %q", name, a.Name)
		}
	}
	return header, nil
}

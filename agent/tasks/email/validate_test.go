package email

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestValidMessages(t *testing.T) {
	for name, change := range map[string]func(*Message){
		"as it is":                 func(*Message) {},
		"without id and date":      func(m *Message) { m.MessageID, m.Date = "", time.Time{} },
		"without a subject":        func(m *Message) { m.Subject = "" },
		"with html alone":          func(m *Message) { m.Text, m.HTML = "", "<p>Hello" },
		"with bcc alone":           func(m *Message) { m.To, m.Bcc = nil, []string{"ada@example.org"} },
		"with a reply address":     func(m *Message) { m.ReplyTo = "Help <help@example.com>" },
		"with a subject not ASCII": func(m *Message) { m.Subject = "Schöne Grüße 🎉" },
		"with line breaks in text": func(m *Message) { m.Text = "a\r\nb\n.\nc\t" },
		"with an attachment": func(m *Message) {
			m.Attachments = []Attachment{{Name: "Rechnung März.pdf", ContentType: "application/pdf; version=1", Content: []byte{0, 1, 2}}}
		},
		"with headers": func(m *Message) {
			m.Headers = map[string]string{"X-Campaign": "spring", "list-unsubscribe": "<https://example.com/u?x=1>", "In-Reply-To": "<a@b>"}
		},
		"with the most recipients": func(m *Message) { m.To = slices.Repeat(m.To, 100); m.Cc, m.Bcc = m.To, m.To },
		"with one of them":         func(m *Message) { m.Only = []string{"ada@example.org"} },
	} {
		m := helloMail()
		change(&m)

		if problems := Validate(m); len(problems) > 0 {
			t.Errorf("%s: %v", name, problems)
		}
	}
}

func TestProblems(t *testing.T) {
	for _, v := range []struct {
		change      func(*Message)
		field, says string
	}{
		{func(m *Message) { m.From = "" }, "from", "is empty"},
		{func(m *Message) { m.From = "x" }, "from", `"x" is no address`},
		{func(m *Message) { m.From = "a@example.com, b@example.com" }, "from", "must be one address"},
		{func(m *Message) { m.ReplyTo = "x" }, "reply_to", "is no address"},
		{func(m *Message) { m.To = nil }, "to", "must have a recipient"},
		{func(m *Message) { m.To = append(m.To, "x") }, "to[1]", "is no address"},
		{func(m *Message) { m.Cc = []string{"x"} }, "cc[0]", "is no address"},
		{func(m *Message) { m.Bcc = []string{"x"} }, "bcc[0]", "is no address"},
		{func(m *Message) { m.To = slices.Repeat(m.To, 301) }, "to", "has 301 recipients, with cc and bcc; at most 300"},
		{func(m *Message) { m.Only = []string{"bob@example.org"} }, "only[0]", `"bob@example.org" is none of the recipients`},
		{func(m *Message) { m.Subject = "Hello\r\nBcc: eve@example.org" }, "subject", "has a line break, as its byte 6"},
		{func(m *Message) { m.Subject = "Hello\x1b[31m" }, "subject", "has the control character U+001B"},
		{func(m *Message) { m.Subject = "a\tb" }, "subject", "has the control character U+0009"},
		{func(m *Message) { m.Subject = strings.Repeat("x ", 500) }, "subject", "has 1000 bytes; at most 998"},
		{func(m *Message) { m.Subject = strings.Repeat("x", 901) }, "subject", "has a word of 901 bytes"},
		{func(m *Message) { m.Subject = "\xff" }, "subject", "is not UTF-8"},
		{func(m *Message) { m.Text = "" }, "text", "must not be empty"},
		{func(m *Message) { m.Text = "\xff" }, "text", "is not UTF-8"},
		{func(m *Message) { m.HTML = "a\x00" }, "html", "has a NUL character"},
		{func(m *Message) { m.Text = strings.Repeat("x", MaxContent+1) }, "attachments", "at most 16777216"},
		{func(m *Message) { m.Attachments = slices.Repeat([]Attachment{{Name: "a"}}, 21) }, "attachments", "has 21; at most 20"},
		{func(m *Message) { m.Attachments = []Attachment{{}} }, "attachments[0].name", "is missing"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: "../a"}} }, "attachments[0].name", "without a folder"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: `C:\a`}} }, "attachments[0].name", "without a folder"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: ".."}} }, "attachments[0].name", "without a folder"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: "a\r\nb"}} }, "attachments[0].name", "has a line break"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: strings.Repeat("a", 256)}} }, "attachments[0].name", "at most 255"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: "a", ContentType: "pdf"}} }, "attachments[0].content_type", "is no content type"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: "a", ContentType: "a/b\r\nX: y"}} }, "attachments[0].content_type", "has a line break"},
		{func(m *Message) { m.Attachments = []Attachment{{Name: "a", ContentType: "message/rfc822"}} }, "attachments[0].content_type", "can't be an attachment's"},
		{func(m *Message) { m.Headers = map[string]string{"X-A": "a\r\nBcc: eve@example.org"} }, "headers[X-A]", "has a line break"},
		{func(m *Message) { m.Headers = map[string]string{"X-A": " "} }, "headers[X-A]", "is empty"},
		{func(m *Message) { m.Headers = map[string]string{"X-A": strings.Repeat("a ", 2049)} }, "headers[X-A]", "at most 4096"},
		{func(m *Message) { m.Headers = map[string]string{"X-A:\r\nBcc": "eve"} }, "headers[X-A:\r\nBcc]", "must have a name of"},
		{func(m *Message) { m.Headers = map[string]string{"X-A": "1", "x-a": "2"} }, "headers[x-a]", "is given twice"},
		{func(m *Message) { m.Headers = map[string]string{"X-": "1"} }, "headers[X-]", "can't be set"},
		{func(m *Message) {
			m.Headers = make(map[string]string)
			for i := range 51 {
				m.Headers[fmt.Sprintf("X-%d", i)] = "1"
			}
		}, "headers", "has 51; at most 50"},
		{func(m *Message) { m.MessageID = "<a@b>" }, "message_id", `must be like "id@example.com"`},
		{func(m *Message) { m.MessageID = "a" }, "message_id", "must be like"},
		{func(m *Message) { m.MessageID = "a@b@c" }, "message_id", "must be like"},
		{func(m *Message) { m.MessageID = "a@b\r\nX: y" }, "message_id", "must be like"},
		{func(m *Message) { m.MessageID = "a..b@c" }, "message_id", "must be like"},
		{func(m *Message) { m.MessageID = strings.Repeat("a", 249) + "@b" }, "message_id", "at most 250"},
		{func(m *Message) { m.Date = time.Date(10000, 1, 1, 0, 0, 0, 0, time.UTC) }, "date", "is in the year 10000"},
	} {
		m := helloMail()
		v.change(&m)

		problems := Validate(m)

		if len(problems) != 1 || problems[0].Field != v.field || !strings.Contains(problems[0].Description, v.says) {
			t.Errorf("%q, want one: %s … %s", problems, v.field, v.says)
		}
	}
}

func TestHeadersThatWeSetAreRefused(t *testing.T) {
	for _, name := range []string{
		"From", "to", "CC", "Bcc", "Sender", "Reply-To", "Subject", "Date", "Message-ID", "Message-Id", "MIME-Version",
		"Content-Type", "Content-Transfer-Encoding", "Content-Disposition", "Return-Path", "Received", "DKIM-Signature",
		"Resent-To", "Disposition-Notification-To", "Authentication-Results", "User-Agent",
	} {
		m := helloMail()
		m.Headers = map[string]string{name: "x"}

		if problems := Validate(m); len(problems) != 1 || !strings.Contains(problems[0].Description, "can't be set") {
			t.Errorf("%s: %v, want it to be refused", name, problems)
		}
	}
}

func TestAllProblemsAreSaidAtOnce(t *testing.T) {
	problems := Validate(Message{From: "x", To: []string{"y", "z"}, Subject: "\n"})

	var fields []string
	for _, p := range problems {
		fields = append(fields, p.Field)
	}
	if want := []string{"from", "to[0]", "to[1]", "subject", "text"}; !slices.Equal(fields, want) {
		t.Errorf("%q, want %q", fields, want)
	}
}

package email

import (
	"bytes"
	"encoding/base64"
	"io"
	"maps"
	"mime"
	"mime/multipart"
	"mime/quotedprintable"
	"net/mail"
	"slices"
	"strings"
	"testing"
)

// written is a message as it is sent.
func written(t testing.TB, m Message) string {
	t.Helper()
	e, problems := check(m)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	content, err := compose(m, e)
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

func read(t testing.TB, content string) *mail.Message {
	t.Helper()
	parsed, err := mail.ReadMessage(strings.NewReader(content))
	if err != nil {
		t.Fatalf("%v in\n%s", err, content)
	}
	return parsed
}

// decoded is a header without its encoding.
func decoded(t testing.TB, header mail.Header, name string) string {
	t.Helper()
	text, err := new(mime.WordDecoder).DecodeHeader(header.Get(name))
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestHeadersOfAMail(t *testing.T) {
	m := helloMail()
	m.From = "Bücher & Co <shop@bücher.example>"
	m.ReplyTo = "help@example.com"
	m.To = []string{`"Lovelace, Ada" <ada@example.org>`, "bob@example.org"}
	m.Cc = []string{"eve@example.org"}
	m.Bcc = []string{"secret@example.org"}
	m.Subject = "Schöne Grüße, und zwar in einem Betreff, der auf mehr als einer Zeile steht 🎉"
	m.Headers = map[string]string{"X-Campaign": "spring", "List-Unsubscribe": "<https://example.com/u?x=1>"}

	header := read(t, written(t, m)).Header

	for name, want := range map[string]string{
		"From":             "Bücher & Co <shop@xn--bcher-kva.example>",
		"Reply-To":         "<help@example.com>",
		"To":               `"Lovelace, Ada" <ada@example.org>, <bob@example.org>`,
		"Cc":               "<eve@example.org>",
		"Subject":          m.Subject,
		"Message-ID":       "<task-1@example.com>",
		"Date":             "Sat, 14 Mar 2026 15:09:26 +0000",
		"X-Campaign":       "spring",
		"List-Unsubscribe": "<https://example.com/u?x=1>",
		"MIME-Version":     "1.0",
	} {
		if got := decoded(t, header, name); got != want && got != strings.Trim(want, "<>") {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	names := slices.Sorted(maps.Keys(header))
	want := []string{"Cc", "Content-Transfer-Encoding", "Content-Type", "Date", "From", "List-Unsubscribe", "Message-Id", "Mime-Version", "Reply-To", "Subject", "To", "X-Campaign"}
	if !slices.Equal(names, want) {
		t.Errorf("headers %q, want %q", names, want)
	}
}

// part is a part of a mail, decoded.
type part struct{ contentType, file, content string }

// parts are the leaves of a mail, in their order, and the types around them.
func parts(t testing.TB, header interface{ Get(string) string }, body io.Reader) (leaves []part, around []string) {
	t.Helper()
	kind, parameters, err := mime.ParseMediaType(header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(kind, "multipart/") {
		around = append(around, kind)
		reader := multipart.NewReader(body, parameters["boundary"])
		for {
			p, err := reader.NextRawPart()
			if err == io.EOF {
				return leaves, around
			}
			if err != nil {
				t.Fatal(err)
			}
			l, a := parts(t, p.Header, p)
			leaves, around = append(leaves, l...), append(around, a...)
		}
	}
	switch header.Get("Content-Transfer-Encoding") {
	case "quoted-printable":
		body = quotedprintable.NewReader(body)
	case "base64":
		body = base64.NewDecoder(base64.StdEncoding, body)
	default:
		t.Fatalf("encoding %q", header.Get("Content-Transfer-Encoding"))
	}
	content, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	_, disposition, _ := mime.ParseMediaType(header.Get("Content-Disposition"))
	return []part{{kind, disposition["filename"], string(content)}}, nil
}

func TestPartsOfAMail(t *testing.T) {
	text, html := "Hello Zoë\r\n.\r\nBye\r\n", "<p>Hello Zoë"
	pdf := Attachment{Name: "Rechnung März \"1\".pdf", ContentType: "application/pdf", Content: bytes.Repeat([]byte{0, 1, 2, '\n', '.', '\n'}, 100)}
	unknown := Attachment{Name: "data", Content: []byte("x")}
	inText, inHTML := part{"text/plain", "", text}, part{"text/html", "", html}
	attached := part{"application/pdf", pdf.Name, string(pdf.Content)}
	for _, v := range []struct {
		name        string
		text, html  string
		attachments []Attachment
		leaves      []part
		around      []string
	}{
		{"text", text, "", nil, []part{inText}, nil},
		{"html", "", html, nil, []part{inHTML}, nil},
		{"both", text, html, nil, []part{inText, inHTML}, []string{"multipart/alternative"}},
		{"text and a file", text, "", []Attachment{pdf}, []part{inText, attached}, []string{"multipart/mixed"}},
		{"all of it", text, html, []Attachment{pdf, unknown}, []part{inText, inHTML, attached, {"application/octet-stream", "data", "x"}}, []string{"multipart/mixed", "multipart/alternative"}},
	} {
		t.Run(v.name, func(t *testing.T) {
			m := helloMail()
			m.Text, m.HTML, m.Attachments = v.text, v.html, v.attachments

			parsed := read(t, written(t, m))
			leaves, around := parts(t, parsed.Header, parsed.Body)

			if !slices.Equal(leaves, v.leaves) {
				t.Errorf("parts %q, want %q", leaves, v.leaves)
			}
			if !slices.Equal(around, v.around) {
				t.Errorf("within %q, want %q", around, v.around)
			}
		})
	}
}

func TestLinesAreNotTooLong(t *testing.T) {
	m := helloMail()
	m.To = slices.Repeat([]string{`"` + strings.Repeat("Ada ", 100) + `" <ada@example.org>`}, 50)
	m.Subject = strings.Repeat("Grüße ", 120)
	m.Text = strings.Repeat("x", 5000)
	m.Attachments = []Attachment{{Name: strings.Repeat("ä", 120) + ".pdf", ContentType: "text/plain; charset=utf-8", Content: make([]byte, 5000)}}
	m.Headers = map[string]string{"X-Long": strings.Repeat("x", 900) + " " + strings.Repeat("y", 900)}

	for line := range strings.SplitSeq(written(t, m), "\r\n") {
		if len(line) > 998 || strings.ContainsAny(line, "\r\n") {
			t.Errorf("a line of %d bytes: %.80q…", len(line), line)
		}
	}
}

func TestSpacesDoNotEndTheHeaders(t *testing.T) {
	m := helloMail()
	m.Subject = "a" + strings.Repeat(" ", 500) + "b "
	m.Headers = map[string]string{"X-Long": " a" + strings.Repeat(" ", 200)}

	parsed := read(t, written(t, m))

	if subject := parsed.Header.Get("Subject"); subject != "a b" {
		t.Errorf("subject %q, want a b", subject)
	}
	if body, _ := io.ReadAll(parsed.Body); string(body) != "Hello Ada\r\n" {
		t.Errorf("body %q", body)
	}
}

// Whatever a message that passes Validate has in its fields, the mail has the
// headers that we gave it, its body, and nothing else.
func FuzzHeadersCannotBeInjected(f *testing.F) {
	f.Add("Ada <ada@example.org>", "Hello", "X-A", "value", "a.txt", "text/plain")
	f.Add("ada@example.org", "Hello\r\nBcc: eve@example.org", "X-A\r\nBcc", "v\nBcc: eve", "a\r\n\r\nb", "text/plain\r\nX: y")
	f.Add("=?utf-8?q?a=0D=0ABcc:?= <ada@example.org>", "=?utf-8?q?=0D=0ABcc:?=", "Bcc", " ", "a\"; x=\"y", "text/html; a=\"b\\\"c\"")
	f.Add("ada@example.org", strings.Repeat("a ", 300), "X-A", "  a  "+strings.Repeat(" ", 100)+"b", "…", "a/b; charset*=utf-8''x")
	f.Fuzz(func(t *testing.T, to, subject, name, value, file, contentType string) {
		m := helloMail()
		m.To, m.Subject = []string{to}, subject
		m.Headers = map[string]string{name: value}
		m.Attachments = []Attachment{{Name: file, ContentType: contentType, Content: []byte("x")}}
		e, problems := check(m)
		if len(problems) > 0 {
			return
		}
		content, err := compose(m, e)
		if err != nil {
			return
		}
		for line := range bytes.SplitSeq(content, []byte("\r\n")) {
			if bytes.ContainsAny(line, "\r\n\x00") || len(line) > 998 {
				t.Fatalf("the line %q in\n%s", line, content)
			}
		}
		parsed := read(t, string(content))
		allowed := map[string]bool{"From": true, "To": true, "Subject": true, "Date": true, "Message-Id": true, "Mime-Version": true, "Content-Type": true}
		extra := 0
		for name := range parsed.Header {
			if !allowed[name] {
				extra++
			}
			if len(parsed.Header[name]) != 1 {
				t.Fatalf("%d of %s in\n%s", len(parsed.Header[name]), name, content)
			}
		}
		if extra != 1 {
			t.Fatalf("%d extra headers, want 1, in\n%s", extra, content)
		}
		leaves, _ := parts(t, parsed.Header, parsed.Body)
		if len(leaves) != 2 || leaves[0].content != "Hello Ada\r\n" || leaves[1].content != "x" {
			t.Fatalf("parts %q in\n%s", leaves, content)
		}
	})
}

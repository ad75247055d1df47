package email

import (
	"context"
	"errors"
	"net"
	"net/mail"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestMailArrives(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address(), Hello: "agent.example.com"})
	m := helloMail()
	m.Cc = []string{"bob@example.org"}
	m.Bcc = []string{"eve@example.org"}

	receipt, err := sender.Send(t.Context(), m)

	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ada@example.org", "bob@example.org", "eve@example.org"}; !slices.Equal(receipt.Accepted, want) || receipt.Refused != nil {
		t.Errorf("accepted %q, refused %v; want %q and none", receipt.Accepted, receipt.Refused, want)
	}
	if want := "2.0.0 Ok: queued as 1"; receipt.Response != want || receipt.MessageID != "task-1@example.com" {
		t.Errorf("response %q of %s, want %q", receipt.Response, receipt.MessageID, want)
	}
	got := server.received()[0]
	if want := "FROM:<shop@example.com>"; got.from != want {
		t.Errorf("sender %s, want %s", got.from, want)
	}
	if want := []string{"TO:<ada@example.org>", "TO:<bob@example.org>", "TO:<eve@example.org>"}; !slices.Equal(got.recipients, want) {
		t.Errorf("recipients %q, want %q", got.recipients, want)
	}
	if strings.Contains(got.content, "eve") {
		t.Errorf("the mail tells who is in bcc:\n%s", got.content)
	}
	if hello := server.said("EHLO"); !slices.Equal(hello, []string{"EHLO agent.example.com"}) {
		t.Errorf("said %q", hello)
	}
}

func TestRepeatedMailIsTheSame(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address(), From: "shop@example.com"})
	m := helloMail()
	m.MessageID = sender.MessageID("0199c9a2-5f0e-7d1c-9b5e-6a3f1c2d4e5f")
	for range 2 {
		if _, err := sender.Send(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}

	first, second := server.received()[0], server.received()[1]
	if first.content != second.content {
		t.Errorf("first\n%s\nsecond\n%s", first.content, second.content)
	}
	parsed, err := mail.ReadMessage(strings.NewReader(second.content))
	if err != nil {
		t.Fatal(err)
	}
	if id, want := parsed.Header.Get("Message-ID"), "<0199c9a2-5f0e-7d1c-9b5e-6a3f1c2d4e5f@example.com>"; id != want {
		t.Errorf("Message-ID %s, want %s", id, want)
	}
	if date, err := parsed.Header.Date(); err != nil || !date.Equal(submitted) {
		t.Errorf("Date %v, %v; want %v", date, err, submitted)
	}
}

func TestMessageIDOfAnyTaskID(t *testing.T) {
	sender := newSender(t, Settings{Address: "localhost:25", MessageIDDomain: "Mail.Example.com"})
	for id, want := range map[string]string{
		"42":                     "42@mail.example.com",
		"a b\r\n":                "6120620d0a@mail.example.com",
		"..":                     "2e2e@mail.example.com",
		strings.Repeat("x", 100): strings.Repeat("78", 32) + "@mail.example.com",
	} {
		got := sender.MessageID(id)
		if got != want || checkMessageID(got) != nil {
			t.Errorf("of %q: %s (%v), want %s", id, got, checkMessageID(got), want)
		}
	}
}

func TestDefaultSenderAndDomains(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address(), From: "shop@example.com", SenderDomains: []string{"example.com", "bücher.example"}})
	for _, v := range []struct{ from, want string }{
		{"", "FROM:<shop@example.com>"},
		{"a@EXAMPLE.com", "FROM:<a@example.com>"},
		{"a@bücher.example", "FROM:<a@xn--bcher-kva.example>"},
		{"a@example.org", `from "a@example.org" may not send: the domain must be one of example.com, bücher.example`},
	} {
		m := helloMail()
		m.From = v.from

		_, err := sender.Send(t.Context(), m)

		if strings.HasPrefix(v.want, "FROM:") {
			mails := server.received()
			if err != nil || mails[len(mails)-1].from != v.want {
				t.Errorf("from %q: %v, want %s", v.from, err, v.want)
			}
		} else if err == nil || !strings.Contains(err.Error(), v.want) || !IsPermanent(err) {
			t.Errorf("from %q: %v, want %s", v.from, err, v.want)
		}
	}
}

func TestWrongMailAsksNoServer(t *testing.T) {
	sender := newSender(t, Settings{Address: "127.0.0.1:1"})

	_, err := sender.Send(t.Context(), Message{To: []string{"a@b@c"}})

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageMessage || !e.Permanent {
		t.Fatalf("%v, want a permanent error at the message", err)
	}
	for _, want := range []string{"from is missing, and the configuration has no default sender", `to[0] "a@b@c" is no address`, "text must not be empty", "message_id is missing", "date is missing"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want it to say %s", err, want)
		}
	}
}

func TestRecipientGivenTwiceGetsOneMail(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address()})
	m := helloMail()
	m.Cc = []string{"ada@EXAMPLE.ORG"}

	receipt, err := sender.Send(t.Context(), m)

	if err != nil || !slices.Equal(receipt.Accepted, []string{"ada@example.org"}) {
		t.Errorf("accepted %q, %v", receipt.Accepted, err)
	}
}

func TestServerThatIsNotThere(t *testing.T) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := listener.Addr().String()
	listener.Close()
	sender := newSender(t, Settings{Address: address})

	_, err = sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageConnect || e.Permanent {
		t.Errorf("%+v, want a transient error at connect", e)
	}
	if want := "SMTP server " + address + " can't be reached: connect: connection refused"; err == nil || err.Error() != want {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestContextThatEndsClosesTheConnection(t *testing.T) {
	for _, line := range []string{"CONNECT", "MAIL", "."} {
		t.Run(line, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			server := serve(t, &mailbox{on: func(_ *dialogue, got string) string {
				if strings.HasPrefix(got, line) {
					cancel()
					return mute // until the client has closed it
				}
				return ""
			}})
			sender := newSender(t, Settings{Address: server.address(), Timeout: time.Hour})

			_, err := sender.Send(ctx, helloMail())

			var e *Error
			if !errors.As(err, &e) || !errors.Is(err, context.Canceled) || e.Permanent {
				t.Errorf("%v, want context.Canceled", err)
			}
			server.listener.Close()
			server.running.Wait()
		})
	}
}

// One mail over a connection that is there: four round trips, most of it the
// scripted server's. budget: 200 µs.
func BenchmarkSend(b *testing.B) {
	server := serve(b, &mailbox{})
	sender, err := NewSender(Settings{Address: server.address()})
	if err != nil {
		b.Fatal(err)
	}
	defer sender.Close()
	m := helloMail()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := sender.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
}

package email

import (
	"context"
	"errors"
	"net"
	"net/mail"
	"slices"
	"strings"
	"sync"
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

// answers makes a server answer the lines that begin with a word.
func answers(word, answer string) func(*dialogue, string) string {
	return func(_ *dialogue, line string) string {
		if strings.HasPrefix(line, word) {
			return answer
		}
		return ""
	}
}

func TestRefusalsAreClassified(t *testing.T) {
	for _, v := range []struct {
		name, line, answer string
		stage              Stage
		permanent          bool
		code               int
		enhanced           string
		says               string
	}{
		{"a server that won't serve", "CONNECT", "554 5.3.2 No service", StageConnect, false, 554, "5.3.2", "doesn't greet: 554 5.3.2 No service"},
		{"a busy server", "CONNECT", "421 4.3.2 Busy", StageConnect, false, 421, "4.3.2", "421 4.3.2 Busy"},
		{"a refused sender", "MAIL", "550 5.7.1 Not you", StageSender, true, 550, "5.7.1", "refuses the sender shop@example.com: 550 5.7.1 Not you"},
		{"a sender for later", "MAIL", "451 4.7.0 Later", StageSender, false, 451, "4.7.0", "451 4.7.0 Later"},
		{"a login that is missing", "MAIL", "530 5.7.0 Authentication required", StageSender, false, 530, "5.7.0", "530"},
		{"an unknown recipient", "RCPT", "550 5.1.1 Unknown", StageRecipients, true, 550, "5.1.1", "refuses the recipient ada@example.org: 550 5.1.1 Unknown"},
		{"greylisting", "RCPT", "450 4.7.1 Greylisted", StageRecipients, false, 450, "4.7.1", "450 4.7.1 Greylisted"},
		{"a server that ends", "RCPT", "421 4.4.2 Bye", StageRecipients, false, 421, "4.4.2", "421 4.4.2 Bye"},
		{"no content now", "DATA", "452 4.3.1 Full", StageContent, false, 452, "4.3.1", "refuses the mail: 452 4.3.1 Full"},
		{"spam", ".", "554 5.7.1 Spam\nsays the filter", StageContent, true, 554, "5.7.1", "554 5.7.1 Spam"},
		{"a full disk", ".", "451 4.3.0 Disk", StageContent, false, 451, "4.3.0", "451 4.3.0 Disk"},
		{"a reply of several lines", "MAIL", "550-5.7.1 One\n550 5.7.1 Two", StageSender, true, 550, "5.7.1", "550 5.7.1 One Two"},
		{"no enhanced code", "MAIL", "550 No", StageSender, true, 550, "", "550 No"},
		{"an enhanced code of another class", "MAIL", "450 5.1.1 Odd", StageSender, false, 450, "", "450 5.1.1 Odd"},
	} {
		t.Run(v.name, func(t *testing.T) {
			server := serve(t, &mailbox{on: answers(v.line, v.answer)})
			sender := newSender(t, Settings{Address: server.address()})

			_, err := sender.Send(t.Context(), helloMail())

			var e *Error
			if !errors.As(err, &e) {
				t.Fatalf("%T %v, want an *Error", err, err)
			}
			if e.Stage != v.stage || e.Permanent != v.permanent || e.Code != v.code || e.Enhanced != v.enhanced || e.Unknown {
				t.Errorf("%+v, want stage %s, permanent %t, %d %s", e, v.stage, v.permanent, v.code, v.enhanced)
			}
			if !strings.Contains(err.Error(), v.says) || !strings.Contains(err.Error(), server.address()) {
				t.Errorf("%v, want it to name the server and say %q", err, v.says)
			}
			if mails := server.received(); len(mails) > 0 {
				t.Errorf("%d mails were taken", len(mails))
			}
		})
	}
}

// refusing answers some recipients with a refusal.
func refusing(refusals map[string]string) func(*dialogue, string) string {
	return func(_ *dialogue, line string) string { return refusals[line] }
}

func TestSomeRecipientsRefused(t *testing.T) {
	server := serve(t, &mailbox{on: refusing(map[string]string{
		"RCPT TO:<bob@example.org>": "550 5.1.1 No such user",
		"RCPT TO:<eve@example.org>": "452 4.2.2 Mailbox full",
	})})
	sender := newSender(t, Settings{Address: server.address()})
	m := helloMail()
	m.To = append(m.To, "Bob <bob@example.org>", "eve@example.org")

	receipt, err := sender.Send(t.Context(), m)

	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"ada@example.org"}; !slices.Equal(receipt.Accepted, want) {
		t.Errorf("accepted %q, want %q", receipt.Accepted, want)
	}
	want := []Refusal{
		{Address: "bob@example.org", Permanent: true, Code: 550, Enhanced: "5.1.1", Reason: "No such user"},
		{Address: "eve@example.org", Permanent: false, Code: 452, Enhanced: "4.2.2", Reason: "Mailbox full"},
	}
	if !slices.Equal(receipt.Refused, want) {
		t.Errorf("refused %+v, want %+v", receipt.Refused, want)
	}
	if deferred := receipt.Deferred(); !slices.Equal(deferred, []string{"eve@example.org"}) {
		t.Errorf("deferred %q, want eve@example.org", deferred)
	}
	if got := server.received()[0].recipients; !slices.Equal(got, []string{"TO:<ada@example.org>"}) {
		t.Errorf("the mail went to %q", got)
	}
}

func TestOnlyTheDeferredAgain(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address()})
	m := helloMail()
	m.To = append(m.To, "Eve <eve@Example.org>")
	m.Only = []string{"eve@example.org"}

	receipt, err := sender.Send(t.Context(), m)

	if err != nil || !slices.Equal(receipt.Accepted, m.Only) {
		t.Fatalf("accepted %q, %v", receipt.Accepted, err)
	}
	got := server.received()[0]
	if !slices.Equal(got.recipients, []string{"TO:<eve@example.org>"}) {
		t.Errorf("the mail went to %q", got.recipients)
	}
	if !strings.Contains(got.content, "ada@example.org") {
		t.Errorf("the mail is another one:\n%s", got.content)
	}
}

func TestAllRecipientsRefusedIsForGoodOnlyIfEachIs(t *testing.T) {
	for _, v := range []struct {
		second    string
		permanent bool
		code      int
	}{{"550 5.1.1 Unknown", true, 550}, {"452 4.5.3 Too many", false, 452}} {
		server := serve(t, &mailbox{on: refusing(map[string]string{
			"RCPT TO:<ada@example.org>": "550 5.1.1 Unknown",
			"RCPT TO:<bob@example.org>": v.second,
		})})
		sender := newSender(t, Settings{Address: server.address()})
		m := helloMail()
		m.To = append(m.To, "bob@example.org")

		_, err := sender.Send(t.Context(), m)

		var e *Error
		if !errors.As(err, &e) || e.Permanent != v.permanent || e.Code != v.code || len(e.Refused) != 2 {
			t.Errorf("%+v, want permanent %t by %d, and 2 refusals", e, v.permanent, v.code)
		}
		if want := "refuses all 2 recipients"; err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %s", err, want)
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

func TestConnectionLostAtTheEndLeavesItOpen(t *testing.T) {
	server := serve(t, &mailbox{on: answers(".", drop)})
	sender := newSender(t, Settings{Address: server.address()})

	_, err := sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageContent || e.Permanent || !e.Unknown {
		t.Fatalf("%+v, want an unknown outcome", e)
	}
	if want := "it closed the connection; it may have been delivered"; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

func TestConnectionLostInTheMiddleDidNotDeliver(t *testing.T) {
	server := serve(t, &mailbox{on: func(d *dialogue, line string) string {
		if line != "DATA" {
			return ""
		}
		d.conn.Write([]byte("354 Go ahead\r\n"))
		// What is unread at a close makes it a reset.
		d.conn.(*net.TCPConn).SetLinger(0)
		return drop
	}})
	sender := newSender(t, Settings{Address: server.address()})
	m := helloMail()
	m.Text = strings.Repeat("A line of a long mail.\n", 600_000)

	_, err := sender.Send(t.Context(), m)

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageContent || e.Permanent || e.Unknown {
		t.Errorf("%+v, want a transient error in the content, with a known outcome", e)
	}
}

func TestServerThatIsSilent(t *testing.T) {
	for _, v := range []struct {
		line    string
		stage   Stage
		unknown bool
	}{
		{"CONNECT", StageConnect, false},
		{"EHLO", StageConnect, false},
		{"MAIL", StageSender, false},
		{"RCPT", StageRecipients, false},
		{"DATA", StageContent, false},
		{".", StageContent, true},
	} {
		t.Run(v.line, func(t *testing.T) {
			server := serve(t, &mailbox{on: answers(v.line, mute)})
			sender := newSender(t, Settings{Address: server.address(), Timeout: 50 * time.Millisecond, AcceptTimeout: 50 * time.Millisecond})

			_, err := sender.Send(t.Context(), helloMail())

			var e *Error
			if !errors.As(err, &e) || e.Stage != v.stage || e.Permanent || e.Unknown != v.unknown {
				t.Fatalf("%+v, want transient at %s, unknown %t", e, v.stage, v.unknown)
			}
			if !strings.Contains(err.Error(), "it didn't answer in time") {
				t.Errorf("%v, want it to say that there was no answer in time", err)
			}
		})
	}
}

func TestServerThatFloods(t *testing.T) {
	server := serve(t, &mailbox{on: answers("MAIL", strings.Repeat("250-more and more\n", 100_000)+"250 Ok")})
	sender := newSender(t, Settings{Address: server.address()})

	_, err := sender.Send(t.Context(), helloMail())

	if err == nil || !strings.Contains(err.Error(), "it sent more than 256 KiB without being asked") {
		t.Errorf("%v, want the flood to be cut off", err)
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

func TestMailTooLargeForTheServer(t *testing.T) {
	server := serve(t, &mailbox{extensions: []string{"SIZE 1000", "8BITMIME"}})
	sender := newSender(t, Settings{Address: server.address()})
	m := helloMail()
	if _, err := sender.Send(t.Context(), m); err != nil {
		t.Fatal(err)
	}
	if said := server.said("MAIL"); len(said) != 1 || !strings.Contains(said[0], "<shop@example.com> SIZE=") {
		t.Errorf("said %q, want the size", said)
	}
	m.Text = strings.Repeat("x", 2000)

	_, err := sender.Send(t.Context(), m)

	if err == nil || !IsPermanent(err) || !strings.Contains(err.Error(), "takes mails of up to 1000 bytes") {
		t.Errorf("%v, want a permanent refusal that says the limit", err)
	}
	if said := server.said("MAIL"); len(said) != 1 {
		t.Errorf("the server was asked all the same: %q", said)
	}
}

func TestMailsShareAConnection(t *testing.T) {
	server := serve(t, &mailbox{on: refusing(map[string]string{"RCPT TO:<no@example.org>": "550 5.1.1 Unknown"})})
	sender := newSender(t, Settings{Address: server.address()})
	bad := helloMail()
	bad.To = []string{"no@example.org"}
	for _, m := range []Message{helloMail(), bad, helloMail()} {
		sender.Send(t.Context(), m)
	}

	if mails := server.received(); len(mails) != 2 || mails[1].connection != 1 {
		t.Errorf("%+v, want two mails over the first connection", mails)
	}
	if said := server.said("RSET"); len(said) != 1 {
		t.Errorf("%d RSET, want 1: after the refused mail", len(said))
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address(), MaxConnections: 2})
	var sending sync.WaitGroup
	for range 20 {
		sending.Go(func() {
			if _, err := sender.Send(t.Context(), helloMail()); err != nil {
				t.Error(err)
			}
		})
	}
	sending.Wait()

	if mails := server.received(); len(mails) != 20 {
		t.Errorf("%d mails, want 20", len(mails))
	}
	if server.dialed() > 2 {
		t.Errorf("%d connections, want 2 at most", server.dialed())
	}
}

func TestWaitingForAConnectionEndsWithTheContext(t *testing.T) {
	busy, done := make(chan struct{}), make(chan struct{})
	server := serve(t, &mailbox{on: func(_ *dialogue, line string) string {
		if line == "." {
			close(busy)
			<-done
		}
		return ""
	}})
	sender := newSender(t, Settings{Address: server.address(), MaxConnections: 1})
	var sending sync.WaitGroup
	sending.Go(func() { sender.Send(t.Context(), helloMail()) })
	<-busy
	ctx, cancel := context.WithCancel(t.Context())
	cancel()

	_, err := sender.Send(ctx, helloMail())

	if !errors.Is(err, context.Canceled) || IsPermanent(err) || !strings.Contains(err.Error(), "all 1 connections") {
		t.Errorf("%v, want context.Canceled while all connections are busy", err)
	}
	close(done)
	sending.Wait()
}

func TestConnectionThatTheServerClosedIsReplaced(t *testing.T) {
	for _, v := range []struct {
		name string
		on   func(*dialogue, string) string
	}{
		{"unseen", nil},
		{"with a farewell at the next mail", func(d *dialogue, line string) string {
			if d.number == 1 && strings.HasPrefix(line, "MAIL") && len(d.server.mails) == 1 {
				return "421 4.4.2 Idle for too long"
			}
			return ""
		}},
	} {
		t.Run(v.name, func(t *testing.T) {
			server := serve(t, &mailbox{on: v.on})
			sender := newSender(t, Settings{Address: server.address()})
			if _, err := sender.Send(t.Context(), helloMail()); err != nil {
				t.Fatal(err)
			}
			if v.on == nil {
				server.hangUp()
			}

			_, err := sender.Send(t.Context(), helloMail())

			if mails := server.received(); err != nil || len(mails) != 2 || mails[1].connection != 2 {
				t.Errorf("%v, %+v; want a second mail over the second connection", err, mails)
			}
		})
	}
}

func TestFreshConnectionIsNotReplaced(t *testing.T) {
	server := serve(t, &mailbox{on: answers("MAIL", drop)})
	sender := newSender(t, Settings{Address: server.address()})

	_, err := sender.Send(t.Context(), helloMail())

	if err == nil || IsPermanent(err) || server.dialed() != 1 {
		t.Errorf("%v after %d connections, want a transient error after 1", err, server.dialed())
	}
}

func TestIdleConnectionIsClosed(t *testing.T) {
	left := make(chan struct{})
	server := serve(t, &mailbox{on: func(_ *dialogue, line string) string {
		if line == "QUIT" {
			close(left)
		}
		return ""
	}})
	sender := newSender(t, Settings{Address: server.address(), IdleTimeout: time.Millisecond})
	if _, err := sender.Send(t.Context(), helloMail()); err != nil {
		t.Fatal(err)
	}

	select {
	case <-left:
	case <-time.After(10 * time.Second):
		t.Error("the connection is still there")
	}
}

func TestConnectionIsReplacedAfterAHundredMails(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address()})
	for range 101 {
		if _, err := sender.Send(t.Context(), helloMail()); err != nil {
			t.Fatal(err)
		}
	}

	mails := server.received()
	if mails[99].connection != 1 || mails[100].connection != 2 {
		t.Errorf("the 100th over connection %d, the 101st over %d; want 1 and 2", mails[99].connection, mails[100].connection)
	}
}

func TestClose(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address()})
	if _, err := sender.Send(t.Context(), helloMail()); err != nil {
		t.Fatal(err)
	}

	sender.Close()

	if said := server.said("QUIT"); len(said) != 1 {
		t.Errorf("%d farewells, want 1", len(said))
	}
	if _, err := sender.Send(t.Context(), helloMail()); !errors.Is(err, ErrClosed) || IsPermanent(err) {
		t.Errorf("after Close: %v, want ErrClosed", err)
	}
}

func TestCloseWaitsForMailsUnderWay(t *testing.T) {
	arrived, closing := make(chan struct{}), make(chan struct{})
	server := serve(t, &mailbox{on: func(_ *dialogue, line string) string {
		if line == "." {
			close(arrived)
			<-closing
		}
		return ""
	}})
	sender := newSender(t, Settings{Address: server.address()})
	var sending sync.WaitGroup
	sending.Go(func() {
		if _, err := sender.Send(t.Context(), helloMail()); err != nil {
			t.Error(err)
		}
	})
	<-arrived
	sending.Go(func() { sender.Close() })
	for { // until Close has begun
		if _, err := sender.Send(canceled(t), helloMail()); errors.Is(err, ErrClosed) {
			break
		}
	}
	close(closing)
	sending.Wait()

	if mails := server.received(); len(mails) != 1 {
		t.Errorf("%d mails, want 1", len(mails))
	}
}

func canceled(t *testing.T) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
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

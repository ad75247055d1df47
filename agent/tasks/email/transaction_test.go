package email

import (
	"context"
	"errors"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

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

// impatient is a connection whose time is up when a test says so. It notes what
// deadline was set last.
type impatient struct {
	net.Conn
	mu       sync.Mutex
	deadline time.Time
	expired  bool
}

func (c *impatient) SetReadDeadline(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = deadline
	if c.expired {
		deadline = time.Unix(1, 0)
	}
	return c.Conn.SetReadDeadline(deadline)
}

func (c *impatient) expire() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.expired = true
	c.Conn.SetReadDeadline(time.Unix(1, 0))
}

func TestServerThatIsSilent(t *testing.T) {
	for _, v := range []struct {
		line    string
		stage   Stage
		unknown bool
		timeout time.Duration
	}{
		{"CONNECT", StageConnect, false, time.Hour},
		{"EHLO", StageConnect, false, time.Hour},
		{"MAIL", StageSender, false, time.Hour},
		{"RCPT", StageRecipients, false, time.Hour},
		{"DATA", StageContent, false, time.Hour},
		{".", StageContent, true, 3 * time.Hour},
	} {
		t.Run(v.line, func(t *testing.T) {
			dialed := make(chan *impatient, 1)
			server := serve(t, &mailbox{on: func(_ *dialogue, line string) string {
				if !strings.HasPrefix(line, v.line) {
					return ""
				}
				conn := <-dialed
				conn.expire()
				dialed <- conn
				return mute
			}})
			sender := newSender(t, Settings{
				Address: server.address(), Timeout: time.Hour, AcceptTimeout: 3 * time.Hour,
				Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
					conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
					c := &impatient{Conn: conn}
					dialed <- c
					return c, err
				},
			})
			before := time.Now()

			_, err := sender.Send(t.Context(), helloMail())

			var e *Error
			if !errors.As(err, &e) || e.Stage != v.stage || e.Permanent || e.Unknown != v.unknown {
				t.Fatalf("%+v, want transient at %s, unknown %t", e, v.stage, v.unknown)
			}
			if !strings.Contains(err.Error(), "it didn't answer in time") {
				t.Errorf("%v, want it to say that there was no answer in time", err)
			}
			deadline := (<-dialed).deadline
			if least, most := before.Add(v.timeout), time.Now().Add(v.timeout); deadline.Before(least) || deadline.After(most) {
				t.Errorf("it had until %v, want between %v and %v", deadline, least, most)
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

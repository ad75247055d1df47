package email

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"
)

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

package email

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// connection is a connection to the server, past its login. One goroutine at a
// time uses it.
type connection struct {
	settings *resolved
	wire     *wire
	client   *smtp.Client
	// mails is how many were sent over it.
	mails int
	// expiry closes it while it is idle.
	expiry *time.Timer
}

// connect makes a connection. Its errors are *Error.
func connect(ctx context.Context, settings *resolved, lock *lockout) (*connection, error) {
	var password string
	if settings.Username != "" {
		var err error
		if password, err = readPassword(settings.PasswordFile); err != nil {
			return nil, &Error{Stage: StageLogin, text: "no login at " + settings.Address + ": " + err.Error(), err: err}
		}
		if left := lock.left(password, time.Now()); left > 0 {
			return nil, &Error{Stage: StageLogin, RetryAfter: left, text: fmt.Sprintf(
				"SMTP server %s refused the password of %s lately; it is tried again in %v, or when %s has another one",
				settings.Address, strconv.Quote(settings.Username), left.Round(time.Second), settings.PasswordFile)}
		}
	}
	dialing, cancel := context.WithTimeoutCause(ctx, settings.Timeout, errNotInTime)
	raw, err := settings.Dial(dialing, "tcp", settings.Address)
	if cause := context.Cause(dialing); err != nil && errors.Is(cause, errNotInTime) {
		err = cause
	}
	cancel()
	if err != nil {
		return nil, settings.failure(ctx, StageConnect, "can't be reached", err)
	}
	c := &connection{settings: settings, wire: &wire{Conn: raw, timeout: settings.Timeout}}
	stop := context.AfterFunc(ctx, func() { raw.Close() })
	err = c.open(ctx, password, lock)
	if !stop() && err == nil {
		err = settings.failure(ctx, StageConnect, "was not asked", ctx.Err())
	}
	if err != nil {
		raw.Close()
		return nil, err
	}
	return c, nil
}

var errNotInTime = errors.New("it didn't answer in time")

// open greets, secures the connection and logs in.
func (c *connection) open(ctx context.Context, password string, lock *lockout) error {
	s := c.settings
	fail := func(stage Stage, what string, err error) error { return s.failure(ctx, stage, what, err) }
	var transport net.Conn = c.wire
	var config *tls.Config
	if s.Security != None {
		config = &tls.Config{ServerName: s.ServerName, MinVersion: tls.VersionTLS12}
		if s.CAFile != "" {
			roots, err := readRoots(s.CAFile)
			if err != nil {
				return fail(StageTLS, "is not trusted", err)
			}
			config.RootCAs = roots
		}
	}
	c.wire.expect(s.Timeout)
	if s.Security == TLS {
		secured := tls.Client(c.wire, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return fail(StageTLS, "fails at TLS", explainTLS(err))
		}
		transport = secured
		c.wire.expect(s.Timeout)
	}
	var err error
	if c.client, err = smtp.NewClient(transport, s.host); err != nil {
		return fail(StageConnect, "doesn't greet", err)
	}
	// Addresses here are ASCII, so nothing needs SMTPUTF8, which a later hop may
	// not know.
	c.client.SkipSMTPUTF8(true)
	c.wire.expect(s.Timeout)
	if err := c.client.Hello(s.Hello); err != nil {
		return fail(StageConnect, "refuses EHLO", err)
	}
	if s.Security == STARTTLS {
		if offered, _ := c.client.Extension("STARTTLS"); !offered {
			return fail(StageTLS, "offers no STARTTLS", errors.New("nothing is sent in the clear; set security to TLS if it speaks TLS from the first byte"))
		}
		c.wire.expect(s.Timeout)
		if err := c.client.StartTLS(config); err != nil {
			return fail(StageTLS, "fails at STARTTLS", explainTLS(err))
		}
	}
	if s.Username == "" {
		return nil
	}
	return c.login(ctx, password, lock)
}

// login logs in by the best mechanism offered.
func (c *connection) login(ctx context.Context, password string, lock *lockout) error {
	s := c.settings
	_, offered := c.client.Extension("AUTH")
	chosen, err := choose(offered, s.Security != None, s.plaintext)
	if err != nil {
		return s.failure(ctx, StageLogin, "can't be logged in at", err)
	}
	auth, err := chosen.auth(c.client, s.Username, password, s.host)
	if err != nil {
		return s.failure(ctx, StageLogin, "can't be logged in at", err)
	}
	c.wire.expect(s.Timeout)
	if err := c.client.Auth(auth); err != nil {
		failure := s.failure(ctx, StageLogin, fmt.Sprintf("refuses the login of %q by %s", s.Username, chosen.name), err)
		failure.text = withoutSecret(failure.text, s.Username, password)
		// The cause may hold what the text must not.
		failure.err = nil
		if err := ctx.Err(); err != nil {
			failure.err = err
		}
		if failure.Code >= 500 {
			lock.refused(password, time.Now())
			failure.RetryAfter = loginPause
		}
		return failure
	}
	return nil
}

// explainTLS says what a server that speaks no TLS is more likely to want.
func explainTLS(err error) error {
	var header tls.RecordHeaderError
	if errors.As(err, &header) {
		return errors.New("it doesn't speak TLS here; see whether it wants STARTTLS or another port")
	}
	return err
}

// failure makes an error of what happened with the server.
func (s *resolved) failure(ctx context.Context, stage Stage, what string, err error) *Error {
	// Once the context ended the connection was closed, and whatever that did to
	// a command is no news.
	if ended := ctx.Err(); ended != nil {
		err = ended
	}
	e := &Error{Stage: stage, err: err}
	said := plain(err)
	if answer, ok := replyOf(err); ok {
		e.Code, e.Enhanced = answer.code, answer.enhanced
		said = answer.String()
	}
	e.text = fmt.Sprintf("SMTP server %s %s: %s", s.Address, what, said)
	return e
}

// quit ends a connection that is in order.
func (c *connection) quit() {
	c.wire.expect(min(time.Second, c.settings.Timeout))
	// A server that doesn't answer has got its farewell all the same.
	_ = c.client.Quit()
	c.wire.Close()
}

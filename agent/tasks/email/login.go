package email

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/wneessen/go-mail/smtp"
)

// maxIterations bounds what a server may ask of us by SCRAM; common are 4096 to
// 600,000.
const maxIterations = 2_000_000

// mechanism is a way to log in.
type mechanism struct {
	name string
	// tls says that it needs TLS for what it does.
	tls bool
	// tells says that it tells the server the password.
	tells bool
	auth  func(c *smtp.Client, username, password, host string) (smtp.Auth, error)
}

// mechanisms are those we know, the best first.
var mechanisms = []mechanism{
	{"SCRAM-SHA-256-PLUS", true, false, func(c *smtp.Client, username, password, _ string) (smtp.Auth, error) {
		state, err := c.GetTLSConnectionState()
		return scram{smtp.ScramSHA256PlusAuth(username, password, state)}, err
	}},
	{"SCRAM-SHA-256", false, false, func(_ *smtp.Client, username, password, _ string) (smtp.Auth, error) {
		return scram{smtp.ScramSHA256Auth(username, password)}, nil
	}},
	{"SCRAM-SHA-1-PLUS", true, false, func(c *smtp.Client, username, password, _ string) (smtp.Auth, error) {
		state, err := c.GetTLSConnectionState()
		return scram{smtp.ScramSHA1PlusAuth(username, password, state)}, err
	}},
	{"SCRAM-SHA-1", false, false, func(_ *smtp.Client, username, password, _ string) (smtp.Auth, error) {
		return scram{smtp.ScramSHA1Auth(username, password)}, nil
	}},
	{"CRAM-MD5", false, false, func(_ *smtp.Client, username, password, _ string) (smtp.Auth, error) {
		return smtp.CRAMMD5Auth(username, password), nil
	}},
	{"PLAIN", false, true, func(_ *smtp.Client, username, password, host string) (smtp.Auth, error) {
		return smtp.PlainAuth("", username, password, host, true), nil
	}},
	{"LOGIN", false, true, func(_ *smtp.Client, username, password, host string) (smtp.Auth, error) {
		return smtp.LoginAuth(username, password, host, true), nil
	}},
}

// choose picks the best mechanism of those that a server offers. secure says
// that there is TLS, plaintext that a password may go without.
func choose(offered string, secure, plaintext bool) (mechanism, error) {
	names := strings.Fields(strings.ToUpper(offered))
	held := false
	for _, m := range mechanisms {
		switch {
		case !slices.Contains(names, m.name), m.tls && !secure:
		case m.tells && !secure && !plaintext:
			held = true
		default:
			return m, nil
		}
	}
	switch {
	case held:
		return mechanism{}, fmt.Errorf("it offers no login that keeps the password secret without TLS (%s): set security to STARTTLS or TLS", oneLine(offered))
	case len(names) == 0:
		return mechanism{}, errors.New("it offers no login on this connection: take out the user name, or see whether the server wants another port or security")
	}
	return mechanism{}, fmt.Errorf("it offers only logins that aren't spoken here (%s); spoken are SCRAM-SHA-256, SCRAM-SHA-1, CRAM-MD5, PLAIN and LOGIN", oneLine(offered))
}

// scram refuses to compute for hours because a server says so.
type scram struct{ smtp.Auth }

func (s scram) Next(fromServer []byte, more bool) ([]byte, error) {
	for part := range bytes.SplitSeq(fromServer, []byte(",")) {
		if count, ok := bytes.CutPrefix(part, []byte("i=")); ok {
			if n, err := strconv.Atoi(string(count)); err != nil || n < 1 || n > maxIterations {
				return nil, fmt.Errorf("it asks for %s iterations of SCRAM; at most %d are made", oneLine(string(count)), maxIterations)
			}
		}
	}
	return s.Auth.Next(fromServer, more)
}

// loginPause is how long a password that was refused isn't tried again: many
// mails with a wrong one would lock the account.
const loginPause = 30 * time.Second

// lockout remembers the last password that was refused. Safe for concurrent use.
type lockout struct {
	mu    sync.Mutex
	hash  [sha256.Size]byte
	until time.Time
}

// left is how long the password must not be tried.
func (l *lockout) left(password string, now time.Time) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if sha256.Sum256([]byte(password)) != l.hash {
		return 0
	}
	return max(0, l.until.Sub(now))
}

// refused notes that a password was refused.
func (l *lockout) refused(password string, now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hash, l.until = sha256.Sum256([]byte(password)), now.Add(loginPause)
}

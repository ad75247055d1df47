package email

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/pbkdf2"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testUser, testPassword = "shop", "tr0ub4dor & 3"

func passwordFile(t *testing.T, password string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(path, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// ask sends a challenge and returns the answer.
func (d *dialogue) ask(challenge string) string {
	d.reply("334 " + base64.StdEncoding.EncodeToString([]byte(challenge)))
	line, _ := d.line()
	answer, _ := base64.StdEncoding.DecodeString(line)
	return string(answer)
}

// verify is the server's side of the mechanisms.
func verify(d *dialogue, mechanism, initial string) bool {
	ok := false
	switch mechanism {
	case "PLAIN":
		answer, _ := base64.StdEncoding.DecodeString(initial)
		ok = string(answer) == "\x00"+testUser+"\x00"+testPassword
	case "LOGIN":
		ok = d.ask("Username:") == testUser && d.ask("Password:") == testPassword
	case "CRAM-MD5":
		challenge := "<1896.697170952@mail.test>"
		mac := hmac.New(md5.New, []byte(testPassword))
		mac.Write([]byte(challenge))
		ok = d.ask(challenge) == fmt.Sprintf("%s %x", testUser, mac.Sum(nil))
	case "SCRAM-SHA-256":
		ok = d.scram("4096")
	}
	if ok {
		d.login = mechanism
	}
	return ok
}

// scram is RFC 7677's exchange.
func (d *dialogue) scram(iterations string) bool {
	first, _ := strings.CutPrefix(d.ask(""), "n,,")
	_, nonce, _ := strings.Cut(first, ",r=")
	salt := []byte("0123456789abcdef")
	challenge := "r=" + nonce + "server,s=" + base64.StdEncoding.EncodeToString(salt) + ",i=" + iterations
	final := d.ask(challenge)
	bare, proof, _ := strings.Cut(final, ",p=")
	mac := func(key []byte, text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
	salted, err := pbkdf2.Key(sha256.New, testPassword, salt, 4096, sha256.Size)
	if err != nil {
		return false
	}
	clientKey := mac(salted, "Client Key")
	stored := sha256.Sum256(clientKey)
	message := first + "," + challenge + "," + bare
	want := mac(stored[:], message)
	for i := range want {
		want[i] ^= clientKey[i]
	}
	if proof != base64.StdEncoding.EncodeToString(want) {
		return false
	}
	signature := mac(mac(salted, "Server Key"), message)
	d.ask("v=" + base64.StdEncoding.EncodeToString(signature))
	return true
}

func TestLogin(t *testing.T) {
	for _, v := range []struct{ offered, want string }{
		{"PLAIN", "PLAIN"},
		{"LOGIN", "LOGIN"},
		{"LOGIN PLAIN", "PLAIN"},
		{"LOGIN PLAIN CRAM-MD5", "CRAM-MD5"},
		{"PLAIN NTLM SCRAM-SHA-256 CRAM-MD5", "SCRAM-SHA-256"},
	} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %t", v.offered, secure), func(t *testing.T) {
				server := &mailbox{extensions: []string{"AUTH " + v.offered, "ENHANCEDSTATUSCODES"}, login: verify}
				settings := Settings{Username: testUser, PasswordFile: passwordFile(t, testPassword)}
				if secure {
					server.tls, settings.CAFile = certificate(t, "mail.test")
					settings.Security, settings.ServerName = STARTTLS, "mail.test"
				}
				serve(t, server)
				settings.Address = server.address()
				sender := newSender(t, settings)

				_, err := sender.Send(t.Context(), helloMail())

				if err != nil {
					t.Fatal(err)
				}
				if got := server.received()[0]; got.login != v.want || got.secure != secure {
					t.Errorf("login by %q, TLS %t; want %q, %t", got.login, got.secure, v.want, secure)
				}
			})
		}
	}
}

func TestChoiceOfLogin(t *testing.T) {
	for _, v := range []struct {
		offered           string
		secure, plaintext bool
		want              string
	}{
		{"SCRAM-SHA-256 SCRAM-SHA-256-PLUS", true, false, "SCRAM-SHA-256-PLUS"},
		{"SCRAM-SHA-256 SCRAM-SHA-256-PLUS", false, false, "SCRAM-SHA-256"},
		{"SCRAM-SHA-1 PLAIN", true, false, "SCRAM-SHA-1"},
		{"plain login", true, false, "PLAIN"},
		{"PLAIN LOGIN", false, true, "PLAIN"},
		{"PLAIN LOGIN CRAM-MD5", false, false, "CRAM-MD5"},
		{"PLAIN LOGIN", false, false, "keeps the password secret without TLS"},
		{"XOAUTH2 GSSAPI", true, false, "aren't spoken here (XOAUTH2 GSSAPI)"},
		{"", true, false, "offers no login"},
	} {
		got, err := choose(v.offered, v.secure, v.plaintext)

		if err != nil {
			got.name = err.Error()
		}
		if !strings.Contains(got.name, v.want) || got.name == "" {
			t.Errorf("of %q, TLS %t, plaintext %t: %s, want %s", v.offered, v.secure, v.plaintext, got.name, v.want)
		}
	}
}

func TestPasswordIsNotToldInTheClear(t *testing.T) {
	server := serve(t, &mailbox{extensions: []string{"AUTH PLAIN LOGIN"}, login: verify})
	sender := newSender(t, Settings{
		Address: "mail.example.com:25", Security: None,
		Username: testUser, PasswordFile: passwordFile(t, testPassword),
		Dial: dialTo(server),
	})

	_, err := sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageLogin || e.Permanent || !strings.Contains(err.Error(), "set security to STARTTLS or TLS") {
		t.Errorf("%v, want a refusal that says what to set", err)
	}
	if said := server.said("AUTH"); len(said) > 0 {
		t.Errorf("said %q", said)
	}
}

func TestRefusedLogin(t *testing.T) {
	path := passwordFile(t, "wrong")
	server := serve(t, &mailbox{extensions: []string{"AUTH PLAIN"}, login: verify})
	sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: path})

	_, err := sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageLogin || e.Permanent || e.Code != 535 || e.Enhanced != "5.7.8" || e.RetryAfter != 30*time.Second {
		t.Fatalf("%+v, want a transient 535 5.7.8 at the login, to be tried again in 30s", e)
	}
	if want := `refuses the login of "shop" by PLAIN: 535 5.7.8 Authentication credentials invalid`; !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}

	t.Run("the same password is not tried again soon", func(t *testing.T) {
		before := server.dialed()

		_, err := sender.Send(t.Context(), helloMail())

		if !errors.As(err, &e) || e.Stage != StageLogin || e.Permanent || e.RetryAfter <= 0 || server.dialed() != before {
			t.Errorf("%v after %d more connections, want a transient error without asking", err, server.dialed()-before)
		}
	})
	t.Run("another password is", func(t *testing.T) {
		if err := os.WriteFile(path, []byte(testPassword), 0o600); err != nil {
			t.Fatal(err)
		}

		if _, err := sender.Send(t.Context(), helloMail()); err != nil {
			t.Error(err)
		}
	})
}

func TestLoginForLaterIsTriedAgain(t *testing.T) {
	tries := 0
	server := serve(t, &mailbox{extensions: []string{"AUTH PLAIN"}, login: verify, on: func(_ *dialogue, line string) string {
		if strings.HasPrefix(line, "AUTH") {
			if tries++; tries == 1 {
				return "454 4.7.0 Temporary authentication failure"
			}
		}
		return ""
	}})
	sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: passwordFile(t, testPassword)})

	_, err := sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageLogin || e.Permanent || e.Code != 454 || e.RetryAfter != 0 {
		t.Errorf("%+v, want a transient 454 at the login", e)
	}
	if _, err := sender.Send(t.Context(), helloMail()); err != nil {
		t.Errorf("the next one: %v", err)
	}
}

func TestErrorsDoNotTellThePassword(t *testing.T) {
	plain := base64.StdEncoding.EncodeToString([]byte("\x00" + testUser + "\x00" + testPassword))
	for _, v := range []struct{ name, mechanism, answer string }{
		{"as it is", "PLAIN", "535 5.7.8 bad password " + testPassword},
		{"as it was sent by PLAIN", "PLAIN", "535 5.7.8 bad response " + plain},
		{"as it was sent by LOGIN", "LOGIN", "535 5.7.8 bad response " + base64.StdEncoding.EncodeToString([]byte(testPassword))},
		{"as a challenge", "LOGIN", "334 " + base64.StdEncoding.EncodeToString([]byte(testPassword))},
	} {
		t.Run(v.name, func(t *testing.T) {
			server := serve(t, &mailbox{extensions: []string{"AUTH " + v.mechanism}, on: func(d *dialogue, line string) string {
				if strings.HasPrefix(line, "AUTH") && strings.HasPrefix(v.answer, "334") {
					return v.answer
				}
				if strings.HasPrefix(line, "AUTH") && v.mechanism == "PLAIN" {
					return v.answer
				}
				if strings.HasPrefix(line, "AUTH") {
					return "334 VXNlcm5hbWU6"
				}
				if line != "CONNECT" && !strings.HasPrefix(line, "EHLO") {
					return v.answer
				}
				return ""
			}})
			sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: passwordFile(t, testPassword)})

			_, err := sender.Send(t.Context(), helloMail())

			var e *Error
			if !errors.As(err, &e) || e.Stage != StageLogin {
				t.Fatalf("%v, want an error at the login", err)
			}
			for depth := error(e); depth != nil; depth = errors.Unwrap(depth) {
				for _, secret := range []string{testPassword, plain, base64.StdEncoding.EncodeToString([]byte(testPassword))} {
					if strings.Contains(fmt.Sprintf("%v %+v", depth, depth), secret) {
						t.Errorf("it tells the password: %+v", depth)
					}
				}
			}
		})
	}
}

func TestScramIsBounded(t *testing.T) {
	for _, iterations := range []string{"2000000001", "0", "-5", "x", "99999999999999999999"} {
		server := serve(t, &mailbox{extensions: []string{"AUTH SCRAM-SHA-256"}, login: func(d *dialogue, _, _ string) bool {
			return d.scram(iterations)
		}})
		sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: passwordFile(t, testPassword)})

		_, err := sender.Send(t.Context(), helloMail())

		if err == nil || !strings.Contains(err.Error(), "it asks for "+iterations+" iterations of SCRAM") {
			t.Errorf("%s iterations: %v, want a refusal", iterations, err)
		}
	}
}

func TestPasswordFileThatIsGone(t *testing.T) {
	path := passwordFile(t, testPassword)
	server := serve(t, &mailbox{extensions: []string{"AUTH PLAIN"}, login: verify})
	sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: path})
	os.Remove(path)

	_, err := sender.Send(t.Context(), helloMail())

	var e *Error
	if !errors.As(err, &e) || e.Stage != StageLogin || e.Permanent || !strings.Contains(err.Error(), path+": it can't be read: no such file") {
		t.Errorf("%v, want a transient error that names the file", err)
	}
	if server.dialed() > 0 {
		t.Error("the server was asked all the same")
	}
}

func TestServerWithoutLogin(t *testing.T) {
	server := serve(t, &mailbox{})
	sender := newSender(t, Settings{Address: server.address(), Username: testUser, PasswordFile: passwordFile(t, testPassword)})

	_, err := sender.Send(t.Context(), helloMail())

	if err == nil || IsPermanent(err) || !strings.Contains(err.Error(), "it offers no login") {
		t.Errorf("%v, want a transient error that says so", err)
	}
}

func TestLockout(t *testing.T) {
	var l lockout
	now := time.Unix(1_000_000, 0)
	l.refused("wrong", now)

	for _, v := range []struct {
		password string
		after    time.Duration
		want     time.Duration
	}{
		{"wrong", 0, 30 * time.Second},
		{"wrong", 29 * time.Second, time.Second},
		{"wrong", 30 * time.Second, 0},
		{"wrong", time.Hour, 0},
		{"other", 0, 0},
	} {
		if got := l.left(v.password, now.Add(v.after)); got != v.want {
			t.Errorf("%s %v later: %v, want %v", v.password, v.after, got, v.want)
		}
	}
}

// dialTo connects to a server whatever the address.
func dialTo(server *mailbox) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, server.address())
	}
}

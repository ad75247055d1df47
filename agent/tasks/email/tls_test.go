package email

import (
	"crypto/x509"
	"errors"
	"os"
	"strings"
	"testing"
)

func TestSecurity(t *testing.T) {
	for _, v := range []struct {
		name     string
		security Security
		implicit bool
	}{{"STARTTLS", STARTTLS, false}, {"STARTTLS by default", SecurityDefault, false}, {"TLS", TLS, true}} {
		t.Run(v.name, func(t *testing.T) {
			server := &mailbox{implicit: v.implicit}
			var ca string
			server.tls, ca = certificate(t, "mail.example.com")
			serve(t, server)
			sender := newSender(t, Settings{Address: "mail.example.com:587", Security: v.security, CAFile: ca, Dial: dialTo(server)})
			for range 2 {
				if _, err := sender.Send(t.Context(), helloMail()); err != nil {
					t.Fatal(err)
				}
			}

			mails := server.received()
			if !mails[0].secure || !mails[1].secure || mails[1].connection != 1 {
				t.Errorf("%+v, want both under TLS and over one connection", mails)
			}
		})
	}
}

func TestThisMachineNeedsNoTLSByDefault(t *testing.T) {
	server := serve(t, &mailbox{})
	for _, host := range []string{"127.0.0.1", "localhost", "[::1]"} {
		sender := newSender(t, Settings{Address: host + ":" + server.port(), Dial: dialTo(server)})

		if _, err := sender.Send(t.Context(), helloMail()); err != nil {
			t.Errorf("%s: %v", host, err)
		}
	}
}

func TestServerName(t *testing.T) {
	server := &mailbox{}
	var ca string
	server.tls, ca = certificate(t, "other.example.com")
	serve(t, server)
	sender := newSender(t, Settings{Address: server.address(), Security: STARTTLS, CAFile: ca, ServerName: "other.example.com"})

	if _, err := sender.Send(t.Context(), helloMail()); err != nil {
		t.Error(err)
	}
}

func TestServerThatFailsAtTLS(t *testing.T) {
	config, ca := certificate(t, "mail.example.com")
	_, otherCA := certificate(t, "mail.example.com")
	for _, v := range []struct {
		name     string
		server   *mailbox
		security Security
		host, ca string
		says     string
		as       any
	}{
		{"no STARTTLS", &mailbox{}, STARTTLS, "mail.example.com", ca, "offers no STARTTLS: nothing is sent in the clear", nil},
		{"STARTTLS refused", &mailbox{tls: config, on: answers("STARTTLS", "454 4.7.0 Not now")}, STARTTLS, "mail.example.com", ca, "fails at STARTTLS: 454 4.7.0 Not now", nil},
		{"another name", &mailbox{tls: config}, STARTTLS, "smtp.example.com", ca, "valid for mail.example.com, not smtp.example.com", new(x509.HostnameError)},
		{"another CA", &mailbox{tls: config}, STARTTLS, "mail.example.com", otherCA, "unknown authority", new(x509.UnknownAuthorityError)},
		{"the system's roots", &mailbox{tls: config}, STARTTLS, "mail.example.com", "", "unknown authority", new(x509.UnknownAuthorityError)},
		{"another name, TLS at once", &mailbox{tls: config, implicit: true}, TLS, "smtp.example.com", ca, "fails at TLS: tls: failed to verify certificate", new(x509.HostnameError)},
		{"no TLS where there should be", &mailbox{}, TLS, "mail.example.com", ca, "doesn't speak TLS here", nil},
		{"a connection that ends", &mailbox{tls: config, on: answers("STARTTLS", drop)}, STARTTLS, "mail.example.com", ca, "it closed the connection", nil},
	} {
		t.Run(v.name, func(t *testing.T) {
			serve(t, v.server)
			sender := newSender(t, Settings{Address: v.host + ":587", Security: v.security, CAFile: v.ca, Dial: dialTo(v.server)})

			_, err := sender.Send(t.Context(), helloMail())

			var e *Error
			if !errors.As(err, &e) || e.Stage != StageTLS || e.Permanent {
				t.Fatalf("%+v, want a transient error at TLS", err)
			}
			if !strings.Contains(err.Error(), v.says) {
				t.Errorf("%v, want it to say %s", err, v.says)
			}
			if v.as != nil && !errors.As(err, v.as) {
				t.Errorf("%v, want a %T in it", err, v.as)
			}
			if said := v.server.said("MAIL"); len(said) > 0 {
				t.Errorf("said %q", said)
			}
		})
	}
}

// What a server, or somebody in between, adds behind its answer to STARTTLS is
// not read as the answer to what is asked under TLS (CVE-2011-0411).
func TestAnswersInTheClearAreNotTakenForThoseUnderTLS(t *testing.T) {
	config, ca := certificate(t, "mail.example.com")
	server := serve(t, &mailbox{tls: config, on: answers("STARTTLS", "220 2.0.0 Ready\n250-mail.test\n250 AUTH PLAIN")})
	sender := newSender(t, Settings{
		Address: "mail.example.com:587", CAFile: ca, Dial: dialTo(server),
		Username: testUser, PasswordFile: passwordFile(t, testPassword),
	})

	_, err := sender.Send(t.Context(), helloMail())

	if err == nil || len(server.said("AUTH")) > 0 {
		t.Errorf("%v, said %q; want an error and no login", err, server.said("AUTH"))
	}
}

func TestChangedCAFileIsReadAgain(t *testing.T) {
	server := &mailbox{}
	var ca string
	server.tls, ca = certificate(t, "mail.example.com")
	_, stale := certificate(t, "mail.example.com")
	serve(t, server)
	sender := newSender(t, Settings{Address: "mail.example.com:587", CAFile: stale, Dial: dialTo(server)})
	if _, err := sender.Send(t.Context(), helloMail()); err == nil {
		t.Fatal("sent to a server that isn't trusted")
	}
	if err := os.Rename(ca, stale); err != nil {
		t.Fatal(err)
	}

	if _, err := sender.Send(t.Context(), helloMail()); err != nil {
		t.Error(err)
	}
}

package email

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestDefaults(t *testing.T) {
	r, err := Settings{Address: "smtp.example.com:587"}.resolve()

	if err != nil {
		t.Fatal(err)
	}
	if r.Security != STARTTLS || r.ServerName != "smtp.example.com" || r.Timeout != 10*time.Second || r.AcceptTimeout != time.Minute ||
		r.IdleTimeout != 30*time.Second || r.MaxConnections != 4 || r.Hello == "" || r.MessageIDDomain == "" || r.Dial == nil {
		t.Errorf("%+v", r)
	}
}

func TestDefaultSecurity(t *testing.T) {
	for address, want := range map[string]Security{
		"smtp.example.com:25": STARTTLS,
		"192.0.2.1:25":        STARTTLS,
		"localhost:25":        None,
		"LOCALHOST:25":        None,
		"127.0.0.1:25":        None,
		"127.1.2.3:25":        None,
		"[::1]:25":            None,
		"localhost.evil:25":   STARTTLS,
		"[::ffff:1.2.3.4]:25": STARTTLS,
	} {
		if r, err := (Settings{Address: address}).resolve(); err != nil || r.Security != want {
			t.Errorf("%s: %v, %v; want %v", address, r.Security, err, want)
		}
	}
}

func TestMessageIDDomainComesFromTheSender(t *testing.T) {
	for _, v := range []struct {
		settings Settings
		want     string
	}{
		{Settings{From: "Shop <shop@Bücher.example>", Hello: "agent.example.com"}, "xn--bcher-kva.example"},
		{Settings{MessageIDDomain: "mail.example.com", From: "shop@example.com"}, "mail.example.com"},
		{Settings{Hello: "agent.example.com"}, "agent.example.com"},
		{Settings{Hello: "[192.0.2.1]"}, "localhost"},
	} {
		v.settings.Address = "localhost:25"

		if r, err := v.settings.resolve(); err != nil || r.MessageIDDomain != v.want {
			t.Errorf("%+v: %s, %v; want %s", v.settings, r.MessageIDDomain, err, v.want)
		}
	}
}

func TestHelloNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"agent.example.com": true, "agent": true, "[192.0.2.1]": true, "[IPv6:2001:db8::1]": true,
		"[2001:db8::1]": false, "[IPv6:192.0.2.1]": false, "[192.0.2.1": false, "a b": false, "a\r\nb": false, "192.0.2.1]": false,
	} {
		if _, err := hello(name); (err == nil) != ok {
			t.Errorf("%q: %v, want ok %t", name, err, ok)
		}
	}
}

func TestSettingsThatAreRefused(t *testing.T) {
	password := passwordFile(t, "hunter2")
	empty := filepath.Join(t.TempDir(), "empty")
	lines := filepath.Join(t.TempDir(), "lines")
	for path, text := range map[string]string{empty: "\n", lines: "hunter2\nhunter3\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, v := range []struct {
		name     string
		settings Settings
		want     string
	}{
		{"no address", Settings{}, `server "" must be "host:port"`},
		{"no port", Settings{Address: "smtp.example.com"}, `must be "host:port"`},
		{"no host", Settings{Address: ":25"}, `must be "host:port"`},
		{"port 0", Settings{Address: "a:0"}, `must be "host:port"`},
		{"a port by name", Settings{Address: "a:smtp"}, `must be "host:port"`},
		{"no host name", Settings{Address: "a b:25"}, `"a b" is no domain`},
		{"port 465 without security", Settings{Address: "a:465"}, "set TLS"},
		{"security", Settings{Address: "a:25", Security: 9}, "security Security(9) is none of"},
		{"server name", Settings{Address: "a:25", ServerName: "a b"}, `server name: "a b" is no domain`},
		{"CA file that is not there", Settings{Address: "a:25", CAFile: "/none/ca.pem"}, "CA file /none/ca.pem: it can't be read"},
		{"CA file that is none", Settings{Address: "a:25", CAFile: password}, "it has no certificate"},
		{"CA file without TLS", Settings{Address: "a:25", Security: None, CAFile: password}, "has no use"},
		{"user without password", Settings{Address: "a:25", Username: "u"}, `user name "u" has no password file`},
		{"password without user", Settings{Address: "a:25", PasswordFile: password}, "has no user name"},
		{"user with a line break", Settings{Address: "a:25", Username: "u\n", PasswordFile: password}, "user name has a line break"},
		{"password that is not there", Settings{Address: "a:25", Username: "u", PasswordFile: "/none/p"}, "password file /none/p: it can't be read"},
		{"empty password", Settings{Address: "a:25", Username: "u", PasswordFile: empty}, "it is empty"},
		{"password of two lines", Settings{Address: "a:25", Username: "u", PasswordFile: lines}, "it must be one line"},
		{"hello", Settings{Address: "a:25", Hello: "a b"}, `hello: "a b" is no domain`},
		{"from", Settings{Address: "a:25", From: "x"}, `from "x" is no address`},
		{"from of another domain", Settings{Address: "a:25", From: "a@example.org", SenderDomains: []string{"example.com"}}, "may not send"},
		{"sender domain", Settings{Address: "a:25", SenderDomains: []string{"@example.com"}}, `sender domains: "@example.com" is no domain`},
		{"domain of Message-IDs", Settings{Address: "a:25", MessageIDDomain: "a b"}, `domain of Message-IDs: "a b" is no domain`},
		{"negative timeout", Settings{Address: "a:25", Timeout: -1}, "must not be negative"},
	} {
		t.Run(v.name, func(t *testing.T) {
			_, err := NewSender(v.settings)

			if err == nil || !strings.Contains(err.Error(), v.want) {
				t.Errorf("%v, want it to say %s", err, v.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter") {
				t.Errorf("it tells the password: %v", err)
			}
		})
	}
}

package email

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"time"
)

// Security is how a connection is secured.
type Security int

const (
	// SecurityDefault is STARTTLS; None where the server is this machine by its
	// address: localhost or a loopback IP.
	SecurityDefault Security = iota
	// STARTTLS is TLS after the command of that name, or no mail.
	STARTTLS
	// TLS is TLS from the first byte.
	TLS
	// None is no TLS. Passwords then go to this machine alone, except by
	// mechanisms that don't tell them (SCRAM, CRAM-MD5).
	None
)

func (s Security) String() string {
	switch s {
	case SecurityDefault:
		return "default"
	case STARTTLS:
		return "STARTTLS"
	case TLS:
		return "TLS"
	case None:
		return "NONE"
	}
	return "Security(" + strconv.Itoa(int(s)) + ")"
}

// Settings say how mails are sent. The zero value lacks Address.
type Settings struct {
	// Address is the server's "host:port".
	Address string
	// Security is how connections are secured.
	Security Security
	// ServerName is the name that the server's certificate must have. Empty:
	// Address's host.
	ServerName string
	// CAFile is a PEM file that the server's certificate must come from; read for
	// each connection. Empty: the system's roots.
	CAFile string
	// Username is who logs in. Empty: nobody.
	Username string
	// PasswordFile holds the password, and may end with a line break; read for
	// each connection. Required with Username.
	PasswordFile string
	// Hello is the name said in EHLO: a domain, or an IP address in brackets.
	// Empty: the host's, or localhost where that is none.
	Hello string
	// From is the sender of messages that have none. It may be empty.
	From string
	// SenderDomains are the domains that a sender may have. Empty: any.
	SenderDomains []string
	// MessageIDDomain is what Sender.MessageID has after the "@". Empty: the
	// domain of From or, without it, Hello's.
	MessageIDDomain string
	// Timeout is how long the server may take to accept a connection, to answer a
	// command and to take up more of a mail. Zero: 10 s.
	Timeout time.Duration
	// AcceptTimeout is how long the server may take to accept a mail once it has
	// all of it. It checks the mail in this time, and to give up too early means
	// to send twice. Zero: 1 minute, or Timeout if that is longer.
	AcceptTimeout time.Duration
	// IdleTimeout is how long a connection is kept that nothing is sent over.
	// Zero: 30 s.
	IdleTimeout time.Duration
	// MaxConnections is how many connections there are at most. Zero: 4.
	MaxConnections int
	// Dial connects to the server; nil is a net.Dialer.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
}

// maxMails is how many mails go over one connection: servers bound it, some
// unkindly.
const maxMails = 100

// resolved are settings that were checked, with their defaults.
type resolved struct {
	Settings
	host      string
	loopback  bool
	from      address // zero if there is none
	domains   map[string]bool
	plaintext bool // whether passwords may go without TLS
}

// resolve checks settings and fills in defaults.
func (s Settings) resolve() (resolved, error) {
	r := resolved{Settings: s}
	var errs []error
	fail := func(format string, args ...any) { errs = append(errs, fmt.Errorf(format, args...)) }

	host, port, err := net.SplitHostPort(s.Address)
	if number, portErr := strconv.ParseUint(port, 10, 16); err != nil || portErr != nil || number == 0 || host == "" {
		fail(`server %q must be "host:port", such as "smtp.example.com:587"`, clip(s.Address))
	} else if _, err := parseHost(host); err != nil {
		fail("server %q: %w", clip(s.Address), err)
	}
	r.host, r.loopback = host, isLoopback(host)
	switch s.Security {
	case SecurityDefault:
		r.Security = STARTTLS
		if r.loopback {
			r.Security = None
		} else if port == "465" {
			fail("security must be said for port 465, where servers mostly speak TLS from the first byte: set TLS")
		}
	case STARTTLS, TLS, None:
	default:
		fail("security %v is none of default, STARTTLS, TLS and NONE", s.Security)
	}
	r.plaintext = r.loopback
	if r.ServerName == "" {
		r.ServerName = host
	} else if _, err := parseHost(r.ServerName); err != nil {
		fail("server name: %w", err)
	}
	if s.CAFile != "" {
		if r.Security == None {
			fail("CA file %s has no use: the connection has no TLS", s.CAFile)
		} else if _, err := readRoots(s.CAFile); err != nil {
			errs = append(errs, err)
		}
	}
	errs = append(errs, s.checkLogin())
	if r.Hello, err = hello(s.Hello); err != nil {
		errs = append(errs, err)
	}
	if s.From != "" {
		if r.from, err = parseAddress(s.From); err != nil {
			fail("from %w", err)
		}
	}
	if len(s.SenderDomains) > 0 {
		r.domains = make(map[string]bool)
	}
	for _, domain := range s.SenderDomains {
		ascii, err := parseDomain(domain)
		if err != nil {
			fail("sender domains: %w", err)
		}
		r.domains[ascii] = true
	}
	if err := r.allowed(r.from); s.From != "" && err != nil {
		fail("from: %w", err)
	}
	switch {
	case s.MessageIDDomain != "":
		if r.MessageIDDomain, err = parseDomain(s.MessageIDDomain); err != nil {
			fail("domain of Message-IDs: %w", err)
		}
	case r.from.domain != "":
		r.MessageIDDomain = r.from.domain
	case isDotAtom(r.Hello):
		r.MessageIDDomain = r.Hello
	default:
		r.MessageIDDomain = "localhost"
	}
	if s.Timeout < 0 || s.AcceptTimeout < 0 || s.IdleTimeout < 0 || s.MaxConnections < 0 {
		fail("timeout, accept timeout, idle timeout and connections must not be negative")
	}
	r.Timeout = orDefault(s.Timeout, 10*time.Second)
	r.AcceptTimeout = orDefault(s.AcceptTimeout, max(time.Minute, r.Timeout))
	r.IdleTimeout = orDefault(s.IdleTimeout, 30*time.Second)
	r.MaxConnections = orDefault(s.MaxConnections, 4)
	if r.Dial == nil {
		r.Dial = (&net.Dialer{}).DialContext
	}
	return r, errors.Join(errs...)
}

func orDefault[T int | time.Duration](value, otherwise T) T {
	if value == 0 {
		return otherwise
	}
	return value
}

// checkLogin checks who logs in, and that the password can be read now.
func (s Settings) checkLogin() error {
	switch {
	case s.Username == "" && s.PasswordFile != "":
		return fmt.Errorf("password file %s has no user name beside it", s.PasswordFile)
	case s.Username == "":
		return nil
	case s.PasswordFile == "":
		return fmt.Errorf("user name %q has no password file beside it", clip(s.Username))
	case checkText(s.Username) != nil:
		return fmt.Errorf("user name %w", checkText(s.Username))
	}
	_, err := readPassword(s.PasswordFile)
	return err
}

// allowed tells whether an address may be a sender.
func (s *resolved) allowed(from address) error {
	if s.domains == nil || s.domains[from.domain] {
		return nil
	}
	return fmt.Errorf("%q may not send: the domain must be one of %s", from.bare(), strings.Join(s.SenderDomains, ", "))
}

// isLoopback tells whether a host is this machine without asking anybody.
func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return err == nil && ip.Unmap().IsLoopback() || strings.EqualFold(host, "localhost")
}

// parseHost takes a domain or an IP address.
func parseHost(host string) (string, error) {
	if _, err := netip.ParseAddr(host); err == nil {
		return host, nil
	}
	return parseDomain(host)
}

// hello is the name to say in EHLO.
func hello(configured string) (string, error) {
	if configured == "" {
		if name, err := os.Hostname(); err == nil {
			if domain, err := parseDomain(name); err == nil {
				return domain, nil
			}
		}
		return "localhost", nil
	}
	if inner, ok := strings.CutPrefix(configured, "["); ok {
		inner, ok = strings.CutSuffix(inner, "]")
		// RFC 5321, 4.1.3: IPv6 addresses have a tag.
		bare, six := strings.CutPrefix(inner, "IPv6:")
		if ip, err := netip.ParseAddr(bare); ok && err == nil && ip.Is6() == six && ip.Zone() == "" {
			return configured, nil
		}
		return "", fmt.Errorf("hello %q is no address such as [192.0.2.1] or [IPv6:2001:db8::1]", clip(configured))
	}
	domain, err := parseDomain(configured)
	if err != nil {
		return "", fmt.Errorf("hello: %w", err)
	}
	return domain, nil
}

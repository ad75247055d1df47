package email

import (
	"errors"
	"fmt"
	"net/mail"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/idna"
)

const (
	// maxAddress is the longest address with its name, in bytes.
	maxAddress = 512
	// maxLocal and maxPath are RFC 5321's, 4.5.3.1: what stands in front of the
	// "@", and all of it without the angle brackets.
	maxLocal, maxPath = 64, 254
)

// address is an address that was checked: its domain is in lower case and
// ASCII.
type address struct {
	name, local, domain string
}

// bare is the address without its name, and without quotes.
func (a address) bare() string { return a.local + "@" + a.domain }

// path is the address as the commands of SMTP have it.
func (a address) path() string { return (&mail.Address{Address: a.bare()}).String() }

// header is the address as headers have it.
func (a address) header() *mail.Address { return &mail.Address{Name: a.name, Address: a.bare()} }

// parseAddress reads one address strictly: no list, no group, no comment, no
// control character.
func parseAddress(text string) (address, error) {
	switch {
	case strings.TrimSpace(text) == "":
		return address{}, errors.New("is empty")
	case len(text) > maxAddress:
		return address{}, fmt.Errorf("has %d bytes; at most %d are allowed", len(text), maxAddress)
	}
	if err := checkText(text); err != nil {
		return address{}, err
	}
	if c := special(text); c != 0 {
		return address{}, fmt.Errorf(`%q has a %q outside of quotes: it must be one address, such as "ada@example.org" or "Ada <ada@example.org>"`, text, c)
	}
	parsed, err := mail.ParseAddress(text)
	if err != nil {
		return address{}, fmt.Errorf("%q is no address: %s", text, strings.TrimPrefix(err.Error(), "mail: "))
	}
	// An encoded word may hide what the text itself doesn't have.
	if err := checkText(parsed.Name); err != nil {
		return address{}, fmt.Errorf("%q has a name that %w", text, err)
	}
	at := strings.LastIndexByte(parsed.Address, '@')
	local, host := parsed.Address[:at], parsed.Address[at+1:]
	if len(local) > maxLocal {
		return address{}, fmt.Errorf(`%q has %d bytes in front of the "@"; at most %d are allowed`, text, len(local), maxLocal)
	}
	for _, c := range []byte(local) {
		if c > '~' {
			return address{}, fmt.Errorf(`%q is not ASCII in front of the "@": few servers take such addresses`, text)
		}
	}
	domain, err := parseDomain(host)
	if err != nil {
		return address{}, fmt.Errorf("%q: %w", text, err)
	}
	if length := len(local) + 1 + len(domain); length > maxPath {
		return address{}, fmt.Errorf("%q has %d bytes; at most %d are allowed", text, length, maxPath)
	}
	return address{name: parsed.Name, local: local, domain: domain}, nil
}

// special is the first character outside of quotes that makes a list, a group or
// a comment, 0 if there is none.
func special(text string) rune {
	quoted, escaped := false, false
	for _, c := range text {
		switch {
		case escaped:
			escaped = false
		case quoted && c == '\\':
			escaped = true
		case c == '"':
			quoted = !quoted
		case !quoted && strings.ContainsRune(",;:()[]", c):
			return c
		}
	}
	return 0
}

// parseDomain makes a domain lower case and ASCII.
func parseDomain(host string) (string, error) {
	domain, err := idna.Lookup.ToASCII(host)
	if err != nil || domain == "" || strings.HasSuffix(domain, ".") || strings.HasPrefix(domain, ".") || strings.Contains(domain, "..") {
		return "", fmt.Errorf("%q is no domain", host)
	}
	for label := range strings.SplitSeq(domain, ".") {
		if len(label) > 63 {
			return "", fmt.Errorf("%q is no domain: a part of it has more than 63 characters", host)
		}
	}
	return domain, nil
}

// checkText refuses what must be in no header: control characters, line breaks
// above all, and what is not UTF-8.
func checkText(text string) error {
	if !utf8.ValidString(text) {
		return errors.New("is not UTF-8")
	}
	for i, c := range text {
		switch {
		case c == '\r' || c == '\n':
			return fmt.Errorf("has a line break, as its byte %d", i+1)
		case c < ' ' || c >= 0x7f && c < 0xa0 || c == '\u2028' || c == '\u2029':
			return fmt.Errorf("has the control character %U, as its byte %d", c, i+1)
		}
	}
	return nil
}

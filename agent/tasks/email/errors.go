package email

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/textproto"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// Stage is how far a mail came.
type Stage string

// Stages, in their order.
const (
	// StageMessage: the message itself is wrong; no server was asked.
	StageMessage Stage = "message"
	// StageConnect: the server can't be reached, or doesn't greet.
	StageConnect Stage = "connect"
	// StageTLS: the server offers no TLS or fails to prove who it is.
	StageTLS Stage = "tls"
	// StageLogin: the server refuses the login.
	StageLogin Stage = "login"
	// StageSender: the server was told the sender.
	StageSender Stage = "sender"
	// StageRecipients: the server was told the recipients, and took none.
	StageRecipients Stage = "recipients"
	// StageContent: the server was sent the content.
	StageContent Stage = "content"
)

// Error is why a mail was not accepted. It never holds a password.
type Error struct {
	// Stage is how far the mail came.
	Stage Stage
	// Permanent says that another attempt would end the same way: the message is
	// wrong, or the server refuses it for good. It is false for what is about
	// the server or how we get there, up to and including StageLogin.
	Permanent bool
	// Unknown says that the mail may have been delivered all the same: all of it
	// was sent, and then no answer came. Another attempt may bring it twice, with
	// the same Message-ID.
	Unknown bool
	// Code is the server's reply code, such as 550; 0 if it didn't say.
	Code int
	// Enhanced is the enhanced status code of RFC 3463, such as "5.1.1"; empty
	// if the server didn't say.
	Enhanced string
	// Refused are the recipients, at StageRecipients.
	Refused []Refusal
	// RetryAfter is when, at the earliest, another attempt makes sense; 0 if
	// nothing is known of it.
	RetryAfter time.Duration

	text string
	err  error
}

// Error says it in plain words, with the server's own.
func (e *Error) Error() string { return e.text }

// Unwrap is the cause, such as context.Canceled or an x509 error, if there is
// one.
func (e *Error) Unwrap() error { return e.err }

// Refusal is a recipient that the server would not take.
type Refusal struct {
	// Address is the recipient's, without a name.
	Address string
	// Permanent says that another attempt would end the same way.
	Permanent bool
	// Code and Enhanced are as in Error.
	Code     int
	Enhanced string
	// Reason is what the server said.
	Reason string
}

func (r Refusal) String() string {
	return r.Address + ": " + reply{r.Code, r.Enhanced, r.Reason}.String()
}

// ErrClosed is the cause of what a closed Sender answers.
var ErrClosed = errors.New("the sender was closed")

// reply is what a server answered.
type reply struct {
	code     int
	enhanced string
	text     string
}

func (r reply) String() string {
	text := strconv.Itoa(r.code)
	if r.enhanced != "" {
		text += " " + r.enhanced
	}
	if r.text != "" {
		text += " " + r.text
	}
	return text
}

// replyOf is the server's answer in an error, if it has one.
func replyOf(err error) (reply, bool) {
	var answer *textproto.Error
	if !errors.As(err, &answer) {
		return reply{}, false
	}
	r := reply{code: answer.Code}
	r.enhanced, r.text = splitEnhanced(answer.Code, answer.Msg)
	return r, true
}

// splitEnhanced takes the enhanced status code off a reply's text and makes the
// rest one short line.
func splitEnhanced(code int, msg string) (enhanced, text string) {
	first, rest, _ := strings.Cut(strings.TrimSpace(msg), " ")
	if isEnhanced(first) && code/100 == int(first[0]-'0') {
		enhanced, msg = first, rest
		// Replies of several lines have it in each.
		msg = strings.ReplaceAll(msg, "\n"+first+" ", "\n")
	}
	return enhanced, oneLine(msg)
}

// isEnhanced tells what RFC 3463 calls a status code: class, subject and detail.
func isEnhanced(text string) bool {
	parts := strings.Split(text, ".")
	if len(parts) != 3 || len(parts[0]) != 1 || !strings.Contains("245", parts[0]) {
		return false
	}
	for _, part := range parts[1:] {
		if n, err := strconv.ParseUint(part, 10, 16); err != nil || n > 999 || len(part) > 3 {
			return false
		}
	}
	return true
}

// oneLine makes a server's words one line without control characters, of
// bounded length.
func oneLine(text string) string {
	text = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(text, "�"))
	text = strings.Join(strings.Fields(text), " ")
	const most = 300
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

// plain is an error of the network in plain words, without addresses that are
// said already.
func plain(err error) string {
	var timeout net.Error
	var op *net.OpError
	var dns *net.DNSError
	switch {
	case errors.Is(err, context.Canceled):
		return "the attempt was cancelled"
	case errors.Is(err, context.DeadlineExceeded):
		return "the attempt's time was up"
	case errors.As(err, &dns):
		if dns.IsNotFound {
			return fmt.Sprintf("there is no host %s", dns.Name)
		}
		return fmt.Sprintf("the name %s can't be resolved: %s", dns.Name, dns.Err)
	case errors.As(err, &timeout) && timeout.Timeout():
		return "it didn't answer in time"
	case isEnd(err):
		return "it closed the connection"
	case errors.As(err, &op):
		return oneLine(op.Err.Error())
	}
	return oneLine(err.Error())
}

// withoutSecret takes a text for what a login failed with, unless it repeats the
// password, which some servers do.
func withoutSecret(text, username, password string) string {
	for _, secret := range []string{
		password,
		base64.StdEncoding.EncodeToString([]byte(password)),
		base64.StdEncoding.EncodeToString([]byte("\x00" + username + "\x00" + password)),
	} {
		if secret != "" && strings.Contains(text, secret) {
			return "(the answer repeats the password, so it isn't shown)"
		}
	}
	return text
}

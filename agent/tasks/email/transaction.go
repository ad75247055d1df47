package email

import (
	"context"
	"fmt"
	"io"
	"strconv"

	"github.com/wneessen/go-mail/smtp"
)

// outcome is what became of a connection.
type outcome int

const (
	// usable: the next mail can go over it.
	usable outcome = iota
	// broken: it must be closed.
	broken
	// stale: it was closed by the server before this mail began, so that the
	// mail can go over another one.
	stale
)

// serviceEnds is the code of a server that closes the connection after it.
const serviceEnds = 421

// send sends a mail that compose wrote. Its errors are *Error.
func (c *connection) send(ctx context.Context, from address, recipients []address, content []byte) (Receipt, outcome, error) {
	stop := context.AfterFunc(ctx, func() { c.wire.Close() })
	receipt, result, err := c.transact(ctx, from, recipients, content)
	if !stop() {
		result = broken
	}
	if result == usable && err != nil {
		// What was begun must not be there when the next mail begins.
		c.wire.expect(c.settings.Timeout)
		if c.client.Reset() != nil {
			result = broken
		}
	}
	c.mails++
	if c.mails >= maxMails && result == usable {
		c.quit()
		result = broken
	}
	return receipt, result, err
}

func (c *connection) transact(ctx context.Context, from address, recipients []address, content []byte) (Receipt, outcome, error) {
	s := c.settings
	fail := func(stage Stage, what string, err error) *Error {
		e := s.failure(ctx, stage, what, err)
		e.Permanent = permanent(e.Code)
		return e
	}
	path := from.path()
	if supported, limit := c.client.Extension("SIZE"); supported {
		if most, err := strconv.ParseUint(limit, 10, 63); err == nil && most > 0 && uint64(len(content)) > most {
			return Receipt{}, usable, &Error{Stage: StageContent, Permanent: true, text: fmt.Sprintf(
				"SMTP server %s takes mails of up to %d bytes, and this one has %d", s.Address, most, len(content))}
		}
		path += " SIZE=" + strconv.Itoa(len(content))
	}
	c.wire.expect(s.Timeout)
	if err := c.client.Mail(path); err != nil {
		e := fail(StageSender, "refuses the sender "+from.bare(), err)
		switch {
		case e.Code != 0 && e.Code != serviceEnds:
			return Receipt{}, usable, e
		case ctx.Err() == nil && c.mails > 0:
			return Receipt{}, stale, e
		}
		return Receipt{}, broken, e
	}

	receipt := Receipt{}
	for _, to := range recipients {
		c.wire.expect(s.Timeout)
		err := c.client.Rcpt(to.path())
		if err == nil {
			receipt.Accepted = append(receipt.Accepted, to.bare())
			continue
		}
		answer, ok := replyOf(err)
		if !ok || answer.code == serviceEnds {
			return Receipt{}, broken, fail(StageRecipients, "was lost at the recipient "+to.bare(), err)
		}
		receipt.Refused = append(receipt.Refused, Refusal{
			Address: to.bare(), Permanent: permanent(answer.code),
			Code: answer.code, Enhanced: answer.enhanced, Reason: answer.text,
		})
	}
	if len(receipt.Accepted) == 0 {
		return Receipt{}, usable, s.noneAccepted(receipt)
	}

	c.wire.expect(s.Timeout)
	writer, err := c.client.Data()
	if err != nil {
		e := fail(StageContent, "refuses the mail", err)
		return Receipt{}, afterReply(e), e
	}
	if _, err := writer.Write(content); err != nil {
		return Receipt{}, broken, fail(StageContent, "was lost in the middle of the mail", err)
	}
	c.wire.expect(s.AcceptTimeout)
	if err := writer.Close(); err != nil {
		e := fail(StageContent, "refuses the mail", err)
		if e.Code == 0 {
			e.Unknown = true
			e.text = fmt.Sprintf("SMTP server %s got the mail and didn't say whether it took it: %s; it may have been delivered", s.Address, plain(e.err))
		}
		return Receipt{}, afterReply(e), e
	}
	receipt.Response = response(writer)
	return receipt, usable, nil
}

// response is how the server took the mail.
func response(writer io.WriteCloser) string {
	if data, ok := writer.(*smtp.DataCloser); ok {
		return oneLine(data.ServerResponse())
	}
	return ""
}

// afterReply is what a failed command leaves behind: a connection in order, if
// there was an answer that didn't end it.
func afterReply(e *Error) outcome {
	if e.Code == 0 || e.Code == serviceEnds {
		return broken
	}
	return usable
}

// noneAccepted is what to say when every recipient was refused: for good if each
// was. It has the codes of one that decided.
func (s *resolved) noneAccepted(receipt Receipt) *Error {
	e := &Error{Stage: StageRecipients, Permanent: true, Refused: receipt.Refused}
	decided := receipt.Refused[0]
	for _, refusal := range receipt.Refused {
		if !refusal.Permanent {
			e.Permanent, decided = false, refusal
			break
		}
	}
	e.Code, e.Enhanced = decided.Code, decided.Enhanced
	if len(receipt.Refused) == 1 {
		e.text = fmt.Sprintf("SMTP server %s refuses the recipient %s", s.Address, decided)
	} else {
		e.text = fmt.Sprintf("SMTP server %s refuses all %d recipients, such as %s", s.Address, len(receipt.Refused), decided)
	}
	return e
}

// permanent tells which codes are about the mail and for good: 5yz, says RFC 5321,
// 4.2.1. But those of RFC 4954 are about the login: 530 that there must be one,
// 534, 535 and 538 how.
func permanent(code int) bool {
	switch code {
	case 530, 534, 535, 538:
		return false
	}
	return code >= 500
}

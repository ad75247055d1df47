package email

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// Sender sends mails through one server. It is safe for concurrent use.
type Sender struct {
	settings *resolved
	lock     lockout
	// slots has one entry for each connection that is in use.
	slots   chan struct{}
	running sync.WaitGroup

	mu     sync.Mutex
	closed bool
	// idle are connections that nothing is sent over, the last used one last.
	idle []*connection
}

// NewSender checks settings and the files that they name. It doesn't connect:
// a server that isn't there yet is a matter of each mail.
func NewSender(settings Settings) (*Sender, error) {
	r, err := settings.resolve()
	if err != nil {
		return nil, err
	}
	return &Sender{settings: &r, slots: make(chan struct{}, r.MaxConnections)}, nil
}

// MessageID is the Message-ID of a task's mail, the same each time.
func (s *Sender) MessageID(taskID string) string {
	if !isDotAtom(taskID) || len(taskID) > maxLocal {
		taskID = fmt.Sprintf("%.32x", taskID)
	}
	return taskID + "@" + s.settings.MessageIDDomain
}

// Validate says what is wrong with a message as this sender would send it: as the
// function Validate does, with the settings' From and sender domains.
func (s *Sender) Validate(m Message) []Problem {
	_, _, problems := s.check(m)
	return problems
}

func (s *Sender) check(m Message) (Message, envelope, []Problem) {
	if m.From == "" {
		m.From = s.settings.From
	}
	e, problems := check(m)
	if m.From == "" {
		problems[0].Description = "is missing, and the configuration has no default sender"
	} else if e.from.domain != "" {
		if err := s.settings.allowed(e.from); err != nil {
			problems = append(problems, Problem{Field: "from", Description: err.Error()})
		}
	}
	return m, e, problems
}

// Send sends a mail and waits until the server has taken or refused it. If some
// recipients were refused and others not, the mail went to the others, and the
// receipt says so. Errors are *Error. A context that ends closes the connection.
func (s *Sender) Send(ctx context.Context, m Message) (Receipt, error) {
	m, e, problems := s.check(m)
	if m.MessageID == "" {
		problems = append(problems, Problem{Field: "message_id", Description: "is missing"})
	}
	if m.Date.IsZero() {
		problems = append(problems, Problem{Field: "date", Description: "is missing"})
	}
	if len(problems) > 0 {
		return Receipt{}, &Error{Stage: StageMessage, Permanent: true, text: "the mail can't be sent: " + listed(problems)}
	}
	content, err := compose(m, e)
	if err != nil {
		return Receipt{}, &Error{Stage: StageMessage, Permanent: true, text: "the mail can't be written: " + err.Error(), err: err}
	}
	leave, err := s.enter(ctx)
	if err != nil {
		return Receipt{}, err
	}
	defer leave()
	receipt, err := s.deliver(ctx, e.from, e.recipients(m.Only), content)
	receipt.MessageID = m.MessageID
	return receipt, err
}

// deliver sends a mail over an idle connection or, if there is none or the server
// has closed it, over a new one.
func (s *Sender) deliver(ctx context.Context, from address, recipients []address, content []byte) (Receipt, error) {
	if c := s.take(); c != nil {
		receipt, result, err := c.send(ctx, from, recipients, content)
		s.put(c, result)
		if result != stale {
			return receipt, err
		}
		// The server has most likely closed the others as well.
		for c := s.take(); c != nil; c = s.take() {
			c.wire.Close()
		}
	}
	c, err := connect(ctx, s.settings, &s.lock)
	if err != nil {
		return Receipt{}, err
	}
	receipt, result, err := c.send(ctx, from, recipients, content)
	s.put(c, result)
	return receipt, err
}

// Close ends the connections. Mails under way are sent to their end first, new
// ones get ErrClosed. The error is always nil.
func (s *Sender) Close() error {
	s.mu.Lock()
	s.closed = true
	idle := s.idle
	s.idle = nil
	s.mu.Unlock()
	for _, c := range idle {
		c.expiry.Stop()
		c.quit()
	}
	s.running.Wait()
	return nil
}

// IsPermanent tells whether an error of Send says that another attempt would end
// the same way.
func IsPermanent(err error) bool {
	var e *Error
	return errors.As(err, &e) && e.Permanent
}

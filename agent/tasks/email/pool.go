package email

import (
	"context"
	"fmt"
	"time"
)

// enter waits for the right to use a connection.
func (s *Sender) enter(ctx context.Context) (leave func(), err error) {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil, &Error{Stage: StageConnect, text: "no mail is sent any more: " + ErrClosed.Error(), err: ErrClosed}
	}
	s.running.Add(1)
	s.mu.Unlock()
	select {
	case s.slots <- struct{}{}:
		return func() { <-s.slots; s.running.Done() }, nil
	case <-ctx.Done():
		s.running.Done()
		return nil, &Error{Stage: StageConnect, err: ctx.Err(), text: fmt.Sprintf(
			"all %d connections to SMTP server %s were busy: %s", s.settings.MaxConnections, s.settings.Address, plain(ctx.Err()))}
	}
}

// take is an idle connection, the one that was used last; nil if there is none.
func (s *Sender) take() *connection {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.idle) == 0 {
		return nil
	}
	c := s.idle[len(s.idle)-1]
	s.idle = s.idle[:len(s.idle)-1]
	c.expiry.Stop()
	return c
}

// put keeps a connection for the next mail, if it can be used.
func (s *Sender) put(c *connection, result outcome) {
	if result != usable {
		c.wire.Close()
		return
	}
	s.mu.Lock()
	if !s.closed {
		s.idle = append(s.idle, c)
		c.expiry = time.AfterFunc(s.settings.IdleTimeout, func() { s.expire(c) })
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	c.quit()
}

// expire ends a connection that was idle for long, unless it was taken meanwhile.
func (s *Sender) expire(c *connection) {
	s.mu.Lock()
	for i, idle := range s.idle {
		if idle == c {
			s.idle = append(s.idle[:i], s.idle[i+1:]...)
			s.running.Add(1)
			s.mu.Unlock()
			c.quit()
			s.running.Done()
			return
		}
	}
	s.mu.Unlock()
}

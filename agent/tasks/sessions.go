package tasks

import "sync"

// sessions are the streams of work that are open. The zero value is ready for use.
type sessions struct {
	mu     sync.Mutex
	open   int
	closed bool
	idle   chan struct{} // closed once none is open any more; nil until closed
	// held is which session holds a job.
	held map[int64]*session
}

// enter opens one; false: no more may be.
func (s *sessions) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	s.open++
	return true
}

func (s *sessions) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	if s.open == 0 && s.closed {
		close(s.idle)
	}
}

// close lets no more be opened, and returns what is closed when all have ended.
func (s *sessions) close() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed, s.idle = true, make(chan struct{})
	if s.open == 0 {
		close(s.idle)
	}
	return s.idle
}

func (s *sessions) hold(id int64, by *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held == nil {
		s.held = map[int64]*session{}
	}
	s.held[id] = by
}

func (s *sessions) drop(id int64, by *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.held[id] == by {
		delete(s.held, id)
	}
}

// cancelled has the stream that holds the job tell its worker to stop.
func (s *sessions) cancelled(id int64) {
	s.mu.Lock()
	by := s.held[id]
	s.mu.Unlock()
	if by != nil {
		select {
		case by.look <- struct{}{}:
		default: // it is about to look
		}
	}
}

package store

import "sync"

// slots are how many jobs of each queue may run here at once. River's own are as
// many as it allows, since they can't change while jobs run. The zero value is
// ready for use.
type slots struct {
	mu     sync.Mutex
	limit  map[string]int
	active map[string]int
	hungry map[string]bool // there may be more jobs than there were slots
}

// set changes the limits; queues without one get none. What runs goes on.
func (s *slots) set(limit map[string]int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	if s.active == nil {
		s.active, s.hungry = make(map[string]int), make(map[string]bool)
	}
}

// take occupies as many slots of a queue as are free, and wanted.
func (s *slots) take(queue string, wanted int) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := max(min(wanted, s.limit[queue]-s.active[queue]), 0)
	s.active[queue] += n
	if n == 0 {
		s.hungry[queue] = true
	}
	return n
}

// used says how many of the slots that were taken have a job; the rest is free. It
// reports whether there may be more jobs, and slots for them, that came free
// meanwhile.
func (s *slots) used(queue string, taken, jobs int) (again bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[queue] -= taken - jobs
	if jobs < taken || taken == 0 {
		return false
	}
	if s.active[queue] < s.limit[queue] {
		return true
	}
	s.hungry[queue] = true
	return false
}

// free frees a slot. It reports whether a job may wait for it.
func (s *slots) free(queue string) (wanted bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[queue]--
	wanted = s.hungry[queue]
	delete(s.hungry, queue)
	return wanted
}

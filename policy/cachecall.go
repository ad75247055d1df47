package policy

import "time"

// CacheCall is one call's part in a Cache. The zero value is ready for
// Cache.Lookup. It must not be copied or touched from a Follow on until a Store,
// Fail or Leave returns it or its own Leave is done.
type CacheCall struct {
	// Owner is the shell's: it finds the call by it.
	Owner any
	// Found is what the call came to: by Lookup, and for one that waited by what
	// woke it (Hit, Stale or Miss).
	Found Found
	// Answer is the one to give. It is nil unless there is one.
	Answer *Answer
	// Age is how long Answer was kept.
	Age time.Duration

	key     CacheKey
	request CacheControl
	began   Instant // when the call was free to go out
	epoch   uint64  // how often the cache was emptied until then
	role    cacheRole
	ticket  uint64 // of the flight that it leads

	prev, next *CacheCall // those that wait with it
}

// cacheRole says what the cache expects of a call.
type cacheRole uint8

const (
	none  cacheRole = iota
	leads           // a report; others may wait for it
	alone           // a report; nobody waits
	waits           // nothing
)

// Refresh returns the part of the call that refreshes a stale answer, once. The
// part itself has nothing to report then.
func (w *CacheCall) Refresh() CacheCall {
	refresh := CacheCall{Found: Miss, key: w.key, began: w.began, epoch: w.epoch, role: w.role, ticket: w.ticket}
	w.role = none
	return refresh
}

// flightAge is how long calls begin to wait for the same one: the first to come
// later leads instead, so that a call that hangs doesn't hold up all to come.
// nginx has the same under proxy_cache_lock_age, with the same figure.
const flightAge = 5 * time.Second

// flight is the calls that want one key at once: one that leads, known by its
// ticket, and those that wait, in the order in which they came.
type flight struct {
	ticket      uint64
	began       Instant
	epoch       uint64
	first, last *CacheCall
}

// lead makes the call its key's leader if there is none to wait for. Those that
// wait for one that hangs wait for it now.
func (s *cacheShard) lead(w *CacheCall, now Instant) bool {
	f, ok := s.flights[w.key]
	if ok && f.epoch == s.epoch && now-f.began < flightAge {
		return false
	}
	s.promote(w, now)
	return true
}

// promote makes the call its key's leader.
func (s *cacheShard) promote(w *CacheCall, now Instant) {
	f := s.flights[w.key]
	s.tickets++
	f.ticket, f.began, f.epoch = s.tickets, now, s.epoch
	s.flights[w.key] = f
	s.fetches(w, now)
	w.role, w.ticket = leads, f.ticket
}

// fetches makes the call a Miss from now on.
func (s *cacheShard) fetches(w *CacheCall, now Instant) {
	if w.role == waits {
		s.counts.found[Miss]++
	}
	w.Found, w.role, w.began, w.epoch = Miss, alone, now, s.epoch
}

// leading reports whether the call still leads its key.
func (s *cacheShard) leading(w *CacheCall) bool {
	return w.role == leads && s.flights[w.key].ticket == w.ticket
}

// leave ends the part of a call that had to report.
func (s *cacheShard) leave(w *CacheCall, leading bool) {
	if leading {
		delete(s.flights, w.key)
	}
	w.role = none
}

// follow lets the call wait for its key's leader.
func (s *cacheShard) follow(w *CacheCall) {
	f := s.flights[w.key]
	w.role, w.prev = waits, f.last
	if f.last == nil {
		f.first = w
	} else {
		f.last.next = w
	}
	f.last = w
	s.flights[w.key] = f
}

// unfollow takes a call from among those that wait. Its role is still waits.
func (s *cacheShard) unfollow(w *CacheCall) {
	f := s.flights[w.key]
	if w.prev == nil {
		f.first = w.next
	} else {
		w.prev.next = w.next
	}
	if w.next == nil {
		f.last = w.prev
	} else {
		w.next.prev = w.prev
	}
	w.prev, w.next = nil, nil
	s.flights[w.key] = f
}

// waiting takes all that wait for the key.
func (s *cacheShard) waiting(k CacheKey) (all []*CacheCall) {
	for w := s.flights[k].first; w != nil; w = s.flights[k].first {
		s.unfollow(w)
		all = append(all, w)
	}
	return all
}

// serve gives a new answer to all that wait for the key.
func (s *cacheShard) serve(k CacheKey, a *Answer) []*CacheCall {
	all := s.waiting(k)
	for _, w := range all {
		w.Found, w.Answer, w.role = Hit, a, none
	}
	return all
}

// release lets all go that wait for the key: with a kept answer where one may
// stand in for a failure, else alone.
func (s *cacheShard) release(k CacheKey, now Instant, p *CachePolicy, failed bool) []*CacheCall {
	all := s.waiting(k)
	if len(all) == 0 {
		return nil
	}
	e := s.find(k, now, p)
	vain := false
	for _, w := range all {
		if failed && s.standIn(e, w, now, p) {
			w.role = none
			continue
		}
		s.fetches(w, now)
		vain = true
	}
	if vain && p.On() {
		s.noteAlone(k, e, now, min(p.TTL, aloneFor))
	}
	return all
}

// standIn gives a kept answer in place of one that can't be had.
func (s *cacheShard) standIn(e *cacheEntry, w *CacheCall, now Instant, p *CachePolicy) bool {
	found := e.offer(w, now, p, w.request.StaleIfError.cap(e.spans(p).onError))
	if found == Miss {
		return false
	}
	w.Found = found
	s.counts.stoodIn++
	return true
}

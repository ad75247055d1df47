package breaker

import (
	"maps"
	"sync"
	"sync/atomic"

	lru "github.com/hashicorp/golang-lru/v2"
)

// MaxBreakers bounds a Set.
const MaxBreakers = 4096

// Key says what a breaker guards. Parts that don't apply are empty.
type Key struct{ Service, Method, Endpoint string }

// Set holds the breakers of one policy, one a key, all with the same options.
// It holds at most MaxBreakers: past that the one that was not asked for the
// longest leaves, and a call to it later starts closed. One that is not closed
// is kept as long as a closed one can go instead. Safe for concurrent use.
type Set struct {
	onTransition func(Key, Transition)
	// present is what Get reads: a copy of recent's content.
	present atomic.Pointer[map[Key]*Breaker]

	mu      sync.Mutex
	options Options
	recent  *lru.Cache[Key, *Breaker]
}

// NewSet returns an empty set. onTransition, which may be nil, hears of every
// breaker's changes of state; it must not block.
func NewSet(o Options, onTransition func(Key, Transition)) *Set {
	s := &Set{options: o, onTransition: onTransition}
	s.recent, _ = lru.New[Key, *Breaker](MaxBreakers) // fails for a size below 1 only
	s.present.Store(&map[Key]*Breaker{})
	return s
}

// Get returns the key's breaker, a new one where there is none.
func (s *Set) Get(k Key) *Breaker {
	if b := (*s.present.Load())[k]; b != nil {
		if !b.used.Load() {
			b.used.Store(true)
		}
		return b
	}
	return s.add(k)
}

func (s *Set) add(k Key) *Breaker {
	s.mu.Lock()
	defer s.mu.Unlock()
	if b, ok := s.recent.Get(k); ok {
		return b
	}
	s.makeRoom()
	b := New(s.options, func(t Transition) {
		if s.onTransition != nil {
			s.onTransition(k, t)
		}
	})
	s.recent.Add(k, b)
	next := make(map[Key]*Breaker, s.recent.Len())
	for _, key := range s.recent.Keys() {
		next[key], _ = s.recent.Peek(key)
	}
	s.present.Store(&next)
	return b
}

// makeRoom sees to it that the oldest entry is one that can go: those used
// since the last look, or not closed, get a second chance (the CLOCK
// algorithm, Corbató 1969).
func (s *Set) makeRoom() {
	if s.recent.Len() < MaxBreakers {
		return
	}
	for range MaxBreakers {
		k, b, ok := s.recent.GetOldest()
		if !ok {
			return
		}
		_, state := unpack(b.word.Load())
		if !b.used.Swap(false) && state == Closed {
			return
		}
		s.recent.Get(k)
	}
}

// All returns every breaker by key.
func (s *Set) All() map[Key]*Breaker { return maps.Clone(*s.present.Load()) }

// Update changes the options of all breakers, present and to come.
func (s *Set) Update(o Options) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.options = o
	for _, b := range s.recent.Values() {
		b.Update(o)
	}
}

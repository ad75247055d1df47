package store

import (
	"math/rand/v2"
	"sync"
	"time"
)

// idEpoch is where the time in an id begins.
var idEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// idBits of an id count within a millisecond; the 42 above are the milliseconds
// since idEpoch, which last until 2164.
const idBits = 21

// ids draws ids: unique within a process, and as good as unique among processes,
// since each begins its count anywhere; in the order of time.
type ids struct {
	mu   sync.Mutex
	last int64
}

func (i *ids) init() { i.last = 0 }

// next returns an id for a moment.
func (i *ids) next(now time.Time) int64 {
	at := now.Sub(idEpoch).Milliseconds() << idBits
	i.mu.Lock()
	defer i.mu.Unlock()
	if at>>idBits > i.last>>idBits {
		i.last = at | rand.Int64N(1<<(idBits-1))
	} else {
		i.last++ // a millisecond that is full borrows from the next
	}
	return i.last
}

// NewID draws the id of a job to be.
func (s *Store) NewID() int64 { return s.ids.next(time.Now()) }

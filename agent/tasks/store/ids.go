package store

import (
	"math/rand/v2"
	"sync"
	"time"
)

// idEpoch is where the time in an id begins.
var idEpoch = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// An id is the milliseconds since idEpoch, in 42 bits, which last until 2164; the
// node that drew it; and a count within the millisecond.
const (
	nodeBits  = 10
	countBits = 11
	nodes     = 1 << nodeBits
)

// ids draws ids in the order of time: unique within a process, and among processes
// of different nodes. Agents that share a database agree on nodes by
// outrigger_agent.
type ids struct {
	mu     sync.Mutex
	node   int64
	millis int64
	count  int64
}

// init begins with any node.
func (i *ids) init() { i.join(rand.Int64N(nodes)) }

// join makes it draw as a node.
func (i *ids) join(node int64) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.node = node
}

// is returns the node.
func (i *ids) is() int64 {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.node
}

// next returns an id for a moment.
func (i *ids) next(now time.Time) int64 {
	millis := now.Sub(idEpoch).Milliseconds()
	i.mu.Lock()
	defer i.mu.Unlock()
	switch {
	case millis > i.millis:
		i.millis, i.count = millis, 0
	case i.count == 1<<countBits-1:
		i.millis, i.count = i.millis+1, 0 // a millisecond that is full borrows from the next
	default:
		i.count++
	}
	return i.millis<<(nodeBits+countBits) | i.node<<countBits | i.count
}

// NewID draws the id of a job to be.
func (s *Store) NewID() int64 { return s.ids.next(time.Now()) }

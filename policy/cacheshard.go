package policy

import (
	"encoding/binary"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Answer is a whole unary answer as a shell can play it back. It must not be
// changed once it was given to Cache.Store.
type Answer struct {
	// Header and Trailer are the metadata before and after the body.
	Header, Trailer []Field
	// Body is what came between them, as on the wire.
	Body []byte
}

// Field is one name of metadata, in lower case, and one value of it.
type Field struct{ Name, Value string }

// Size returns the bytes of the answer's body, names and values.
func (a *Answer) Size() int64 {
	n := len(a.Body)
	for _, fields := range [...][]Field{a.Header, a.Trailer} {
		for _, f := range fields {
			n += len(f.Name) + len(f.Value)
		}
	}
	return int64(n)
}

const (
	// cacheShards is a power of two: more than the cores that are likely to be
	// in the cache at the same moment.
	cacheShards = 16
	// entryOverhead and fieldOverhead are about what an entry takes beyond its
	// answer's bytes: key, list element, map slot and the structs; a field's
	// two string headers.
	entryOverhead = 512
	fieldOverhead = 32
	// aloneFor bounds how long the calls of a key that waited in vain don't wait
	// again. Varnish calls the same hit-for-miss.
	aloneFor = time.Minute
)

// cacheShard is a part of the keys. The lock covers all but oldest.
//
// What is kept is in golang-lru's simplelru for its order alone: the expirable
// kind reads the clock and starts a goroutine that nothing can stop, neither of
// which the core may do, and counts entries where bytes are what is bounded.
type cacheShard struct {
	oldest atomic.Int64 // when the least recently used entry was used; never: none

	mu      sync.Mutex
	kept    *simplelru.LRU[CacheKey, *cacheEntry]
	flights map[CacheKey]flight
	tickets uint64
	epoch   uint64
	counts  cacheCounts
	total   *atomic.Int64 // bytes that all shards keep together

	_ [64]byte // keeps shards off each other's cache lines
}

const never = math.MaxInt64

// cacheCounts only grow.
type cacheCounts struct {
	found                            [len(foundNames)]uint64
	stoodIn, stored, evicted, tooBig uint64
}

// init makes the shard ready. total is what all shards keep together.
func (s *cacheShard) init(total *atomic.Int64) {
	s.flights = make(map[CacheKey]flight)
	s.oldest.Store(never)
	// It fails for a size below 1 only. The size never evicts: bytes do.
	s.kept, _ = simplelru.NewLRU(math.MaxInt, func(_ CacheKey, e *cacheEntry) { total.Add(-e.size) })
	s.total = total
}

func (c *Cache) shard(k CacheKey) *cacheShard {
	return &c.shards[binary.LittleEndian.Uint64(k.hash[:])%cacheShards]
}

// cacheEntry is what is kept under a key.
type cacheEntry struct {
	answer *Answer // nil where only alone counts
	size   int64
	began  Instant // when the call that brought it went out
	stored Instant
	used   Instant
	alone  Instant // until then calls don't wait for each other
	limits cacheSpans
}

// cacheSpans are how long an answer is fresh, and how long past that it may be
// given while it is refreshed and in place of an error.
type cacheSpans struct{ fresh, revalidate, onError time.Duration }

// newCacheEntry returns the entry of an answer with the limits that it sets.
func newCacheEntry(a *Answer, began, now Instant, response CacheControl) *cacheEntry {
	return &cacheEntry{
		answer: a, began: began, stored: now, used: now,
		size: entryOverhead + a.Size() + fieldOverhead*int64(len(a.Header)+len(a.Trailer)),
		limits: cacheSpans{
			response.MaxAge.cap(never), response.StaleWhileRevalidate.cap(never), response.StaleIfError.cap(never),
		},
	}
}

// spans returns what holds under the policy of now: the shorter of what it and
// the answer say.
func (e *cacheEntry) spans(p *CachePolicy) cacheSpans {
	if e == nil {
		return cacheSpans{}
	}
	return cacheSpans{
		min(p.TTL, e.limits.fresh), min(p.StaleWhileRevalidate, e.limits.revalidate), min(p.StaleIfError, e.limits.onError),
	}
}

// late returns how far past its freshness the answer is; negative: it is fresh.
func (e *cacheEntry) late(now Instant, p *CachePolicy) time.Duration {
	return e.age(now) - e.spans(p).fresh
}

// age never falls below zero: a call may come with an instant read just before
// that of the call that stored the answer.
func (e *cacheEntry) age(now Instant) time.Duration { return max(now-e.stored, 0) }

// gone reports whether nothing will ever come of the entry.
func (e *cacheEntry) gone(now Instant, p *CachePolicy) bool {
	if now < e.alone {
		return false
	}
	spans := e.spans(p)
	return e.answer == nil || e.late(now, p) >= max(spans.revalidate, spans.onError, 0)
}

// offer gives the answer to the call where it is at most window past its
// freshness and the call's own cache-control takes it, and says what it is: Hit
// or Stale; Miss where the call gets none.
func (e *cacheEntry) offer(w *CacheCall, now Instant, p *CachePolicy, window time.Duration) Found {
	if e == nil || e.answer == nil || w.request.NoCache || e.age(now) > w.request.MaxAge.cap(never) {
		return Miss
	}
	late := e.late(now, p)
	if late >= max(window, 0) {
		return Miss
	}
	w.Answer, w.Age = e.answer, e.age(now)
	if late >= 0 {
		return Stale
	}
	return Hit
}

// find returns the key's entry as the most recently used one, or nil. One that
// nothing will come of goes: nothing else looks for those but the need for room.
func (s *cacheShard) find(k CacheKey, now Instant, p *CachePolicy) *cacheEntry {
	e, ok := s.kept.Get(k)
	if !ok {
		return nil
	}
	if e.gone(now, p) {
		s.kept.Remove(k)
		e = nil
	} else {
		e.used = now
	}
	s.noteOldest()
	return e
}

// replace puts e, which may be nil, in the place of what is kept, unless that
// was asked for later or all was thrown away in the meantime.
func (s *cacheShard) replace(w *CacheCall, e *cacheEntry) {
	if w.epoch != s.epoch {
		return
	}
	if old, ok := s.kept.Peek(w.key); ok {
		if old.answer != nil && old.began > w.began {
			return
		}
		if e == nil && old.answer == nil {
			return // it may stand for calls that go alone
		}
		s.kept.Remove(w.key)
	}
	if e != nil {
		s.add(w.key, e)
		s.counts.stored++
	}
	s.noteOldest()
}

func (s *cacheShard) add(k CacheKey, e *cacheEntry) {
	s.kept.Add(k, e)
	s.total.Add(e.size)
	s.noteOldest()
}

// noteAlone remembers how long the key's calls don't wait for each other. e is
// what is kept under it, or nil. Only keys that calls waited for are noted,
// so that calls that nobody repeats push out no answer.
func (s *cacheShard) noteAlone(k CacheKey, e *cacheEntry, now Instant, d time.Duration) {
	if e != nil {
		e.alone = now + d
		return
	}
	s.add(k, &cacheEntry{size: entryOverhead, used: now, alone: now + d})
}

func (s *cacheShard) noteOldest() {
	at := Instant(never)
	if _, e, ok := s.kept.GetOldest(); ok {
		at = e.used
	}
	if s.oldest.Load() != int64(at) {
		s.oldest.Store(int64(at))
	}
}

// trim lets what was not used for the longest go until all fits. The answer that
// a Store brought is in memory already, so that it is over by as much as the
// Stores of this moment brought costs nothing more.
func (c *Cache) trim() {
	for c.bytes.Load() > c.settings.Load().MaxBytes && c.evict() {
	}
}

// evict lets one entry go and reports whether there may have been one.
func (c *Cache) evict() bool {
	var oldest *cacheShard
	at := int64(never)
	for i := range c.shards {
		if used := c.shards[i].oldest.Load(); used < at {
			oldest, at = &c.shards[i], used
		}
	}
	if oldest == nil {
		return false
	}
	oldest.mu.Lock()
	defer oldest.mu.Unlock()
	if _, _, ok := oldest.kept.RemoveOldest(); ok {
		oldest.counts.evicted++
	}
	oldest.noteOldest()
	return true
}

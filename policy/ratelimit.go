package policy

import (
	"hash/maphash"
	"math"
	"math/bits"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// rateLimiter is a rule's token buckets: one, or one a method, a key or both.
// In OBSERVE a call that would be refused takes nothing either, so both modes
// decide the same. Safe for concurrent use; a single bucket takes no lock.
type rateLimiter struct {
	limit  atomic.Pointer[rateLimit]
	single bucket
	mu     sync.Mutex // orders updates, and the carrying over of buckets
}

// rateLimit is what one policy asks for.
type rateLimit struct {
	rate     *rate // nil: no limit
	byMethod bool
	header   string
	maxKeys  int
	buckets  *bucketSet // nil: the single one
}

func newRateLimiter(p RateLimitPolicy) *rateLimiter {
	l := &rateLimiter{}
	l.update(p)
	return l
}

// update changes the policy. Buckets keep what they hold, but not more than the
// new burst; they do so when they are next asked, since they fill with time. A
// bucket that was never asked is full. When something else becomes the key all
// start again, full.
func (l *rateLimiter) update(p RateLimitPolicy) {
	l.mu.Lock()
	defer l.mu.Unlock()
	next := &rateLimit{byMethod: p.PerMethod, header: p.KeyHeader, maxKeys: p.MaxKeys}
	if next.maxKeys <= 0 {
		next.maxKeys = DefaultRateKeys
	}
	old := l.limit.Load()
	if old == nil {
		old = &rateLimit{}
	}
	if p.On() {
		r := newRate(p.PerSecond, p.Burst)
		next.rate = &r
		if old.rate != nil && *old.rate == r {
			next.rate = old.rate
		}
	}
	if next.byMethod || next.header != "" {
		switch sameKeys := old.buckets != nil && old.byMethod == next.byMethod && old.header == next.header; {
		case sameKeys && old.maxKeys == next.maxKeys:
			next.buckets = old.buckets
		case sameKeys:
			next.buckets = old.buckets.resized(next.maxKeys)
		default:
			next.buckets = newBucketSet(next.maxKeys)
		}
	}
	l.limit.Store(next)
}

// take takes a token for a call, or says after how long there will be one. A
// refused call takes nothing. key is the value that KeyHeader has in the call's
// metadata; callers without it share a bucket. method and key are copied where
// they are kept. A key whose bucket had to make room for others starts with a
// full one.
func (l *rateLimiter) take(now Instant, method, key string) (retryAfter time.Duration, ok bool) { // budget: 15 ns, 0 allocs
	limit := l.limit.Load()
	if limit.rate == nil {
		return 0, true
	}
	b := &l.single
	if limit.buckets != nil {
		if !limit.byMethod {
			method = ""
		}
		if limit.header == "" {
			key = ""
		}
		b = limit.buckets.get(bucketKey{method, key})
	}
	for {
		if b.rate.Load() != limit.rate {
			if limit = l.limit.Load(); limit.rate == nil {
				return 0, true
			}
			l.carry(b, limit.rate, now)
		}
		retryAfter, ok, again := b.take(limit.rate, now)
		if !again {
			return retryAfter, ok
		}
	}
}

// carry brings what the bucket holds from the rate that filled it up to now to
// the one that fills it from now on.
func (l *rateLimiter) carry(b *bucket, to *rate, now Instant) {
	l.mu.Lock()
	defer l.mu.Unlock()
	from := b.rate.Load()
	if from == to {
		return
	}
	full := b.fullAt.Swap(carrying)
	next := to.units(now)
	if from != nil {
		held := float64(from.burst)
		if old := from.units(now); full > old {
			held = max(0, held-float64(full-old)/float64(from.cost))
		}
		missing := max(0, float64(to.burst)-held)
		next += uint64(min(math.Ceil(missing*float64(to.cost)), mostUnits))
	}
	if from != nil && next == full {
		next++ // else one who read full under the old rate could still take
	}
	b.rate.Store(to)
	b.fullAt.Store(next)
}

// bucket is a token bucket by the generic cell rate algorithm (ITU-T I.371,
// annex A, as virtual scheduling): all that it knows is when it will be full,
// the theoretical arrival time, in the units of its rate.
type bucket struct {
	fullAt atomic.Uint64 // 0: it was never asked and is full
	rate   atomic.Pointer[rate]
}

// carrying stands in fullAt while the bucket goes from one rate to another.
const carrying = math.MaxUint64

// take takes a token. again: the bucket is going over to another rate.
func (b *bucket) take(r *rate, now Instant) (retryAfter time.Duration, ok, again bool) {
	at := r.units(now)
	for {
		full := b.fullAt.Load()
		// Loaded after fullAt and stored before it: fullAt is in r's units.
		if full == carrying || b.rate.Load() != r {
			return 0, false, true
		}
		if full > at && full-at > r.tolerance {
			return r.instant(full-r.tolerance) - now, false, false
		}
		if b.fullAt.CompareAndSwap(full, max(full, at)+r.cost) {
			return 0, true, false
		}
	}
}

// rate measures time in units of its own, of at least a nanosecond, so that a
// token is a whole number of them and no rate is rounded: 3 a second would
// otherwise be 333333333 ns each, 300 million a second 3 ns.
type rate struct {
	scale     uint64 // units a nanosecond, times 2^63
	cost      uint64 // units a token
	burst     uint64 // tokens
	tolerance uint64 // units that fullAt may be ahead for another token: (burst-1) × cost
}

const (
	// fastest is a call a nanosecond: the clock knows no finer.
	fastest = 1e9
	// mostUnits bounds what a bucket holds: with a now of at most 2^63 ns no sum
	// overflows.
	mostUnits = 1 << 62
	// mostBurst leaves every token two units.
	mostBurst = mostUnits / 2
)

// newRate returns the rate of perSecond > 0. One over fastest is fastest.
func newRate(perSecond float64, burst int) rate {
	perSecond = min(perSecond, fastest)
	tokens := uint64(min(max(burst, 0), mostBurst))
	if tokens == 0 {
		tokens = uint64(max(perSecond, 1))
	}
	cost := uint64(min(math.Floor(fastest/perSecond), float64(mostUnits/tokens)))
	scale := min(float64(cost)*perSecond/fastest, 1)
	return rate{scale: uint64(scale * (1 << 63)), cost: cost, burst: tokens, tolerance: (tokens - 1) * cost}
}

func (r *rate) units(now Instant) uint64 {
	high, low := bits.Mul64(uint64(max(now, 0)), r.scale)
	return high<<1 | low>>63
}

// instant returns the first one that is as many units.
func (r *rate) instant(units uint64) Instant {
	high, low := units>>1, units<<63
	if high >= r.scale {
		return math.MaxInt64
	}
	at, rest := bits.Div64(high, low, r.scale)
	if rest > 0 {
		at++
	}
	return Instant(min(at, math.MaxInt64))
}

// bucketKey is what has a bucket of its own. Parts that don't apply are empty.
type bucketKey struct{ method, key string }

const (
	mostShards   = 16
	keysPerShard = 256 // at least; fewer keys than twice that are in one shard
)

// bucketSet holds the buckets of a bounded number of keys. It is sharded by the
// key's hash, each shard with a short lock of its own and a list of which key
// was asked least recently: that one goes first. With several shards it is the
// least recently asked of its shard, and a shard may be full before the others.
// On 2 cores that both ask all the time a call costs 65 ns, and as much alone.
type bucketSet struct {
	seed   maphash.Seed
	shards []bucketShard
}

type bucketShard struct {
	mu     sync.Mutex
	recent *simplelru.LRU[bucketKey, *bucket]
	_      [128 - 16]byte
}

func newBucketSet(maxKeys int) *bucketSet {
	s := &bucketSet{seed: maphash.MakeSeed(), shards: make([]bucketShard, min(max(maxKeys/keysPerShard, 1), mostShards))}
	for i := range s.shards {
		// It fails for a size below 1 only.
		s.shards[i].recent, _ = simplelru.NewLRU[bucketKey, *bucket](maxKeys/len(s.shards), nil)
	}
	return s
}

func (s *bucketSet) shard(k bucketKey) *bucketShard {
	if len(s.shards) == 1 {
		return &s.shards[0]
	}
	return &s.shards[(maphash.String(s.seed, k.key)+3*maphash.String(s.seed, k.method))%uint64(len(s.shards))]
}

// get returns the key's bucket, a new one where there is none.
func (s *bucketSet) get(k bucketKey) *bucket {
	h := s.shard(k)
	h.mu.Lock()
	defer h.mu.Unlock()
	if b, ok := h.recent.Get(k); ok {
		return b
	}
	b := &bucket{}
	// The strings may be a connection's, which overwrites them.
	h.recent.Add(bucketKey{strings.Clone(k.method), strings.Clone(k.key)}, b)
	return b
}

// resized returns a set of another size with the same buckets. Where they don't
// all fit, the least recently asked of each new shard are left out.
func (s *bucketSet) resized(maxKeys int) *bucketSet {
	next := newBucketSet(maxKeys)
	for i := range s.shards {
		h := &s.shards[i]
		h.mu.Lock()
		for _, k := range h.recent.Keys() { // the oldest first
			b, _ := h.recent.Peek(k)
			next.shard(k).recent.Add(k, b)
		}
		h.mu.Unlock()
	}
	return next
}

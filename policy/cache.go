package policy

import "sync/atomic"

// Cache keeps answers of one service's idempotent unary calls under one
// CachePolicy, and lets one call fetch what several ask for at once (request
// collapsing, RFC 9111 section 4). Safe for concurrent use. Make it with
// NewCache.
//
// The shell asks and reports, in this order:
//
//	found := cache.Lookup(&part, p.Key(method, get, body), now, ParseCacheControl(request))
//	switch found {
//	case policy.Hit, policy.Stale: …answer with part.Answer
//	case policy.Refresh:           …answer with part.Answer; start a call with part.Refresh() as its part, for which Miss holds
//	case policy.Follow:            …wait until a Store, Fail or Leave returns the part, or until the caller leaves: Leave
//	case policy.Miss:              …send the call, then Store, Fail or Leave
//	case policy.Absent:            …refuse the call: its caller wants a kept answer or none
//	case policy.Bypass:            …send the call
//	}
//
// In Observe mode the cache does the same, and the shell sends every call: it
// leaves the answers alone, calls Leave right after a Follow, and reports a
// Miss and a Refresh by what the call itself gets. The counters then tell what
// would have been.
type Cache struct {
	settings atomic.Pointer[CachePolicy]
	bytes    atomic.Int64 // what the shards keep together
	shards   [cacheShards]cacheShard
}

// Found says what a Lookup came to.
type Found uint8

// What a Lookup comes to.
const (
	// Bypass, the zero value: the cache has no part in the call.
	Bypass Found = iota
	// Miss: the call goes to an endpoint, and the cache must hear what became
	// of it through Store, Fail or Leave.
	Miss
	// Hit: CacheCall.Answer is fresh.
	Hit
	// Stale: CacheCall.Answer is past its freshness and may be given.
	Stale
	// Refresh is Stale, and the one that found it so sees to a fresh one.
	Refresh
	// Follow: another call fetches the same; this one waits for it.
	Follow
	// Absent: the caller wants a kept answer only, and none is kept.
	Absent
)

var foundNames = [...]string{"BYPASS", "MISS", "HIT", "STALE", "REFRESH", "FOLLOW", "ABSENT"}

// String returns the name in capitals.
func (f Found) String() string {
	if int(f) < len(foundNames) {
		return foundNames[f]
	}
	return "UNKNOWN"
}

// NewCache returns an empty cache.
func NewCache(p CachePolicy) *Cache {
	c := &Cache{}
	for i := range c.shards {
		c.shards[i].init(&c.bytes)
	}
	c.Update(p)
	return c
}

// Update changes the policy. What is kept stays, as far as it fits: how long
// answers are given follows the new policy at once. One that is off empties the
// cache.
func (c *Cache) Update(p CachePolicy) {
	if p.MaxBytes <= 0 {
		p.MaxBytes = DefaultCacheBytes
	}
	if p.MaxEntryBytes <= 0 {
		p.MaxEntryBytes = DefaultCacheEntry
	}
	c.settings.Store(&p)
	if !p.On() {
		c.Purge()
	}
	c.trim()
}

// Purge empties the cache. What was asked for before it is not kept, and goes
// to no call that comes after it.
func (c *Cache) Purge() {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		s.epoch++
		s.kept.Purge()
		s.noteOldest()
		s.mu.Unlock()
	}
}

// Lookup begins a call's part in the cache and says what to do with the call.
// request is what the call's own `cache-control` says: no-store goes past the
// cache, no-cache fetches, max-age takes only answers that young and fresh,
// only-if-cached takes kept ones only.
func (c *Cache) Lookup(w *CacheCall, k CacheKey, now Instant, request CacheControl) Found {
	*w = CacheCall{Owner: w.Owner, key: k, request: request}
	p := c.settings.Load()
	if !p.On() {
		return Bypass
	}
	s := c.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	w.began, w.epoch = now, s.epoch
	w.Found = s.lookup(w, now, p)
	s.counts.found[w.Found]++
	return w.Found
}

func (s *cacheShard) lookup(w *CacheCall, now Instant, p *CachePolicy) Found {
	tooBig := w.key.request > p.MaxEntryBytes
	if tooBig {
		s.counts.tooBig++
	}
	if tooBig || w.request.NoStore {
		if w.request.OnlyIfCached {
			return Absent
		}
		return Bypass
	}
	e := s.find(w.key, now, p)
	window := e.spans(p).revalidate
	if w.request.MaxAge.Given {
		window = 0 // who gives an age wants nothing stale (RFC 9111 section 5.2.1.1)
	}
	if found := e.offer(w, now, p, window); found == Hit || found == Stale && !s.lead(w, now) {
		return found
	} else if found == Stale {
		return Refresh
	}
	switch {
	case w.request.OnlyIfCached:
		return Absent
	case e != nil && now < e.alone:
		w.role = alone
	case s.lead(w, now):
	case w.request.NoCache:
		w.role = alone // what is under way began before this call was made
	default:
		s.follow(w)
		return Follow
	}
	return Miss
}

// Store reports the answer that a Miss got, and returns the calls that waited
// for it. If it may be kept, it is their Answer (their Found is Hit); otherwise
// each of them is a Miss and fetches alone.
//
// A nil answer is one that isn't to be kept, such as one with another status
// than OK. Like every answer it ends what was kept before. response is what the
// answer's own `cache-control` says: its times make the policy's shorter, never
// longer. Nothing happens for a call that has nothing to report.
func (c *Cache) Store(w *CacheCall, now Instant, a *Answer, response CacheControl) (woken []*CacheCall) {
	p := c.settings.Load()
	mayKeep := a != nil && p.On() && !response.NoStore && !response.NoCache && !response.Private
	var e *cacheEntry
	if mayKeep {
		e = newCacheEntry(a, w.began, now, response)
		if e.gone(now, p) {
			e, mayKeep = nil, false
		}
	}
	tooBig := e != nil && (int64(w.key.request)+a.Size() > int64(p.MaxEntryBytes) || e.size > p.MaxBytes)
	// Those that came while it was fetched may have it only if it is fresh at
	// all; being too big to keep is no reason to fetch it again.
	mayShare := mayKeep && e.spans(p).fresh > 0
	if tooBig {
		e = nil
	}
	s := c.shard(w.key)
	s.mu.Lock()
	if w.role == leads || w.role == alone {
		if tooBig {
			s.counts.tooBig++
		}
		leading := s.leading(w)
		s.replace(w, e)
		switch {
		case mayShare && (leading || w.epoch == s.epoch):
			// An answer serves those that wait for it, whoever brings it.
			woken = s.serve(w.key, a)
		case leading:
			woken = s.release(w.key, now, p, false)
		}
		s.leave(w, leading)
	}
	s.mu.Unlock()
	c.trim()
	return woken
}

// Fail reports that a Miss got no answer because the endpoints can't give one
// now, and returns the calls that waited for it. Where a kept answer may stand
// in, it is in the Answer of w and of each of them (their Found is Hit or
// Stale). The others are a Miss each and fetch alone, all at once and until an
// answer is kept again, or for a minute, or the TTL: were one to lead the rest
// again, a slow failing endpoint would make them wait one after another, each
// for the failures of all before it. Breakers, limits and budgets hold for them
// as if there were no cache.
func (c *Cache) Fail(w *CacheCall, now Instant) (woken []*CacheCall) {
	p := c.settings.Load()
	s := c.shard(w.key)
	s.mu.Lock()
	if w.role == leads || w.role == alone {
		leading := s.leading(w)
		s.standIn(s.find(w.key, now, p), w, now, p)
		if leading {
			woken = s.release(w.key, now, p, true)
		}
		s.leave(w, leading)
	}
	s.mu.Unlock()
	c.trim()
	return woken
}

// Leave ends the part of a call whose caller is gone (cancel, deadline): it
// waits no longer, or has nothing to report. If it led others, nothing was
// learnt of the endpoints: the one of them that waited longest is returned, is a
// Miss now and leads the rest. A call thus waits no longer than those that came
// before it had patience, since their time ran while they waited.
//
// A call may be returned by another's Store, Fail or Leave while it leaves. Then
// Leave finds it in its new part and ends that.
func (c *Cache) Leave(w *CacheCall, now Instant) (next *CacheCall) {
	s := c.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch w.role {
	case waits:
		s.unfollow(w)
	case leads:
		leading := s.leading(w)
		if leading {
			if next = s.flights[w.key].first; next != nil {
				s.unfollow(next)
				s.promote(next, now)
				leading = false
			}
		}
		s.leave(w, leading)
	}
	w.role = none
	return next
}

// CacheSnapshot is what a cache keeps and its running totals.
type CacheSnapshot struct {
	// Entries and Bytes are what is kept now; Bytes with what keeping costs.
	Entries int
	Bytes   int64
	// Hits, StaleHits, Misses, Followed, Absent and Bypassed count what Lookups
	// came to; StaleHits are Stale and Refresh. A call that followed in vain
	// counts as a miss too.
	Hits, StaleHits, Misses, Followed, Absent, Bypassed uint64
	// StoodIn counts calls that got a kept answer because of a Fail.
	StoodIn uint64
	// Stored, Evicted and TooBig count answers kept, those that made room for
	// others, and requests and answers that exceed the bounds.
	Stored, Evicted, TooBig uint64
}

// Snapshot returns the totals. Those of calls under way may be counted in part.
func (c *Cache) Snapshot() CacheSnapshot {
	out := CacheSnapshot{Bytes: c.bytes.Load()}
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		n := &s.counts
		out.Entries += s.kept.Len()
		out.Hits += n.found[Hit]
		out.StaleHits += n.found[Stale] + n.found[Refresh]
		out.Misses += n.found[Miss]
		out.Followed += n.found[Follow]
		out.Absent += n.found[Absent]
		out.Bypassed += n.found[Bypass]
		out.StoodIn += n.stoodIn
		out.Stored += n.stored
		out.Evicted += n.evicted
		out.TooBig += n.tooBig
		s.mu.Unlock()
	}
	return out
}

package policy

import (
	"fmt"
	"sync"
	"testing"
	"time"
)

// testCache keeps for 10 s, gives what is stale for 5 s more while it is
// refreshed and for 60 s more in place of an error.
var testCache = CachePolicy{TTL: 10 * time.Second, StaleWhileRevalidate: 5 * time.Second, StaleIfError: time.Minute}

func cacheKey(request string) CacheKey {
	return testCache.Key(hello, func(string) string { return "" }, []byte(request))
}

func answer(body string) *Answer {
	return &Answer{Body: []byte(body), Trailer: []Field{{"grpc-status", "0"}}}
}

// look looks the request up under what its cache-control says.
func look(c *Cache, now Instant, request, control string) *CacheCall {
	w := &CacheCall{}
	c.Lookup(w, cacheKey(request), now, ParseCacheControl(control))
	return w
}

// fill has the answer to the request kept at now.
func fill(t *testing.T, c *Cache, now Instant, request, body, control string) {
	t.Helper()
	w := look(c, now, request, "no-cache")
	if w.Found != Miss {
		t.Fatalf("no-cache: %v", w.Found)
	}
	c.Store(w, now, answer(body), ParseCacheControl(control))
}

func expect(t *testing.T, about string, w *CacheCall, found Found, body string) {
	t.Helper()
	got := ""
	if w.Answer != nil {
		got = string(w.Answer.Body)
	}
	if w.Found != found || got != body {
		t.Fatalf("%s: %v %q, want %v %q", about, w.Found, got, found, body)
	}
}

func TestHowLongAnAnswerIsGiven(t *testing.T) {
	for _, tc := range []struct {
		about    string
		response string // its cache-control
		after    time.Duration
		request  string // the next one's cache-control
		found    Found
	}{
		{"at once", "", 0, "", Hit},
		{"to the TTL", "", 10*time.Second - 1, "", Hit},
		{"then stale", "", 10 * time.Second, "", Refresh},
		{"to the end of the window", "", 15*time.Second - 1, "", Refresh},
		{"then no more", "", 15 * time.Second, "", Miss},
		{"the answer's max-age is shorter", "max-age=3", 3 * time.Second, "", Refresh},
		{"the answer's max-age is longer than the TTL", "max-age=30", 10 * time.Second, "", Refresh},
		{"the answer's window is shorter", "stale-while-revalidate=1", 11 * time.Second, "", Miss},
		{"the answer's window is longer", "stale-while-revalidate=60", 15 * time.Second, "", Miss},
		{"it must not be stale", "must-revalidate", 10 * time.Second, "", Miss},
		{"no-store", "no-store", 0, "", Miss},
		{"private", "private", 0, "", Miss},
		{"no-cache", "no-cache", 0, "", Miss},
		{"the caller's no-cache", "", time.Second, "no-cache", Miss},
		{"the caller's no-store", "", time.Second, "no-store", Bypass},
		{"young enough for the caller", "", 2 * time.Second, "max-age=2", Hit},
		{"too old for the caller", "", 2*time.Second + 1, "max-age=2", Miss},
		{"who gives an age wants nothing stale", "", 11 * time.Second, "max-age=60", Miss},
		{"kept, and only that is wanted", "", time.Second, "only-if-cached", Hit},
		{"kept no more, and only that is wanted", "", 15 * time.Second, "only-if-cached", Absent},
		{"only kept ones, and none of them", "", time.Second, "only-if-cached, no-store", Absent},
	} {
		c := NewCache(testCache)
		fill(t, c, start, "a", "one", tc.response)
		w := look(c, start+tc.after, "a", tc.request)
		body := ""
		if tc.found == Hit || tc.found == Refresh {
			body = "one"
			if w.Age != tc.after {
				t.Errorf("%s: age %v, want %v", tc.about, w.Age, tc.after)
			}
		}
		expect(t, tc.about, w, tc.found, body)
	}
}

func TestOneCallFetchesForAll(t *testing.T) {
	c := NewCache(testCache)
	leader := look(c, start, "a", "")
	expect(t, "the first", leader, Miss, "")
	second, third := look(c, start+1, "a", ""), look(c, start+2, "a", "max-age=0")
	expect(t, "the second", second, Follow, "")
	expect(t, "another request", look(c, start+2, "b", ""), Miss, "")

	woken := c.Store(leader, start+3, answer("one"), CacheControl{})
	if len(woken) != 2 || woken[0] != second || woken[1] != third {
		t.Fatalf("woken: %v", woken)
	}
	expect(t, "the second, woken", second, Hit, "one")
	expect(t, "the third, woken", third, Hit, "one")
	if again := c.Store(leader, start+4, answer("two"), CacheControl{}); again != nil {
		t.Fatalf("a second report woke %v", again)
	}
	expect(t, "the next", look(c, start+4, "a", ""), Hit, "one")
}

func TestOneCallRefreshes(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	now := start + 12*time.Second
	first := look(c, now, "a", "")
	expect(t, "the first", first, Refresh, "one")
	refresh := first.Refresh()
	expect(t, "the second", look(c, now, "a", ""), Stale, "one")
	if next := c.Leave(first, now); next != nil {
		t.Fatalf("the caller that was answered woke %v", next)
	}
	expect(t, "the third", look(c, now, "a", ""), Stale, "one")
	c.Store(&refresh, now+1, answer("two"), CacheControl{})
	expect(t, "the fourth", look(c, now+1, "a", ""), Hit, "two")
}

func TestAFailedRefreshIsTriedAgain(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	refresh := look(c, start+12*time.Second, "a", "").Refresh()
	c.Fail(&refresh, start+13*time.Second)
	expect(t, "the next", look(c, start+14*time.Second, "a", ""), Refresh, "one")
}

func TestAStaleAnswerStandsInForAnError(t *testing.T) {
	for _, tc := range []struct {
		about, response, request string
		after                    time.Duration
		found                    Found
	}{
		{"within the window", "", "", 70*time.Second - 1, Stale},
		{"past it", "", "", 70 * time.Second, Miss},
		{"the answer's window is shorter", "stale-if-error=8", "", 18 * time.Second, Miss},
		{"the caller's window is shorter", "", "stale-if-error=20", 31 * time.Second, Miss},
		{"older than the caller takes", "", "max-age=20", 21 * time.Second, Miss},
		{"the caller takes none that is kept", "", "no-cache", 21 * time.Second, Miss},
		{"still fresh, too old for the caller", "", "max-age=1", 2 * time.Second, Miss},
	} {
		c := NewCache(testCache)
		fill(t, c, start, "a", "one", tc.response)
		w := look(c, start+tc.after, "a", tc.request)
		if w.Found == Refresh {
			t.Fatalf("%s: %v", tc.about, w.Found)
		}
		c.Fail(w, start+tc.after)
		body := ""
		if tc.found == Stale {
			body = "one"
		}
		expect(t, tc.about, w, tc.found, body)
	}
}

func TestAfterAFailureThoseThatWaitedGetWhatIsKept(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	now := start + 30*time.Second
	leader, follower, picky := look(c, now, "a", ""), look(c, now, "a", ""), look(c, now, "a", "max-age=20")
	if woken := c.Fail(leader, now+1); len(woken) != 2 {
		t.Fatalf("woken: %v", woken)
	}
	expect(t, "the leader", leader, Stale, "one")
	expect(t, "the follower", follower, Stale, "one")
	expect(t, "the picky one", picky, Miss, "")
	if n := c.Snapshot(); n.StoodIn != 2 {
		t.Fatalf("%+v", n)
	}
}

func TestAfterAFailureNobodyWaitsAgain(t *testing.T) {
	c := NewCache(testCache)
	leader, follower := look(c, start, "a", ""), look(c, start, "a", "")
	if woken := c.Fail(leader, start+time.Second); len(woken) != 1 || woken[0] != follower {
		t.Fatalf("woken: %v", woken)
	}
	expect(t, "the follower", follower, Miss, "")
	expect(t, "one that comes then", look(c, start+2*time.Second, "a", ""), Miss, "")
	expect(t, "another", look(c, start+2*time.Second, "a", ""), Miss, "")
	// It ends when the TTL is over…
	expect(t, "the first after it", look(c, start+11*time.Second, "a", ""), Miss, "")
	expect(t, "the second after it", look(c, start+11*time.Second, "a", ""), Follow, "")
}

func TestAnAnswerEndsThatNobodyWaits(t *testing.T) {
	c := NewCache(testCache)
	leader, follower := look(c, start, "a", ""), look(c, start, "a", "")
	c.Fail(leader, start)
	c.Store(follower, start+1, answer("one"), CacheControl{})
	expect(t, "kept", look(c, start+2, "a", ""), Hit, "one")
	expect(t, "the first when it is old", look(c, start+time.Minute, "a", ""), Miss, "")
	expect(t, "the second when it is old", look(c, start+time.Minute, "a", ""), Follow, "")
}

func TestCallsThatNobodyRepeatsLeaveNothingBehind(t *testing.T) {
	c := NewCache(testCache)
	c.Fail(look(c, start, "a", ""), start)
	c.Store(look(c, start, "b", ""), start, nil, CacheControl{})
	c.Leave(look(c, start, "c", ""), start)
	if n := c.Snapshot(); n.Entries != 0 || n.Bytes != 0 {
		t.Fatalf("%+v", n)
	}
}

func TestAnAnswerNotToBeKeptIsForItsCallerOnly(t *testing.T) {
	for about, tc := range map[string]struct {
		answer   *Answer
		response string
	}{
		"no-store":                   {answer("two"), "no-store"},
		"private":                    {answer("two"), "private"},
		"another status than OK":     {nil, ""},
		"not fresh even now":         {answer("two"), "max-age=0, stale-if-error=0, stale-while-revalidate=0"},
		"kept for a later error":     {answer("two"), "max-age=0, stale-while-revalidate=0"},
		"kept to be given and asked": {answer("two"), "max-age=0"},
	} {
		c := NewCache(testCache)
		leader, follower := look(c, start, "a", ""), look(c, start, "a", "")
		if woken := c.Store(leader, start, tc.answer, ParseCacheControl(tc.response)); len(woken) != 1 {
			t.Fatalf("%s: woken: %v", about, woken)
		}
		expect(t, about, follower, Miss, "")
	}
}

func TestAnAnswerNotToBeKeptEndsTheOneBefore(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	c.Store(look(c, start+1, "a", "no-cache"), start+2, nil, CacheControl{}) // NOT_FOUND, say
	expect(t, "the next", look(c, start+3, "a", ""), Miss, "")
}

func TestAnAnswerAskedForEarlierReplacesNone(t *testing.T) {
	c := NewCache(testCache)
	slow, quick := look(c, start, "a", "no-cache"), look(c, start+1, "a", "no-cache")
	c.Store(quick, start+2, answer("new"), CacheControl{})
	c.Store(slow, start+3, answer("old"), CacheControl{})
	expect(t, "the next", look(c, start+4, "a", ""), Hit, "new")
}

func TestALeaderThatLeavesHandsOn(t *testing.T) {
	c := NewCache(testCache)
	leader := look(c, start, "a", "")
	second, third := look(c, start, "a", ""), look(c, start, "a", "")
	if next := c.Leave(leader, start+1); next != second {
		t.Fatalf("next: %v", next)
	}
	expect(t, "the second", second, Miss, "")
	expect(t, "the third", third, Follow, "")
	if woken := c.Store(second, start+2, answer("one"), CacheControl{}); len(woken) != 1 || woken[0] != third {
		t.Fatalf("woken: %v", woken)
	}
	expect(t, "the third, woken", third, Hit, "one")
}

func TestACallReturnedWhileItLeavesHandsOn(t *testing.T) {
	c := NewCache(testCache)
	leader := look(c, start, "a", "")
	second, third := look(c, start, "a", ""), look(c, start, "a", "")
	c.Leave(leader, start+1) // returns the second, whose caller is just leaving
	if next := c.Leave(second, start+1); next != third {
		t.Fatalf("next: %v", next)
	}
}

func TestAFollowerThatLeavesIsNotReturned(t *testing.T) {
	c := NewCache(testCache)
	leader := look(c, start, "a", "")
	var followers []*CacheCall
	for range 4 {
		followers = append(followers, look(c, start, "a", ""))
	}
	for _, i := range []int{1, 0, 3} { // from the middle, the front, the end
		if next := c.Leave(followers[i], start); next != nil {
			t.Fatalf("a follower handed on to %v", next)
		}
	}
	if woken := c.Store(leader, start, answer("one"), CacheControl{}); len(woken) != 1 || woken[0] != followers[2] {
		t.Fatalf("woken: %v", woken)
	}
}

func TestALeaderThatHangsHoldsUpNobodyForLong(t *testing.T) {
	c := NewCache(testCache)
	hangs := look(c, start, "a", "")
	early := look(c, start+5*time.Second-1, "a", "")
	expect(t, "within 5 s", early, Follow, "")
	next := look(c, start+5*time.Second, "a", "")
	expect(t, "after 5 s", next, Miss, "")
	late := look(c, start+6*time.Second, "a", "")
	expect(t, "after that", late, Follow, "")
	if c.Leave(hangs, start+7*time.Second) != nil {
		t.Fatal("one that leads no more handed on")
	}
	if woken := c.Store(next, start+8*time.Second, answer("one"), CacheControl{}); len(woken) != 2 {
		t.Fatalf("woken: %v", woken)
	}
}

func TestWhoBringsTheAnswerFirstServesAll(t *testing.T) {
	c := NewCache(testCache)
	leader, follower := look(c, start, "a", ""), look(c, start, "a", "")
	fill(t, c, start+1, "a", "one", "")
	expect(t, "the follower", follower, Hit, "one")
	if woken := c.Store(leader, start+2, answer("two"), CacheControl{}); woken != nil {
		t.Fatalf("woken again: %v", woken)
	}
}

func TestPurgeLetsNoEarlierAnswerThrough(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "b", "kept", "")
	before := look(c, start, "a", "")
	follower := look(c, start, "a", "")
	c.Purge()
	if n := c.Snapshot(); n.Entries != 0 || n.Bytes != 0 {
		t.Fatalf("%+v", n)
	}
	expect(t, "what was kept", look(c, start+1, "b", ""), Miss, "")
	after := look(c, start+1, "a", "")
	expect(t, "the first after it", after, Miss, "")
	waits := look(c, start+1, "a", "")
	expect(t, "the second after it", waits, Follow, "")
	if woken := c.Store(before, start+2, answer("old"), CacheControl{}); woken != nil {
		t.Fatalf("an answer from before woke %v", woken)
	}
	expect(t, "the third after it", look(c, start+3, "a", ""), Follow, "")
	c.Store(after, start+4, answer("new"), CacheControl{})
	expect(t, "the second, woken", waits, Hit, "new")
	expect(t, "one from before, woken", follower, Hit, "new")
}

func TestTheLeastRecentlyUsedMakesRoom(t *testing.T) {
	one := newCacheEntry(answer("x"), 0, 0, CacheControl{}).size
	p := testCache
	p.MaxBytes = 3 * one
	c := NewCache(p)
	for i, request := range []string{"a", "b", "c"} {
		fill(t, c, start+Instant(i), request, "x", "")
	}
	look(c, start+3, "a", "")
	fill(t, c, start+4, "d", "x", "")
	for i, tc := range []struct {
		request string
		found   Found
	}{{"a", Hit}, {"b", Miss}, {"c", Hit}, {"d", Hit}} {
		if w := look(c, start+5+Instant(i), tc.request, ""); w.Found != tc.found {
			t.Errorf("%s: %v, want %v", tc.request, w.Found, tc.found)
		}
	}
	if n := c.Snapshot(); n.Entries != 3 || n.Bytes != 3*one || n.Evicted != 1 || n.Stored != 4 {
		t.Errorf("%+v", n)
	}
	p.MaxBytes = one
	c.Update(p)
	if n := c.Snapshot(); n.Entries != 1 || n.Evicted != 3 {
		t.Errorf("after a smaller bound: %+v", n)
	}
}

func TestTooBig(t *testing.T) {
	p := testCache
	p.MaxEntryBytes = 40
	c := NewCache(p)
	expect(t, "a request past the bound", look(c, start, "0123456789012345678901234567890123456789!", ""), Bypass, "")

	// 10 bytes of request, 12 of trailer: 18 are left for the body.
	fill(t, c, start, "0123456789", "012345678901234567", "")
	expect(t, "an answer just within it", look(c, start, "0123456789", ""), Hit, "012345678901234567")
	leader, follower := look(c, start, "9876543210", ""), look(c, start, "9876543210", "")
	c.Store(leader, start, answer("0123456789012345678"), CacheControl{})
	expect(t, "who waited for one past it", follower, Hit, "0123456789012345678")
	expect(t, "who comes later", look(c, start, "9876543210", ""), Miss, "")
	if n := c.Snapshot(); n.TooBig != 2 || n.Stored != 1 {
		t.Errorf("%+v", n)
	}
}

func TestAShorterTTLHoldsAtOnce(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	c.Update(CachePolicy{TTL: time.Second})
	expect(t, "older than the new TTL", look(c, start+2*time.Second, "a", ""), Miss, "")
}

func TestACacheThatIsOff(t *testing.T) {
	c := NewCache(testCache)
	fill(t, c, start, "a", "one", "")
	leader, follower := look(c, start, "b", ""), look(c, start, "b", "")
	c.Update(CachePolicy{TTL: time.Second, Mode: Off})
	expect(t, "what was kept", look(c, start, "a", ""), Bypass, "")
	c.Store(leader, start, answer("one"), CacheControl{})
	expect(t, "who waited", follower, Miss, "")
	if n := c.Snapshot(); n.Entries != 0 {
		t.Errorf("%+v", n)
	}
}

func TestFoundHasAName(t *testing.T) {
	for f := Bypass; f <= Absent; f++ {
		if f.String() == "UNKNOWN" || f.String() == "" {
			t.Errorf("%d: %q", f, f)
		}
	}
	if name := (Absent + 1).String(); name != "UNKNOWN" {
		t.Errorf("past the last: %q", name)
	}
}

// Callers on all cores, each playing a whole shell: nobody waits for ever, and
// nobody gets another's answer.
func TestManyCallersAtOnce(t *testing.T) {
	p := testCache
	p.MaxBytes = 20 << 10
	c := NewCache(p)
	type waiting struct{ woken chan struct{} }
	wake := func(all ...*CacheCall) {
		for _, w := range all {
			close(w.Owner.(waiting).woken)
		}
	}
	var group sync.WaitGroup
	for caller := range 8 {
		group.Go(func() {
			for i := range 2000 {
				now := start + time.Duration(i)*20*time.Millisecond
				request := fmt.Sprint((i*7 + caller*i) % 50)
				w := &CacheCall{Owner: waiting{make(chan struct{})}}
				found := c.Lookup(w, cacheKey(request), now, CacheControl{})
				if found == Follow {
					if (i+caller)%5 == 0 {
						if next := c.Leave(w, now); next != nil {
							wake(next)
						}
						continue
					}
					<-w.Owner.(waiting).woken
					found = w.Found
				}
				if w.Answer != nil && string(w.Answer.Body) != request {
					t.Errorf("asked %s, got %s", request, w.Answer.Body)
				}
				part := w
				if found == Refresh {
					refresh := w.Refresh()
					part = &refresh
				} else if found != Miss {
					continue
				}
				switch (i + caller) % 7 {
				case 0:
					wake(c.Fail(part, now)...)
				case 1:
					if next := c.Leave(part, now); next != nil {
						wake(next)
					}
				case 2:
					wake(c.Store(part, now, nil, CacheControl{})...)
				default:
					wake(c.Store(part, now, answer(request), CacheControl{})...)
				}
				if i%500 == 0 {
					c.Purge()
					c.Update(p)
					c.Snapshot()
				}
			}
		})
	}
	group.Wait()
	if n := c.Snapshot(); n.Bytes > p.MaxBytes || n.Bytes < 0 {
		t.Fatalf("%+v", n)
	}
	for i := range c.shards {
		if n := len(c.shards[i].flights); n != 0 {
			t.Fatalf("%d flights left", n)
		}
	}
}

func BenchmarkCacheHit(b *testing.B) { // budget: 150 ns, 0 allocs
	c := NewCache(testCache)
	k := cacheKey("a")
	var w CacheCall
	c.Lookup(&w, k, start, CacheControl{})
	c.Store(&w, start, answer("one"), CacheControl{})
	b.ReportAllocs()
	for b.Loop() {
		if c.Lookup(&w, k, start, CacheControl{}) != Hit {
			b.Fatal(w.Found)
		}
	}
}

func BenchmarkCacheHitParallel64(b *testing.B) { // budget: 250 ns, 0 allocs
	c := NewCache(testCache)
	var keys [64]CacheKey
	for i := range keys {
		var w CacheCall
		keys[i] = cacheKey(fmt.Sprint(i))
		c.Lookup(&w, keys[i], start, CacheControl{})
		c.Store(&w, start, answer("one"), CacheControl{})
	}
	b.SetParallelism(32)
	b.ReportAllocs()
	b.ResetTimer()
	b.RunParallel(func(pb *testing.PB) {
		var w CacheCall
		for i := 0; pb.Next(); i++ {
			c.Lookup(&w, keys[i%len(keys)], start, CacheControl{})
		}
	})
}

func BenchmarkCacheMissAndStore(b *testing.B) { // budget: 1 µs, 2 allocs: the entry and its place in the order
	p := testCache
	p.MaxBytes = 1 << 20 // full soon: every Store evicts
	c := NewCache(p)
	a := answer("one")
	var keys [10_000]CacheKey
	for i := range keys {
		keys[i] = cacheKey(fmt.Sprint(i))
	}
	var w CacheCall
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		now := start + Instant(i)
		if c.Lookup(&w, keys[i%len(keys)], now, CacheControl{}) != Miss {
			b.Fatal(w.Found)
		}
		c.Store(&w, now, a, CacheControl{})
	}
}

func BenchmarkCacheMissAndFail(b *testing.B) { // budget: 400 ns, 0 allocs
	c := NewCache(testCache)
	k := cacheKey("a")
	var w CacheCall
	b.ReportAllocs()
	for b.Loop() {
		c.Lookup(&w, k, start, CacheControl{})
		c.Fail(&w, start)
	}
}

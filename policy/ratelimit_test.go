package policy

import (
	"fmt"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"pgregory.net/rapid"
)

// drain takes until a call is refused, and returns how many passed.
func drain(l *rateLimiter, now Instant, method, key string) (n int, retryAfter time.Duration) {
	for {
		after, ok := l.take(now, method, key)
		if !ok {
			return n, after
		}
		n++
	}
}

func TestABucket(t *testing.T) {
	for _, tc := range []struct {
		about      string
		policy     RateLimitPolicy
		burst      int           // passes at once
		retryAfter time.Duration // of the first refused
		after      time.Duration
		more       int // passes after that
	}{
		{"10 a second", RateLimitPolicy{PerSecond: 10, Burst: 5}, 5, 100 * time.Millisecond, 250 * time.Millisecond, 2},
		{"no more than the burst", RateLimitPolicy{PerSecond: 10, Burst: 5}, 5, 100 * time.Millisecond, time.Hour, 5},
		{"a burst of 1", RateLimitPolicy{PerSecond: 10, Burst: 1}, 1, 100 * time.Millisecond, 100 * time.Millisecond, 1},
		{"a nanosecond too early", RateLimitPolicy{PerSecond: 10, Burst: 1}, 1, 100 * time.Millisecond, 100*time.Millisecond - 1, 0},
		{"one in 2 s", RateLimitPolicy{PerSecond: 0.5, Burst: 2}, 2, 2 * time.Second, 2 * time.Second, 1},
		{"zero burst is a second's worth", RateLimitPolicy{PerSecond: 20}, 20, 50 * time.Millisecond, time.Second, 20},
		{"and at least 1", RateLimitPolicy{PerSecond: 0.5}, 1, 2 * time.Second, 2 * time.Second, 1},
		{"3 a second are 30 in 10 s", RateLimitPolicy{PerSecond: 3, Burst: 100}, 100, 333_333_334, 10 * time.Second, 30},
		{"300 million a second are not rounded", RateLimitPolicy{PerSecond: 3e8, Burst: 1000}, 1000, 4, 1000, 300},
		{"a call a nanosecond", RateLimitPolicy{PerSecond: 1e9, Burst: 3}, 3, 1, 2, 2},
		{"no clock is faster", RateLimitPolicy{PerSecond: math.Inf(1), Burst: 3}, 3, 1, 2, 2},
		{"one in 30 years", RateLimitPolicy{PerSecond: 1e-9, Burst: 1}, 1, 1_000_000_000 * time.Second, 1_000_000_000 * time.Second, 1},
		{"never again", RateLimitPolicy{PerSecond: 5e-324, Burst: 2}, 2, math.MaxInt64 - start, math.MaxInt64 - start, 0},
		{"the year 292 after the origin", RateLimitPolicy{PerSecond: 1, Burst: 2}, 2, time.Second, math.MaxInt64 - start, 2},
		{"OBSERVE decides the same", RateLimitPolicy{PerSecond: 10, Burst: 5, Mode: Observe}, 5, 100 * time.Millisecond, 250 * time.Millisecond, 2},
	} {
		l := newRateLimiter(tc.policy)
		n, after := drain(l, start, "", "")
		if d := after - tc.retryAfter; n != tc.burst || d < -1 || d > 1 {
			t.Errorf("%s: %d at once, retry after %v; want %d, %v", tc.about, n, after, tc.burst, tc.retryAfter)
		}
		if more, _ := drain(l, start+tc.after, "", ""); more != tc.more {
			t.Errorf("%s: %d after %v, want %d", tc.about, more, tc.after, tc.more)
		}
	}
}

func TestWithoutALimitAllPass(t *testing.T) {
	for _, p := range []RateLimitPolicy{{}, {PerSecond: 1, Burst: 1, Mode: Off}, {PerSecond: -1}, {PerSecond: math.NaN()}} {
		l := newRateLimiter(p)
		for range 100 {
			if _, ok := l.take(start, "", ""); !ok {
				t.Fatalf("%+v refused a call", p)
			}
		}
	}
}

func TestWhatHasABucketOfItsOwn(t *testing.T) {
	p := RateLimitPolicy{PerSecond: 1, Burst: 1}
	for _, tc := range []struct {
		about     string
		perMethod bool
		header    string
		want      [4]bool // of (a, x), (a, y), (b, x), (b, none)
	}{
		{"nothing", false, "", [4]bool{true, false, false, false}},
		{"methods", true, "", [4]bool{true, false, true, false}},
		{"keys", false, "x-tenant", [4]bool{true, true, false, true}},
		{"both", true, "x-tenant", [4]bool{true, true, true, true}},
	} {
		p.PerMethod, p.KeyHeader = tc.perMethod, tc.header
		l := newRateLimiter(p)
		for i, call := range [4][2]string{{"a", "x"}, {"a", "y"}, {"b", "x"}, {"b", ""}} {
			if _, ok := l.take(start, call[0], call[1]); ok != tc.want[i] {
				t.Errorf("%s: %v passed: %v", tc.about, call, ok)
			}
		}
	}
}

func TestTheKeyLeastRecentlyAskedGoes(t *testing.T) {
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1, Burst: 1, KeyHeader: "x-tenant", MaxKeys: 2})
	pass := func(key string) bool { _, ok := l.take(start, "", key); return ok }
	pass("a")
	pass("b")
	pass("a")
	pass("c") // b makes room

	if pass("a") {
		t.Error("a's bucket is full again")
	}
	if !pass("b") {
		t.Error("b's bucket was kept past MaxKeys")
	}
}

func TestKeysAreBounded(t *testing.T) {
	for _, maxKeys := range []int{1, 3, 511, 512, 10_000} {
		l := newRateLimiter(RateLimitPolicy{PerSecond: 1, KeyHeader: "x-tenant", MaxKeys: maxKeys})
		for i := range 3 * maxKeys {
			l.take(start, "", fmt.Sprint(i))
		}
		if n := keysOf(l); n > maxKeys || n < maxKeys*9/10 {
			t.Errorf("%d keys, want at most and about %d", n, maxKeys)
		}
	}
}

func keysOf(l *rateLimiter) (n int) {
	set := l.limit.Load().buckets
	for i := range set.shards {
		n += set.shards[i].recent.Len()
	}
	return n
}

func TestKeysAreCopied(t *testing.T) {
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1, Burst: 1, PerMethod: true, KeyHeader: "x-tenant"})
	buffer := []byte("/a/btenant1")
	alias := unsafe.String(&buffer[0], len(buffer))
	l.take(start, alias[:4], alias[4:])

	copy(buffer, "/c/dtenant2")

	if _, ok := l.take(start, "/a/b", "tenant1"); ok {
		t.Fatal("the key changed with the buffer")
	}
}

func TestAnUpdateKeepsWhatBucketsHold(t *testing.T) {
	for _, tc := range []struct {
		about string
		next  RateLimitPolicy
		taken int // of 10, at 1 a second
		after time.Duration
		want  int
	}{
		{"the same", RateLimitPolicy{PerSecond: 1, Burst: 10}, 4, 0, 6},
		{"not more than the new burst", RateLimitPolicy{PerSecond: 1, Burst: 5}, 0, 0, 5},
		{"nor after a while", RateLimitPolicy{PerSecond: 1, Burst: 5}, 4, time.Hour, 5},
		{"less than the new burst", RateLimitPolicy{PerSecond: 1, Burst: 5}, 8, 0, 2},
		{"a larger burst fills first", RateLimitPolicy{PerSecond: 1, Burst: 100}, 4, 0, 6},
		{"a faster rate", RateLimitPolicy{PerSecond: 100, Burst: 10}, 9, 0, 1},
		{"a slower rate", RateLimitPolicy{PerSecond: 0.01, Burst: 10}, 9, 0, 1},
		{"other units", RateLimitPolicy{PerSecond: 7e8, Burst: 10}, 9, 0, 1},
		{"no limit any more", RateLimitPolicy{}, 9, 0, 1000},
	} {
		for _, header := range []string{"", "x-tenant"} {
			l := newRateLimiter(RateLimitPolicy{PerSecond: 1, Burst: 10, KeyHeader: header})
			for range tc.taken {
				l.take(start, "", "a")
			}
			if tc.taken == 0 {
				l.take(start-time.Hour, "", "a") // asked once, full again
			}
			tc.next.KeyHeader = header
			l.update(tc.next)

			n := 0
			for range 1000 {
				if _, ok := l.take(start+tc.after, "", "a"); ok {
					n++
				}
			}

			if n != tc.want {
				t.Errorf("%s, header %q: %d pass, want %d", tc.about, header, n, tc.want)
			}
		}
	}
}

func TestAFasterRateIsFeltAtOnce(t *testing.T) {
	l := newRateLimiter(RateLimitPolicy{PerSecond: 0.001, Burst: 1})
	drain(l, start, "", "")

	l.update(RateLimitPolicy{PerSecond: 100, Burst: 1})

	if after, ok := l.take(start, "", ""); ok || after != 10*time.Millisecond {
		t.Fatalf("passed: %v; retry after %v, want 10ms", ok, after)
	}
}

func TestMoreOrFewerKeysKeepTheBuckets(t *testing.T) {
	p := RateLimitPolicy{PerSecond: 1, Burst: 1, KeyHeader: "x-tenant", MaxKeys: 1000}
	l := newRateLimiter(p)
	for i := range 100 {
		l.take(start, "", fmt.Sprint(i))
	}
	for _, maxKeys := range []int{5000, 200} {
		p.MaxKeys = maxKeys
		l.update(p)
		for i := range 100 {
			if _, ok := l.take(start, "", fmt.Sprint(i)); ok {
				t.Fatalf("%d keys: key %d has a full bucket", maxKeys, i)
			}
		}
	}
	p.MaxKeys = 10
	if l.update(p); keysOf(l) != 10 {
		t.Fatalf("%d keys, want 10", keysOf(l))
	}
	p.KeyHeader = "x-user"
	if l.update(p); keysOf(l) != 0 {
		t.Fatalf("%d keys of another header", keysOf(l))
	}
}

// TestRateLimitProperty: over any window no more calls pass than the burst and
// what the rate fills in it; what is refused passes after retryAfter and not a
// nanosecond earlier; a refused call takes nothing.
func TestRateLimitProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		perSecond := math.Pow(10, rapid.Float64Range(-3, 9).Draw(t, "log rate"))
		burst := rapid.IntRange(1, 20).Draw(t, "burst")
		l := newRateLimiter(RateLimitPolicy{PerSecond: perSecond, Burst: burst})
		now := Instant(rapid.SampledFrom([]int64{1, int64(start), 1 << 60}).Draw(t, "origin"))
		var passed []Instant
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			// Around what a few tokens take, seldom much longer.
			wait := rapid.Float64Range(0, 3).Draw(t, "wait") / perSecond * 1e9
			if rapid.IntRange(0, 20).Draw(t, "long") == 0 {
				wait *= 1000
			}
			now += Instant(wait)
			for range rapid.IntRange(1, 8).Draw(t, "calls") {
				after, ok := l.take(now, "", "")
				if ok {
					passed = append(passed, now)
					continue
				}
				if again, _ := l.take(now, "", ""); again != after {
					t.Fatalf("retry after %v, asked again %v: a refused call took something", after, again)
				}
				if _, early := l.take(now+after-1, "", ""); early {
					t.Fatalf("passed 1ns before %v", after)
				}
			}
			if after, ok := l.take(now, "", ""); ok {
				passed = append(passed, now)
			} else if rapid.Bool().Draw(t, "waits") {
				now += after
				if _, ok := l.take(now, "", ""); !ok {
					t.Fatalf("refused after %v", after)
				}
				passed = append(passed, now)
			}
		}
		for i := range passed {
			for j := i; j < len(passed); j++ {
				most := float64(burst) + perSecond*(passed[j]-passed[i]).Seconds() + 1
				if n := float64(j - i + 1); n > most*(1+1e-12) {
					t.Fatalf("%v calls in %v at %v a second, burst %d", n, passed[j]-passed[i], perSecond, burst)
				}
			}
		}
	})
}

// TestUpdatesProperty: whatever follows on whatever, a bucket never holds more
// than its burst.
func TestUpdatesProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		l, now := newRateLimiter(RateLimitPolicy{PerSecond: 1, Burst: 1}), start
		for range rapid.IntRange(1, 20).Draw(t, "updates") {
			p := RateLimitPolicy{PerSecond: math.Pow(10, rapid.Float64Range(-6, 6).Draw(t, "log rate")), Burst: rapid.IntRange(1, 50).Draw(t, "burst")}
			l.update(p)
			now += time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "wait"))
			taken := 0
			for range p.Burst + 5 {
				if _, ok := l.take(now, "", ""); ok {
					taken++
				}
			}
			if taken > p.Burst {
				t.Fatalf("%d pass at once, burst %d", taken, p.Burst)
			}
		}
	})
}

func TestManyGoroutinesShareABucket(t *testing.T) {
	for _, header := range []string{"", "x-tenant"} {
		l := newRateLimiter(RateLimitPolicy{PerSecond: 1000, Burst: 100, KeyHeader: header})
		var passed atomic.Int64
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				for i := range 1000 {
					if _, ok := l.take(start+Instant(i)*time.Millisecond, "", "a"); ok {
						passed.Add(1)
					}
				}
			})
		}
		wg.Wait()
		if n := passed.Load(); n < 100 || n > 100+999 {
			t.Errorf("header %q: %d pass in 999 ms, at most 1099", header, n)
		}
	}
}

func TestUpdatesAmongGoroutines(t *testing.T) {
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1e-3, Burst: 100})
	var passed atomic.Int64
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 2000 {
				if _, ok := l.take(start, "", ""); ok {
					passed.Add(1)
				}
			}
		})
	}
	for i := range 200 {
		l.update(RateLimitPolicy{PerSecond: 1e-3 * float64(1+i%7), Burst: 100})
	}
	wg.Wait()
	if n := passed.Load(); n > 100 {
		t.Fatalf("%d pass at one instant, the bucket held 100", n)
	}
}

func TestTakingAllocatesNothing(t *testing.T) {
	for _, header := range []string{"", "x-tenant"} {
		l := newRateLimiter(RateLimitPolicy{PerSecond: 1000, PerMethod: header != "", KeyHeader: header})
		l.take(start, hello, "a")
		if n := testing.AllocsPerRun(1000, func() { l.take(start, hello, "a") }); n != 0 {
			t.Errorf("header %q: %v allocations", header, n)
		}
	}
}

func BenchmarkRateLimit(b *testing.B) { // budget: 15 ns, 0 allocs
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1e6})
	b.ReportAllocs()
	now := start
	for b.Loop() {
		now += 10 * time.Microsecond
		l.take(now, hello, "")
	}
}

func BenchmarkRateLimitParallel(b *testing.B) { // budget: 100 ns, all cores on one bucket; 0 allocs
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1e6})
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now := start
		for pb.Next() {
			now += 10 * time.Microsecond
			l.take(now, hello, "")
		}
	})
}

func BenchmarkRateLimitKeys(b *testing.B) { // budget: 100 ns, 0 allocs
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1e6, PerMethod: true, KeyHeader: "x-tenant"})
	keys := someKeys(l)
	b.ReportAllocs()
	now, i := start, 0
	for b.Loop() {
		now += 10 * time.Microsecond
		i++
		l.take(now, hello, keys[i%len(keys)])
	}
}

func BenchmarkRateLimitKeysParallel(b *testing.B) { // budget: 100 ns, 0 allocs
	l := newRateLimiter(RateLimitPolicy{PerSecond: 1e6, PerMethod: true, KeyHeader: "x-tenant"})
	keys := someKeys(l)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		now, i := start, rand.IntN(1000)
		for pb.Next() {
			now += 10 * time.Microsecond
			i++
			l.take(now, hello, keys[i%len(keys)])
		}
	})
}

func someKeys(l *rateLimiter) []string {
	keys := make([]string, 1000)
	for i := range keys {
		keys[i] = fmt.Sprintf("tenant-%d", i)
		l.take(start, hello, keys[i])
	}
	return keys
}

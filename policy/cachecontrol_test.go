package policy

import (
	"strings"
	"testing"
	"time"
)

func given(d time.Duration) CacheAge { return CacheAge{Given: true, Value: d} }

func TestParseCacheControl(t *testing.T) {
	for _, tc := range []struct {
		value string
		want  CacheControl
	}{
		{"", CacheControl{}},
		{"no-store", CacheControl{NoStore: true}},
		{"No-Cache", CacheControl{NoCache: true}},
		{" ,, private\t,", CacheControl{Private: true}},
		{"only-if-cached, max-age=60", CacheControl{OnlyIfCached: true, MaxAge: given(time.Minute)}},
		{"max-age=0", CacheControl{MaxAge: given(0)}},
		{`MAX-AGE = "5" ,no-store`, CacheControl{MaxAge: given(5 * time.Second), NoStore: true}},
		{"max-age=60, s-maxage=10", CacheControl{MaxAge: given(10 * time.Second)}},
		{"max-age=5, max-age=7", CacheControl{MaxAge: given(5 * time.Second)}},
		{"stale-while-revalidate=30, stale-if-error=90", CacheControl{StaleWhileRevalidate: given(30 * time.Second), StaleIfError: given(90 * time.Second)}},
		{"must-revalidate, stale-if-error=90", CacheControl{StaleWhileRevalidate: given(0), StaleIfError: given(0)}},
		// Named fields are not told apart from the whole answer.
		{`private="a, b", no-cache="set-cookie"`, CacheControl{Private: true, NoCache: true}},
		// What stands in quotes is no directive.
		{`x="no-store, \", no-cache", private`, CacheControl{Private: true}},
		// What nothing closes hides nothing.
		{`x="no-cache, no-store`, CacheControl{NoStore: true}},
		// Times that can't be read are no time at all.
		{"max-age", CacheControl{MaxAge: given(0)}},
		{"max-age=", CacheControl{MaxAge: given(0)}},
		{"max-age=-1", CacheControl{MaxAge: given(0)}},
		{"max-age=1.5", CacheControl{MaxAge: given(0)}},
		{`max-age="5"x`, CacheControl{MaxAge: given(0)}},
		{"max-age=99999999999999999999999999", CacheControl{MaxAge: given(maxCacheAge)}},
		// What it doesn't know is passed over.
		{"public, immutable, max-stale=5, mäx-age=1, no-store2", CacheControl{}},
		{"no-ſtore", CacheControl{}},
	} {
		if got := ParseCacheControl(tc.value); got != tc.want {
			t.Errorf("%q: got %+v, want %+v", tc.value, got, tc.want)
		}
	}
}

func TestParseCacheControlDoesNotAllocate(t *testing.T) {
	if n := testing.AllocsPerRun(100, func() { ParseCacheControl(`No-Cache, MAX-AGE="60", x="a\"b", stale-if-error=5`) }); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func FuzzCacheControl(f *testing.F) {
	for _, seed := range []string{"", "no-store", `x="a, b\"", max-age=5`, `private="`, "max-age=99999999999999999999", "max-age=9227000000", `=,"=\`, "stale-if-error = 5"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, v string) {
		c := ParseCacheControl(v)
		for _, a := range []CacheAge{c.MaxAge, c.StaleWhileRevalidate, c.StaleIfError} {
			if a.Value < 0 || a.Value > maxCacheAge || !a.Given && a.Value != 0 {
				t.Fatalf("%q: %+v", v, a)
			}
		}
		upper := strings.Map(func(r rune) rune {
			if 'a' <= r && r <= 'z' {
				return r - 'a' + 'A'
			}
			return r
		}, v)
		if got := ParseCacheControl(upper); got != c {
			t.Fatalf("%q: %+v, but in upper case %+v", v, c, got)
		}
		// Whatever stands beside it, a no-store is found.
		if !ParseCacheControl(v+",no-store").NoStore || !ParseCacheControl("no-store,"+v).NoStore {
			t.Fatalf("%q hides a no-store", v)
		}
		// More words can only make an answer live shorter.
		if got := ParseCacheControl(v + ",max-age=7").MaxAge; !got.Given || got.Value > c.MaxAge.cap(7*time.Second) {
			t.Fatalf("%q: %+v beside max-age=7", v, got)
		}
	})
}

func BenchmarkCacheControl(b *testing.B) { // budget: 250 ns, 0 allocs
	b.ReportAllocs()
	for b.Loop() {
		ParseCacheControl("private, max-age=60, stale-if-error=300")
	}
}

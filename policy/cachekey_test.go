package policy

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func from(m map[string]string) func(string) string {
	return func(name string) string { return m[name] }
}

func TestCacheKeyTellsCallsApart(t *testing.T) {
	p := CachePolicy{TTL: time.Second, Metadata: "x-region,x-tenant"}
	base := p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "eu"}), []byte("request"))
	for about, other := range map[string]CacheKey{
		"another method":        p.Key(hello+"2", from(map[string]string{"authorization": "Bearer a", "x-region": "eu"}), []byte("request")),
		"another caller":        p.Key(hello, from(map[string]string{"authorization": "Bearer b", "x-region": "eu"}), []byte("request")),
		"nobody":                p.Key(hello, from(map[string]string{"x-region": "eu"}), []byte("request")),
		"another region":        p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "us"}), []byte("request")),
		"a tenant, not region":  p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-tenant": "eu"}), []byte("request")),
		"another request":       p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "eu"}), []byte("requesT")),
		"a longer request":      p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "eu"}), []byte("request"), []byte{0}),
		"one that reads gzip":   p.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "eu", "grpc-accept-encoding": "gzip"}), []byte("request")),
		"other names in policy": CachePolicy{Metadata: "x-region,x-user"}.Key(hello, from(map[string]string{"authorization": "Bearer a", "x-region": "eu"}), []byte("request")),
	} {
		if other == base {
			t.Errorf("%s has the same key", about)
		}
	}
}

func TestCacheKeyIgnoresWhatDoesNotCount(t *testing.T) {
	p := CachePolicy{TTL: time.Second, Metadata: "x-region"}
	base := p.Key(hello, from(map[string]string{"x-region": "eu"}), []byte("request"))
	if p.Key(hello, from(map[string]string{"x-region": "eu", "x-request-id": "7"}), []byte("req"), nil, []byte("uest")) != base {
		t.Fatal("metadata that isn't named, or the pieces that the request came in, changed the key")
	}
}

func TestCacheKeyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		// Few different bytes, so that pieces run into each other.
		part := rapid.StringMatching(`[a,]{0,4}`)
		type input struct{ method, auth, accept, region, body string }
		draw := func(label string) input {
			return input{
				part.Draw(t, label+" method"), part.Draw(t, label+" authorization"), part.Draw(t, label+" accept"),
				part.Draw(t, label+" region"), part.Draw(t, label+" body"),
			}
		}
		p := CachePolicy{Metadata: "x-region"}
		key := func(in input, at int) CacheKey {
			get := from(map[string]string{"authorization": in.auth, "accept": in.accept, "x-region": in.region})
			return p.Key(in.method, get, []byte(in.body[:at]), []byte(in.body[at:]))
		}
		a, b := draw("first"), draw("second")
		ka := key(a, rapid.IntRange(0, len(a.body)).Draw(t, "cut"))
		kb := key(b, rapid.IntRange(0, len(b.body)).Draw(t, "cut"))
		if (ka == kb) != (a == b) {
			t.Fatalf("%+v and %+v: same key %v", a, b, ka == kb)
		}
	})
}

// Longer than what is gathered at once: a part may end anywhere in it.
func TestCacheKeyOfLongMetadata(t *testing.T) {
	seen := map[CacheKey]int{}
	p := CachePolicy{}
	for n := range 1100 {
		long := strings.Repeat("a", n)
		k := p.Key(hello, from(map[string]string{"authorization": long}), []byte("request"))
		if other, ok := seen[k]; ok {
			t.Fatalf("%d and %d bytes of authorization have the same key", other, n)
		}
		if k != p.Key(hello, from(map[string]string{"authorization": long}), []byte("request")) {
			t.Fatalf("%d bytes of authorization: two keys", n)
		}
		seen[k] = n
	}
}

func BenchmarkCacheKey(b *testing.B) { // budget: 600 ns, 0 allocs
	p := CachePolicy{TTL: time.Second, Metadata: "x-tenant"}
	token, body := "Bearer 0123456789abcdef0123456789abcdef0123456789abcdef", make([]byte, 100)
	get := func(name string) string {
		switch name {
		case "authorization":
			return token
		case "content-type":
			return "application/grpc"
		}
		return ""
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Key(hello, get, body)
	}
}

package policy

import (
	"fmt"
	"testing"

	"github.com/outrigger-rpc/outrigger/balancer"
)

type fields map[string]string

func (f fields) Get(name string) string { return f[name] }

func TestWhatACallIsHashedBy(t *testing.T) {
	all := HashPolicy{Header: "x-user", Cookie: "session", Source: true, Method: true}
	full := fields{"x-user": "ann", "cookie": `theme=dark; session="s1"; xsession=no`}
	for _, c := range []struct {
		about  string
		policy HashPolicy
		source string
		md     Metadata
		key    string
		want   string // what is hashed; empty: nothing
	}{
		{"the caller's own key wins", all, "10.0.0.1:1234", full, "k", "k"},
		{"and needs no policy", HashPolicy{}, "", nil, "k", "k"},
		{"then the header", all, "10.0.0.1:1234", full, "", "ann"},
		{"then the cookie", all, "10.0.0.1:1234", fields{"cookie": full["cookie"]}, "", "s1"},
		{"then the source, whatever its port", all, "10.0.0.1:1234", fields{"cookie": "theme=dark"}, "", "10.0.0.1"},
		{"of IPv6 too", all, "[::1]:1234", nil, "", "[::1]"},
		{"or without a port", all, "::1", nil, "", "::1"},
		{"or no port in brackets", all, "[::1]", nil, "", "[::1]"},
		{"or no IP at all", all, "unix", nil, "", "unix"},
		{"then the method", all, "", nil, "", hello},
		{"a header that is not there is no hash", HashPolicy{Header: "x-user"}, "10.0.0.1:1234", fields{}, "", ""},
		{"a cookie of another name is none", HashPolicy{Cookie: "sess"}, "", full, "", ""},
		{"nothing named, nothing hashed", HashPolicy{}, "10.0.0.1:1234", full, "", ""},
	} {
		hash, ok := c.policy.Hash(hello, c.source, c.md, c.key)
		if ok != (c.want != "") || ok && hash != balancer.HashKey(c.want) {
			t.Errorf("%s: %v %x", c.about, ok, hash)
		}
	}
}

func TestHashesAreTheSameInEveryProcess(t *testing.T) {
	// These are FNV-1a and SplitMix64 by another implementation, and must never
	// change: agents of two versions would send one key
	// to two endpoints.
	for key, want := range map[string]uint64{"": 0xc3817c016ba4ff30, "ann": 0xb4090a0ba3f8393c} {
		if got := balancer.HashKey(key); got != want {
			t.Errorf("%q: %#x; want %#x", key, got, want)
		}
	}
}

func TestCallsOfOneKeyGoToOneEndpointAndRetriesToAnother(t *testing.T) {
	s := newTestService(Policy{LoadBalancing: balancer.Options{Policy: balancer.Maglev}, HashOn: HashPolicy{Header: "x-user"}}, "a:1", "b:1", "c:1")
	m := s.Method(hello)
	homes := make(map[string]bool)
	for user := range 50 {
		home := ""
		for rnd := range uint64(5) {
			var c Call
			var first, second Attempt
			hash, hashed := m.Hash("", fields{"x-user": fmt.Sprint(user)}, "")
			c.Begin(m, start, Arrival{Timeout: NoTimeout, Hash: hash, Hashed: hashed})
			if r := c.Pick(start, rnd<<60, &first); r != nil {
				t.Fatal(r)
			}
			if home == "" {
				home = first.Endpoint.Address()
			}
			if first.Endpoint.Address() != home {
				t.Fatalf("user %d: %s, then %s", user, home, first.Endpoint.Address())
			}
			if r := c.Pick(start, rnd<<60, &second); r != nil || second.Endpoint == first.Endpoint {
				t.Fatalf("user %d: the second attempt went home too, or %v", user, r)
			}
			c.Abandon(&first, start, 1)
			c.Abandon(&second, start, 1)
			c.End(start, Result{}, 1)
		}
		homes[home] = true
	}
	if len(homes) != 3 {
		t.Errorf("50 users share %d endpoints", len(homes))
	}
}

func TestWithoutABalancerThatHashesNothingIsHashed(t *testing.T) {
	s := newTestService(Policy{HashOn: HashPolicy{Method: true}}, "a:1")
	if _, ok := s.Method(hello).Hash("10.0.0.1:1", nil, "k"); ok {
		t.Error("hashed in vain")
	}
}

// budget: 40 ns, 0 allocs
func BenchmarkHash(b *testing.B) {
	p, md := HashPolicy{Header: "x-user"}, fields{"x-user": "0123456789abcdef"}
	b.ReportAllocs()
	for b.Loop() {
		p.Hash(hello, "", md, "")
	}
}

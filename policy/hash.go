package policy

import (
	"strings"

	"github.com/outrigger-rpc/outrigger/balancer"
)

// HashPolicy says which part of a call a balancer that hashes chooses its
// endpoint by: the first of those named that the call has. The zero value names
// none; what the caller asks for (outrigger-hash-key) holds without it too.
type HashPolicy struct {
	// Header is a metadata name in lower case.
	Header string
	// Cookie is the name of a cookie.
	Cookie string
	// Source is the caller's address without its port.
	Source bool
	// Method is the full method name.
	Method bool
}

// Hash returns what a call is hashed to, the same in every agent; false: it has
// nothing to be hashed by, and any endpoint will do. The order is: key, what the
// caller asks for; header; cookie; source, its address with or without a port;
// method. Empty is not there. md may be nil.
func (p HashPolicy) Hash(method, source string, md Metadata, key string) (uint64, bool) {
	switch {
	case key != "":
	case p.Header != "" && md != nil && md.Get(p.Header) != "":
		key = md.Get(p.Header)
	case p.Cookie != "" && md != nil && cookie(md.Get("cookie"), p.Cookie) != "":
		key = cookie(md.Get("cookie"), p.Cookie)
	case p.Source && source != "":
		key = host(source)
	case p.Method:
		key = method
	}
	if key == "" {
		return 0, false
	}
	return balancer.HashKey(key), true
}

// Hash hashes a call to the method as its policy says. Where the policy doesn't
// balance by hash it costs nothing.
func (m *Method) Hash(source string, md Metadata, key string) (uint64, bool) {
	p := &m.rule.policy
	if !p.LoadBalancing.Policy.Hashes() {
		return 0, false
	}
	return p.HashOn.Hash(m.name, source, md, key)
}

// cookie returns the value of a cookie in a Cookie header (RFC 6265, 5.4).
func cookie(header, name string) string {
	for header != "" {
		var pair string
		pair, header, _ = strings.Cut(header, ";")
		if n, value, ok := strings.Cut(strings.TrimSpace(pair), "="); ok && n == name {
			return strings.Trim(value, `"`)
		}
	}
	return ""
}

// host returns an address without its port.
func host(address string) string {
	if i := strings.LastIndexByte(address, ':'); i >= 0 && strings.IndexByte(address[i:], ']') < 0 &&
		(address[0] == '[' || strings.IndexByte(address, ':') == i) {
		return address[:i]
	}
	return address
}

package forward

import (
	"net/http"
	"strconv"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// metadata is what the caller asks of the agent, and not of the upstream.
type metadata struct {
	service           string
	timeout           time.Duration // policy.NoTimeout: none
	criticality       policy.Criticality
	explain, deferred bool
	noRetry           bool
	hashKey           string
}

// takeMetadata reads the outrigger-* headers and removes them.
func takeMetadata(h http.Header) metadata {
	m := metadata{
		service: h.Get("Outrigger-Service"), timeout: policy.NoTimeout,
		explain: h.Get("Outrigger-Explain") == "true", deferred: h.Get("Outrigger-Defer") == "true", noRetry: h.Get("Outrigger-Retry") == "off",
		hashKey: h.Get("Outrigger-Hash-Key"),
	}
	if ms, err := strconv.ParseUint(h.Get("Outrigger-Timeout-Ms"), 10, 40); err == nil {
		m.timeout = time.Duration(ms) * time.Millisecond
	}
	if level, ok := policy.ParseCriticality(h.Get("Outrigger-Criticality")); ok {
		m.criticality = level
	}
	for _, name := range [...]string{
		"Outrigger-Service", "Outrigger-Timeout-Ms", "Outrigger-Criticality", "Outrigger-Explain", "Outrigger-Defer", "Outrigger-Retry", "Outrigger-Hash-Key",
	} {
		h.Del(name)
	}
	return m
}

// headers are a request's headers as policies ask for them.
type headers http.Header

// Get implements policy.Metadata. A name of usual length costs no memory.
func (h headers) Get(name string) string {
	var room [64]byte
	key := append(room[:0], name...)
	first := true // of a word: upper case, as net/http keeps names
	for i, c := range key {
		if first && 'a' <= c && c <= 'z' {
			key[i] = c - 'a' + 'A'
		}
		first = c == '-'
	}
	if values := h[string(key)]; len(values) > 0 {
		return values[0]
	}
	return ""
}

// idempotent reports whether a request may be processed twice by what its
// method means (RFC 9110, 9.2.2). One that opens a conversation may not.
func idempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return r.Header.Get("Upgrade") == ""
	}
	return false
}

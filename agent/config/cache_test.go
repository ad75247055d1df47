package config

import (
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestCache(t *testing.T) {
	for text, want := range map[string]policy.CachePolicy{
		"":                                    {},
		"idempotent: true, cache: {ttl: 30s}": {TTL: 30 * time.Second, MaxBytes: 16777216, MaxEntryBytes: 262144},
		"idempotent: true, cache: {ttl: 30s, max_bytes: 65536}": {TTL: 30 * time.Second, MaxBytes: 65536, MaxEntryBytes: 65536},
		"cache: {mode: OFF}": {MaxBytes: 16777216, MaxEntryBytes: 262144, Mode: policy.Off},
		"idempotent: true, cache: {ttl: 1ms, max_bytes: 68719476736, max_entry_bytes: 16777216, metadata: [x-tenant, accept-language], stale_while_revalidate: 5s, stale_if_error: 1m, mode: OBSERVE}": {
			TTL: ms, MaxBytes: 68719476736, MaxEntryBytes: 16777216, Metadata: "accept-language,x-tenant",
			StaleWhileRevalidate: 5 * time.Second, StaleIfError: time.Minute, Mode: policy.Observe,
		},
	} {
		if got := served(t, text).Cache; got != want {
			t.Errorf("%s:\ngot  %+v\nwant %+v", text, got, want)
		}
	}
}

func TestACacheIsInheritedFieldByField(t *testing.T) {
	got := overridden(t, "idempotent: true, cache: {ttl: 30s, metadata: [x-tenant]}", "cache: {stale_if_error: 1m}", "cache: {ttl: 5s, metadata: [x-user]}").Cache

	want := policy.CachePolicy{TTL: 5 * time.Second, MaxBytes: 16777216, MaxEntryBytes: 262144, Metadata: "x-user", StaleIfError: time.Minute}
	if got != want {
		t.Errorf("\ngot  %+v\nwant %+v", got, want)
	}
}

func TestAMethodMayTakeAnInheritedCacheBack(t *testing.T) {
	got := overridden(t, "", "idempotent: true, cache: {ttl: 30s}", "idempotent: false, cache: {mode: OFF}")

	if got.Idempotent || got.Cache.On() {
		t.Errorf("got %+v", got)
	}
}

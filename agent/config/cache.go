package config

import (
	"slices"
	"strings"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
	"github.com/outrigger-rpc/outrigger/policy"
)

// cachePolicy makes plain values of a block. None written: nothing is kept.
func cachePolicy(m *configv1.Cache) policy.CachePolicy {
	if m == nil {
		return policy.CachePolicy{}
	}
	bytes := or(m.MaxBytes, policy.DefaultCacheBytes)
	names := slices.Sorted(slices.Values(m.GetMetadata()))
	return policy.CachePolicy{
		TTL:                  duration(m.GetTtl(), 0),
		MaxBytes:             int64(bytes),
		MaxEntryBytes:        int(or(m.MaxEntryBytes, uint32(min(policy.DefaultCacheEntry, bytes)))),
		Metadata:             strings.Join(names, ","),
		StaleWhileRevalidate: duration(m.GetStaleWhileRevalidate(), 0),
		StaleIfError:         duration(m.GetStaleIfError(), 0),
		Mode:                 mode(m.GetMode()),
	}
}

// checkCache holds a cache against what it needs, and its bounds against each
// other.
func (f *file) checkCache(l level, own *configv1.Policy, p policy.Policy) {
	c, path, block := p.Cache, l.path+".cache", own.GetCache()
	if c.Mode == policy.Off {
		return
	}
	if block != nil && c.TTL == 0 {
		f.refuse(path+".ttl", "is missing; want how long an answer is fresh, such as ttl: 30s")
	}
	if c.On() {
		f.checkIdempotent(l, "cache", "one answer stands for many calls", block != nil, own, p)
	}
	switch tooLarge := int64(c.MaxEntryBytes) > c.MaxBytes; {
	case tooLarge && block.GetMaxEntryBytes() > 0:
		f.refuseTogether(path+".max_entry_bytes", "%d is more than max_bytes (%d), which bounds all entries; want at most that", c.MaxEntryBytes, c.MaxBytes)
	case tooLarge && block.GetMaxBytes() > 0:
		f.refuseTogether(path+".max_bytes", "%d is less than max_entry_bytes (%d), which is inherited; want at least that, or a max_entry_bytes here too", c.MaxBytes, c.MaxEntryBytes)
	}
}

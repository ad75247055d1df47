package main

import (
	"fmt"
	"strings"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// policyTable shows what the policies of services did beside refusing, and how
// full their limits and caches are; nil: none has anything to show.
func policyTable(services []*outriggerv1.ServiceStatus) *table {
	t := newTable("POLICIES OF", "DID", "IN OBSERVE", "LIMIT", "CACHE")
	for _, s := range services {
		did, would := make(map[string]uint64), make(map[string]uint64)
		for name, n := range s.GetActions() {
			if rest, observed := strings.CutPrefix(name, "would_"); observed {
				would["would "+strings.ReplaceAll(rest, "_", " ")] = n
			} else {
				did[strings.ReplaceAll(name, "_", " ")] = n
			}
		}
		for reason, n := range s.GetObserved() {
			would[reason] = n
		}
		if len(did)+len(would) == 0 && s.GetConcurrency() == nil && s.GetCache() == nil {
			continue
		}
		t.add(s.GetName(), dash(counts(did)), dash(counts(would)), dash(limitText(s.GetConcurrency())), dash(cacheText(s.GetCache())))
	}
	if len(t.rows) == 0 {
		return nil
	}
	return t
}

func limitText(c *outriggerv1.ConcurrencyStatus) string {
	if c == nil {
		return ""
	}
	text := fmt.Sprintf("%d of %d in flight", c.GetInFlight(), c.GetLimit())
	if n := c.GetWaiting(); n > 0 {
		text += fmt.Sprintf(", %d waiting", n)
	}
	return text
}

func cacheText(c *outriggerv1.CacheStatus) string {
	if c == nil {
		return ""
	}
	asked := c.GetHits() + c.GetMisses()
	if asked == 0 {
		return "empty"
	}
	return fmt.Sprintf("%s of %s answered, %s kept", percentage(100*float64(c.GetHits())/float64(asked), 1), plural(asked, "call"), kibibytes(c.GetBytes()))
}

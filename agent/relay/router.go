package relay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Route says which calls go to a service.
type Route struct {
	Service *policy.Service
	// Authorities are matched whole, in lower case. One without a port
	// matches any port. Empty: every authority.
	Authorities []string
	// Prefixes are those of the method ("/pkg.Service/"). Empty: every method.
	Prefixes []string
}

// Table finds the service of a call. It is immutable and safe for concurrent
// use. Of the routes that match, the one with the longest prefix wins, then
// one that names the authority, then the first.
type Table struct {
	byAuthority map[string][]tableEntry // longest prefix first, then order
	anywhere    []tableEntry            // routes that name no authority
	byName      map[string]*policy.Service
	unmatched   func(authority string) *policy.Service
	names       string // of all services, for messages
}

type tableEntry struct {
	prefix  string
	service *policy.Service
}

// maxNamesInMessage bounds how many services a NO_ROUTE message lists.
const maxNamesInMessage = 8

// NewTable returns a table of the routes. unmatched, which may be nil, is
// asked for the service of an authority that no route matches; it may say nil.
func NewTable(routes []Route, unmatched func(authority string) *policy.Service) *Table {
	t := &Table{
		byAuthority: make(map[string][]tableEntry),
		byName:      make(map[string]*policy.Service),
		unmatched:   unmatched,
	}
	var names []string
	for _, r := range routes {
		t.byName[r.Service.Name()] = r.Service
		names = append(names, r.Service.Name())
		prefixes := r.Prefixes
		if len(prefixes) == 0 {
			prefixes = []string{""}
		}
		for _, prefix := range prefixes {
			entry := tableEntry{prefix, r.Service}
			for _, authority := range r.Authorities {
				t.byAuthority[authority] = append(t.byAuthority[authority], entry)
			}
			if len(r.Authorities) == 0 {
				t.anywhere = append(t.anywhere, entry)
			}
		}
	}
	longestFirst := func(a, b tableEntry) int { return len(b.prefix) - len(a.prefix) }
	for _, entries := range t.byAuthority {
		slices.SortStableFunc(entries, longestFirst)
	}
	slices.SortStableFunc(t.anywhere, longestFirst)
	if len(names) > maxNamesInMessage {
		names = append(names[:maxNamesInMessage], "…")
	}
	t.names = strings.Join(names, ", ")
	return t
}

// find returns the service of a call, or nil with the reason in plain words.
func (t *Table) find(r *request) (*policy.Service, string) {
	if r.service != "" {
		if s := t.byName[r.service]; s != nil {
			return s, ""
		}
		return nil, fmt.Sprintf("outrigger-service names %q, which is not configured; services: %s", r.service, t.known())
	}
	authority := r.authority
	if !isLower(authority) {
		authority = strings.ToLower(authority)
	}
	named := first(t.byAuthority[authority], r.path)
	if named == nil {
		if host, ok := cutPort(authority); ok {
			named = first(t.byAuthority[host], r.path)
		}
	}
	free := first(t.anywhere, r.path)
	switch {
	case named != nil && (free == nil || len(named.prefix) >= len(free.prefix)):
		return named.service, ""
	case free != nil:
		return free.service, ""
	}
	if t.unmatched != nil {
		if s := t.unmatched(authority); s != nil {
			return s, ""
		}
		return nil, fmt.Sprintf("no service matches authority %q and method %s, and %q can't be dialled as host:port", r.authority, r.path, r.authority)
	}
	return nil, fmt.Sprintf("no service matches authority %q and method %s; services: %s (unmatched: {mode: DIAL} would call the authority itself)", r.authority, r.path, t.known())
}

func (t *Table) known() string {
	if t.names == "" {
		return "none is configured"
	}
	return t.names
}

func first(entries []tableEntry, path string) *tableEntry {
	for i := range entries {
		if strings.HasPrefix(path, entries[i].prefix) {
			return &entries[i]
		}
	}
	return nil
}

// cutPort returns the authority without its port. ok is false where it has
// none.
func cutPort(authority string) (host string, ok bool) {
	i := strings.LastIndexByte(authority, ':')
	if i <= 0 || strings.HasSuffix(authority, "]") {
		return authority, false
	}
	return authority[:i], true
}

func isLower(s string) bool {
	for i := range len(s) {
		if c := s[i]; 'A' <= c && c <= 'Z' {
			return false
		}
	}
	return true
}

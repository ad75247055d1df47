package relay

import (
	"fmt"
	"slices"
	"strings"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Target is a service and how its endpoints are connected.
type Target struct {
	Service *policy.Service
	// Transport connects the endpoints. nil: Direct.
	Transport Transport
}

// Route says which calls go to a service.
type Route struct {
	Target
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
	byName      map[string]*Target
	unmatched   Unmatched
	names       string // of all services, for messages
}

// Unmatched finds the target of an authority that no route matches, or says
// why there is none.
type Unmatched func(authority string) (*Target, error)

type tableEntry struct {
	prefix string
	target *Target
}

// Query is what a call is routed by.
type Query struct {
	Authority string
	Path      string
	// Service is outrigger-service: it names the service outright.
	Service string
	// Tunnel is where the caller asked to be connected (CONNECT) before it
	// made the call: used where the authority matches nothing.
	Tunnel string
}

// maxNamesInMessage bounds how many services a NO_ROUTE message lists.
const maxNamesInMessage = 8

// NewTable returns a table of the routes. unmatched, which may be nil, is
// asked for the target of an authority that no route matches.
func NewTable(routes []Route, unmatched Unmatched) *Table {
	t := &Table{
		byAuthority: make(map[string][]tableEntry),
		byName:      make(map[string]*Target),
		unmatched:   unmatched,
	}
	var names []string
	for _, r := range routes {
		target := r.Target
		if target.Transport == nil {
			target.Transport = Direct{}
		}
		t.byName[r.Service.Name()] = &target
		names = append(names, r.Service.Name())
		prefixes := r.Prefixes
		if len(prefixes) == 0 {
			prefixes = []string{""}
		}
		for _, prefix := range prefixes {
			entry := tableEntry{prefix, &target}
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

// Find returns the target of a call, or nil with the reason in plain words.
func (t *Table) Find(q Query) (*Target, string) {
	if q.Service != "" {
		if target := t.byName[q.Service]; target != nil {
			return target, ""
		}
		return nil, fmt.Sprintf("outrigger-service names %q, which is not configured; services: %s", q.Service, t.known())
	}
	authority := lower(q.Authority)
	named := t.named(authority, q.Path)
	if named == nil && q.Tunnel != "" {
		authority = lower(q.Tunnel)
		named = t.named(authority, q.Path)
	}
	free := first(t.anywhere, q.Path)
	switch {
	case named != nil && (free == nil || len(named.prefix) >= len(free.prefix)):
		return named.target, ""
	case free != nil:
		return free.target, ""
	}
	if t.unmatched != nil {
		target, err := t.unmatched(authority)
		if err != nil {
			return nil, fmt.Sprintf("no service matches authority %q and method %s, and the authority can't be dialled: %v", authority, q.Path, err)
		}
		if target.Transport == nil {
			return &Target{target.Service, Direct{}}, ""
		}
		return target, ""
	}
	return nil, fmt.Sprintf("no service matches authority %q and method %s; services: %s (unmatched: {mode: DIAL} would call the authority itself)", q.Authority, q.Path, t.known())
}

// Reaches reports whether a call to the authority could be routed, whatever
// its method, or why not.
func (t *Table) Reaches(authority string) (why string, ok bool) {
	authority = lower(authority)
	host, _ := cutPort(authority)
	if len(t.anywhere) > 0 || len(t.byAuthority[authority]) > 0 || len(t.byAuthority[host]) > 0 {
		return "", true
	}
	target, why := t.Find(Query{Authority: authority, Path: "CONNECT"})
	return why, target != nil
}

// named finds the entry that names the authority, with its port or without.
func (t *Table) named(authority, path string) *tableEntry {
	e := first(t.byAuthority[authority], path)
	if e == nil {
		if host, ok := cutPort(authority); ok {
			e = first(t.byAuthority[host], path)
		}
	}
	return e
}

func lower(authority string) string {
	if isLower(authority) {
		return authority
	}
	return strings.ToLower(authority)
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

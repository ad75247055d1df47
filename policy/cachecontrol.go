package policy

import (
	"strings"
	"time"
)

// CacheControl is what the metadata `cache-control` of a request or of an
// answer says (RFC 9111 section 5.2, RFC 5861). The zero value says nothing.
type CacheControl struct {
	// NoStore: nothing of it may be kept. In a request, the call goes past the
	// cache.
	NoStore bool
	// NoCache: not to be given without asking the endpoint. In a request, the
	// call fetches and its answer is kept; an answer that says so is not kept,
	// since a gRPC endpoint can't be asked whether it still holds.
	NoCache bool
	// Private: for one caller only. An answer that says so is not kept. Keys
	// tell callers apart by what they authorize with; those who send nothing
	// look alike, so private answers are kept for nobody.
	Private bool
	// OnlyIfCached, in a request: a kept answer or none.
	OnlyIfCached bool
	// MaxAge is the oldest that a request takes an answer, or how long an answer
	// stays fresh. An answer's s-maxage counts as max-age.
	MaxAge CacheAge
	// StaleWhileRevalidate is how long past its freshness an answer may be given
	// while a call refreshes it.
	StaleWhileRevalidate CacheAge
	// StaleIfError is how long past its freshness an answer may be given, or a
	// request takes one, where a fresh one can't be had. An answer's
	// must-revalidate and proxy-revalidate make this and StaleWhileRevalidate
	// zero.
	StaleIfError CacheAge
}

// CacheAge is the time that a directive gives. The zero value: it isn't there.
type CacheAge struct {
	// Given says that the directive is there.
	Given bool
	// Value is its whole seconds, 0 to 2^31; 0 where they can't be read.
	Value time.Duration
}

// maxCacheAge is what longer times count as (RFC 9111 section 1.2.2).
const maxCacheAge = (1 << 31) * time.Second

// cap returns the smaller of the two times.
func (a CacheAge) cap(d time.Duration) time.Duration {
	if a.Given {
		return min(a.Value, d)
	}
	return d
}

// lower notes one more value of the directive. Of several the smallest counts:
// it is the one that can't give an answer for longer than was meant.
func (a *CacheAge) lower(d time.Duration) { *a = CacheAge{true, a.cap(d)} }

// ParseCacheControl reads a `cache-control` value; several values of the
// metadata are joined by commas. It never fails: what it doesn't know is passed
// over, and a time that it can't read is zero, so that what is malformed makes
// answers live shorter. It doesn't allocate.
func ParseCacheControl(v string) CacheControl {
	var c CacheControl
	for v != "" {
		var name, value string
		name, value, v = nextDirective(v)
		switch {
		case foldsTo(name, "no-store"):
			c.NoStore = true
		case foldsTo(name, "no-cache"): // with field names too: we keep answers whole
			c.NoCache = true
		case foldsTo(name, "private"):
			c.Private = true
		case foldsTo(name, "only-if-cached"):
			c.OnlyIfCached = true
		case foldsTo(name, "max-age"), foldsTo(name, "s-maxage"):
			c.MaxAge.lower(parseSeconds(value))
		case foldsTo(name, "stale-while-revalidate"):
			c.StaleWhileRevalidate.lower(parseSeconds(value))
		case foldsTo(name, "stale-if-error"):
			c.StaleIfError.lower(parseSeconds(value))
		case foldsTo(name, "must-revalidate"), foldsTo(name, "proxy-revalidate"):
			c.StaleWhileRevalidate.lower(0)
			c.StaleIfError.lower(0)
		}
	}
	return c
}

// nextDirective splits the first directive off. A quoted value comes with its
// quotes. A quote that nothing closes is an ordinary byte: otherwise it would
// hide a no-store behind it.
func nextDirective(v string) (name, value, rest string) {
	i := strings.IndexAny(v, ",=")
	if i < 0 {
		return trimSpace(v), "", ""
	}
	name, rest = trimSpace(v[:i]), v[i+1:]
	if v[i] == ',' {
		return name, "", rest
	}
	end := 0
	if value = strings.TrimLeft(rest, " \t"); strings.HasPrefix(value, `"`) {
		end = len(rest) - len(value) + quotedLen(value)
	}
	if comma := strings.IndexByte(rest[end:], ','); comma >= 0 {
		return name, trimSpace(rest[:end+comma]), rest[end+comma+1:]
	}
	return name, trimSpace(rest), ""
}

// quotedLen returns the length of the quoted string that s begins with, 0
// where nothing closes it.
func quotedLen(s string) int {
	for i := 1; i < len(s); i++ {
		switch s[i] {
		case '\\':
			i++
		case '"':
			return i + 1
		}
	}
	return 0
}

// parseSeconds reads a whole number of seconds, in quotes or not.
func parseSeconds(v string) time.Duration {
	if len(v) >= 2 && v[0] == '"' && v[len(v)-1] == '"' {
		v = v[1 : len(v)-1]
	}
	const most = int64(maxCacheAge / time.Second)
	var seconds int64 // bounded as it grows, so that no number is too long
	for i := range len(v) {
		if v[i] < '0' || v[i] > '9' {
			return 0
		}
		seconds = min(seconds*10+int64(v[i]-'0'), most)
	}
	return time.Duration(seconds) * time.Second
}

func trimSpace(s string) string { return strings.Trim(s, " \t") }

// foldsTo reports whether s is the name, which is in lower case, in any case of
// ASCII. strings.EqualFold would also take letters that only look alike.
func foldsTo(s, name string) bool {
	if len(s) != len(name) {
		return false
	}
	for i := range len(s) {
		b := s[i]
		if 'A' <= b && b <= 'Z' {
			b += 'a' - 'A'
		}
		if b != name[i] {
			return false
		}
	}
	return true
}

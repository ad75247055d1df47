package policy

import "strings"

// CodeSet is a set of gRPC status codes. The zero value is empty.
type CodeSet uint32

// Codes returns the set of the codes.
func Codes(codes ...Code) CodeSet {
	var s CodeSet
	for _, c := range codes {
		s |= 1 << min(c, NumCodes)
	}
	return s
}

// Has reports whether the code is in the set. Codes that the protocol does not
// know are in none.
func (s CodeSet) Has(c Code) bool { return c < NumCodes && s&(1<<c) != 0 }

// or returns the set, or another one where it is empty.
func (s CodeSet) or(other CodeSet) CodeSet {
	if s == 0 {
		return other
	}
	return s
}

// String lists the codes' names.
func (s CodeSet) String() string {
	var names []string
	for c := range NumCodes {
		if s.Has(c) {
			names = append(names, c.String())
		}
	}
	return strings.Join(names, ", ")
}

// ParseCode returns the code of a name as the protocol spells it.
func ParseCode(name string) (c Code, ok bool) {
	for c := range NumCodes {
		if codeNames[c] == name {
			return c, true
		}
	}
	return 0, false
}

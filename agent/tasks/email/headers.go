package email

import (
	"net/textproto"
	"strings"
)

// allowedHeaders are extra headers that say something to mail programs and
// nothing about who the mail is from and to, how it is built or where it was.
var allowedHeaders = map[string]bool{
	"Auto-Submitted":        true,
	"Comments":              true,
	"Feedback-Id":           true,
	"Importance":            true,
	"In-Reply-To":           true,
	"Keywords":              true,
	"List-Archive":          true,
	"List-Help":             true,
	"List-Id":               true,
	"List-Owner":            true,
	"List-Post":             true,
	"List-Subscribe":        true,
	"List-Unsubscribe":      true,
	"List-Unsubscribe-Post": true,
	"Organization":          true,
	"Precedence":            true,
	"Priority":              true,
	"References":            true,
	"Sensitivity":           true,
}

// AllowedHeader tells whether a message may have an extra header of that name, in
// any case: X-…, the List-… of RFC 2369 and RFC 8058, In-Reply-To, References,
// Auto-Submitted, Precedence, Importance, Priority, Sensitivity, Organization,
// Keywords, Comments and Feedback-ID.
func AllowedHeader(name string) bool {
	name = textproto.CanonicalMIMEHeaderKey(name)
	return allowedHeaders[name] || strings.HasPrefix(name, "X-") && len(name) > len("X-")
}

// isHeaderName tells whether a name can stand in front of a colon, and be folded
// behind it. Names are RFC 5322's ftext, here without what looks odd.
func isHeaderName(name string) bool {
	if name == "" || len(name) > 70 {
		return false
	}
	for _, c := range []byte(name) {
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_':
		default:
			return false
		}
	}
	return true
}

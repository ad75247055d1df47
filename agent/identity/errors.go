package identity

import (
	"fmt"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// maxListed bounds how many names or IDs an error lists.
const maxListed = 8

// notReadyError is a handshake before the first SVID came.
type notReadyError struct{ address, why string }

func (e *notReadyError) Error() string {
	if e.why == "" {
		return fmt.Sprintf("no SVID from the Workload API at %s yet", e.address)
	}
	return e.why
}

// idError is a peer whose SPIFFE ID is not one of those allowed.
type idError struct {
	id      spiffeid.ID
	why     string // there is no ID
	allowed allowed
}

func (e *idError) Error() string {
	list := make([]string, len(e.allowed))
	for i, id := range e.allowed {
		list[i] = id.String()
	}
	if e.why != "" {
		return fmt.Sprintf("the peer has no SPIFFE ID (%s); allowed: %s", e.why, listed(list))
	}
	return fmt.Sprintf("the peer's SPIFFE ID %s is not allowed; allowed: %s", clip(e.id.String()), listed(list))
}

// domainError is a peer of a trust domain that there is no bundle for.
type domainError struct{ domain spiffeid.TrustDomain }

func (e *domainError) Error() string {
	return fmt.Sprintf("the peer's trust domain %s is not known: the Workload API gave no bundle for it", clip(e.domain.IDString()))
}

// protocolError is an endpoint that does not choose HTTP/2.
type protocolError struct{ offered []string }

func (e *protocolError) Error() string {
	return fmt.Sprintf("the peer does not speak HTTP/2 over TLS: it chose no ALPN protocol (offered: %s)", strings.Join(e.offered, ", "))
}

// listed joins a list that may be long.
func listed(list []string) string {
	if len(list) == 0 {
		return "none"
	}
	more := ""
	if n := len(list) - maxListed; n > 0 {
		list, more = list[:maxListed], fmt.Sprintf(" and %d more", n)
	}
	clipped := make([]string, len(list))
	for i, text := range list {
		clipped[i] = clip(text)
	}
	return strings.Join(clipped, ", ") + more
}

// clip makes text that a peer chose fit for a log line: short, on one line.
func clip(text string) string {
	const most = 200
	text = strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == '\u2028' || r == '\u2029' {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(text, "?"))
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "…"
	}
	return text
}

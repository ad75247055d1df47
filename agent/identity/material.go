package identity

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// clockSkew is how far in the future a new certificate may begin: clocks
// differ, and some authorities issue for the very moment.
const clockSkew = 5 * time.Minute

// material is what handshakes are made with. It never changes; another takes
// its place.
type material struct {
	certificate *tls.Certificate // nil: none; has its Leaf
	roots       *x509.CertPool   // of the CA file; nil: none was named

	svid    *x509svid.SVID  // of the Workload API; nil with files
	bundles *x509bundle.Set // with svid
}

// expired returns that the own certificate has expired, and when.
func (m *material) expired(now time.Time) error {
	if m.certificate == nil || !now.After(m.certificate.Leaf.NotAfter) {
		return nil
	}
	return fmt.Errorf("the certificate in use expired on %s", date(m.certificate.Leaf.NotAfter))
}

// checkValidity returns why a new certificate can't be used now.
func checkValidity(leaf *x509.Certificate, now time.Time) error {
	if now.After(leaf.NotAfter) {
		return fmt.Errorf("the certificate expired on %s", date(leaf.NotAfter))
	}
	if leaf.NotBefore.After(now.Add(clockSkew)) {
		return fmt.Errorf("the certificate is not valid before %s", date(leaf.NotBefore))
	}
	return nil
}

// attributes are what the log says of it. The key is not among them.
func (m *material) attributes() []any {
	if m.certificate == nil {
		return nil
	}
	leaf := m.certificate.Leaf
	return []any{"certificate", names(leaf), "issuer", clip(leaf.Issuer.String()), "valid_until", date(leaf.NotAfter)}
}

func date(t time.Time) string { return t.UTC().Format("2006-01-02 15:04:05 UTC") }

package identity

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"slices"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/spiffetls/tlsconfig"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

var (
	errNoCertificate = errors.New("this listener has no certificate of its own: name a certificate and a key file")
	errNoClientCA    = errors.New("this listener allows only some SPIFFE IDs, but has no CA file to verify a client's certificate with")
)

// serverConfig is for one handshake with a client.
func (s *Source) serverConfig(m *material, protos []string) (*tls.Config, error) {
	if m.certificate == nil {
		return nil, errNoCertificate
	}
	config := &tls.Config{
		MinVersion:   s.settings.minVersion(),
		NextProtos:   protos,
		Certificates: []tls.Certificate{*m.certificate},
	}
	switch {
	case m.svid != nil:
		config.ClientAuth = tls.RequireAnyClientCert // verified by the next line
		config.VerifyPeerCertificate = verifySVID(m.bundles, s.allowed)
	case m.roots != nil:
		config.ClientAuth = tls.RequireAndVerifyClientCert
		config.ClientCAs = m.roots
		config.VerifyConnection = s.verifyID()
	case len(s.allowed) > 0:
		return nil, errNoClientCA
	}
	// A ticket would let a client in again, for a week, whose CA or ID is not
	// trusted any more. Without client certificates there is nothing to skip.
	config.SessionTicketsDisabled = config.ClientAuth != tls.NoClientCert
	return config, nil
}

// clientConfig completes the configuration of one connection to an endpoint.
// It has no session cache, so that each handshake verifies the endpoint anew.
func (s *Source) clientConfig(m *material, config *tls.Config) {
	if m.certificate != nil {
		// Sent whatever authorities the endpoint asks for: if it does not trust
		// ours it says so, instead of missing a certificate.
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return m.certificate, nil
		}
	}
	verify := s.verifyID()
	if m.svid != nil {
		config.InsecureSkipVerify = true // an SVID has no host name; verified by the next line
		config.VerifyPeerCertificate = verifySVID(m.bundles, s.allowed)
		verify = nil
	} else {
		config.RootCAs = m.roots
	}
	protos := config.NextProtos
	config.VerifyConnection = func(state tls.ConnectionState) error {
		if verify != nil {
			if err := verify(state); err != nil {
				return err
			}
		}
		return verifyProtocol(state, protos)
	}
}

// refuseAll lets every handshake of a client fail with the error that why
// returns.
func refuseAll(config *tls.Config, why func() error) {
	config.InsecureSkipVerify = true // nothing passes the next line
	config.VerifyPeerCertificate = func([][]byte, [][]*x509.Certificate) error { return why() }
}

// verifyID checks the SPIFFE ID of a peer that the usual verification has let
// through. Nil: any ID, or none, is allowed.
func (s *Source) verifyID() func(tls.ConnectionState) error {
	if len(s.allowed) == 0 {
		return nil
	}
	return func(state tls.ConnectionState) error {
		if len(state.PeerCertificates) == 0 {
			return &idError{why: "the peer has no certificate", allowed: s.allowed}
		}
		return checkID(state.PeerCertificates[0], s.allowed)
	}
}

// verifySVID verifies a peer's certificate as an X.509 SVID against the bundle
// of its trust domain, and then its ID.
func verifySVID(bundles *x509bundle.Set, ids allowed) func([][]byte, [][]*x509.Certificate) error {
	verify := tlsconfig.VerifyPeerCertificate(trust{bundles}, func(id spiffeid.ID, _ [][]*x509.Certificate) error {
		if !ids.has(id) {
			return &idError{id: id, allowed: ids}
		}
		return nil
	})
	return func(raw [][]byte, chains [][]*x509.Certificate) error {
		if len(raw) > 0 {
			if leaf, err := x509.ParseCertificate(raw[0]); err == nil {
				if _, err := x509svid.IDFromCert(leaf); err != nil {
					return &idError{why: err.Error(), allowed: ids}
				}
			}
		}
		return verify(raw, chains)
	}
}

// checkID checks the ID of a verified certificate.
func checkID(leaf *x509.Certificate, ids allowed) error {
	id, err := x509svid.IDFromCert(leaf)
	if err != nil {
		return &idError{why: err.Error(), allowed: ids}
	}
	if !ids.has(id) {
		return &idError{id: id, allowed: ids}
	}
	return nil
}

// trust is a bundle set whose error for a trust domain without one can be told
// from others.
type trust struct{ *x509bundle.Set }

func (t trust) GetX509BundleForTrustDomain(domain spiffeid.TrustDomain) (*x509bundle.Bundle, error) {
	bundle, ok := t.Get(domain)
	if !ok {
		return nil, &domainError{domain: domain}
	}
	return bundle, nil
}

// verifyProtocol refuses an endpoint that did not choose HTTP/2 where nothing
// else can be spoken.
func verifyProtocol(state tls.ConnectionState, offered []string) error {
	if state.NegotiatedProtocol == "" && slices.Contains(offered, "h2") && !slices.Contains(offered, "http/1.1") {
		return &protocolError{offered: offered}
	}
	return nil
}

package identity

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/netip"
	"net/url"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Settings say who the agent is on one side of its connections, and whom it
// trusts there. The zero value is a client without a certificate that trusts
// the system's roots.
type Settings struct {
	// CertFile and KeyFile are the own certificate chain, leaf first, and its
	// key, both PEM. Both or none. A server needs them, or WorkloadAPI.
	CertFile, KeyFile string
	// CAFile is the PEM bundle that the peer's certificate must come from.
	// Empty: a client trusts the system's roots, a server asks its clients for
	// no certificate.
	CAFile string
	// ServerName is the name that an endpoint's certificate must have; only
	// clients use it. Empty: the caller sets the endpoint's host on the
	// configuration that Source.Client returns. With WorkloadAPI the name is
	// sent, but the endpoint is known by its SPIFFE ID.
	ServerName string
	// MinVersion is the oldest TLS version spoken, tls.VersionTLS12 or newer.
	// Zero: TLS 1.2.
	MinVersion uint16
	// WorkloadAPI is the address of the SPIFFE Workload API, for example
	// "unix:///run/spire/agent.sock" or "tcp://127.0.0.1:8081". Certificate,
	// key and trust bundles come from there instead of the files.
	WorkloadAPI string
	// AllowedIDs are the SPIFFE IDs that the peer may have: whole IDs, or
	// "spiffe://domain" for every ID of that trust domain. With WorkloadAPI at
	// least one is required. With files the ID is the certificate's URI, looked
	// at after the usual verification.
	AllowedIDs []string
}

// Check returns what is wrong with the settings as far as that can be told
// without reading a file.
func (s Settings) Check() error {
	switch {
	case s.CertFile != "" && s.KeyFile == "":
		return fmt.Errorf("certificate file %s has no key file beside it: name both, or none", s.CertFile)
	case s.CertFile == "" && s.KeyFile != "":
		return fmt.Errorf("key file %s has no certificate file beside it: name both, or none", s.KeyFile)
	case s.WorkloadAPI != "" && (s.CertFile != "" || s.CAFile != ""):
		return errors.New("certificate, key and CA come from files or from the Workload API: name the files or the API's address, not both")
	case s.WorkloadAPI != "" && len(s.AllowedIDs) == 0:
		return errors.New(`the Workload API says who a peer is, not whether it may: list the SPIFFE IDs that are allowed, or "spiffe://domain" for all of a trust domain`)
	}
	switch s.MinVersion {
	case 0, tls.VersionTLS12, tls.VersionTLS13:
	default:
		return fmt.Errorf("%s can't be the oldest version: only TLS 1.2 and TLS 1.3 are safe", tls.VersionName(s.MinVersion))
	}
	if s.WorkloadAPI != "" {
		if _, err := dialTarget(s.WorkloadAPI); err != nil {
			return err
		}
	}
	_, err := parseAllowed(s.AllowedIDs)
	return err
}

// minVersion is the oldest version, with the zero value resolved.
func (s Settings) minVersion() uint16 {
	if s.MinVersion == 0 {
		return tls.VersionTLS12
	}
	return s.MinVersion
}

// dialTarget turns a Workload API address, as the SPIFFE Workload Endpoint
// standard writes it (section 4), into gRPC's.
func dialTarget(address string) (string, error) {
	u, err := url.Parse(address)
	wrong := fmt.Errorf("%q is no address of a Workload API: write \"unix:///path/of/the.sock\" or \"tcp://IP:port\"", address)
	if err != nil || u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Opaque != "" {
		return "", wrong
	}
	switch u.Scheme {
	case "unix":
		if u.Host != "" || u.Path == "" || u.Path == "/" {
			return "", wrong
		}
		return "unix://" + u.Path, nil
	case "tcp":
		host, err := netip.ParseAddrPort(u.Host)
		if err != nil || host.Port() == 0 || u.Path != "" {
			return "", wrong
		}
		return "passthrough:///" + host.String(), nil
	}
	return "", wrong
}

// allowed are the SPIFFE IDs that a peer may have. Empty: any peer.
type allowed []spiffeid.ID

func parseAllowed(ids []string) (allowed, error) {
	list := make(allowed, 0, len(ids))
	for _, text := range ids {
		id, err := spiffeid.FromString(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no SPIFFE ID: %w; one looks like \"spiffe://example.org/orders\", or \"spiffe://example.org\" for a whole trust domain", text, err)
		}
		list = append(list, id)
	}
	return list, nil
}

// has reports whether the ID is one of the list, or of a trust domain of it.
func (a allowed) has(id spiffeid.ID) bool {
	for _, entry := range a {
		if entry == id || entry.Path() == "" && id.MemberOf(entry.TrustDomain()) {
			return true
		}
	}
	return false
}

package config

import (
	"crypto/tls"
	"net/netip"
	"net/url"
	"strings"

	configv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/config/v1"
)

// TLS says who the agent is to its peer, and whom it trusts there.
type TLS struct {
	// The files' paths are as they are opened: those that were written relative
	// begin at the configuration's folder. Empty: none is written.
	CertFile, KeyFile string
	CAFile            string
	ServerName        string
	MinVersion        uint16 // tls.VersionTLS12 or tls.VersionTLS13
	WorkloadAPI       string // SPIFFE's socket; empty: the files
	AllowedIDs        []string
}

// ListenerOptions are what a listener has beside its address.
type ListenerOptions struct {
	TLS *TLS // nil: plaintext
	// AllowUIDs are users that may connect to a unix socket beside the agent's
	// own.
	AllowUIDs []uint32
}

// Listeners are the options of the agent's own addresses.
type Listeners struct{ Egress, API, Admin ListenerOptions }

// tls resolves a block; nil: there is none.
func (f *file) tls(m *configv1.Tls) *TLS {
	if m == nil {
		return nil
	}
	t := &TLS{
		CertFile: f.beside(m.GetCertFile()), KeyFile: f.beside(m.GetKeyFile()), CAFile: f.beside(m.GetCaFile()), ServerName: m.GetServerName(),
		MinVersion: tls.VersionTLS12, WorkloadAPI: m.GetSpiffe().GetSocket(), AllowedIDs: m.GetAllowedIds(),
	}
	if m.GetMinVersion() == "1.3" {
		t.MinVersion = tls.VersionTLS13
	}
	return t
}

// listenerOptions resolves and checks a listener's block.
func (f *file) listenerOptions(path, address string, m *configv1.Listener) ListenerOptions {
	o := ListenerOptions{TLS: f.tls(m.GetTls()), AllowUIDs: m.GetAllowUids()}
	if o.TLS != nil {
		f.checkTLS(path+".tls", o.TLS, true)
	}
	a, wrong := parseAddress(address)
	if wrong != "" {
		return o // told of the address
	}
	if len(o.AllowUIDs) > 0 && a.unix == "" {
		f.refuse(path+".allow_uids", "is for unix sockets; %s has no users to tell apart", address)
	}
	if path != "api" && m.GetInsecure() {
		f.refuse(path+".insecure", "is for api alone; leave it out")
	}
	if path == "api" && o.TLS == nil && !m.GetInsecure() && !a.local() {
		f.refuse(path+".address", "%s can be reached by others, who could then change what the agent does; want 127.0.0.1 or unix:PATH, a tls block, or insecure: true", address)
	}
	if path != "egress" && m.GetLimits() != nil {
		f.refuse(path+".limits", "are for egress alone; leave them out")
	}
	return o
}

// local reports whether only this machine reaches the address.
func (a address) local() bool {
	ip, err := netip.ParseAddr(a.host)
	return a.unix != "" || a.host == "localhost" || err == nil && ip.IsLoopback()
}

// checkTLS checks what no single field shows.
func (f *file) checkTLS(path string, t *TLS, listener bool) {
	files := t.CertFile != "" || t.KeyFile != "" || t.CAFile != ""
	switch {
	case t.WorkloadAPI != "" && files:
		f.refuse(path+".spiffe", "brings certificate, key and trust; want it without cert_file, key_file and ca_file")
	case t.WorkloadAPI != "" && len(t.AllowedIDs) == 0:
		f.refuse(path+".spiffe", "wants allowed_ids beside it: whom to trust; spiffe://DOMAIN alone is everybody of the domain")
	case t.CertFile != "" && t.KeyFile == "":
		f.refuse(path+".cert_file", "wants its key_file beside it")
	case t.KeyFile != "" && t.CertFile == "":
		f.refuse(path+".key_file", "wants its cert_file beside it")
	case listener && t.WorkloadAPI == "" && t.CertFile == "":
		f.refuse(path, "wants a certificate: cert_file and key_file, or spiffe")
	}
	if listener && t.ServerName != "" {
		f.refuse(path+".server_name", "is the name of an endpoint; leave it out here")
	}
	if len(t.AllowedIDs) > 0 && listener && t.WorkloadAPI == "" && t.CAFile == "" {
		f.refuse(path+".allowed_ids", "wants a ca_file beside it: without one clients show no certificate")
	}
	for _, id := range t.AllowedIDs {
		if u, err := url.Parse(id); err != nil || u.Scheme != "spiffe" || u.Host == "" || u.Port() != "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.HasSuffix(u.Path, "/") {
			f.refuse(path+".allowed_ids", "%q is no SPIFFE ID; want spiffe://domain/path, or spiffe://domain for all of it", id)
		}
	}
	if api := t.WorkloadAPI; api != "" && !strings.HasPrefix(api, "unix:///") {
		f.refuse(path+".spiffe.socket", "%q; want unix:///PATH", api)
	}
}

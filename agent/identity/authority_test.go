package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// authority is a CA that lives as long as its test.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func serial(t *testing.T) *big.Int {
	t.Helper()
	n, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func newAuthority(t *testing.T, name string, uris ...string) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	a.cert = sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: name}, URIs: parseURIs(t, uris),
		NotBefore: time.Now().Add(-24 * time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, nil, a.key.Public(), a.key)
	return a
}

func sign(t *testing.T, template, parent *x509.Certificate, public crypto.PublicKey, key crypto.Signer) *x509.Certificate {
	t.Helper()
	if parent == nil {
		parent = template
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, public, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

func parseURIs(t *testing.T, texts []string) []*url.URL {
	t.Helper()
	var list []*url.URL
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, u)
	}
	return list
}

// leaf is what a certificate is made for; the zero value is valid for an hour,
// for localhost and 127.0.0.1, on both sides of a connection.
type leaf struct {
	dns       string
	uri       string
	notBefore time.Time
	notAfter  time.Time
	usage     x509.ExtKeyUsage // zero: server and client
}

// pair is a certificate with its key, PEM and DER.
type pair struct {
	cert, key       []byte
	certDER, keyDER []byte
	leaf            *x509.Certificate
}

func (a *authority) issue(t *testing.T, l leaf) pair {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "leaf"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	if l.dns != "" {
		template.DNSNames, template.IPAddresses = []string{l.dns}, nil
	}
	if l.uri != "" {
		template.URIs = parseURIs(t, []string{l.uri})
	}
	if !l.notBefore.IsZero() {
		template.NotBefore = l.notBefore
	}
	if !l.notAfter.IsZero() {
		template.NotAfter = l.notAfter
	}
	if l.usage != 0 {
		template.ExtKeyUsage = []x509.ExtKeyUsage{l.usage}
	}
	key := newKey(t)
	cert := sign(t, template, a.cert, key.Public(), a.key)
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pair{
		cert: pemOf("CERTIFICATE", cert.Raw), key: pemOf("PRIVATE KEY", keyDER),
		certDER: cert.Raw, keyDER: keyDER, leaf: cert,
	}
}

func (a *authority) pem() []byte { return pemOf("CERTIFICATE", a.cert.Raw) }

func pemOf(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// folder holds tls.crt, tls.key and ca.crt, as a Kubernetes Secret does.
type folder string

func newFolder(t *testing.T, p pair, ca *authority) folder {
	t.Helper()
	f := folder(t.TempDir())
	f.write(t, "tls.crt", p.cert)
	f.write(t, "tls.key", p.key)
	f.write(t, "ca.crt", ca.pem())
	return f
}

func (f folder) path(name string) string { return filepath.Join(string(f), name) }

func (f folder) write(t *testing.T, name string, data []byte) {
	t.Helper()
	if err := os.WriteFile(f.path(name), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// pairOnly are settings with a certificate and no CA; mutual have both.
func (f folder) pairOnly() Settings {
	return Settings{CertFile: f.path("tls.crt"), KeyFile: f.path("tls.key")}
}

func (f folder) mutual() Settings {
	s := f.pairOnly()
	s.CAFile = f.path("ca.crt")
	return s
}

func (f folder) caOnly() Settings { return Settings{CAFile: f.path("ca.crt")} }

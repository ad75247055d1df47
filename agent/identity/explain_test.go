package identity

import (
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// plain is a server with a certificate for localhost, and the CA's folder of
// its clients.
func plain(t *testing.T, l leaf) (*Source, folder, *authority) {
	t.Helper()
	ca := newAuthority(t, "Test CA")
	f := newFolder(t, ca.issue(t, l), ca)
	return open(t, f.pairOnly()), f, ca
}

func TestAnUnknownAuthorityIsNamed(t *testing.T) {
	server, _, _ := plain(t, leaf{})
	other := newAuthority(t, "Another CA")
	client := open(t, newFolder(t, other.issue(t, leaf{}), other).caOnly())

	o := shake(t, server.Server("h2"), client.Client("h2"))

	says(t, o.client, `issued by "CN=Test CA", which is not trusted`)
	says(t, o.server, "the peer refused our certificate")
}

func TestAnAuthorityOfTheSameNameWithAnotherKeyIsTold(t *testing.T) {
	server, _, _ := plain(t, leaf{})
	other := newAuthority(t, "Test CA")
	client := open(t, newFolder(t, other.issue(t, leaf{}), other).caOnly())

	o := shake(t, server.Server("h2"), client.Client("h2"))

	says(t, o.client, `"CN=Test CA"`, "an authority of that name is, but with another key")
}

func TestASelfSignedCertificateIsTold(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	client := open(t, newFolder(t, ca.issue(t, leaf{}), ca).caOnly())
	key := newKey(t)
	self := sign(t, &x509.Certificate{
		SerialNumber: serial(t), Subject: pkix.Name{CommonName: "lonely"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, nil, key.Public(), key)
	server := &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{self.Raw}, PrivateKey: key}}, NextProtos: []string{"h2"}}

	o := shake(t, server, client.Client("h2"))

	says(t, o.client, `"CN=lonely"`, "self-signed")
}

func TestAWrongNameIsToldWithTheRightOnes(t *testing.T) {
	server, f, _ := plain(t, leaf{dns: "payments.example"})
	s := f.caOnly()
	s.ServerName = "orders.example"

	o := shake(t, server.Server("h2"), open(t, s).Client("h2"))

	says(t, o.client, `the peer's certificate is for payments.example, not for "orders.example"`)
}

func TestAnExpiredCertificateIsToldWithItsDate(t *testing.T) {
	// Given a server that goes on with what has expired.
	ca := newAuthority(t, "Test CA")
	p := ca.issue(t, leaf{notBefore: time.Now().Add(-2 * time.Hour), notAfter: time.Date(2021, 3, 4, 5, 6, 7, 0, time.UTC)})
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	client := open(t, newFolder(t, p, ca).caOnly())

	o := shake(t, &tls.Config{Certificates: []tls.Certificate{pair}}, client.Client())

	says(t, o.client, "the peer's certificate (for localhost, 127.0.0.1) expired on 2021-03-04 05:06:07 UTC")
	says(t, o.server, "the peer refused our certificate")
}

func TestACertificateOfTomorrowIsTold(t *testing.T) {
	ca := newAuthority(t, "Test CA")
	p := ca.issue(t, leaf{notBefore: time.Now().Add(20 * time.Hour), notAfter: time.Now().Add(22 * time.Hour)})
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	client := open(t, newFolder(t, p, ca).caOnly())

	o := shake(t, &tls.Config{Certificates: []tls.Certificate{pair}}, client.Client())

	says(t, o.client, "is not valid before "+date(p.leaf.NotBefore))
}

func TestACertificateForTheOtherSideIsTold(t *testing.T) {
	server, f, _ := plain(t, leaf{usage: x509.ExtKeyUsageClientAuth})

	o := shake(t, server.Server("h2"), open(t, f.caOnly()).Client("h2"))

	says(t, o.client, "may not be used for this side")
}

func TestAClientWithoutACertificateIsToldOnBothSides(t *testing.T) {
	_, f, _ := plain(t, leaf{})

	o := shake(t, open(t, f.mutual()).Server("h2"), open(t, f.caOnly()).Client("h2"))

	says(t, o.server, "the peer sent no client certificate")
	says(t, o.client, "the peer wants a client certificate, and we have none", "alert: certificate required")
}

func TestAClientCertificateOfAnotherAuthorityIsToldOnBothSides(t *testing.T) {
	_, f, ca := plain(t, leaf{})
	stranger := newAuthority(t, "Stranger CA")
	client := newFolder(t, stranger.issue(t, leaf{}), ca)

	o := shake(t, open(t, f.mutual()).Server("h2"), open(t, client.mutual()).Client("h2"))

	says(t, o.server, `issued by "CN=Stranger CA", which is not trusted`)
	says(t, o.client, "the peer refused our certificate: it does not trust the CA that issued it", "alert: unknown certificate authority")
}

func TestAWrongSPIFFEIDInAFileCertificateIsTold(t *testing.T) {
	_, f, ca := plain(t, leaf{})
	client := newFolder(t, ca.issue(t, leaf{uri: "spiffe://example.org/web"}), ca)
	s := f.mutual()
	s.AllowedIDs = []string{"spiffe://example.org/orders", "spiffe://other.org"}

	o := shake(t, open(t, s).Server("h2"), open(t, client.mutual()).Client("h2"))

	says(t, o.server, "SPIFFE ID spiffe://example.org/web is not allowed; allowed: spiffe://example.org/orders, spiffe://other.org")
	says(t, o.client, "the peer refused our certificate")
}

func TestACertificateWithoutASPIFFEIDIsTold(t *testing.T) {
	server, f, _ := plain(t, leaf{})
	s := f.caOnly()
	s.AllowedIDs = []string{"spiffe://example.org/orders"}

	o := shake(t, server.Server("h2"), open(t, s).Client("h2"))

	says(t, o.client, "the peer has no SPIFFE ID", "allowed: spiffe://example.org/orders")
}

func TestAnEndpointWithoutHTTP2IsTold(t *testing.T) {
	_, f, ca := plain(t, leaf{})
	p := ca.issue(t, leaf{})
	pair, err := tls.X509KeyPair(p.cert, p.key)
	if err != nil {
		t.Fatal(err)
	}
	client := open(t, f.caOnly())

	// No ALPN at all: fine where HTTP/1.1 may be spoken.
	silent := &tls.Config{Certificates: []tls.Certificate{pair}}
	says(t, shake(t, silent, client.Client("h2")).client, "does not speak HTTP/2 over TLS", "offered: h2")
	if o := shake(t, silent, client.Client("h2", "http/1.1")); !o.ok() {
		t.Errorf("http/1.1 was offered: %v, %v", o.client, o.server)
	}

	// HTTP/1.1 only.
	old := &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}
	o := shake(t, old, client.Client("h2"))
	says(t, o.client, "speaks none of the protocols that we offer (ALPN)")
	says(t, o.server, "speaks none of our protocols (ALPN)", `"h2"`)
}

func TestAnOldTLSVersionIsToldOnBothSides(t *testing.T) {
	_, f, _ := plain(t, leaf{})
	s := f.pairOnly()
	s.MinVersion = tls.VersionTLS13
	client := open(t, f.caOnly()).Client("h2")
	client.MaxVersion = tls.VersionTLS12

	o := shake(t, open(t, s).Server("h2"), client)

	says(t, o.server, "does not speak a TLS version that we do", "TLS 1.2")
	says(t, o.client, "does not speak a TLS version that we do")
}

func TestTLS12IsTheOldestUnlessToldOtherwise(t *testing.T) {
	server, f, _ := plain(t, leaf{})
	for _, c := range []struct {
		most uint16
		ok   bool
	}{{tls.VersionTLS11, false}, {tls.VersionTLS12, true}, {tls.VersionTLS13, true}} {
		client := open(t, f.caOnly()).Client("h2")
		client.MinVersion, client.MaxVersion = tls.VersionTLS10, c.most
		if o := shake(t, server.Server("h2"), client); o.ok() != c.ok {
			t.Errorf("%s: %v, %v", tls.VersionName(c.most), o.server, o.client)
		}
	}
}

func TestAnEndpointThatDoesNotSpeakTLSIsTold(t *testing.T) {
	_, f, _ := plain(t, leaf{})
	source := open(t, f.caOnly())
	for _, c := range []struct{ name, answer, want string }{
		{"HTTP/1", "HTTP/1.1 400 Bad Request\r\n\r\n", "does not speak TLS: it answered in plain HTTP/1"},
		{"HTTP/2", "\x00\x00\x06\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00\x64", "does not speak TLS: it answered in plain HTTP/2"},
		{"SSH", "SSH-2.0-OpenSSH_9\r\n", `does not speak TLS: it sent "SSH-2"`},
		{"nothing", "", "closed the connection during the handshake"},
	} {
		t.Run(c.name, func(t *testing.T) {
			near, far := net.Pipe()
			defer near.Close()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer far.Close()
				far.Read(make([]byte, 4096))
				io.WriteString(far, c.answer)
			}()
			config := source.Client("h2")
			config.ServerName = "localhost"
			_, err := connect(near, config, 10*time.Second)
			<-done
			says(t, err, c.want)
		})
	}
}

func TestAClientThatDoesNotSpeakTLSIsTold(t *testing.T) {
	server, _, _ := plain(t, leaf{})
	for _, c := range []struct{ sent, want string }{
		{"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "it sent plain HTTP/2"},
		{"GET / HTTP/1.1\r\n\r\n", "it sent a plain HTTP/1 request"},
		{"DELETE / HTTP/1.1\r\n\r\n", "it sent a plain HTTP/1 request"},
	} {
		near, far := net.Pipe()
		done := make(chan struct{})
		go func() {
			defer close(done)
			io.WriteString(far, c.sent)
			io.Copy(io.Discard, far)
		}()
		_, err := serve(near, server.Server("h2"))
		near.Close()
		<-done
		far.Close()
		says(t, err, "does not speak TLS", c.want)
	}
}

func TestAnEndpointThatSaysNothingIsTold(t *testing.T) {
	_, f, _ := plain(t, leaf{})
	near, far := net.Pipe()
	defer near.Close()
	defer far.Close()
	go io.Copy(io.Discard, far)
	config := open(t, f.caOnly()).Client("h2")
	config.ServerName = "localhost"

	_, err := connect(near, config, 50*time.Millisecond)

	says(t, err, "did not finish the handshake in time")
}

func TestAServerWithoutACertificateSaysSo(t *testing.T) {
	_, f, _ := plain(t, leaf{})
	o := shake(t, open(t, f.caOnly()).Server("h2"), open(t, f.caOnly()).Client("h2"))
	says(t, o.server, "this listener has no certificate of its own")
	says(t, o.client, "the peer failed by itself")
}

func TestAServerThatCannotCheckIDsLetsNobodyIn(t *testing.T) {
	_, f, _ := plain(t, leaf{})
	s := f.pairOnly()
	s.AllowedIDs = []string{"spiffe://example.org"}
	o := shake(t, open(t, s).Server("h2"), open(t, f.mutual()).Client("h2"))
	says(t, o.server, "no CA file to verify a client's certificate with")
}

func TestWhatAPeerChoseIsShortAndOnOneLine(t *testing.T) {
	ca := newAuthority(t, "evil\nlevel=ERROR msg=\"forged\""+strings.Repeat("x", 20))
	text := Explain(x509.UnknownAuthorityError{Cert: ca.issue(t, leaf{}).leaf})
	if strings.Contains(text, "\n") || len(text) > 400 {
		t.Errorf("%q", text)
	}
	if got := Explain(errors.New(strings.Repeat("é", 5000))); len(got) > 250 {
		t.Errorf("%d bytes", len(got))
	}
	if got := Explain(nil); got != "" {
		t.Errorf("nil: %q", got)
	}
}

package agent

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// authority signs certificates for the tests.
type authority struct {
	t    *testing.T
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	last int64
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test authority"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, dir: t.TempDir(), cert: cert, key: key, last: 1}
	a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) path(name string) string { return filepath.Join(a.dir, name) }

func (a *authority) write(name, kind string, der []byte) {
	a.t.Helper()
	next := a.path(name + ".next")
	if err := os.WriteFile(next, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(next, a.path(name)); err != nil {
		a.t.Fatal(err)
	}
}

// issue writes NAME.pem and NAME.key for 127.0.0.1, anew each time.
func (a *authority) issue(name string, notAfter time.Time) {
	a.t.Helper()
	a.last++
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(a.last), Subject: pkix.Name{CommonName: name}, NotAfter: notAfter, NotBefore: time.Now().Add(-2 * time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.write(name+".key", "PRIVATE KEY", private)
	a.write(name+".pem", "CERTIFICATE", der)
}

// client returns a client's TLS, with the certificate of that name or none.
func (a *authority) client(name string) *tls.Config {
	a.t.Helper()
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	c := &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
	if name != "" {
		pair, err := tls.LoadX509KeyPair(a.path(name+".pem"), a.path(name+".key"))
		if err != nil {
			a.t.Fatal(err)
		}
		c.Certificates = []tls.Certificate{pair}
	}
	return c
}

// startSecureUpstream is startUpstream with a certificate from the authority's
// files, which asks for one of the client too.
func (a *authority) startSecureUpstream(name string) string {
	a.t.Helper()
	config := a.client(name)
	config.ClientCAs, config.ClientAuth = config.RootCAs, tls.RequireAndVerifyClientCert
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		a.t.Fatal(err)
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		m := new(wrapperspb.StringValue)
		if err := s.RecvMsg(m); err != nil {
			return err
		}
		return s.SendMsg(m)
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = server.Serve(l) }()
	a.t.Cleanup(func() { server.Stop(); <-done })
	return l.Addr().String()
}

func secureCall(ctx context.Context, egress string, c *tls.Config) error {
	cc, err := grpc.NewClient("passthrough:///"+egress, grpc.WithTransportCredentials(credentials.NewTLS(c)))
	if err != nil {
		return err
	}
	defer cc.Close()
	ctx = metadata.AppendToOutgoingContext(ctx, "outrigger-service", "echo")
	ctx = metadata.AppendToOutgoingContext(ctx, "outrigger-service", "echo")
	return cc.Invoke(ctx, "/test.Echo/Call", wrapperspb.String("hello"), new(wrapperspb.StringValue))
}

func TestCertificatesRotateUnderLoadWithoutALostCall(t *testing.T) {
	a := newAuthority(t)
	a.issue("agent", time.Now().Add(time.Hour))
	a.issue("server", time.Now().Add(time.Hour))
	upstream := a.startSecureUpstream("server")
	agent := startAgent(t, fmt.Sprintf("egress: {address: \"127.0.0.1:0\", tls: {cert_file: %q, key_file: %q}}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n"+
		"services:\n  - {name: echo, endpoints: {static: [{address: %q}]}, tls: {ca_file: %q, cert_file: %q, key_file: %q}}\n",
		a.path("agent.pem"), a.path("agent.key"), upstream, a.path("ca.pem"), a.path("agent.pem"), a.path("agent.key")))
	var stop atomic.Bool
	var calls, failed atomic.Int64
	var callers sync.WaitGroup
	client := a.client("")
	for range 4 {
		callers.Go(func() {
			for !stop.Load() {
				calls.Add(1)
				if err := secureCall(t.Context(), agent.Addresses().Egress, client); err != nil { // a handshake each
					failed.Add(1)
					t.Error(err)
				}
			}
		})
	}
	serial := func() string {
		c, err := tls.Dial("tcp", agent.Addresses().Egress, client)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	for range 3 {
		before := serial()
		a.issue("agent", time.Now().Add(time.Hour))
		for end := time.Now().Add(10 * time.Second); serial() == before; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the new certificate is not used")
			}
		}
	}
	for calls.Load() < 50 { // a busy machine rotates faster than it calls
		time.Sleep(10 * time.Millisecond)
	}
	stop.Store(true)
	callers.Wait()
	t.Logf("%d calls, %d failed, over 3 rotations", calls.Load(), failed.Load())
}

func TestABrokenNewCertificateKeepsTheOldAndSaysSo(t *testing.T) {
	a := newAuthority(t)
	a.issue("agent", time.Now().Add(time.Hour))
	agent := startAgent(t, fmt.Sprintf("egress: {address: \"127.0.0.1:0\", tls: {cert_file: %q, key_file: %q}}\napi: {address: \"127.0.0.1:0\"}\nadmin: {address: \"127.0.0.1:0\"}\n",
		a.path("agent.pem"), a.path("agent.key")))

	a.write("agent.pem", "CERTIFICATE", []byte("not one"))

	ready := func() string {
		res, err := http.Get("http://" + agent.Addresses().Admin + "/readyz?verbose")
		_, body := read(t, res, err)
		return body
	}
	defer http.DefaultClient.CloseIdleConnections()
	for end := time.Now().Add(10 * time.Second); !strings.Contains(ready(), "egress.tls"); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("nothing says so: %s", ready())
		}
	}
	c, err := tls.Dial("tcp", agent.Addresses().Egress, a.client(""))
	if err != nil {
		t.Fatalf("the old one is gone: %v", err)
	}
	c.Close()
}

func TestAnExpiredEndpointIsRefusedWithItsReason(t *testing.T) {
	a := newAuthority(t)
	a.issue("agent", time.Now().Add(time.Hour))
	a.issue("server", time.Now().Add(-time.Hour))
	upstream := a.startSecureUpstream("server")
	agent := startAgent(t, fmt.Sprintf("%sservices:\n  - {name: echo, endpoints: {static: [{address: %q}]}, tls: {ca_file: %q}}\n", ports, upstream, a.path("ca.pem")))

	err := agent.app().Invoke(t.Context(), "/test.Echo/Call", wrapperspb.String("hello"), new(wrapperspb.StringValue))

	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "expired") || !strings.Contains(err.Error(), upstream) {
		t.Fatal(err)
	}
}

func TestTheAPITakesOnlyClientsWithACertificate(t *testing.T) {
	a := newAuthority(t)
	a.issue("agent", time.Now().Add(time.Hour))
	a.issue("operator", time.Now().Add(time.Hour))
	agent := startAgent(t, fmt.Sprintf("egress: {address: \"127.0.0.1:0\"}\napi: {address: \"127.0.0.1:0\", tls: {cert_file: %q, key_file: %q, ca_file: %q}}\nadmin: {address: \"127.0.0.1:0\"}\n",
		a.path("agent.pem"), a.path("agent.key"), a.path("ca.pem")))
	ask := func(c *tls.Config) error {
		cc, err := grpc.NewClient("passthrough:///"+agent.Addresses().API, grpc.WithTransportCredentials(credentials.NewTLS(c)))
		if err != nil {
			return err
		}
		defer cc.Close()
		_, err = outriggerv1.NewBreakerServiceClient(cc).ListBreakers(t.Context(), &outriggerv1.ListBreakersRequest{})
		return err
	}

	if err := ask(a.client("operator")); err != nil {
		t.Errorf("with a certificate: %v", err)
	}
	if err := ask(a.client("")); status.Code(err) != codes.Unavailable {
		t.Errorf("without one: %v", err)
	}
}

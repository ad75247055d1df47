package relay

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// certificate makes one for 127.0.0.1, signed by itself.
func certificate(t testing.TB) (tls.Certificate, *x509.CertPool) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(leaf)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, pool
}

// trusting is a Transport that speaks TLS and trusts one pool.
type trusting struct {
	Direct
	roots *x509.CertPool
}

func (t trusting) TLS(_ string, protocols ...string) (*tls.Config, error) {
	return &tls.Config{RootCAs: t.roots, ServerName: "127.0.0.1", NextProtos: protocols, MinVersion: tls.VersionTLS12}, nil
}

// newSecureFixture is a relay with TLS on both sides.
func newSecureFixture(t testing.TB, server tls.Certificate, trusted *x509.CertPool, p policy.Policy, endpoint string) *fixture {
	t.Helper()
	service := policy.NewService("echo", policy.Settings{Policy: p}, nil)
	service.SetEndpoints([]balancer.Spec{{Address: endpoint}})
	return newFixtureAround(t, Options{
		Table: NewTable([]Route{{Target: Target{Service: service, Transport: trusting{roots: trusted}}, Authorities: []string{"echo"}}}, nil),
		TLS:   &tls.Config{Certificates: []tls.Certificate{server}, NextProtos: []string{"h2", "http/1.1"}},
	}, service)
}

func TestCallsOfEveryKindPassUnderTLSOnBothSides(t *testing.T) {
	pair, pool := certificate(t)
	upstream := &echoServer{}
	address, _ := upstream.start(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair)), grpc.MaxRecvMsgSize(64<<20))
	f := newSecureFixture(t, pair, pool, policy.Policy{}, address)
	cc := f.client(t, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})),
		grpc.WithAuthority("echo"), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(64<<20)))

	for _, size := range []int{0, 100, 20_000, 8 << 20} {
		in := bytes.Repeat([]byte{7}, size)
		if out, err := unary(testContext(t), cc, in); err != nil || !bytes.Equal(in, out) {
			t.Fatalf("%d bytes: %d came back, %v", size, len(out), err)
		}
	}
	stream, err := cc.NewStream(testContext(t), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 {
		if err := stream.SendMsg(wrapperspb.Bytes(bytes.Repeat([]byte{byte(i)}, 5000))); err != nil {
			t.Fatal(err)
		}
		out := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(out); err != nil || len(out.Value) != 5000 {
			t.Fatalf("message %d: %d bytes, %v", i, len(out.Value), err)
		}
	}
	stream.CloseSend()
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != io.EOF {
		t.Fatal(err)
	}
}

func TestAReaderThatStopsUnderTLSGetsEverythingLater(t *testing.T) {
	pair, pool := certificate(t)
	upstream := &echoServer{}
	address, _ := upstream.start(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	f := newSecureFixture(t, pair, pool, policy.Policy{}, address)
	cc := f.client(t, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})), grpc.WithAuthority("echo"))
	stream, err := cc.NewStream(testContext(t), &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down")
	if err != nil {
		t.Fatal(err)
	}
	stream.SendMsg(wrapperspb.Bytes(append([]byte{200}, make([]byte, 100_000)...)))
	stream.CloseSend()

	time.Sleep(200 * time.Millisecond) // everything that can fill up is full

	for i := range 200 {
		out := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(out); err != nil || len(out.Value) != 100_000 {
			t.Fatalf("message %d: %d bytes, %v", i, len(out.Value), err)
		}
	}
}

func TestAnEndpointThatIsNotTrustedIsRefusedAsTLS(t *testing.T) {
	pair, _ := certificate(t)
	_, others := certificate(t)
	upstream := &echoServer{}
	address, _ := upstream.start(t, grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	f := newSecureFixture(t, pair, others, policy.Policy{}, address)
	cc := f.client(t, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})), grpc.WithAuthority("echo"))

	_, err := unary(testContext(t), cc, nil)

	reason, _, _ := refusalOf(err)
	if status.Code(err) != codes.Unavailable || reason != "TLS" || !strings.Contains(err.Error(), "unknown authority") || !strings.Contains(err.Error(), address) {
		t.Fatalf("got %s, %v", reason, err)
	}
}

func TestAnEndpointWithoutHTTP2IsRefusedAsTLS(t *testing.T) {
	pair, pool := certificate(t)
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_ = c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	f := newSecureFixture(t, pair, pool, policy.Policy{}, l.Addr().String())
	cc := f.client(t, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{InsecureSkipVerify: true})), grpc.WithAuthority("echo"))

	_, err = unary(testContext(t), cc, nil)

	if reason, _, _ := refusalOf(err); reason != "TLS" || !strings.Contains(err.Error(), "ALPN") {
		t.Fatalf("got %s, %v", reason, err)
	}
}

func TestPlaintextToATLSPortEndsAndIsCounted(t *testing.T) {
	pair, pool := certificate(t)
	f := newSecureFixture(t, pair, pool, policy.Policy{}, "127.0.0.1:1")
	ctx, cancel := context.WithTimeout(testContext(t), 5*time.Second)
	defer cancel()

	_, err := unary(ctx, f.client(t), nil)

	if err == nil {
		t.Fatal("the call went through")
	}
	// The client may hear of its end before it is counted.
	waitFor(t, func() bool { return f.relay.Stats().HandshakeFailuresTotal > 0 })
}

func TestRenewMovesCallsToNewConnections(t *testing.T) {
	address, _ := (&echoServer{}).start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	if _, err := unary(testContext(t), cc, nil); err != nil {
		t.Fatal(err)
	}
	open := func() []*upConn {
		u, _ := f.relay.upstreams.Load(f.service.Endpoints().All()[0])
		return u.(*upstream).all()
	}
	first := open()[0]

	f.relay.Renew(f.service)
	if _, err := unary(testContext(t), cc, nil); err != nil {
		t.Fatal(err)
	}

	waitFor(t, func() bool { all := open(); return len(all) == 1 && all[0] != first })
}

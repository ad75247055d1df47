package identity

import (
	"bytes"
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// journal is a log that a test can read.
type journal struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func (j *journal) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(j, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func open(t *testing.T, s Settings) *Source {
	t.Helper()
	source, _ := openLogged(t, s)
	return source
}

func openLogged(t *testing.T, s Settings) (*Source, *journal) {
	t.Helper()
	log := &journal{}
	source, err := Open("egress.tls", s, log.logger())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { source.Close() })
	return source, log
}

// outcome is how a handshake ended on both sides.
type outcome struct {
	server, client error
	seen           tls.ConnectionState // by the client
	met            tls.ConnectionState // by the server
}

func (o outcome) ok() bool { return o.server == nil && o.client == nil }

// shake makes one connection over loopback: a handshake, then a byte from the
// server, so that a client learns of a refusal that came after its own part.
func shake(t *testing.T, server, client *tls.Config) (o outcome) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	done := make(chan struct{})
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			o.server = err
			return
		}
		defer conn.Close()
		o.met, o.server = serve(conn, server)
	}()
	conn, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if client.ServerName == "" {
		client.ServerName = "localhost"
	}
	o.seen, o.client = connect(conn, client, 10*time.Second)
	conn.Close()
	<-done
	return o
}

func serve(conn net.Conn, config *tls.Config) (tls.ConnectionState, error) {
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	secure := tls.Server(conn, config)
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err := secure.Write([]byte{1})
	return secure.ConnectionState(), err
}

func connect(conn net.Conn, config *tls.Config, patience time.Duration) (tls.ConnectionState, error) {
	conn.SetDeadline(time.Now().Add(patience))
	secure := tls.Client(conn, config)
	if err := secure.HandshakeContext(context.Background()); err != nil {
		return tls.ConnectionState{}, err
	}
	_, err := secure.Read(make([]byte, 1))
	return secure.ConnectionState(), err
}

// says checks that an error is explained with all of the parts.
func says(t *testing.T, err error, parts ...string) {
	t.Helper()
	text := Explain(err)
	if err == nil {
		t.Errorf("no error, want %q", parts)
		return
	}
	for _, part := range parts {
		if !strings.Contains(text, part) {
			t.Errorf("explained as %q, want %q in it (error: %v)", text, part, err)
		}
	}
	if strings.ContainsAny(text, "\n\r") {
		t.Errorf("explained with more than one line: %q", text)
	}
}

// eventually waits until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	for end := time.Now().Add(15 * time.Second); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never came: %s", what)
		}
	}
}

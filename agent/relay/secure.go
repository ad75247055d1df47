package relay

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
)

// secure is a socket's TLS. The handshake waits, on a goroutine that reads no
// frames; afterwards crypto/tls sits between two pieces of memory, so that
// neither reads nor writes ever wait for the network.
type secure struct {
	conn *tls.Conn
	wire *wire
}

// handshake speaks TLS on nc, as the client or the server, until ctx ends.
func handshake(ctx context.Context, nc net.Conn, config *tls.Config, client bool) (*secure, error) {
	w := &wire{Conn: nc}
	w.waits.Store(true)
	s := &secure{wire: w}
	// Records of full size from the start: the peer is a neighbour.
	config = config.Clone()
	config.DynamicRecordSizingDisabled = true
	if client {
		s.conn = tls.Client(w, config)
	} else {
		s.conn = tls.Server(w, config)
	}
	if err := s.conn.HandshakeContext(ctx); err != nil {
		return nil, err
	}
	w.waits.Store(false)
	return s, nil
}

// protocol returns what ALPN agreed on; empty: nothing.
func (s *secure) protocol() string { return s.conn.ConnectionState().NegotiatedProtocol }

// read decrypts what came, or returns EAGAIN. Reader goroutine only.
func (s *secure) read(fd int, p []byte) (int, error) {
	s.wire.fd = fd
	n, err := s.conn.Read(p)
	if err == error(wouldBlock{}) {
		return 0, syscall.EAGAIN
	}
	if n > 0 {
		return n, nil // an error comes again
	}
	return n, err
}

// seal encrypts p and returns what goes to the network. One at a time.
func (s *secure) seal(p []byte) ([]byte, error) {
	if len(p) > 0 {
		if _, err := s.conn.Write(p); err != nil {
			return nil, err
		}
	}
	return s.wire.take(), nil
}

// sent takes back the memory that seal lent.
func (s *secure) sent(p []byte) { s.wire.giveBack(p) }

// closing returns TLS's own goodbye.
func (s *secure) closing() []byte {
	_ = s.conn.CloseWrite() // into memory
	return s.wire.take()
}

// release makes reads and writes wait again.
func (s *secure) release() net.Conn {
	s.wire.waits.Store(true)
	return s.conn
}

// wire is the network as crypto/tls sees it: the socket during the handshake,
// memory and non-blocking reads from then on.
type wire struct {
	net.Conn
	waits atomic.Bool
	fd    int // lent for the read under way

	mu    sync.Mutex // a reader answers a KeyUpdate while a writer writes
	out   []byte
	spare []byte
}

// wouldBlock is an error that crypto/tls does not take for the end: what was
// read so far is kept, and the next read goes on.
type wouldBlock struct{}

func (wouldBlock) Error() string   { return "nothing to read yet" }
func (wouldBlock) Timeout() bool   { return false }
func (wouldBlock) Temporary() bool { return true }

// Read implements net.Conn.
func (w *wire) Read(p []byte) (int, error) {
	if w.waits.Load() {
		return w.Conn.Read(p)
	}
	n, err := readFD(w.fd, p)
	switch {
	case err == syscall.EAGAIN:
		return 0, wouldBlock{}
	case err != nil:
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

// Write implements net.Conn.
func (w *wire) Write(p []byte) (int, error) {
	if w.waits.Load() {
		return w.Conn.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.out == nil {
		w.out, w.spare = w.spare, nil
	}
	w.out = append(w.out, p...)
	return len(p), nil
}

func (w *wire) take() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	p := w.out
	w.out = nil
	return p
}

func (w *wire) giveBack(p []byte) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if cap(p) <= maxPooledBuffer && cap(p) > cap(w.spare) {
		w.spare = p[:0]
	}
}

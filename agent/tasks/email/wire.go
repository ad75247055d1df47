package email

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"
)

// maxUnasked is how much a server may send before it hears from us again, in
// bytes: far above any reply and any TLS handshake.
const maxUnasked = 256 << 10

var errUnasked = fmt.Errorf("it sent more than %d KiB without being asked", maxUnasked>>10)

// wire is a connection that no server can hold for ever or fill memory with.
// One goroutine at a time uses it; any may close it.
type wire struct {
	net.Conn
	timeout time.Duration
	// unasked is how many bytes were read since the last write.
	unasked int
}

// expect says how long the answer to what comes next may take as a whole: a
// server that sends it byte by byte gets no more time.
func (w *wire) expect(d time.Duration) {
	// The only error is that the connection was closed, which the read reports.
	_ = w.Conn.SetReadDeadline(time.Now().Add(d))
}

func (w *wire) Read(p []byte) (int, error) {
	if w.unasked >= maxUnasked {
		return 0, errUnasked
	}
	n, err := w.Conn.Read(p)
	w.unasked += n
	return n, err
}

func (w *wire) Write(p []byte) (int, error) {
	w.unasked = 0
	if err := w.Conn.SetWriteDeadline(time.Now().Add(w.timeout)); err != nil {
		return 0, err
	}
	return w.Conn.Write(p)
}

// isEnd tells whether an error says that the connection is over.
func isEnd(err error) bool {
	for _, end := range []error{io.EOF, io.ErrUnexpectedEOF, net.ErrClosed, syscall.ECONNRESET, syscall.EPIPE} {
		if errors.Is(err, end) {
			return true
		}
	}
	return false
}

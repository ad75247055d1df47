package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// socket is a connection's transport, in plaintext or under TLS. Reads lend
// memory only once there is something to read, writes never block.
type socket struct {
	nc     net.Conn
	raw    syscall.RawConn
	secure *secure // nil: plaintext

	// State of the read under way, in fields so that no closure is made per
	// read. Reader goroutine only.
	early   []byte // came before the socket did: read first
	into    reader
	n       int
	readErr error
	tryRead func(fd uintptr) bool

	// State of the write under way. Guarded by conn.writing.
	data     []byte
	written  int
	writeErr error
	tryOnce  func(fd uintptr) bool
	tryAll   func(fd uintptr) bool
}

// newSocket takes a TCP or unix connection over. early is what was read from
// it already; s is nil for plaintext.
func newSocket(nc net.Conn, early []byte, s *secure) (*socket, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.New("relay: connection without a file descriptor")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	k := &socket{nc: nc, raw: raw, early: early, secure: s}
	k.tryRead = k.readOnce
	k.tryOnce = func(fd uintptr) bool {
		k.writeSome(int(fd))
		return true
	}
	k.tryAll = func(fd uintptr) bool {
		k.writeSome(int(fd))
		return k.writeErr != syscall.EAGAIN
	}
	return k, nil
}

// reader lends memory to read into.
type reader interface {
	// space returns where the next bytes go; never empty.
	space() []byte
	// idle is called before the goroutine waits: nothing came, memory can be
	// given back.
	idle()
}

// readOnce reads what is there. It reports false where the goroutine has to
// wait.
func (s *socket) readOnce(fd uintptr) bool {
	p := s.into.space()
	if s.secure != nil {
		s.n, s.readErr = s.secure.read(int(fd), p)
	} else {
		s.n, s.readErr = readFD(int(fd), p)
	}
	if s.readErr == syscall.EAGAIN {
		s.into.idle()
		return false
	}
	return true
}

func readFD(fd int, p []byte) (int, error) {
	for {
		n, err := syscall.Read(fd, p)
		if err != syscall.EINTR {
			return n, err
		}
	}
}

// read waits for bytes and reads them into the space lent.
func (s *socket) read(into reader) (int, error) {
	if len(s.early) > 0 {
		n := copy(into.space(), s.early)
		s.early = s.early[n:]
		return n, nil
	}
	s.into = into
	err := s.raw.Read(s.tryRead)
	switch {
	case err != nil:
		return 0, err
	case s.readErr != nil:
		return 0, s.readErr
	case s.n == 0:
		return 0, io.EOF
	}
	return s.n, nil
}

func (s *socket) writeSome(fd int) {
	s.writeErr = nil
	for s.written < len(s.data) {
		n, err := syscall.Write(fd, s.data[s.written:])
		if n > 0 {
			s.written += n
		}
		if err == syscall.EINTR {
			continue
		}
		s.writeErr = err
		if err != nil {
			return
		}
	}
}

// write sends what the kernel takes of p at once and returns how many bytes
// are left: finish sends those. p must stay as it is until then.
func (s *socket) write(p []byte) (left int, err error) {
	s.data, s.written = p, 0
	if s.secure != nil {
		if s.data, err = s.secure.seal(p); err != nil {
			return 0, err
		}
	}
	return s.push(s.tryOnce)
}

// finish waits until what write left is sent.
func (s *socket) finish() error {
	_, err := s.push(s.tryAll)
	return err
}

func (s *socket) push(try func(fd uintptr) bool) (left int, err error) {
	err = s.raw.Write(try)
	if err == nil && s.writeErr != nil && s.writeErr != syscall.EAGAIN {
		err = s.writeErr
	}
	left = len(s.data) - s.written
	if left == 0 || err != nil {
		if s.secure != nil {
			s.secure.sent(s.data)
		}
		s.data = nil
	}
	return left, err
}

// closeWrite says that nothing more comes and gives the peer a moment to read
// it: a close with unread input would throw away what is on its way.
func (s *socket) closeWrite() {
	if s.secure != nil {
		if p := s.secure.closing(); len(p) > 0 {
			_, _ = s.nc.Write(p) // a courtesy: few bytes, and the output is empty
		}
	}
	half, ok := s.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		s.nc.Close()
		return
	}
	_ = s.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
}

// release hands the connection on as it is: the caller reads and writes it
// itself, waiting.
func (s *socket) release() net.Conn {
	if s.secure != nil {
		return s.secure.release()
	}
	return s.nc
}

func (s *socket) close() { s.nc.Close() }

package relay

import (
	"errors"
	"io"
	"net"
	"syscall"
	"time"
)

// socket is a connection's transport. Reads lend memory only once there is
// something to read, writes never block.
type socket struct {
	nc  net.Conn
	raw syscall.RawConn

	// State of the read under way, in fields so that no closure is made per
	// read. Reader goroutine only.
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

func newSocket(nc net.Conn) (*socket, error) {
	sc, ok := nc.(syscall.Conn)
	if !ok {
		return nil, errors.New("relay: connection without a file descriptor")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return nil, err
	}
	s := &socket{nc: nc, raw: raw}
	s.tryRead = func(fd uintptr) bool {
		p := s.into.space()
		for {
			s.n, s.readErr = syscall.Read(int(fd), p)
			if s.readErr != syscall.EINTR {
				break
			}
		}
		if s.readErr == syscall.EAGAIN {
			s.into.idle()
			return false
		}
		return true
	}
	s.tryOnce = func(fd uintptr) bool {
		s.writeSome(int(fd))
		return true
	}
	s.tryAll = func(fd uintptr) bool {
		s.writeSome(int(fd))
		return s.writeErr != syscall.EAGAIN
	}
	return s, nil
}

// reader lends memory to read into.
type reader interface {
	// space returns where the next bytes go; never empty.
	space() []byte
	// idle is called before the goroutine waits: nothing came, memory can be
	// given back.
	idle()
}

// read waits for bytes and reads them into the space lent.
func (s *socket) read(into reader) (int, error) {
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

// write takes what the kernel takes at once; with wait it stays until all is
// written. It returns how much was.
func (s *socket) write(p []byte, wait bool) (int, error) {
	s.data, s.written, s.writeErr = p, 0, nil
	try := s.tryOnce
	if wait {
		try = s.tryAll
	}
	err := s.raw.Write(try)
	n := s.written
	s.data = nil
	if err == nil && s.writeErr != nil && s.writeErr != syscall.EAGAIN {
		err = s.writeErr
	}
	return n, err
}

// closeWrite says that nothing more comes and gives the peer a moment to read
// it: a close with unread input would throw away what is on its way.
func (s *socket) closeWrite() {
	half, ok := s.nc.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		s.nc.Close()
		return
	}
	_ = s.nc.SetReadDeadline(time.Now().Add(lingerTimeout))
}

func (s *socket) close() { s.nc.Close() }

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"strings"
	"syscall"
	"time"
)

const (
	// socketMode lets only the agent's own user connect.
	socketMode = 0o600
	// sharedSocketMode lets everybody connect: each is asked who it is.
	sharedSocketMode = 0o666
)

// listen opens an address of the configuration: "host:port" or "unix:PATH".
// field is its name there, for messages. A unix socket takes the agent's own
// user, and the uids.
func listen(field, address string, uids []uint32, logger *slog.Logger) (net.Listener, error) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if len(uids) == 0 {
			return listenUnix(field, path, socketMode)
		}
		l, err := listenUnix(field, path, sharedSocketMode)
		if err != nil {
			return nil, err
		}
		return &onlyUsers{Listener: l, field: field, uids: uids, logger: logger}, nil
	}
	l, err := net.Listen("tcp", address)
	if err == nil {
		return l, nil
	}
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		_, port, _ := net.SplitHostPort(address)
		return nil, fmt.Errorf("%s: %s is taken by another process, perhaps another agent: "+
			"`lsof -nP -iTCP:%s -sTCP:LISTEN` names it; end it, or choose another port (0: a free one)", field, address, port)
	case errors.Is(err, syscall.EACCES):
		return nil, fmt.Errorf("%s: not allowed to listen on %s: ports below 1024 are the system's; choose a higher one", field, address)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%s: this machine has no address %s; use one of its own, or 127.0.0.1", field, address)
	}
	return nil, fmt.Errorf("%s: can't listen on %s: %w", field, address, err)
}

// listenUnix opens a unix socket that mode lets connect. A socket file
// that a dead process left behind is replaced; a live one is not.
func listenUnix(field, path string, mode uint32) (net.Listener, error) {
	l, err := bindUnix(path, mode)
	if errors.Is(err, syscall.EADDRINUSE) {
		info, statErr := os.Lstat(path)
		switch {
		case statErr == nil && info.Mode()&fs.ModeSocket == 0:
			return nil, fmt.Errorf("%s: %s exists and is not a socket; remove it or choose another path", field, path)
		case answers(path):
			return nil, fmt.Errorf("%s: another process answers on %s, perhaps another agent: `lsof %s` names it", field, path, path)
		}
		if err = os.Remove(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			l, err = bindUnix(path, mode)
		}
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%s: the folder of %s does not exist", field, path)
	case errors.Is(err, syscall.EINVAL):
		return nil, fmt.Errorf("%s: %s is too long for a socket (about 100 bytes are allowed)", field, path)
	case err != nil:
		return nil, fmt.Errorf("%s: can't listen on unix:%s: %w", field, path, err)
	}
	return l, nil
}

func bindUnix(path string, mode uint32) (net.Listener, error) {
	// Linux gives the file the mode that the socket has when it is bound: no
	// moment is left in which others could connect.
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), mode) })
	}}
	l, err := config.Listen(context.Background(), "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, fs.FileMode(mode)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// answers reports whether a process listens on the socket.
func answers(path string) bool {
	c, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		// Only a refusal says that nobody is there; a full backlog, for
		// example, says that somebody is.
		return !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, fs.ErrNotExist)
	}
	c.Close()
	return true
}

// displayAddress returns where l listens as it would stand in a configuration.
func displayAddress(l net.Listener) string {
	if a, ok := l.Addr().(*net.UnixAddr); ok {
		return "unix:" + a.Name
	}
	return l.Addr().String()
}

package agent

import (
	"log/slog"
	"net"
	"os"
	"slices"
	"time"
)

// onlyUsers takes connections from some users' processes and closes the others'.
type onlyUsers struct {
	net.Listener
	field  string
	uids   []uint32
	logger *slog.Logger

	// The accepting goroutine's own.
	refused int // since the last line
	said    time.Time
}

// refusalLog is how often refused users get a line.
const refusalLog = 10 * time.Second

// Accept implements net.Listener.
func (l *onlyUsers) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		uc, ok := c.(*net.UnixConn)
		if !ok {
			return c, nil
		}
		uid, err := peerUID(uc)
		if err == nil && (uid == uint32(os.Getuid()) || slices.Contains(l.uids, uid)) {
			return c, nil
		}
		c.Close()
		l.refused++
		if now := time.Now(); now.Sub(l.said) >= refusalLog {
			l.logger.Warn("connections refused: their user is not in allow_uids", "listener", l.field, "uid", uid, "refused", l.refused)
			l.said, l.refused = now, 0
		}
	}
}

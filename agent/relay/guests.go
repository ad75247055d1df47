package relay

import (
	"bytes"
	"errors"
	"net"
	"os"
	"sync"
	"time"
)

// Guests takes connections that do not speak HTTP/2. Neither method waits for
// the connection to end; both own it from then on. tunnel is where the client
// asked to be connected with CONNECT before, empty where it did not.
type Guests interface {
	// HTTP1 takes a client that speaks HTTP/1.
	HTTP1(nc net.Conn, tunnel string)
	// Opaque takes a client inside a tunnel that speaks something else, TLS
	// for example, or waits for the other side to begin.
	Opaque(nc net.Conn, tunnel string)
}

// language is what a connection speaks, as far as its first bytes tell.
type language uint8

const (
	languageHTTP1 language = iota
	languageTLS
	languageUnknown
)

// notHTTP2 is the error of a client that speaks something else.
type notHTTP2 struct{ language language }

func (e *notHTTP2) Error() string { return "not HTTP/2" }

// begin implements side: the client's preface, or something else altogether.
func (d *downConn) begin(b *batch, in []byte) (int, error) {
	n := min(len(in), len(clientPreface))
	if string(in[:n]) != clientPreface[:n] {
		if speaks, sure := recognise(in); sure {
			return 0, &notHTTP2{speaks}
		}
		return 0, nil
	}
	if n < len(clientPreface) {
		return 0, nil
	}
	d.greet(b, setting{settingMaxConcurrentStreams, uint32(d.relay.limits.DownstreamStreams)})
	return n, nil
}

// longestMethod is how long the method of an HTTP/1 request may be.
const longestMethod = 20

// recognise tells the language of the first bytes; sure is false where more are
// needed.
func recognise(in []byte) (speaks language, sure bool) {
	if in[0] == 0x16 {
		if len(in) < 2 {
			return languageTLS, false
		}
		if in[1] == 3 {
			return languageTLS, true
		}
		return languageUnknown, true
	}
	for i, c := range in {
		switch {
		case c == ' ' && i > 0:
			return recogniseRequest(in)
		case i >= longestMethod || (c < 'A' || c > 'Z') && c != '-' && c != '_':
			return languageUnknown, true
		}
	}
	return languageHTTP1, false
}

// longestTarget is up to where the end of a request line is looked for: a
// longer one is net/http's to refuse.
const longestTarget = 8 << 10

// recogniseRequest tells a request line from other text by its end.
func recogniseRequest(in []byte) (speaks language, sure bool) {
	line, _, whole := bytes.Cut(in, []byte("\n"))
	switch {
	case len(line) > longestTarget || bytes.Contains(line, []byte(" HTTP/")):
		return languageHTTP1, true
	case whole:
		return languageUnknown, true
	}
	return languageHTTP1, false
}

// handOver gives a connection that ended its reading with err to the guests.
// It reports whether they took it. Reader goroutine only.
func (d *downConn) handOver(err error) bool {
	speaks := languageUnknown
	var stranger *notHTTP2
	switch {
	case errors.As(err, &stranger):
		speaks = stranger.language
	case d.tunnel != "" && !d.begun && errors.Is(err, os.ErrDeadlineExceeded):
	default:
		return false
	}
	r := d.relay
	if r.guests == nil || d.tunnel == "" && speaks != languageHTTP1 {
		what := "unknown bytes"
		if speaks == languageTLS {
			what = "TLS, where this port takes plaintext"
		}
		r.stats.strangers.Add(1)
		r.logger.Warn("connection refused: neither HTTP/2 nor HTTP/1", "peer", d.peer, "got", what)
		return false
	}
	d.cancelTimers()
	g := &guestConn{sock: d.sock, early: d.unread(), leave: d.leave}
	d.have = 0
	d.release()
	d.mu.Lock()
	d.closed = true
	d.mu.Unlock()
	g.Conn = d.sock.release()
	_ = d.sock.nc.SetDeadline(time.Time{})
	r.forgetDown(d)
	if speaks == languageHTTP1 {
		r.guests.HTTP1(g, d.tunnel)
	} else {
		r.guests.Opaque(g, d.tunnel)
	}
	return true
}

// unread returns a copy of what came and was not consumed.
func (d *downConn) unread() []byte {
	if d.have == 0 {
		return nil
	}
	return append([]byte(nil), d.in[:d.have]...)
}

// guestConn is a connection that was handed over: what was read to find out
// what it speaks comes first.
type guestConn struct {
	net.Conn
	sock  *socket
	early []byte
	leave func()
	once  sync.Once
}

// Read implements net.Conn.
func (g *guestConn) Read(p []byte) (int, error) {
	if len(g.early) > 0 {
		n := copy(p, g.early)
		g.early = g.early[n:]
		return n, nil
	}
	return g.Conn.Read(p)
}

// Close implements net.Conn.
func (g *guestConn) Close() error {
	g.once.Do(g.leave)
	return g.Conn.Close()
}

// CloseWrite says that nothing more comes.
func (g *guestConn) CloseWrite() error {
	if half, ok := g.Conn.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return g.Close()
}

// Tunnel takes back a connection that was handed over as HTTP/1: its client
// asked with CONNECT to be connected to target and was told that it is. early
// is what was read of it meanwhile.
func (r *Relay) Tunnel(nc net.Conn, early []byte, target string) error {
	g, ok := nc.(*guestConn)
	if !ok {
		nc.Close()
		return errors.New("relay: a connection that was not handed over")
	}
	sock := g.sock
	sock.early = append(append([]byte(nil), early...), g.early...)
	if sock.secure != nil {
		sock.secure.wire.waits.Store(false)
	}
	d := newDownConn(r, sock, r.peerName(sock.nc))
	d.tunnel, d.leave = target, func() { g.once.Do(g.leave) }
	r.serve(d)
	return nil
}

package forward

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// client is an HTTP/1 connection whose bytes are checked before net/http sees
// them.
type client struct {
	net.Conn
	tunnel string // what CONNECT named before; empty: nothing
	server *Server

	mu      sync.Mutex // never held while a read waits
	framing framing
	refused *violation
	broken  atomic.Bool // an answer was not finished: nothing may follow it
	closing sync.Once
}

// Read implements net.Conn.
func (c *client) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p) // one at a time: net/http sees to that
	c.mu.Lock()
	defer c.mu.Unlock()
	if v := c.framing.check(p[:max(n, 0)]); v != nil {
		c.refused = v
		return 0, io.EOF // net/http goes quietly; Close answers
	}
	return n, err
}

// upgraded says that what follows is not HTTP any more.
func (c *client) upgraded() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.framing.open()
}

// Close implements net.Conn. A client that was refused reads why first.
func (c *client) Close() error {
	c.closing.Do(func() {
		c.mu.Lock()
		refused := c.refused
		c.mu.Unlock()
		if refused == nil {
			return
		}
		c.server.options.Logger.Warn("connection ended: the client broke HTTP/1", "peer", peerName(c), "error", refused.detail)
		if c.broken.Load() {
			return
		}
		_ = c.Conn.SetDeadline(time.Now().Add(time.Second))
		_, _ = c.Conn.Write(refused.answer())
		if half, ok := c.Conn.(interface{ CloseWrite() error }); ok && half.CloseWrite() == nil {
			// Unread bytes would take the answer away from the client.
			_, _ = io.CopyN(io.Discard, c.Conn, 64<<10)
		}
	})
	return c.Conn.Close()
}

// answer is the whole response that a client gets which broke HTTP/1.
func (v *violation) answer() []byte {
	body, err := json.Marshal(struct {
		Type   string `json:"type"`
		Title  string `json:"title"`
		Status int    `json:"status"`
		Detail string `json:"detail"`
		Domain string `json:"domain"`
		Reason string `json:"reason"`
	}{"about:blank", http.StatusText(v.status), v.status, v.detail, policy.Domain, policy.Protocol.String()})
	if err != nil {
		panic(err) // strings and numbers can always be written
	}
	return fmt.Appendf(nil, "HTTP/1.1 %d %s\r\nContent-Type: %s\r\nOutrigger-Reason: %s\r\nContent-Length: %d\r\nConnection: close\r\n\r\n%s",
		v.status, http.StatusText(v.status), policy.ProblemType, policy.Protocol, len(body), body)
}

func peerName(nc net.Conn) string {
	if peer := nc.RemoteAddr().String(); peer != "" && peer != "@" {
		return peer
	}
	return "unix"
}

// queue is the listener that net/http gets its connections from.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
	open  bool // guarded by Server.mu
}

func (q *queue) put(c net.Conn) {
	select {
	case q.conns <- c:
	case <-q.done:
		c.Close()
	}
}

// Accept implements net.Listener.
func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (q *queue) Close() error {
	q.end()
	return nil
}

func (q *queue) end() { q.once.Do(func() { close(q.done) }) }

// Addr implements net.Listener.
func (q *queue) Addr() net.Addr { return &net.UnixAddr{Name: "handed over", Net: "unix"} }

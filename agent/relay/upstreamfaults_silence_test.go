package relay

import (
	"context"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/outrigger-rpc/outrigger/policy"
)

// listenRaw answers every connection with the text, and hangs up.
func listenRaw(t *testing.T, text string) (address string) {
	t.Helper()
	return listenWith(t, func(c *net.TCPConn) {
		io.WriteString(c, text)
		c.CloseWrite()
		io.Copy(io.Discard, c)
	})
}

// listenWith has serve take every connection, until the test ends.
func listenWith(t *testing.T, serve func(c *net.TCPConn)) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer c.Close()
				serve(c.(*net.TCPConn))
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

// blackHole is a wire to an endpoint. Once cut, the connections that it has
// carry nothing any more, and no FIN either; new ones are as good as ever.
type blackHole struct {
	address string
	epoch   atomic.Int64
	accepts atomic.Int64
}

func newBlackHole(t *testing.T, endpoint string) *blackHole {
	h := &blackHole{}
	h.address = listenWith(t, func(near *net.TCPConn) {
		h.accepts.Add(1)
		far, err := net.Dial("tcp", endpoint)
		if err != nil {
			t.Error(err)
			return
		}
		defer far.Close()
		born := h.epoch.Load()
		var back sync.WaitGroup
		back.Go(func() { h.carry(near, far, born) })
		h.carry(far, near, born)
		far.Close()
		back.Wait()
	})
	return h
}

// carry copies until the source ends, and nothing that comes after the cut.
func (h *blackHole) carry(to, from net.Conn, born int64) {
	b := make([]byte, 4096)
	for {
		n, err := from.Read(b)
		if err != nil {
			return
		}
		if h.epoch.Load() == born {
			to.Write(b[:n])
		}
	}
}

func (h *blackHole) cut() { h.epoch.Add(1) }

// TestEndpointThatDiesSilentlyInMidCall: no FIN, no RST; keepalive finds it,
// and the next call gets a new connection.
func TestEndpointThatDiesSilentlyInMidCall(t *testing.T) {
	endpoint, _ := new(echoServer).start(t)
	wire := newBlackHole(t, endpoint)
	keepalive := Keepalive{Interval: 100 * time.Millisecond, Timeout: 100 * time.Millisecond}
	s := newStageWith(t, Options{Keepalive: keepalive}, policy.Policy{}, wire.address)
	stream := s.open(t)
	if err := receive(stream); err != nil {
		t.Fatal(err)
	}

	wire.cut()
	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "no sign of life for"})
	if err := s.call(t); err != nil || wire.accepts.Load() != 2 {
		t.Errorf("the next call: %v, on connection %d", err, wire.accepts.Load())
	}
}

// TestEndpointThatDiedWhileIdle: the first call after a long silence is what
// finds it, as soon as the timeout of keepalive allows.
func TestEndpointThatDiedWhileIdle(t *testing.T) {
	endpoint, _ := new(echoServer).start(t)
	wire := newBlackHole(t, endpoint)
	keepalive := Keepalive{Interval: 50 * time.Millisecond, Timeout: 100 * time.Millisecond}
	s := newStageWith(t, Options{Keepalive: keepalive}, policy.Policy{}, wire.address)
	if err := s.call(t); err != nil {
		t.Fatal(err)
	}
	wire.cut()
	time.Sleep(2 * keepalive.Interval)

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "no sign of life for"})
	if err := s.call(t); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestEndpointThatIsSlowIsNotDead: it answers PINGs, so its call may take as
// long as it likes.
func TestEndpointThatIsSlowIsNotDead(t *testing.T) {
	release := make(chan struct{})
	slow := &echoServer{unary: func(_ context.Context, in []byte) ([]byte, error) {
		<-release
		return in, nil
	}}
	endpoint, _ := slow.start(t)
	keepalive := Keepalive{Interval: 50 * time.Millisecond, Timeout: 50 * time.Millisecond}
	s := newStageWith(t, Options{Keepalive: keepalive}, policy.Policy{}, endpoint)
	call := s.start(t)

	time.Sleep(10 * keepalive.Interval)
	close(release)

	s.judge(t, time.Now(), <-call, verdict{code: codes.OK})
}

// TestResetWhileIdle: the endpoint's host forgot the connection (TCP RST) with
// no call in flight. The relay connects anew on its own; the next call does
// not notice.
func TestResetWhileIdle(t *testing.T) {
	for name, end := range map[string]func(c *scriptConn){"RST": (*scriptConn).cutOff, "FIN": (*scriptConn).hangUp} {
		t.Run(name, func(t *testing.T) {
			idle := make(chan struct{})
			var connections atomic.Int64
			s := newStage(t, func(c *scriptConn) {
				connections.Add(1)
				if c.number > 1 {
					forEach((*scriptConn).answer)(c)
					return
				}
				c.answer(c.nextHeaders())
				<-idle
				end(c)
			})
			if err := s.call(t); err != nil {
				t.Fatal(err)
			}
			close(idle)
			waitFor(t, func() bool { return connections.Load() == 2 })

			began := time.Now()
			attempts, err := s.explained(t)

			s.judge(t, began, err, verdict{code: codes.OK})
			if attempts != "1" {
				t.Errorf("%s attempts", attempts)
			}
		})
	}
}

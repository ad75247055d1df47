package relay

import (
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// memoryPair is two ends of a connection that leaves no trace on the network.
func memoryPair(t testing.TB) (a, b net.Conn) {
	t.Helper()
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := func(fd int) net.Conn {
		file := os.NewFile(uintptr(fd), "pair")
		defer file.Close()
		c, err := net.FileConn(file)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	return end(fds[0]), end(fds[1])
}

// scripted is a Transport to an endpoint that says the same on each connection
// and listens to nothing.
type scripted struct {
	t    testing.TB
	says []byte

	mu    sync.Mutex
	ends  []net.Conn
	works sync.WaitGroup
}

func (s *scripted) Dial(context.Context, string) (net.Conn, error) {
	ours, theirs := memoryPair(s.t)
	s.mu.Lock()
	s.ends = append(s.ends, theirs)
	s.mu.Unlock()
	s.works.Go(func() { _, _ = io.Copy(io.Discard, theirs) })
	s.works.Go(func() {
		_, _ = theirs.Write(append(appendSettings(nil), s.says...))
		_ = theirs.(*net.UnixConn).CloseWrite()
	})
	return ours, nil
}

func (*scripted) TLS(string, ...string) (*tls.Config, error) { return nil, nil }

func (s *scripted) close() {
	s.mu.Lock()
	for _, c := range s.ends {
		c.Close()
	}
	s.mu.Unlock()
	s.works.Wait()
}

// FuzzRelay feeds bytes to both sides of a whole relay at once. Nothing panics
// or hangs; no sender ever holds more credit than its windows; and when the
// client is gone, no call, byte or connection of its is left.
func FuzzRelay(f *testing.F) {
	request := literal(":method", "POST", ":scheme", "http", ":path", "/a.B/C", ":authority", "echo", "content-type", "application/grpc")
	answer := literal(":status", "200", "content-type", "application/grpc")
	trailers := literal("grpc-status", "0")
	call := append(appendHeaderBlock(nil, 1, request, false, minMaxFrameSize), append(appendFrameHeader(nil, 5, frameData, flagEndStream, 1), 0, 0, 0, 0, 0)...)
	whole := append(appendHeaderBlock(nil, 1, answer, false, minMaxFrameSize), append(appendFrameHeader(nil, 5, frameData, 0, 1), 0, 0, 0, 0, 0)...)
	whole = appendHeaderBlock(whole, 1, trailers, true, minMaxFrameSize)
	f.Add(call, whole)
	f.Add(append(call, appendRSTStream(nil, 1, codeCancel)...), appendRSTStream(nil, 1, codeRefusedStream))
	f.Add(append(appendSettings(nil, setting{settingInitialWindowSize, 0}), call...), append(whole, appendGoAway(nil, 0, codeNo, "bye")...))
	f.Add(call, append(appendSettings(nil, setting{settingMaxConcurrentStreams, 0}, setting{settingHeaderTableSize, 0}), appendWindowUpdate(nil, 1, 5)...))
	later := literal(":method", "POST", ":scheme", "http", ":path", "/a.B/C", ":authority", "echo", "content-type", "application/grpc", "outrigger-defer", "true")
	f.Add(append(appendHeaderBlock(nil, 1, later, false, minMaxFrameSize), append(appendFrameHeader(nil, 5, frameData, flagEndStream, 1), 0, 0, 0, 0, 0)...), whole)
	f.Add(call, appendHeaderBlock(nil, 1, literal(":status", "200", "content-type", "application/grpc", "grpc-status", "14"), true, minMaxFrameSize))
	f.Fuzz(func(t *testing.T, client, endpoint []byte) {
		if len(client) > 16<<10 || len(endpoint) > 16<<10 {
			return
		}
		service := policy.NewService("echo", policy.Settings{Policy: policy.Policy{Timeout: 50 * time.Millisecond, Stream: policy.StreamLimits{MaxDuration: 50 * time.Millisecond},
			Idempotent: true, Defer: policy.DeferPolicy{Mode: policy.DeferOnFailure}}}, nil)
		service.SetEndpoints([]balancer.Spec{{Address: "a:1"}, {Address: "b:1"}})
		transport := &scripted{t: t, says: endpoint}
		r := New(Options{
			Origin: time.Now().Add(-time.Second), Logger: slog.New(slog.DiscardHandler), Deferrer: new(keeper),
			Table: NewTable([]Route{{Target: Target{Service: service, Transport: transport}, Authorities: []string{"echo"}}}, nil),
		})
		ours, theirs := memoryPair(t)
		leave, _ := r.admitConnection(ours)
		r.welcome(ours, nil, "fuzz", leave)
		var heard sync.WaitGroup
		var credit int64
		heard.Go(func() { credit = listen(theirs) })
		_, _ = io.WriteString(theirs, clientPreface)
		_, _ = theirs.Write(append(appendSettings(nil), client...))
		_ = theirs.(*net.UnixConn).CloseWrite()
		heard.Wait()
		theirs.Close()

		for end := time.Now().Add(5 * time.Second); ; time.Sleep(100 * time.Microsecond) {
			s := r.Stats()
			if s.ActiveCalls == 0 && s.BufferedBytes == 0 && s.DownstreamConnections == 0 {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("left behind: %+v", s)
			}
		}
		if most := int64(r.limits.ConnectionWindow + len(client)); credit > most {
			t.Errorf("the client was granted %d bytes, more than its window and what it sent (%d)", credit, most)
		}
		r.Close()
		transport.close()
		if r.clients != 0 || len(r.peers) != 0 {
			t.Errorf("%d clients and %d peers are left", r.clients, len(r.peers))
		}
	})
}

// listen reads what the relay says to a client until it ends, and returns how
// much credit it gave for the connection.
func listen(c net.Conn) (credit int64) {
	_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
	credit = defaultWindow
	framer := http2.NewFramer(io.Discard, c)
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			_, _ = io.Copy(io.Discard, c)
			return credit
		}
		if w, ok := f.(*http2.WindowUpdateFrame); ok && w.StreamID == 0 {
			credit += int64(w.Increment)
		}
	}
}

package relay

import (
	"io"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// pipe is a socket's stand-in: the fuzzer feeds connections without a kernel.
func newFuzzConn(t testing.TB, r *Relay) (*downConn, func()) {
	t.Helper()
	ours, theirs, err := socketPair()
	if err != nil {
		t.Fatal(err)
	}
	sock, err := newSocket(ours, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, theirs)
	return newDownConn(r, sock, "fuzz"), func() { ours.Close(); theirs.Close() }
}

func socketPair() (a, b net.Conn, err error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, nil, err
	}
	defer l.Close()
	if a, err = net.Dial("tcp", l.Addr().String()); err != nil {
		return nil, nil, err
	}
	b, err = l.Accept()
	return a, b, err
}

// FuzzConnection feeds bytes after the preface and the SETTINGS to a
// downstream connection: headers and HPACK input included. Nothing panics, and
// when the connection is over nothing is left of its calls.
func FuzzConnection(f *testing.F) {
	block := []byte{0x83, 0x86, 0x44, 0x06, '/', 'a', '.', 'B', '/', 'C', 0x41, 0x04, 'e', 'c', 'h', 'o'}
	f.Add(appendHeaderBlock(nil, 1, block, true, minMaxFrameSize))
	f.Add(append(appendHeaderBlock(nil, 1, block, false, minMaxFrameSize), appendRSTStream(nil, 1, codeCancel)...))
	f.Add(appendSettings(nil, setting{settingInitialWindowSize, 0}, setting{settingHeaderTableSize, 0}))
	f.Add(appendWindowUpdate(nil, 0, 1<<31-1))
	f.Fuzz(func(t *testing.T, in []byte) {
		if len(in) > 32<<10 {
			return
		}
		service := policy.NewService("echo", policy.Settings{}, nil)
		r := New(Options{
			Origin: time.Now().Add(-time.Second), Logger: slog.New(slog.DiscardHandler),
			Table: NewTable([]Route{{Target: Target{Service: service}, Authorities: []string{"echo"}}}, nil),
		})
		defer r.Close()
		d, done := newFuzzConn(t, r)
		defer done()
		b := newBatch()
		b.now = r.now()
		feed := func(p []byte) error {
			d.have += copy(d.space(), p)
			return d.consume(b)
		}
		if err := feed(append([]byte(clientPreface), appendSettings(nil)...)); err != nil {
			t.Fatal(err)
		}
		_ = feed(in) // an error is a fine answer
		b.flush()
		for _, l := range d.orphans(b) {
			l.call.callerGone(b)
		}
		if n := r.active.Load(); n != 0 {
			t.Fatalf("%d calls are left", n)
		}
		if n := r.buffered.Load(); n != 0 {
			t.Fatalf("%d bytes are left", n)
		}
	})
}

package forward

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/policy"
)

// replayOf is a body of a request on its own.
func replayOf(limit int, source io.Reader) *replay {
	x := &exchange{server: New(Options{ReplayBytes: limit}), keeps: limit > 0, over: true}
	return newReplay(x, source)
}

func TestABodyIsReplayedUpToTheBound(t *testing.T) {
	const bound = 8 << 10
	for _, tc := range []struct {
		about    string
		size     int
		sum      int64 // what is kept of all bodies; 0: the default
		code     int
		attempts string
		overflow uint64
	}{
		{"empty", 0, 0, 200, "2", 0},
		{"short", 100, 0, 200, "2", 0},
		{"as long as the bound", bound, 0, 200, "2", 0},
		{"one byte longer", bound + 1, 0, 503, "1", 1},
		{"much longer", 40 * bound, 0, 503, "1", 1},
		{"as long as the sum of all", 4 << 10, 4 << 10, 200, "2", 0},
		{"longer than that", 4<<10 + 1, 4 << 10, 503, "1", 1},
	} {
		t.Run(tc.about, func(t *testing.T) {
			var first atomic.Bool
			answers := func(w http.ResponseWriter, r *http.Request) {
				if first.CompareAndSwap(false, true) {
					w.WriteHeader(503)
				}
			}
			a, b := startWeb(t, answers), startWeb(t, answers)
			s := start(t, policy.Policy{Retry: retries(2)}, Options{ReplayBytes: bound, BufferedBytes: tc.sum}, a.address, b.address)
			body := strings.Repeat("0123456789abcdef", tc.size/16+1)[:tc.size]

			got := s.ask("PUT", body)

			if got.code != tc.code || got.attempts() != tc.attempts {
				t.Errorf("got %d after %s attempts, want %d after %s", got.code, got.attempts(), tc.code, tc.attempts)
			}
			for _, up := range []*web{a, b} {
				if up.calls.Load() > 0 && up.lastBody() != body {
					t.Errorf("an endpoint got %d bytes, not the %d that were sent", len(up.lastBody()), len(body))
				}
			}
			if n := actions(s.service)["replay_overflow"]; n != tc.overflow {
				t.Errorf("%d overflows, want %d", n, tc.overflow)
			}
			if r := s.lastRecord(); r.RequestBytes != uint64(tc.size) {
				t.Errorf("%d bytes recorded, want %d", r.RequestBytes, tc.size)
			}
		})
	}
}

func TestABodyThatNobodyWillRepeatIsNotKept(t *testing.T) {
	b := replayOf(0, strings.NewReader(strings.Repeat("x", 1000)))
	r := b.reader()

	n, err := io.Copy(io.Discard, r)

	if n != 1000 || err != nil || b.exchange.server.replayed.Load() != 0 || b.whole() {
		t.Errorf("%d bytes, %v; %d are kept", n, err, b.exchange.server.replayed.Load())
	}
}

func TestASuccessorGetsWhatItsForerunnerWaitedFor(t *testing.T) {
	in, out := io.Pipe()
	b := replayOf(100, in)
	before := b.reader()
	waited := make(chan error, 1)
	go func() {
		if _, err := io.ReadFull(before, make([]byte, 5)); err != nil {
			waited <- err
			return
		}
		_, err := before.Read(make([]byte, 10))
		waited <- err
	}()
	io.WriteString(out, "first")
	eventually(t, "the forerunner waits for more", func() bool { b.mu.Lock(); defer b.mu.Unlock(); return b.reading && len(b.kept) == 5 })
	before.Close()
	after := b.reader()
	go func() { io.WriteString(out, "second"); out.Close() }()

	got, err := io.ReadAll(after)

	if string(got) != "firstsecond" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	if err := <-waited; !errors.Is(err, errReaderClosed) {
		t.Errorf("the forerunner got %v", err)
	}
}

func TestACallersFailureIsEverybodys(t *testing.T) {
	in, out := io.Pipe()
	b := replayOf(100, in)
	out.CloseWithError(io.ErrUnexpectedEOF)
	for range 2 {
		if _, err := b.reader().Read(make([]byte, 1)); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got %v", err)
		}
	}
	if !b.broken() || b.whole() {
		t.Error("it counts as whole")
	}
}

// TestEveryReaderReadsTheSame: whatever the order of reads, an attempt gets the
// body from its start without a gap, or learns that it can't.
func TestEveryReaderReadsTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		body := rapid.SliceOfN(rapid.Byte(), 0, 200).Draw(t, "body")
		limit := rapid.SampledFrom([]int{0, 1, 20, 100, 200}).Draw(t, "limit")
		b := replayOf(limit, strings.NewReader(string(body)))
		reader, got := b.reader(), []byte(nil)
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			if rapid.IntRange(0, 2).Draw(t, "step") == 0 { // the attempt failed
				again := b.hold()
				if again {
					if rapid.Bool().Draw(t, "still reads") {
						_, _ = reader.Read(make([]byte, 10))
					}
					reader.Close()
					reader, got = b.reader(), nil
				} else if b.limit >= len(body) && b.limit > 0 {
					t.Fatalf("%d bytes can't be sent again within %d", len(body), b.limit)
				}
				b.release()
			}
			p := make([]byte, rapid.IntRange(1, 50).Draw(t, "n"))
			n, err := reader.Read(p)
			got = append(got, p[:n]...)
			if string(got) != string(body[:len(got)]) || err != nil && (err != io.EOF || len(got) != len(body)) {
				t.Fatalf("read %q, %v of %q", got, err, body)
			}
			if kept := int(b.exchange.server.replayed.Load()); kept != len(b.kept) || kept > max(limit, len(got))+50 {
				t.Fatalf("%d bytes are kept, %d are counted", len(b.kept), kept)
			}
		}
		b.finish()
		if n := b.exchange.server.replayed.Load(); n != 0 {
			t.Fatalf("%d bytes are counted after the end", n)
		}
	})
}

// TestACallerThatStallsIsAnswered: net/http would wait for its next bytes.
func TestACallerThatStallsIsAnswered(t *testing.T) {
	up := startWeb(t, nil)
	s := start(t, policy.Policy{Timeout: 100 * time.Millisecond}, Options{}, up.address)
	stalled, sent := io.Pipe()
	defer sent.Close()
	go io.WriteString(sent, "begin")
	r, err := http.NewRequest("PUT", "http://"+s.address+"/", stalled)
	if err != nil {
		t.Fatal(err)
	}

	res, err := s.client.Do(r)

	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if res.StatusCode != 504 || res.Header.Get("Outrigger-Reason") != "TIMEOUT" {
		t.Errorf("got %d %v", res.StatusCode, res.Header)
	}
}

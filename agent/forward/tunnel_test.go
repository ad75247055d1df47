package forward

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/outrigger-rpc/outrigger/policy"
)

// startEcho answers each byte with itself.
func startEcho(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(nc, nc)
			nc.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// tunnelled is a client's end of a tunnel.
func (s *sidecar) tunnelled() net.Conn {
	s.t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		s.t.Fatal(err)
	}
	defer l.Close()
	nc, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { nc.Close() })
	theirs, err := l.Accept()
	if err != nil {
		s.t.Fatal(err)
	}
	s.Opaque(theirs, "web:443")
	_ = nc.SetDeadline(time.Now().Add(10 * time.Second))
	return nc
}

// echoes reports whether the tunnel works, and ends it.
func echoes(nc net.Conn) bool {
	defer nc.Close()
	if _, err := io.WriteString(nc, "hello"); err != nil {
		return false
	}
	got := make([]byte, 5)
	_, err := io.ReadFull(nc, got)
	return err == nil && string(got) == "hello"
}

func TestATunnelIsOneCall(t *testing.T) {
	for _, tc := range []struct {
		about    string
		policy   policy.Policy
		dead     int // endpoints that can't be reached, before the one that can
		works    bool
		reason   policy.Reason
		attempts int
	}{
		{about: "plain", works: true, attempts: 1},
		{about: "a unary timeout is not a tunnel's", policy: policy.Policy{Timeout: time.Nanosecond, PerTryTimeout: time.Nanosecond}, works: true, attempts: 1},
		{about: "an injected delay", policy: policy.Policy{Fault: policy.FaultPolicy{Delay: 20 * time.Millisecond, DelayPercent: 100}}, works: true, attempts: 1},
		{about: "an injected fault", policy: policy.Policy{Fault: policy.FaultPolicy{Abort: policy.Unavailable, AbortPercent: 100}}, reason: policy.FaultInjected},
		{about: "a limit of its length during a delay", policy: policy.Policy{Stream: policy.StreamLimits{MaxDuration: 20 * time.Millisecond},
			Fault: policy.FaultPolicy{Delay: time.Minute, DelayPercent: 100}}, reason: policy.Timeout},
		{about: "another endpoint", dead: 1, works: true, attempts: 2},
		{about: "no endpoint", dead: 2, reason: policy.ConnectFailed, attempts: 2},
	} {
		t.Run(tc.about, func(t *testing.T) {
			echo := startEcho(t)
			endpoints := []string{"127.0.0.1:1", "127.0.0.1:2"}[:tc.dead]
			if tc.dead < 2 {
				endpoints = append(endpoints, echo)
			}
			s := start(t, tc.policy, Options{}, endpoints...)
			var r policy.Record
			for range 2 { // with a dead endpoint one of two begins there
				works := echoes(s.tunnelled())
				if works != tc.works {
					t.Fatalf("works: %v, want %v", works, tc.works)
				}
				n := 0
				eventually(t, "it is recorded", func() bool { s.mu.Lock(); defer s.mu.Unlock(); n = len(s.records); return n > 0 })
				s.mu.Lock()
				r = s.records[n-1]
				s.records = nil
				s.mu.Unlock()
				if r.Attempts == tc.attempts {
					break
				}
			}
			if r.Reason != tc.reason || r.Attempts != tc.attempts || r.Method != connectMethod || r.Service != "web" {
				t.Errorf("recorded %+v", r)
			}
		})
	}
}

func TestATunnelThatWaitsEndsWithTheServer(t *testing.T) {
	s := start(t, policy.Policy{Fault: policy.FaultPolicy{Delay: time.Hour, DelayPercent: 100}}, Options{}, "127.0.0.1:1")
	nc := s.tunnelled()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()

	_ = s.Shutdown(ctx)

	if _, err := nc.Read(make([]byte, 1)); err == nil {
		t.Error("the tunnel is still there")
	}
	if r := s.lastRecord(); r.Reason != policy.Draining || r.Attempts != 0 {
		t.Errorf("recorded %+v", r)
	}
}

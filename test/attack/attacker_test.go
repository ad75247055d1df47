package main

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
)

// strikeAt attacks a listener that does cutOff with each connection, after
// the greeting, and returns what the attacker saw. The attack has 2 s.
func strikeAt(t *testing.T, a attack, cutOff func(nc net.Conn, f *http2.Framer)) strikeReport {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		nc, err := l.Accept()
		if err != nil {
			return
		}
		defer nc.Close()
		f := http2.NewFramer(nc, nc)
		if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err == nil {
			_ = f.WriteSettings()
		}
		cutOff(nc, f)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	all := runAttack(ctx, plan{attack: a}, l.Addr().String())
	l.Close()
	<-done
	if len(all) != 1 {
		t.Fatalf("%d strikes, want 1: %+v", len(all), all)
	}
	return all[0]
}

func TestAttackerReadsWhyItWasCutOff(t *testing.T) {
	s := strikeAt(t, pingFlood{}, func(nc net.Conn, f *http2.Framer) {
		_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, []byte("enough"))
		_ = nc.(*net.TCPConn).CloseWrite()
		_, _ = io.CopyN(io.Discard, nc, 1<<20)
	})
	if !s.cut() || s.How != "GOAWAY ENHANCE_YOUR_CALM: enough" || s.Frames == 0 {
		t.Errorf("got %+v", s)
	}
}

func TestAttackerIsCutOffWithoutAWord(t *testing.T) {
	s := strikeAt(t, windowStall{streams: 1}, func(nc net.Conn, _ *http2.Framer) { time.Sleep(100 * time.Millisecond) })
	if !s.cut() || s.CutAfter < 100*time.Millisecond || strings.Contains(s.How, "GOAWAY") {
		t.Errorf("got %+v", s)
	}
}

func TestAttackerThatDoesNotReadNoticesTheCutOff(t *testing.T) {
	s := strikeAt(t, slowRead{streams: 1}, func(nc net.Conn, _ *http2.Framer) {
		_ = nc.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
		_, _ = nc.Write(make([]byte, 32<<20)) // more than the sockets hold
	})
	if !s.cut() {
		t.Errorf("got %+v", s)
	}
}

func TestGoAwayAloneIsNoCutOff(t *testing.T) {
	s := strikeAt(t, windowStall{streams: 1}, func(nc net.Conn, f *http2.Framer) {
		_ = f.WriteGoAway(0, http2.ErrCodeEnhanceYourCalm, nil)
		_, _ = io.Copy(io.Discard, nc)
	})
	if s.cut() {
		t.Errorf("got %+v", s)
	}
}

func TestAttackIsOverWhenItsTimeIs(t *testing.T) {
	s := strikeAt(t, pingFlood{}, func(nc net.Conn, _ *http2.Framer) { _, _ = io.Copy(io.Discard, nc) })
	if s.cut() || s.Peer == "" {
		t.Errorf("got %+v", s)
	}
}

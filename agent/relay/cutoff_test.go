package relay

import (
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/policy"
)

// quick makes every bound on slowness short.
var quick = Limits{PrefaceTimeout: 200 * time.Millisecond, HeaderTimeout: 200 * time.Millisecond, StallTimeout: 200 * time.Millisecond, StalledBytes: 300 << 10}

// rawClient is a client that the test writes frame by frame.
func rawClient(t testing.TB, f *fixture, settings ...http2.Setting) (*http2.Framer, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, clientPreface)
	framer := http2.NewFramer(c, c)
	framer.WriteSettings(settings...)
	return framer, c
}

// cutOffCode reads until the connection ends and returns the code of the last
// GOAWAY.
func cutOffCode(framer *http2.Framer) (code http2.ErrCode, debug string) {
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			return code, debug
		}
		if g, ok := f.(*http2.GoAwayFrame); ok {
			code, debug = g.ErrCode, string(g.DebugData())
		}
	}
}

func (f *fixture) cutOff(what cutOff) uint64 { return f.relay.Stats().CutOffsTotal[what.String()] }

func TestAClientThatNeverSpeaksIsCutOff(t *testing.T) {
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{})
	for about, send := range map[string]string{"nothing": "", "half a preface": clientPreface[:10], "no SETTINGS": clientPreface} {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(c, send)
		c.SetDeadline(time.Now().Add(5 * time.Second))
		if _, err := io.ReadAll(c); err != nil && !strings.Contains(err.Error(), "reset") {
			t.Errorf("%s: %v", about, err)
		}
		c.Close()
	}
	if n := f.cutOff(cutSlowPreface); n != 3 {
		t.Errorf("%d were counted", n)
	}
}

func TestADrippedHeaderBlockIsCutOff(t *testing.T) {
	block := literal(":method", "POST", ":scheme", "http", ":path", "/a/b", ":authority", "echo")
	for about, send := range map[string][]byte{
		"a HEADERS frame that is not complete":  appendHeaderBlock(nil, 1, block, true, 16384)[:20],
		"a frame header that is not complete":   {0, 0, 8, 6},
		"a header block that CONTINUATION owes": append(appendFrameHeader(nil, len(block), frameHeaders, 0, 1), block...),
	} {
		f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{})
		framer, c := rawClient(t, f)
		c.Write(send)

		if code, debug := cutOffCode(framer); code != http2.ErrCodeEnhanceYourCalm || f.cutOff(cutSlowHeaders) != 1 {
			t.Errorf("%s: %v %q, counted %v", about, code, debug, f.relay.Stats().CutOffsTotal)
		}
	}
}

func TestAByteAtATimeDoesNotBuyTime(t *testing.T) {
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{})
	framer, c := rawClient(t, f)
	c.Write([]byte{0, 64, 0, frameHeaders, 0, 0, 0, 0, 1}) // before the bytes that follow it
	go func() {
		for {
			if _, err := c.Write([]byte{0}); err != nil {
				return
			}
			time.Sleep(quick.HeaderTimeout / 3)
		}
	}()

	cutOffCode(framer)

	if f.cutOff(cutSlowHeaders) != 1 {
		t.Errorf("counted %v", f.relay.Stats().CutOffsTotal)
	}
}

func TestWindowUpdatesThatNoDataPaysForAreAFlood(t *testing.T) {
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{})
	framer, _ := rawClient(t, f)
	go func() {
		for framer.WriteWindowUpdate(0, 1) == nil {
		}
	}()

	cutOffCode(framer)

	if f.cutOff(cutControlFrames) != 1 {
		t.Errorf("counted %v", f.relay.Stats().CutOffsTotal)
	}
}

func TestCallsThatEndWellPayForYoungResets(t *testing.T) {
	address, _ := (&echoServer{}).start(t)
	f := newFixtureWith(t, Options{Limits: Limits{Resets: 100, ResetsPerSecond: 1}}, policy.Policy{}, address)
	cc := f.client(t)
	for range 100 { // ten times what a client gets away with that only resets
		ctx, cancel := context.WithCancel(testContext(t))
		stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
		if err != nil {
			t.Fatal(err)
		}
		_ = stream.SendMsg(wrapperspb.Bytes(nil))
		cancel()
		if _, err := unary(testContext(t), cc, nil); err != nil {
			t.Fatal(err)
		}
	}
	if s := f.relay.Stats(); len(s.CutOffsTotal) > 0 {
		t.Errorf("counted %v", s.CutOffsTotal)
	}
}

func TestAHalfDataFrameMayTakeItsTime(t *testing.T) {
	address, _ := (&echoServer{}).start(t)
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{}, address)
	framer, c := rawClient(t, f)
	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true,
		BlockFragment: literal(":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo", "content-type", "application/grpc", "te", "trailers")})
	data := append(appendFrameHeader(nil, 5, frameData, flagEndStream, 1), 0, 0, 0, 0, 0)

	c.Write(data[:11])
	time.Sleep(3 * quick.HeaderTimeout)
	c.Write(data[11:])

	for {
		fr, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := fr.(*http2.HeadersFrame); ok && h.StreamEnded() {
			return
		}
	}
}

// stalled asks for n answers of 100 kB and takes none of them.
func stalled(t *testing.T, f *fixture, n int) *http2.Framer {
	framer, _ := rawClient(t, f, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	block := literal(":method", "POST", ":scheme", "http", ":path", "/test.Echo/Down", ":authority", "echo", "content-type", "application/grpc", "te", "trailers")
	message := append([]byte{0, 0, 0, 0xc3, 0x54, 0x0a, 0xd0, 0x86, 0x03, 1}, make([]byte, 49_999)...) // one answer of what follows
	for i := range n {
		id := uint32(2*i + 1)
		framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, EndHeaders: true, BlockFragment: block})
		for rest := message; len(rest) > 0; {
			part := rest[:min(len(rest), 16384)]
			rest = rest[len(part):]
			framer.WriteData(id, len(rest) == 0, part)
		}
	}
	return framer
}

func TestAClientThatTakesNothingOfMuchIsCutOff(t *testing.T) {
	address, _ := (&echoServer{}).start(t)
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{}, address)

	code, debug := cutOffCode(stalled(t, f, 10))

	if code != http2.ErrCodeEnhanceYourCalm || f.cutOff(cutStalled) != 1 || !strings.Contains(debug, "10 streams") {
		t.Fatalf("got %v %q, counted %v", code, debug, f.relay.Stats().CutOffsTotal)
	}
	waitFor(t, func() bool { s := f.relay.Stats(); return s.BufferedBytes == 0 && s.ActiveCalls == 0 })
}

func TestAClientThatTakesNothingOfLittleIsLeftAlone(t *testing.T) {
	address, _ := (&echoServer{}).start(t)
	f := newFixtureWith(t, Options{Limits: quick}, policy.Policy{}, address)
	stalled(t, f, 2)

	time.Sleep(4 * quick.StallTimeout)

	if s := f.relay.Stats(); len(s.CutOffsTotal) > 0 || s.DownstreamConnections != 1 {
		t.Fatalf("got %+v", s)
	}
}

func TestConnectionsPastTheLimitsAreTurnedAway(t *testing.T) {
	for _, tc := range []struct {
		limits Limits
		want   cutOff
	}{{Limits{Connections: 2}, cutConnections}, {Limits{ConnectionsPerPeer: 2}, cutPeerConnections}} {
		t.Run(tc.want.String(), func(t *testing.T) {
			f := newFixtureWith(t, Options{Limits: tc.limits}, policy.Policy{})
			_, first := rawClient(t, f)
			rawClient(t, f)
			waitFor(t, func() bool { return f.relay.Stats().DownstreamConnections == 2 })

			third, _ := rawClient(t, f)
			if _, err := third.ReadFrame(); err == nil {
				t.Fatal("a third connection was taken")
			}
			if f.cutOff(tc.want) != 1 {
				t.Fatalf("counted %v", f.relay.Stats().CutOffsTotal)
			}

			first.Close()
			waitFor(t, func() bool { return f.relay.Stats().DownstreamConnections == 1 })
			fourth, _ := rawClient(t, f)
			if _, err := fourth.ReadFrame(); err != nil {
				t.Fatalf("no place after one was given up: %v", err)
			}
		})
	}
}

func TestASilentDeathIsFound(t *testing.T) {
	// The endpoint answers the first call, then neither reads nor writes.
	dead := upstreamScript(func(c *scriptConn) {
		if c.number > 1 {
			return // and is not there any more
		}
		c.answer(c.nextHeaders())
		<-t.Context().Done()
	}).start(t)
	keepalive := Keepalive{Interval: 200 * time.Millisecond, Timeout: 200 * time.Millisecond}
	f := newFixtureWith(t, Options{Keepalive: keepalive}, policy.Policy{}, dead)
	cc := f.client(t)
	if _, err := unary(testContext(t), cc, nil); err != nil {
		t.Fatal(err)
	}

	_, err := unary(testContext(t), cc, nil)

	reason, _, _ := refusalOf(err)
	if status.Code(err) != codes.Unavailable || reason != "CONNECTION_LOST" || !strings.Contains(err.Error(), "no sign of life") || !strings.Contains(err.Error(), dead) {
		t.Fatalf("got %s, %v", reason, err)
	}
	if f.relay.Stats().SilentDeathsTotal != 1 {
		t.Errorf("counted %+v", f.relay.Stats())
	}
}

func TestATimeoutAsksWhetherTheEndpointLives(t *testing.T) {
	dead := upstreamScript(func(c *scriptConn) {
		c.nextHeaders()
		<-t.Context().Done()
	}).start(t)
	keepalive := Keepalive{Interval: time.Hour, Timeout: 100 * time.Millisecond}
	f := newFixtureWith(t, Options{Keepalive: keepalive}, policy.Policy{}, dead)
	cc := f.client(t)
	time.Sleep(10 * time.Millisecond)
	warm, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	_, _ = unary(warm, cc, nil) // opens the connection: its SETTINGS are a sign of life

	ctx, cancel := context.WithTimeout(testContext(t), 100*time.Millisecond)
	defer cancel()
	_, err := unary(ctx, cc, nil)

	if status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return f.relay.Stats().SilentDeathsTotal == 1 })
}

func TestALongHonestSilenceCostsFewPings(t *testing.T) {
	pings := make(chan struct{}, 100)
	quiet := upstreamScript(func(c *scriptConn) {
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			if p, ok := f.(*http2.PingFrame); ok && !p.IsAck() {
				pings <- struct{}{}
				c.WritePing(true, p.Data)
			}
		}
	}).start(t)
	keepalive := Keepalive{Interval: 50 * time.Millisecond, Timeout: 500 * time.Millisecond}
	f := newFixtureWith(t, Options{Keepalive: keepalive}, policy.Policy{}, quiet)
	ctx, cancel := context.WithTimeout(testContext(t), time.Second)
	defer cancel()

	_, err := unary(ctx, f.client(t), nil)

	if status.Code(err) != codes.DeadlineExceeded {
		t.Fatal(err)
	}
	if n := len(pings); n == 0 || n > maxEarlyPings {
		t.Fatal(fmt.Sprint(n, " PINGs; gRPC servers take no more than two within five minutes"))
	}
}

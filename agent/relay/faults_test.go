package relay

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// upstreamScript is an endpoint that the test writes frame by frame. It is
// called once for each connection, after the SETTINGS.
type upstreamScript func(c *scriptConn)

type scriptConn struct {
	*http2.Framer
	net.Conn
	number int // of the connection, from 1
}

// nextHeaders reads until a request's headers come; 0: the connection ended.
func (c *scriptConn) nextHeaders() uint32 {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return 0
		}
		switch f := f.(type) {
		case *http2.HeadersFrame:
			return f.StreamID
		case *http2.SettingsFrame:
			if !f.IsAck() {
				c.WriteSettingsAck()
			}
		}
	}
}

// answer sends a whole gRPC answer with an empty message.
func (c *scriptConn) answer(stream uint32) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: literal(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
	c.WriteData(stream, false, make([]byte, 5))
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: literal("grpc-status", "0"), EndHeaders: true, EndStream: true})
}

// literal encodes a header block without the dynamic table.
func literal(pairs ...string) []byte {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	e.SetMaxDynamicTableSize(0)
	for i := 0; i < len(pairs); i += 2 {
		e.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b.Bytes()
}

func (script upstreamScript) start(t testing.TB, settings ...http2.Setting) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var done sync.WaitGroup
	done.Go(func() {
		for n := 1; ; n++ {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			done.Go(func() {
				defer nc.Close()
				if _, err := io.ReadFull(nc, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				c := &scriptConn{http2.NewFramer(nc, nc), nc, n}
				c.WriteSettings(settings...)
				script(c)
			})
		}
	})
	t.Cleanup(func() { l.Close(); done.Wait() })
	return l.Addr().String()
}

// drain reads to the end of the connection.
func (c *scriptConn) drain() { io.Copy(io.Discard, c.Conn) }

func TestRefusedStreamGoesElsewhereUnseen(t *testing.T) {
	good := &echoServer{}
	goodAddress, _ := good.start(t)
	refusing := upstreamScript(func(c *scriptConn) {
		for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
			c.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}
	}).start(t)
	f := newFixture(t, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, refusing, goodAddress)
	cc := f.client(t)

	for i := range 10 {
		if got, err := unary(testContext(t), cc, []byte("x")); err != nil || string(got) != "x" {
			t.Fatalf("call %d: %q, %v", i, got, err)
		}
	}
}

func TestStreamsAboveGoAwayGoElsewhereUnseen(t *testing.T) {
	upstream := upstreamScript(func(c *scriptConn) {
		for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
			if c.number == 1 {
				c.WriteGoAway(0, http2.ErrCodeNo, nil) // processed nothing
				c.drain()
				return
			}
			c.answer(id)
		}
	}).start(t)
	f := newFixture(t, policy.Policy{}, upstream)

	if _, err := unary(testContext(t), f.client(t), nil); err != nil {
		t.Fatal(err)
	}
}

func TestResetCodesReachTheCaller(t *testing.T) {
	for code, want := range map[http2.ErrCode]codes.Code{
		http2.ErrCodeInternal:           codes.Internal,
		http2.ErrCodeCancel:             codes.Canceled,
		http2.ErrCodeEnhanceYourCalm:    codes.ResourceExhausted,
		http2.ErrCodeInadequateSecurity: codes.PermissionDenied,
		http2.ErrCodeRefusedStream:      codes.Unavailable,
	} {
		upstream := upstreamScript(func(c *scriptConn) {
			for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
				c.WriteRSTStream(id, code)
			}
		}).start(t)
		f := newFixture(t, policy.Policy{}, upstream)

		_, err := unary(testContext(t), f.client(t), nil)

		if status.Code(err) != want {
			t.Errorf("%v: got %v, want %v", code, err, want)
		}
	}
}

func TestUpstreamThatBreaksHTTP2IsNamed(t *testing.T) {
	for about, misbehave := range map[string]func(c *scriptConn, id uint32){
		"DATA before HEADERS": func(c *scriptConn, id uint32) { c.WriteData(id, true, []byte("x")) },
		"trailers that do not end": func(c *scriptConn, id uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literal("grpc-status", "0"), EndHeaders: true})
		},
		"a status of 20": func(c *scriptConn, id uint32) {
			c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literal(":status", "20"), EndHeaders: true, EndStream: true})
		},
	} {
		upstream := upstreamScript(func(c *scriptConn) {
			for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
				misbehave(c, id)
			}
		}).start(t)
		f := newFixture(t, policy.Policy{}, upstream)

		_, err := unary(testContext(t), f.client(t), nil)

		if reason, meta, _ := refusalOf(err); reason != "PROTOCOL" || status.Code(err) != codes.Internal || meta["endpoint"] != upstream {
			t.Errorf("%s: got %v (reason %q)", about, err, reason)
		}
	}
}

func TestEndpointThatAcceptsAndNeverSpeaks(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f := newFixtureWith(t, Options{ConnectTimeout: 50 * time.Millisecond}, policy.Policy{}, l.Addr().String())

	_, err = unary(testContext(t), f.client(t), nil)

	if reason, _, _ := refusalOf(err); reason != "CONNECT_FAILED" || !strings.Contains(err.Error(), "within the connect timeout of 50ms") {
		t.Fatalf("got %v (reason %q)", err, reason)
	}
}

func TestMaxConcurrentStreamsOpensMoreConnectionsThenWaits(t *testing.T) {
	release := make(chan struct{})
	free := sync.OnceFunc(func() { close(release) })
	var arrived, connections atomic.Int64
	upstream := upstreamScript(func(c *scriptConn) {
		connections.Add(1)
		for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
			arrived.Add(1)
			<-release
			c.answer(id)
		}
	}).start(t, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1})
	t.Cleanup(free)
	f := newFixtureWith(t, Options{Limits: Limits{UpstreamConnections: 2, WaitingCalls: 3}}, policy.Policy{}, upstream)
	cc := f.client(t)
	results := make(chan error, 5)
	start := func() {
		go func() {
			_, err := unary(testContext(t), cc, nil)
			results <- err
		}()
	}
	for n := int64(1); n <= 2; n++ { // two get a stream each, on a connection each
		start()
		waitFor(t, func() bool { return arrived.Load() == n })
	}
	for n := 1; n <= 3; n++ { // three wait
		start()
		waitFor(t, func() bool { return f.waiting() == n })
	}

	_, err := unary(testContext(t), cc, nil) // the sixth finds the queue full

	if reason, _, _ := refusalOf(err); reason != "CONCURRENCY_LIMIT" {
		t.Fatalf("the sixth: %v (reason %q), want CONCURRENCY_LIMIT", err, reason)
	}
	free()
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if n := connections.Load(); n != 2 {
		t.Errorf("%d connections, want 2", n)
	}
}

// waiting counts the calls that wait for a stream.
func (f *fixture) waiting() int {
	n := 0
	f.relay.upstreams.Range(func(_, u any) bool {
		n += int(u.(*upstream).queued.Load())
		return true
	})
	return n
}

func waitFor(t testing.TB, condition func() bool) {
	t.Helper()
	for range 1000 {
		if condition() {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Fatal("waited 5 s in vain")
}

func TestWindowBelowZeroAndBack(t *testing.T) {
	// The endpoint lowers INITIAL_WINDOW_SIZE to 0 once the request is under
	// way, then raises it again: everything arrives all the same.
	got := make(chan int, 1)
	upstream := upstreamScript(func(c *scriptConn) {
		id := c.nextHeaders()
		if id == 0 {
			return
		}
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		total, raised := 0, false
		for {
			f, err := c.ReadFrame()
			if err != nil {
				return
			}
			if d, ok := f.(*http2.DataFrame); ok {
				total += len(d.Data())
				if d.StreamEnded() {
					got <- total
					c.answer(id)
				}
			}
			if s, ok := f.(*http2.SettingsFrame); ok && s.IsAck() && !raised {
				raised = true
				c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20})
				c.WriteWindowUpdate(0, 1<<20)
			}
		}
	}).start(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1000})
	f := newFixture(t, policy.Policy{}, upstream)

	if _, err := unary(testContext(t), f.client(t), make([]byte, 200_000)); err != nil {
		t.Fatal(err)
	}

	if n := <-got; n != 200_000+5+4 { // message prefix, protobuf tag and length
		t.Fatalf("%d bytes arrived", n)
	}
}

func TestClientsThatAreNotHTTP2(t *testing.T) {
	f := newFixture(t, policy.Policy{})
	for about, tc := range map[string]struct{ send, want string }{
		"HTTP/1 and nobody takes it": {"GET / HTTP/1.1\r\nHost: x\r\n\r\n", ""},
		"TLS":                        {"\x16\x03\x01\x02\x00", ""},
		"noise":                      {"\x00\x01\x02 hello", ""},
	} {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		io.WriteString(c, tc.send)
		got, _ := io.ReadAll(c)
		c.Close()
		if !strings.HasPrefix(string(got), tc.want) || tc.want == "" && len(got) > 0 {
			t.Errorf("%s: got %q, want %q", about, got, tc.want)
		}
	}
}

func TestMalformedFramesEndTheConnectionOnly(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	good := f.client(t)
	for about, tc := range map[string]struct {
		send []byte
		want http2.ErrCode
	}{
		"a frame too long":      {[]byte{0, 0x80, 0, 0, 0, 0, 0, 0, 1}, http2.ErrCodeFrameSize},
		"DATA on stream 0":      {appendFrameHeader(nil, 0, frameData, 0, 0), http2.ErrCodeProtocol},
		"a stream never opened": {appendRSTStream(nil, 9, codeCancel), http2.ErrCodeProtocol},
		"an even stream":        {appendHeaderBlock(nil, 2, literal(":method", "GET"), true, 16384), http2.ErrCodeProtocol},
		"broken HPACK":          {appendHeaderBlock(nil, 1, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, true, 16384), http2.ErrCodeCompression},
		"PUSH_PROMISE":          {appendFrameHeader(nil, 0, framePushPromise, 0, 1), http2.ErrCodeProtocol},
		"window past 2^31-1":    {appendWindowUpdate(nil, 0, maxWindow), http2.ErrCodeFlowControl},
		"a PING flood":          {bytes.Repeat(appendPing(nil, false, make([]byte, 8)), 2000+100), http2.ErrCodeEnhanceYourCalm},
	} {
		c, err := net.Dial("tcp", f.address)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(5 * time.Second))
		c.Write(append(appendSettings([]byte(clientPreface)), tc.send...))
		framer := http2.NewFramer(io.Discard, c)
		got := http2.ErrCode(0xff)
		for {
			frame, err := framer.ReadFrame()
			if err != nil {
				break
			}
			if g, ok := frame.(*http2.GoAwayFrame); ok {
				got = g.ErrCode
			}
		}
		c.Close()
		if got != tc.want {
			t.Errorf("%s: GOAWAY %v, want %v", about, got, tc.want)
		}
		if _, err := unary(testContext(t), good, nil); err != nil {
			t.Errorf("%s: another client's call: %v", about, err)
		}
	}
}

func TestPingsThatGoWithDataAreNoFlood(t *testing.T) {
	// grpc-go measures each connection with a PING for nearly every DATA.
	upstream := upstreamScript(func(c *scriptConn) {
		for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
			c.WritePing(false, [8]byte{1})
			c.answer(id)
		}
	}).start(t)
	f := newFixture(t, policy.Policy{}, upstream)
	cc := f.client(t)
	for i := range 2000 + 1000 {
		if _, err := unary(testContext(t), cc, nil); err != nil {
			t.Fatalf("call %d: %v", i, err)
		}
	}
}

func TestRapidResetIsCutOff(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	block := literal(":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo", "content-type", "application/grpc")
	go func() {
		c.Write(appendSettings([]byte(clientPreface)))
		for id := uint32(1); id < 14_000; id += 2 {
			if _, err := c.Write(appendRSTStream(appendHeaderBlock(nil, id, block, false, minMaxFrameSize), id, codeCancel)); err != nil {
				return
			}
		}
	}()
	framer := http2.NewFramer(io.Discard, c)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatalf("no GOAWAY: %v", err)
		}
		if g, ok := frame.(*http2.GoAwayFrame); ok && g.ErrCode == http2.ErrCodeEnhanceYourCalm {
			break
		}
	}
	if _, err := unary(testContext(t), f.client(t), nil); err != nil {
		t.Errorf("another client: %v", err)
	}
}

func TestHugeHeaderListIsRefused(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t, grpc.WithMaxHeaderListSize(1<<20))
	ctx := metadata.AppendToOutgoingContext(testContext(t), "x-big", strings.Repeat("ab", 50_000))

	// grpc-go obeys the MAX_HEADER_LIST_SIZE that it was told; a client that
	// does not is spoken to by frames.
	_, err := unary(ctx, cc, nil)
	if status.Code(err) != codes.Internal && status.Code(err) != codes.ResourceExhausted {
		t.Fatalf("grpc-go: %v", err)
	}
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	pairs := []string{":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo", "content-type", "application/grpc"}
	for i := range 20 {
		pairs = append(pairs, "x-"+strconv.Itoa(i), strings.Repeat("v", 4000))
	}
	c.Write(appendHeaderBlock(appendSettings([]byte(clientPreface)), 1, literal(pairs...), true, minMaxFrameSize))
	framer := http2.NewFramer(io.Discard, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			for _, f := range h.RegularFields() {
				if f.Name == "grpc-status" && f.Value == "8" {
					return
				}
			}
			t.Fatalf("got %v, want grpc-status 8", h.Fields)
		}
	}
}

func TestPlainHTTP2RequestIsRelayedAndRefusedInItsOwnWords(t *testing.T) {
	f := newFixture(t, policy.Policy{}, "127.0.0.1:1")
	c, err := net.Dial("tcp", f.address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	c.Write(appendHeaderBlock(appendSettings([]byte(clientPreface)), 1, literal(":method", "GET", ":scheme", "http", ":path", "/x", ":authority", "echo"), true, minMaxFrameSize))
	framer := http2.NewFramer(io.Discard, c)
	framer.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	var head, body string
	for body == "" {
		frame, err := framer.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		switch frame := frame.(type) {
		case *http2.MetaHeadersFrame:
			for _, f := range frame.Fields {
				head += f.Name + "=" + f.Value + " "
			}
		case *http2.DataFrame:
			body = string(frame.Data())
		}
	}
	if !strings.Contains(head, ":status=503") || !strings.Contains(head, "outrigger-reason=CONNECT_FAILED") || !strings.Contains(body, "connection refused") {
		t.Fatalf("got %s\n%s", head, body)
	}
}

func TestAReaderThatStopsHoldsOneWindowAndStallsNobody(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	// 200 messages of 1 MiB, and nobody reads.
	stalled, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, "/test.Echo/Down", grpc.MaxCallRecvMsgSize(4<<20))
	if err != nil {
		t.Fatal(err)
	}
	if err := stalled.SendMsg(wrapperspb.Bytes(append([]byte{200}, make([]byte, 1<<20)...))); err != nil {
		t.Fatal(err)
	}
	stalled.CloseSend()
	waitFor(t, func() bool { return f.relay.buffered.Load() > 0 })

	for range 200 {
		if _, err := unary(testContext(t), cc, make([]byte, 1000)); err != nil {
			t.Fatal(err)
		}
	}

	if held, window := f.relay.buffered.Load(), int64(f.relay.limits.StreamWindow); held > window {
		t.Fatalf("%d bytes are held, one stream's window is %d", held, window)
	}
}

func TestBytesHeldAreGivenBack(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	var calls sync.WaitGroup
	for i := range 50 {
		calls.Go(func() {
			ctx, cancel := context.WithTimeout(context.Background(), time.Duration(i)*time.Millisecond)
			defer cancel()
			unary(ctx, cc, make([]byte, 50_000)) // some are cancelled in mid-call
		})
	}
	calls.Wait()

	waitFor(t, func() bool { return f.relay.active.Load() == 0 && f.relay.buffered.Load() == 0 })
}

func TestDrainFinishesCallsAndTellsClients(t *testing.T) {
	release := make(chan struct{})
	upstream := &echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
		<-release
		return in, nil
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	result := make(chan error, 1)
	go func() {
		_, err := unary(testContext(t), cc, nil)
		result <- err
	}()
	waitFor(t, func() bool { return upstream.calls.Load() == 1 })
	drained := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		drained <- f.relay.Drain(ctx)
	}()
	time.Sleep(50 * time.Millisecond)

	close(release)

	if err := <-result; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	if err := <-drained; err != nil {
		t.Errorf("drain: %v", err)
	}
}

func TestDrainRefusesWhatDoesNotEnd(t *testing.T) {
	upstream := &echoServer{unary: func(ctx context.Context, _ []byte) ([]byte, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	cc := f.client(t)
	result := make(chan error, 1)
	go func() {
		_, err := unary(testContext(t), cc, nil)
		result <- err
	}()
	waitFor(t, func() bool { return upstream.calls.Load() == 1 })
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()

	err := f.relay.Drain(ctx)

	if err == nil {
		t.Error("Drain says that nothing was cut off")
	}
	callErr := <-result
	if reason, _, retry := refusalOf(callErr); reason != "DRAINING" || retry == nil {
		t.Errorf("the call: %v (reason %q)", callErr, reason)
	}
}

func TestExplain(t *testing.T) {
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	var header metadata.MD

	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), "outrigger-explain", "true"), f.client(t), nil, grpc.Header(&header))

	if err != nil || header.Get("outrigger-endpoint")[0] != address || header.Get("outrigger-attempts")[0] != "1" || len(header.Get("outrigger-policy-time-us")) != 1 {
		t.Fatalf("%v, %v", header, err)
	}
}

func BenchmarkRelayedData(b *testing.B) { // budget: 0 allocs
	r := &Relay{limits: Limits{}.withDefaults()}
	d := &downConn{}
	d.init(r, nil, d, "bench")
	d.window, d.peerWindow = 1<<40, 1<<40
	c := &call{relay: r}
	l := &leg{call: c, conn: &d.conn, id: 1, window: 1 << 40}
	batch := newBatch()
	payload := make([]byte, 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(payload)))
	for b.Loop() {
		l.send(batch, payload, false)
		d.out.b = d.out.b[:0]
	}
}

func TestRelayedDataAllocatesNothing(t *testing.T) {
	r := testing.Benchmark(BenchmarkRelayedData)
	if n := r.AllocsPerOp(); n != 0 {
		t.Fatalf("%d allocations a frame", n)
	}
}

const sizeOfCall = unsafe.Sizeof(call{})

func TestIdleStreamsAreSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector pads memory")
	}
	upstream := &echoServer{}
	address, _ := upstream.start(t)
	f := newFixture(t, policy.Policy{}, address)
	const streams = 2000
	cc := f.client(t)
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	open := func(n int) {
		for range n {
			s, err := cc.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/test.Echo/Bidi")
			if err != nil {
				t.Fatal(err)
			}
			s.SendMsg(wrapperspb.Bytes([]byte("x")))
			if err := s.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
				t.Fatal(err)
			}
		}
	}
	open(streams)
	var size int
	f.relay.mu.Lock()
	for d := range f.relay.downs {
		d.mu.Lock()
		size += len(d.streams) * int(sizeOfCall)
		d.mu.Unlock()
	}
	f.relay.mu.Unlock()
	if each := size / streams; each > 4<<10 || each == 0 {
		t.Fatalf("%d bytes a stream", each)
	}
	fmt.Fprintf(os.Stderr, "a call is %d bytes\n", sizeOfCall)
}

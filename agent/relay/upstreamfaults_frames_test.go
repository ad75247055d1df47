package relay

import (
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/codes"

	"github.com/outrigger-rpc/outrigger/policy"
)

// halfFrames are what an endpoint that dies in mid-write leaves behind.
var halfFrames = map[string]func(id uint32) []byte{
	"nothing":        func(uint32) []byte { return nil },
	"half a header":  func(id uint32) []byte { return appendFrameHeader(nil, 5, frameData, 0, id)[:5] },
	"a header":       func(id uint32) []byte { return appendFrameHeader(nil, 5, frameData, 0, id) },
	"half a payload": func(id uint32) []byte { return append(appendFrameHeader(nil, 5, frameData, 0, id), 0, 0) },
	"half a block": func(id uint32) []byte {
		return append(appendFrameHeader(nil, 40, frameHeaders, flagEndHeaders, id), 0x88)
	},
	"HEADERS, no end":   func(id uint32) []byte { return append(appendFrameHeader(nil, 1, frameHeaders, 0, id), 0x88) },
	"half a RST_STREAM": func(id uint32) []byte { return appendRSTStream(nil, id, codeInternal)[:11] },
}

// TestHalfWrittenFrameThenFIN: nothing of the frame counts, the connection is
// lost, and the next call gets a new one.
func TestHalfWrittenFrameThenFIN(t *testing.T) {
	lost := verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "was lost in mid-call: closed by the endpoint"}
	for name, half := range halfFrames {
		t.Run(name+" before the answer", func(t *testing.T) {
			s := newStage(t, thenGood(func(c *scriptConn) {
				c.Conn.Write(half(c.nextHeaders()))
				c.hangUp()
			}))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, lost)
			if err := s.call(t); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
		t.Run(name+" after a message", func(t *testing.T) {
			s := newStage(t, thenGood(func(c *scriptConn) {
				id := c.nextHeaders()
				c.headers(id)
				c.message(id)
				c.heard()
				c.Conn.Write(half(id))
				c.hangUp()
			}))
			stream := s.open(t)
			if err := receive(stream); err != nil {
				t.Fatalf("the message before: %v", err)
			}

			began := time.Now()
			err := receive(stream)

			s.judge(t, began, err, lost)
			if err := s.call(t); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

// TestConnectionResetInMidCall: TCP RST instead of FIN.
func TestConnectionResetInMidCall(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.nextHeaders()
		c.cutOff()
	}))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "connection reset by peer"})
}

// TestHalfAMessageThenFIN: the caller has half a message already, which no
// status can take back: grpc-go says INTERNAL. The books know better.
func TestHalfAMessageThenFIN(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		id := c.nextHeaders()
		c.headers(id)
		c.WriteData(id, false, []byte{0, 0, 0, 0, 9, 1, 2})
		c.hangUp()
	}))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Internal, says: "unexpected EOF"})
	if r := s.books.first(t); r.Code != policy.Unavailable || r.Reason != policy.ConnectionLost || r.Endpoint != s.endpoint {
		t.Errorf("the books say %v %v of %s", r.Code, r.Reason, r.Endpoint)
	}
}

// TestEndpointThatBreaksTheConnection: what RFC 9113 calls a connection error.
// The endpoint reads why in its GOAWAY, the caller in its status.
func TestEndpointThatBreaksTheConnection(t *testing.T) {
	for name, row := range map[string]struct {
		bytes func(id uint32) []byte
		code  http2.ErrCode
		says  string
	}{
		"a frame past MAX_FRAME_SIZE": {func(id uint32) []byte { return appendFrameHeader(nil, 16385, frameData, 0, id) },
			http2.ErrCodeFrameSize, "FRAME_SIZE_ERROR"},
		"DATA on stream 0": {func(uint32) []byte { return appendFrameHeader(nil, 0, frameData, 0, 0) },
			http2.ErrCodeProtocol, "DATA on stream 0"},
		"HEADERS on a stream never opened": {func(uint32) []byte {
			return appendHeaderBlock(nil, 99, literal(":status", "200"), false, minMaxFrameSize)
		},
			http2.ErrCodeProtocol, "stream 99, which was never opened"},
		"DATA on a stream never opened": {func(uint32) []byte { return appendFrameHeader(nil, 0, frameData, 0, 99) },
			http2.ErrCodeProtocol, "stream 99, which was never opened"},
		"RST_STREAM on a stream never opened": {func(uint32) []byte { return appendRSTStream(nil, 99, codeCancel) },
			http2.ErrCodeProtocol, "stream 99, which was never opened"},
		"HEADERS on a stream of its own": {func(uint32) []byte {
			return appendHeaderBlock(nil, 2, literal(":status", "200"), false, minMaxFrameSize)
		},
			http2.ErrCodeProtocol, "stream 2, which was never opened"},
		"PUSH_PROMISE": {func(id uint32) []byte {
			return append(appendFrameHeader(nil, 4, framePushPromise, flagEndHeaders, id), 0, 0, 0, 2)
		},
			http2.ErrCodeProtocol, "PUSH_PROMISE although push is off"},
		"broken HPACK": {func(id uint32) []byte {
			return appendHeaderBlock(nil, id, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, false, minMaxFrameSize)
		},
			http2.ErrCodeCompression, "COMPRESSION_ERROR"},
		"a header table larger than allowed": {func(id uint32) []byte {
			return appendHeaderBlock(nil, id, []byte{0x3f, 0xe2, 0x1f, 0x88}, false, minMaxFrameSize)
		}, // size update to 4,097
			http2.ErrCodeCompression, "COMPRESSION_ERROR"},
		"CONTINUATION without HEADERS": {func(id uint32) []byte { return appendFrameHeader(nil, 0, frameContinuation, flagEndHeaders, id) },
			http2.ErrCodeProtocol, "CONTINUATION without HEADERS"},
		"a header block interrupted": {func(id uint32) []byte {
			return appendPing(append(appendFrameHeader(nil, 1, frameHeaders, 0, id), 0x88), false, make([]byte, pingLen))
		}, http2.ErrCodeProtocol, "a header block was interrupted"},
		"padding longer than its frame": {func(id uint32) []byte { return append(appendFrameHeader(nil, 1, frameData, flagPadded, id), 9) },
			http2.ErrCodeProtocol, "PROTOCOL_ERROR"},
		"PING of 7 bytes": {func(uint32) []byte { return append(appendFrameHeader(nil, 7, framePing, 0, 0), make([]byte, 7)...) },
			http2.ErrCodeFrameSize, "PING of a wrong length"},
		"RST_STREAM of 3 bytes": {func(id uint32) []byte {
			return append(appendFrameHeader(nil, 3, frameRSTStream, 0, id), make([]byte, 3)...)
		},
			http2.ErrCodeFrameSize, "RST_STREAM of a wrong length"},
		"GOAWAY of 7 bytes": {func(uint32) []byte { return append(appendFrameHeader(nil, 7, frameGoAway, 0, 0), make([]byte, 7)...) },
			http2.ErrCodeFrameSize, "GOAWAY too short"},
		"SETTINGS on a stream": {func(id uint32) []byte { return appendFrameHeader(nil, 0, frameSettings, 0, id) },
			http2.ErrCodeProtocol, "SETTINGS on a stream"},
		"INITIAL_WINDOW_SIZE of 2^31": {func(uint32) []byte { return appendSettings(nil, setting{settingInitialWindowSize, 1 << 31}) },
			http2.ErrCodeFlowControl, "INITIAL_WINDOW_SIZE past 2^31-1"},
		"MAX_FRAME_SIZE of 16,383": {func(uint32) []byte { return appendSettings(nil, setting{settingMaxFrameSize, 16383}) },
			http2.ErrCodeProtocol, "MAX_FRAME_SIZE out of range"},
		"a connection window past 2^31-1": {func(uint32) []byte { return appendWindowUpdate(nil, 0, maxWindow) },
			http2.ErrCodeFlowControl, "window grew past 2^31-1"},
		"WINDOW_UPDATE of 0": {func(uint32) []byte { return appendWindowUpdate(nil, 0, 0) },
			http2.ErrCodeProtocol, "WINDOW_UPDATE of 0"},
	} {
		t.Run(name, func(t *testing.T) {
			told := make(chan http2.ErrCode, 1)
			s := newStage(t, thenGood(func(c *scriptConn) {
				c.Conn.Write(row.bytes(c.nextHeaders()))
				c.until(func(f http2.Frame) bool {
					g, ok := f.(*http2.GoAwayFrame)
					if ok {
						told <- g.ErrCode
					}
					return ok
				})
				close(told)
				c.hangUp()
			}))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: row.says})
			if code, ok := <-told; !ok || code != row.code {
				t.Errorf("the endpoint was told %v, want %v", code, row.code)
			}
			if err := s.call(t); err != nil {
				t.Errorf("the next call: %v", err)
			}
		})
	}
}

// TestEndpointThatBreaksAStream: what RFC 9113 calls a stream error ends the
// call, while a stream of the same connection goes on.
func TestEndpointThatBreaksAStream(t *testing.T) {
	block := func(id uint32, end bool, pairs ...string) []byte {
		return appendHeaderBlock(nil, id, literal(pairs...), end, minMaxFrameSize)
	}
	for name, row := range map[string]struct {
		bytes func(id uint32) []byte
		says  string
		ended bool // nothing is left to be reset
	}{
		"101": {func(id uint32) []byte { return block(id, false, ":status", "101") }, "an interim answer that HTTP/2 does not know (101)", false},
		"103 that ends the stream": {func(id uint32) []byte { return block(id, true, ":status", "103") },
			"an interim answer that HTTP/2 does not know (103)", true},
		"headers without :status": {func(id uint32) []byte { return block(id, false, "content-type", "application/grpc") },
			"header blocks in the wrong order", false},
		":status twice": {func(id uint32) []byte { return block(id, false, ":status", "200", ":status", "200") },
			"malformed :status", false},
		"a request's pseudo-header": {func(id uint32) []byte { return block(id, false, ":status", "200", ":path", "/x") },
			"the pseudo-header :path", false},
		"a header name in upper case": {func(id uint32) []byte { return block(id, false, ":status", "200", "X-Loud", "1") },
			"upper case", false},
		"a header value with a line break": {func(id uint32) []byte { return block(id, false, ":status", "200", "x", "a\r\nb") },
			"line break", false},
		"WINDOW_UPDATE of 0 on the stream": {func(id uint32) []byte { return appendWindowUpdate(nil, id, 0) },
			"WINDOW_UPDATE of 0", false},
		"a stream window past 2^31-1": {func(id uint32) []byte { return appendWindowUpdate(nil, id, maxWindow) },
			"window grew past 2^31-1", false},
	} {
		t.Run(name, func(t *testing.T) {
			answered := make(chan struct{})
			told := make(chan bool, 1)
			s := newStage(t, func(c *scriptConn) {
				c.inFlight(1)
				c.headers(1)
				bad := c.nextHeaders()
				c.Conn.Write(row.bytes(bad))
				if !row.ended {
					c.until(func(f http2.Frame) bool {
						return f.Header().Type == http2.FrameRSTStream && f.Header().StreamID == bad
					})
				}
				told <- c.heard()
				<-answered
				c.message(1)
				c.trailers(1, "0")
				c.drain()
			})
			neighbour := s.open(t)

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, verdict{code: codes.Internal, reason: "PROTOCOL", says: row.says})
			if !<-told {
				t.Error("the endpoint was not told")
			}
			close(answered)
			if err := receive(neighbour); err != nil {
				t.Errorf("a stream of the same connection: %v", err)
			}
		})
	}
}

// TestMoreDataThanTheWindowAllows: while the caller reads nothing, the stream
// has one window, and that holds against an endpoint that does not ask.
func TestMoreDataThanTheWindowAllows(t *testing.T) {
	s := newStageWith(t, Options{Limits: Limits{StreamWindow: 20_000}}, policy.Policy{}, forEach(func(c *scriptConn, id uint32) {
		c.headers(id)
		c.WriteData(id, false, make([]byte, 16_000))
		c.WriteData(id, false, make([]byte, 4_001))
	}).start(t))
	framer, _ := rawClient(t, s.fixture, closedWindow)
	framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)

	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: literal(append(slices.Clone(pseudo), "content-type", "application/grpc")...), EndHeaders: true, EndStream: true})
	got := hear(t, framer, 1)

	if want := "grpc-message: endpoint " + s.endpoint + " broke HTTP/2: more DATA than the stream's window allows"; !slices.Contains(got.trailer, "grpc-status: 13") || !slices.Contains(got.trailer, want) {
		t.Errorf("the caller got %q, want grpc-status 13 and %q", got.trailer, want)
	}
	s.unharmed(t)
}

// TestFramesAfterTheEndOfTheAnswer: END_STREAM came, so the caller has its
// answer. What follows on the stream is forgotten.
func TestFramesAfterTheEndOfTheAnswer(t *testing.T) {
	for name, after := range map[string]func(c *scriptConn, id uint32){
		"DATA":       func(c *scriptConn, id uint32) { c.WriteData(id, false, make([]byte, 1000)) },
		"more DATA":  func(c *scriptConn, id uint32) { c.WriteData(id, true, make([]byte, 1000)) },
		"HEADERS":    func(c *scriptConn, id uint32) { c.headers(id) },
		"trailers":   func(c *scriptConn, id uint32) { c.trailers(id, "13") },
		"a reset":    func(c *scriptConn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeInternal) },
		"credit":     func(c *scriptConn, id uint32) { c.WriteWindowUpdate(id, 1000) },
		"everything": func(c *scriptConn, id uint32) { c.answer(id); c.WriteRSTStream(id, http2.ErrCodeProtocol) },
	} {
		script := forEach(func(c *scriptConn, id uint32) {
			c.answer(id)
			after(c, id)
		})
		t.Run(name+" after a unary answer", func(t *testing.T) {
			s := newStage(t, script)
			for range 3 { // on one connection
				began := time.Now()
				err := s.call(t)
				s.judge(t, began, err, verdict{code: codes.OK})
			}
		})
		t.Run(name+" while the request goes on", func(t *testing.T) {
			s := newStage(t, script)
			stream := s.open(t) // its sending side stays open

			if err := receive(stream); err != nil {
				t.Fatal(err)
			}
			if err := receive(stream); err != io.EOF {
				t.Errorf("after the answer: %v, want EOF", err)
			}
			s.judge(t, time.Now(), s.call(t), verdict{code: codes.OK})
		})
	}
}

// TestBrokenTrailers: the answer is under way, so the caller reads of it in
// trailers that the relay writes.
func TestBrokenTrailers(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.headers(id)
		c.message(id)
		c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literal("grpc-status", "0", ":path", "/x"), EndHeaders: true, EndStream: true})
	}))
	stream := s.open(t)
	if err := receive(stream); err != nil {
		t.Fatalf("the message before: %v", err)
	}

	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.Internal, reason: "PROTOCOL", says: "broke HTTP/2: the pseudo-header :path"})
}

// TestEndpointThatSpeaksSomethingElse: the connection does not count as one.
func TestEndpointThatSpeaksSomethingElse(t *testing.T) {
	for name, text := range map[string]string{
		"HTTP/1.1":    "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n",
		"a TLS alert": "\x15\x03\x01\x00\x02\x02\x46",
		"SSH":         "SSH-2.0-OpenSSH_9.9\r\n",
		"PING first":  string(appendPing(nil, false, make([]byte, pingLen))),
		"an ACK":      string(appendSettingsAck(nil)),
	} {
		t.Run(name, func(t *testing.T) {
			s := newStageWith(t, Options{}, policy.Policy{}, listenRaw(t, text))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECT_FAILED", says: "can't be reached: "})
		})
	}
}

package relay

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/encoding/gzip"

	"github.com/outrigger-rpc/outrigger/policy"
)

// What passes byte for byte, seen by a caller and an endpoint that the test
// writes frame by frame.

// heardMessage is one side's request or answer as it came over the wire.
type heardMessage struct {
	header, trailer []string // "name: value"
	body            []byte
	reset           http2.ErrCode
	ended           bool // by END_STREAM rather than by reset
}

// hear reads one stream to its end.
func hear(t testing.TB, framer *http2.Framer, stream uint32) (m heardMessage) {
	t.Helper()
	for {
		f, err := framer.ReadFrame()
		if err != nil {
			t.Errorf("stream %d: %v", stream, err)
			return m
		}
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if !f.IsAck() {
				framer.WriteSettingsAck()
			}
		case *http2.MetaHeadersFrame:
			if f.StreamID != stream {
				continue
			}
			var lines []string
			for _, field := range f.Fields {
				lines = append(lines, field.Name+": "+field.Value)
			}
			if m.header == nil {
				m.header = lines
			} else {
				m.trailer = lines
			}
			if m.ended = f.StreamEnded(); m.ended {
				return m
			}
		case *http2.DataFrame:
			if f.StreamID != stream {
				continue
			}
			m.body = append(m.body, f.Data()...)
			if n := uint32(len(f.Data())); n > 0 {
				framer.WriteWindowUpdate(0, n)
				framer.WriteWindowUpdate(stream, n)
			}
			if m.ended = f.StreamEnded(); m.ended {
				return m
			}
		case *http2.RSTStreamFrame:
			if f.StreamID == stream {
				m.reset = f.ErrCode
				return m
			}
		}
	}
}

// lines joins pairs like heardMessage does.
func lines(pairs ...string) (out []string) {
	for p := range slices.Chunk(pairs, 2) {
		out = append(out, p[0]+": "+p[1])
	}
	return out
}

// relayed sends a request with that header and body to an endpoint that
// answers so, and returns what each side heard.
func relayed(t *testing.T, header []string, body []byte, answer func(c *scriptConn, id uint32)) (request, response heardMessage) {
	t.Helper()
	requests := make(chan heardMessage, 1)
	endpoint := upstreamScript(func(c *scriptConn) {
		c.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
		requests <- hear(t, c.Framer, 1)
		answer(c, 1)
		c.drain()
	}).start(t)
	f := newFixture(t, policy.Policy{}, endpoint)
	framer, conn := rawClient(t, f)
	framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
	conn.Write(appendHeaderBlock(nil, 1, literal(header...), false, minMaxFrameSize))
	framer.WriteData(1, true, body)
	response = hear(t, framer, 1)
	return <-requests, response
}

// pseudo is what every request begins with.
var pseudo = []string{":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo"}

// TestRequestPassesAsItIs: no header is added, lost, merged or reordered, none
// of what names the client's library and its compression is touched.
func TestRequestPassesAsItIs(t *testing.T) {
	header := append(slices.Clone(pseudo),
		"content-type", "application/grpc+proto",
		"user-agent", "grpc-c++/1.70.0 grpc-c/45.0.0 (linux; chttp2) ünïcode",
		"te", "trailers",
		"grpc-encoding", "zstd",
		"grpc-accept-encoding", "identity, deflate,gzip ,zstd",
		"grpc-previous-rpc-attempts", "2",
		"x-twice", "b", "x-twice", "a", "x-twice", "",
		"cookie", "a=1", "cookie", "b=2",
		"blob-bin", "AAH/,/w==",
		"authorization", "Bearer abc",
		"x-long", strings.Repeat("v", 5000),
		"x-spaces", "  kept  ")

	request, _ := relayed(t, header, []byte("no gRPC at all"), (*scriptConn).answer)

	if want := lines(header...); !slices.Equal(request.header, want) {
		t.Errorf("the endpoint got\n%.300q, want\n%.300q", request.header, want)
	}
	if string(request.body) != "no gRPC at all" {
		t.Errorf("the body came as %q", request.body)
	}
}

// TestContentTypesOfRequests: an unknown type is the endpoint's business; the
// relay only asks itself how to refuse.
func TestContentTypesOfRequests(t *testing.T) {
	for contentType, grpc := range map[string]bool{
		"application/grpc":             true,
		"application/grpc+json":        true,
		"application/grpc;x=y":         true,
		"application/grpc-web":         false,
		"application/grpc-web+proto":   false,
		"application/grpcx":            false,
		"APPLICATION/GRPC":             false,
		"application/json":             false,
		"multipart/form-data; b=\"x\"": false,
		"":                             false,
		"nonsense":                     false,
	} {
		t.Run(contentType, func(t *testing.T) {
			header := append(slices.Clone(pseudo), "content-type", contentType)

			request, response := relayed(t, header, []byte("x"), func(c *scriptConn, id uint32) {
				c.block(id, true, ":status", "415", "accept", "application/grpc")
			})

			if want := lines(header...); !slices.Equal(request.header, want) {
				t.Errorf("the endpoint got %q, want %q", request.header, want)
			}
			if want := lines(":status", "415", "accept", "application/grpc"); !slices.Equal(response.header, want) {
				t.Errorf("the caller got %q, want %q", response.header, want)
			}

			framer, _ := rawClient(t, newFixture(t, policy.Policy{}, "127.0.0.1:1"))
			framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
			framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: literal(header...), EndHeaders: true, EndStream: true})
			refused := hear(t, framer, 1)
			want := ":status: 503"
			if grpc {
				want = ":status: 200"
			}
			if refused.header[0] != want || slices.Contains(refused.header, "grpc-status: 14") != grpc {
				t.Errorf("refused with %q, want %s", refused.header, want)
			}
		})
	}
}

// TestAnswerPassesAsItIs: headers, body and trailers; grpc-status-details-bin
// is not decoded, padded, split or joined.
func TestAnswerPassesAsItIs(t *testing.T) {
	header := []string{":status", "200", "content-type", "application/grpc", "grpc-encoding", "snappy", "grpc-accept-encoding", "snappy",
		"server", "x", "x-twice", "2", "x-twice", "1", "outrigger-like", "1", "alt-svc", "h3=\":443\""}
	for name, trailer := range map[string][]string{
		"details":            {"grpc-status", "9", "grpc-message", "100%25", "grpc-status-details-bin", "CAkSBDEwMCU"},
		"padded":             {"grpc-status", "9", "grpc-status-details-bin", "CAkSBDEwMCU="},
		"twice":              {"grpc-status", "9", "grpc-status-details-bin", "AAAA", "grpc-status-details-bin", "BBBB"},
		"no base64":          {"grpc-status", "9", "grpc-status-details-bin", "!!not base64!!"},
		"large":              {"grpc-status", "9", "grpc-status-details-bin", strings.Repeat("QUJD", 2000)},
		"empty":              {"grpc-status", "9", "grpc-status-details-bin", ""},
		"bytes above ASCII":  {"grpc-status", "9", "grpc-message", "caf\xe9", "x-raw", "\xff\xfe\x80"},
		"status not first":   {"x", "y", "grpc-message", "m", "grpc-status", "9", "z", "w"},
		"grpc-status of 009": {"grpc-status", "009"},
	} {
		t.Run(name, func(t *testing.T) {
			_, response := relayed(t, append(slices.Clone(pseudo), "content-type", "application/grpc"), nil, func(c *scriptConn, id uint32) {
				c.block(id, false, header...)
				c.WriteData(id, false, []byte{1, 0, 0, 0, 3, 'x', 'y', 'z'})
				c.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: literal(trailer...), EndHeaders: false, EndStream: true})
				c.WriteContinuation(id, true, nil)
			})

			if want := lines(header...); !slices.Equal(response.header, want) {
				t.Errorf("headers came as\n%.300q, want\n%.300q", response.header, want)
			}
			if want := lines(trailer...); !slices.Equal(response.trailer, want) {
				t.Errorf("trailers came as\n%.300q, want\n%.300q", response.trailer, want)
			}
			if string(response.body) != "\x01\x00\x00\x00\x03xyz" {
				t.Errorf("the body came as %q", response.body)
			}
		})
	}
}

// TestCompressedMessagesAreNeverDecompressed: what calls itself gzip and is
// not passes both ways as it is.
func TestCompressedMessagesAreNeverDecompressed(t *testing.T) {
	notGzip := append([]byte{1, 0, 0, 0, 9}, "\x1f\x8bnoise!!"...)
	bomb := append([]byte{1, 0x7f, 0xff, 0xff, 0xff}, bytes.Repeat([]byte{0}, 100)...) // promises 2 GiB
	for name, body := range map[string][]byte{"not gzip": notGzip, "a message that never ends": bomb, "less than a prefix": {1, 0, 0}} {
		t.Run(name, func(t *testing.T) {
			header := append(slices.Clone(pseudo), "content-type", "application/grpc", "grpc-encoding", "gzip", "grpc-accept-encoding", "gzip")

			request, response := relayed(t, header, body, func(c *scriptConn, id uint32) {
				c.block(id, false, ":status", "200", "content-type", "application/grpc", "grpc-encoding", "gzip")
				c.WriteData(id, false, body)
				c.trailers(id, "0")
			})

			if !bytes.Equal(request.body, body) || !bytes.Equal(response.body, body) {
				t.Errorf("request %q, answer %q; want both %q", request.body, response.body, body)
			}
		})
	}
}

// TestCompressionBetweenTwoLibraries: grpc-go compresses on both sides; nobody
// in between does.
func TestCompressionBetweenTwoLibraries(t *testing.T) {
	address, _ := new(echoServer).start(t)
	s := newStageWith(t, Options{}, policy.Policy{}, address)
	message := bytes.Repeat([]byte("compressible "), 10_000)

	got, err := unary(testContext(t), s.caller, message, grpc.UseCompressor(gzip.Name))

	if err != nil || !bytes.Equal(got, message) {
		t.Fatalf("%d bytes, %v", len(got), err)
	}
	if r := s.books.first(t); r.RequestBytes > 10_000 || r.ResponseBytes > 10_000 {
		t.Errorf("%d and %d bytes passed: not compressed", r.RequestBytes, r.ResponseBytes)
	}
}

// TestCompressionThatTheEndpointDoesNotKnow: the endpoint's own words reach the
// caller.
func TestCompressionThatTheEndpointDoesNotKnow(t *testing.T) {
	address, _ := new(echoServer).start(t)
	f := newFixture(t, policy.Policy{}, address)
	framer, _ := rawClient(t, f)
	framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)

	framer.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: literal(append(slices.Clone(pseudo),
		"te", "trailers", "content-type", "application/grpc", "grpc-encoding", "nonsense")...)})
	framer.WriteData(1, true, []byte{1, 0, 0, 0, 1, 'x'})
	got := hear(t, framer, 1)

	all := strings.Join(append(got.header, got.trailer...), "\n")
	if !strings.Contains(all, "grpc-status: 12") || !strings.Contains(all, "nonsense") {
		t.Errorf("the caller got\n%s", all)
	}
}

package relay

import (
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/policy"
)

// Answers that are well-formed HTTP/2 and strange gRPC. The relay passes them
// on as they are: the caller's library judges, by the gRPC protocol (HTTP to
// gRPC Status Code Mapping), and the books judge likewise.

// block sends a header block of the pairs.
func (c *scriptConn) block(stream uint32, end bool, pairs ...string) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: literal(pairs...), EndHeaders: true, EndStream: end})
}

// TestHTTPStatusOfAnEndpointThatIsNotGRPC: a web server, or a proxy before the
// endpoint, answers in its own words.
func TestHTTPStatusOfAnEndpointThatIsNotGRPC(t *testing.T) {
	for _, row := range []struct {
		status string
		caller codes.Code
	}{
		{"200", codes.Unknown},
		{"204", codes.Unknown},
		{"301", codes.Unknown},
		{"400", codes.Internal},
		{"401", codes.Unauthenticated},
		{"403", codes.PermissionDenied},
		{"404", codes.Unimplemented},
		{"405", codes.Unknown},
		{"408", codes.Unknown},
		{"413", codes.Unknown},
		{"415", codes.Unknown},
		{"429", codes.Unavailable},
		{"431", codes.Unknown},
		{"500", codes.Unknown},
		{"501", codes.Unknown},
		{"502", codes.Unavailable},
		{"503", codes.Unavailable},
		{"504", codes.Unavailable},
		{"599", codes.Unknown},
		{"999", codes.Unknown},
	} {
		for kind, answer := range map[string]func(c *scriptConn, id uint32){
			"headers only": func(c *scriptConn, id uint32) { c.block(id, true, ":status", row.status, "content-type", "text/html") },
			"with a body": func(c *scriptConn, id uint32) {
				c.block(id, false, ":status", row.status, "content-type", "text/html")
				c.WriteData(id, true, []byte("<html>"))
			},
		} {
			t.Run(row.status+" "+kind, func(t *testing.T) {
				s := newStage(t, forEach(answer))

				began := time.Now()
				err := s.call(t)

				s.judge(t, began, err, verdict{code: row.caller, says: "unexpected HTTP status code received from server: " + row.status})
				if r := s.books.first(t); int(r.Code) != int(row.caller) || r.Reason != policy.ReasonNone {
					t.Errorf("the books say %v (%v), want %v", r.Code, r.Reason, row.caller)
				}
			})
		}
	}
}

// TestContentTypeOfAnAnswer: 200 and no gRPC is UNKNOWN, and the caller reads
// the type.
func TestContentTypeOfAnAnswer(t *testing.T) {
	for contentType, want := range map[string]verdict{
		"application/grpc":            {code: codes.OK},
		"application/grpc+proto":      {code: codes.OK},
		"application/grpc;charset=x":  {code: codes.OK},
		"text/html":                   {code: codes.Unknown, says: `unexpected content-type "text/html"`},
		"application/json":            {code: codes.Unknown, says: `unexpected content-type "application/json"`},
		"application/grpc-web+proto":  {code: codes.Unknown, says: `unexpected content-type "application/grpc-web+proto"`},
		"APPLICATION/GRPC":            {code: codes.Unknown, says: `unexpected content-type "APPLICATION/GRPC"`},
		"application/grpcsomething":   {code: codes.Unknown, says: `unexpected content-type "application/grpcsomething"`},
		"application/grpc; charset=x": {code: codes.OK},
	} {
		t.Run(contentType, func(t *testing.T) {
			s := newStage(t, forEach(func(c *scriptConn, id uint32) {
				c.block(id, false, ":status", "200", "content-type", contentType)
				c.message(id)
				c.trailers(id, "0")
			}))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, want)
		})
	}
}

// TestInterimAnswers: 1xx passes, any number of times, and the answer follows.
func TestInterimAnswers(t *testing.T) {
	for name, interim := range map[string][]string{
		"100":                {"100"},
		"103":                {"103"},
		"100, then 103":      {"100", "103"},
		"103 a hundredfold":  strings.Split(strings.TrimSuffix(strings.Repeat("103,", 100), ","), ","),
		"one nobody defined": {"199"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, forEach(func(c *scriptConn, id uint32) {
				for _, status := range interim {
					c.block(id, false, ":status", status, "link", "</style.css>; rel=preload")
				}
				c.answer(id)
			}))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, verdict{code: codes.OK})
		})
	}
}

// TestStatusOfAnAnswer: where grpc-status stands, and where it does not.
func TestStatusOfAnAnswer(t *testing.T) {
	grpcHeaders := []string{":status", "200", "content-type", "application/grpc"}
	alone := func(pairs ...string) func(c *scriptConn, id uint32) {
		return func(c *scriptConn, id uint32) { c.block(id, true, pairs...) }
	}
	trailersOnly := func(pairs ...string) func(c *scriptConn, id uint32) {
		return alone(append(slices.Clone(grpcHeaders), pairs...)...)
	}
	trailers := func(pairs ...string) func(c *scriptConn, id uint32) {
		return func(c *scriptConn, id uint32) {
			c.block(id, false, grpcHeaders...)
			c.message(id)
			c.block(id, true, pairs...)
		}
	}
	for name, row := range map[string]struct {
		answer func(c *scriptConn, id uint32)
		caller verdict
		books  policy.Code
	}{
		"trailers only":                   {trailersOnly("grpc-status", "5", "grpc-message", "no %22x%22"), verdict{code: codes.NotFound, says: `no "x"`}, policy.NotFound},
		"trailers only, no grpc-status":   {trailersOnly("x", "y"), verdict{code: codes.Unknown}, policy.Unknown},
		"trailers":                        {trailers("grpc-status", "8", "grpc-message", "full"), verdict{code: codes.ResourceExhausted, says: "full"}, policy.ResourceExhausted},
		"trailers without grpc-status":    {trailers("x", "y"), verdict{code: codes.Unknown}, policy.Unknown},
		"grpc-status that is no number":   {trailers("grpc-status", "ok"), verdict{code: codes.Unknown, says: "malformed grpc-status"}, policy.Unknown},
		"grpc-status that nobody defined": {trailers("grpc-status", "77"), verdict{code: codes.Code(77)}, policy.Unknown},
		"trailers only, 503 and grpc-status": {func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "503", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "busy")
		}, verdict{code: codes.Unavailable, says: "busy"}, policy.Unavailable},
		"trailers only, 503 and no grpc-status": {func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "503", "content-type", "application/grpc")
		}, verdict{code: codes.Unknown}, policy.Unavailable}, // grpc-go does not look at the status of what is gRPC
		"503 without content-type":               {alone(":status", "503"), verdict{code: codes.Unavailable, says: "missing HTTP content-type"}, policy.Unavailable},
		"missing trailers: DATA ends the stream": {func(c *scriptConn, id uint32) { c.headers(id); c.WriteData(id, true, make([]byte, messagePrefixLen)) }, verdict{code: codes.Internal, says: "without sending trailers"}, policy.Unknown},
		"missing trailers: empty DATA ends it":   {func(c *scriptConn, id uint32) { c.headers(id); c.message(id); c.WriteData(id, true, nil) }, verdict{code: codes.Internal, says: "without sending trailers"}, policy.Unknown},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, forEach(row.answer))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, row.caller)
			if r := s.books.first(t); r.Code != row.books {
				t.Errorf("the books say %v, want %v", r.Code, row.books)
			}
		})
	}
}

// TestAnswerBeforeTheRequestEnds: the endpoint answers a stream whose caller
// still sends: the caller has the status at once.
func TestAnswerBeforeTheRequestEnds(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "7", "grpc-message", "not you")
	}))
	stream := s.open(t)

	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.PermissionDenied, says: "not you"})
	if err := stream.SendMsg(wrapperspb.Bytes(nil)); err == nil {
		t.Error("the stream takes messages still")
	}
}

// TestMetadataOfAnInterimAnswerIsNotTheAnswers: what 103 said is not mixed into
// the header of the answer.
func TestMetadataOfAnInterimAnswerIsNotTheAnswers(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.block(id, false, ":status", "103", "x", "early")
		c.block(id, false, ":status", "200", "content-type", "application/grpc", "x", "final")
		c.message(id)
		c.trailers(id, "0")
	}))
	var header metadata.MD

	err := s.call(t, grpc.Header(&header))

	s.judge(t, time.Now(), err, verdict{code: codes.OK})
	if got := header.Get("x"); len(got) != 1 || got[0] != "final" {
		t.Errorf("x is %q", got)
	}
}

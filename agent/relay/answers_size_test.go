package relay

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"

	"github.com/outrigger-rpc/outrigger/policy"
)

// How much passes: header lists up to Limits.HeaderList, messages of any size.

// headerList is the limit that these tests are about: the default one.
var headerList = Limits{}.withDefaults().HeaderList

// filled adds headers to the pairs until the list has that size (RFC 9113,
// 6.5.2: 32 bytes a field beside name and value).
func filled(size int, pairs ...string) []string {
	const overhead, chunk = 32, 8000
	pairs = slices.Clone(pairs)
	for i := 0; i < len(pairs); i += 2 {
		size -= len(pairs[i]) + len(pairs[i+1]) + overhead
	}
	for i := 0; size > 0; i++ {
		name := fmt.Sprintf("x-fill-%02d", i)
		n := min(size, chunk)
		if rest := size - n; rest > 0 && rest < 100 {
			n -= 100 // leave room for one more field
		}
		pairs = append(pairs, name, strings.Repeat("v", n-len(name)-overhead))
		size -= n
	}
	return pairs
}

// long sends a header block of any length.
func (c *scriptConn) long(stream uint32, end bool, pairs ...string) {
	c.Conn.Write(appendHeaderBlock(nil, stream, literal(pairs...), end, minMaxFrameSize))
}

// TestMetadataAtTheLimitPasses: a list of exactly Limits.HeaderList passes, as
// the request's, the answer's headers and its trailers.
func TestMetadataAtTheLimitPasses(t *testing.T) {
	request := filled(headerList, append(slices.Clone(pseudo), "content-type", "application/grpc")...)
	header := filled(headerList, ":status", "200", "content-type", "application/grpc")
	trailer := filled(headerList, "grpc-status", "0")

	got, answer := relayed(t, request, nil, func(c *scriptConn, id uint32) {
		c.long(id, false, header...)
		c.long(id, true, trailer...)
	})

	for name, row := range map[string]struct{ got, want []string }{
		"request": {got.header, lines(request...)}, "headers": {answer.header, lines(header...)}, "trailers": {answer.trailer, lines(trailer...)},
	} {
		if !slices.Equal(row.got, row.want) {
			t.Errorf("%s: %d fields came, %d went", name, len(row.got), len(row.want))
		}
	}
}

// TestRequestMetadataAboveTheLimit: one byte more is refused before any
// endpoint sees it.
func TestRequestMetadataAboveTheLimit(t *testing.T) {
	f := newFixture(t, policy.Policy{}, forEach(func(_ *scriptConn, id uint32) {
		t.Errorf("the endpoint saw stream %d", id)
	}).start(t))
	framer, conn := rawClient(t, f)
	framer.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
	header := filled(headerList+1, append(slices.Clone(pseudo), "content-type", "application/grpc")...)

	conn.Write(appendHeaderBlock(nil, 1, literal(header...), true, minMaxFrameSize))
	got := hear(t, framer, 1)

	if !slices.Contains(got.header, "grpc-status: 8") || !strings.Contains(strings.Join(got.header, "\n"), fmt.Sprintf("longer than %d bytes", headerList)) {
		t.Errorf("the caller got %.300q, want grpc-status 8 and why", got.header)
	}
}

// TestAnswerMetadataAboveTheLimit: the endpoint was told MAX_HEADER_LIST_SIZE
// and did not obey.
func TestAnswerMetadataAboveTheLimit(t *testing.T) {
	for name, answer := range map[string]func(c *scriptConn, id uint32){
		"headers": func(c *scriptConn, id uint32) {
			c.long(id, false, filled(headerList+1, ":status", "200", "content-type", "application/grpc")...)
		},
		"trailers only": func(c *scriptConn, id uint32) {
			c.long(id, true, filled(headerList+1, ":status", "200", "content-type", "application/grpc", "grpc-status", "0")...)
		},
		"trailers": func(c *scriptConn, id uint32) {
			c.headers(id)
			c.message(id)
			c.long(id, true, filled(headerList+1, "grpc-status", "0")...)
		},
		"an interim answer": func(c *scriptConn, id uint32) {
			c.long(id, false, filled(headerList+1, ":status", "103")...)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, forEach(answer))

			for range 2 { // on one connection
				began := time.Now()
				err := s.call(t)
				s.judge(t, began, err, verdict{code: codes.Internal, reason: "PROTOCOL", says: fmt.Sprintf("the answer's header list is longer than %d bytes", headerList)})
			}
		})
	}
}

// TestAnswerMetadataFarAboveTheLimit: a block that is not even read to its end
// costs the connection, since header compression is lost with it.
func TestAnswerMetadataFarAboveTheLimit(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.long(c.nextHeaders(), false, filled(10*headerBlockFactor*headerList, ":status", "200")...)
		c.drain()
	}))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: fmt.Sprintf("a header block of more than %d bytes", headerBlockFactor*headerList)})
	if err := s.call(t); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestMetadataNearTheLimitBetweenTwoLibraries: 60 KiB each way, in headers and
// in trailers, as grpc-go sends them.
func TestMetadataNearTheLimitBetweenTwoLibraries(t *testing.T) {
	big := strings.Repeat("ab", 30<<10)
	server := &echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		grpc.SetHeader(ctx, metadata.Pairs("x-header", md.Get("x-big")[0]))
		grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", md.Get("x-big")[0]))
		return in, nil
	}}
	address, _ := server.start(t)
	s := newStageWith(t, Options{}, policy.Policy{}, address)
	var header, trailer metadata.MD

	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), "x-big", big), s.caller, nil, grpc.Header(&header), grpc.Trailer(&trailer))

	if err != nil || header.Get("x-header")[0] != big || trailer.Get("x-trailer")[0] != big {
		t.Errorf("%v; %d and %d values came back", err, len(header.Get("x-header")), len(trailer.Get("x-trailer")))
	}
	s.unharmed(t)
}

// zeroes is a codec of messages that nobody has to hold: a message is its
// length.
type zeroes struct{}

var onePage = mem.SliceBuffer(make([]byte, 1<<20))

func (zeroes) Name() string { return "zeroes" }

func (zeroes) Marshal(v any) (mem.BufferSlice, error) {
	var s mem.BufferSlice
	for left := *v.(*int); left > 0; left -= len(onePage) {
		s = append(s, onePage[:min(left, len(onePage))])
	}
	return s, nil
}

func (zeroes) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*int) = data.Len()
	return nil
}

// TestAMessageOf100MiBEachWay: the relay holds no more than a window of it.
func TestAMessageOf100MiBEachWay(t *testing.T) {
	if testing.Short() {
		t.Skip("100 MiB each way")
	}
	const size = 100 << 20
	s := newStageWith(t, Options{}, policy.Policy{}, serveZeroes(t, 2*size))
	var most int64
	done, watched := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(watched)
		for {
			select {
			case <-done:
				return
			case <-time.After(time.Millisecond):
				most = max(most, s.relay.buffered.Load())
			}
		}
	}()

	in, out := size, 0
	err := s.caller.Invoke(testContext(t), "/test.Zeroes/Echo", &in, &out,
		grpc.ForceCodecV2(zeroes{}), grpc.MaxCallSendMsgSize(2*size), grpc.MaxCallRecvMsgSize(2*size))
	close(done)
	<-watched

	if err != nil || out != size {
		t.Fatalf("%d bytes came back, %v", out, err)
	}
	if limit := 2 * int64(s.relay.limits.StreamWindow); most > limit {
		t.Errorf("the relay held %d bytes, want at most %d", most, limit)
	}
	if r := s.books.first(t); r.RequestMessages != 1 || r.ResponseMessages != 1 || r.RequestBytes != size+messagePrefixLen || r.ResponseBytes != size+messagePrefixLen {
		t.Errorf("the books say %d messages of %d bytes, %d of %d", r.RequestMessages, r.RequestBytes, r.ResponseMessages, r.ResponseBytes)
	}
	s.unharmed(t)
}

// serveZeroes serves /test.Zeroes/Echo, which answers as much as it gets.
func serveZeroes(t *testing.T, limit int) (address string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer(grpc.ForceServerCodecV2(zeroes{}), grpc.MaxRecvMsgSize(limit), grpc.MaxSendMsgSize(limit))
	server.RegisterService(&grpc.ServiceDesc{ServiceName: "test.Zeroes", HandlerType: (*any)(nil), Methods: []grpc.MethodDesc{{
		MethodName: "Echo",
		Handler: func(_ any, _ context.Context, dec func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
			n := 0
			err := dec(&n)
			return &n, err
		},
	}}}, nil)
	go server.Serve(l)
	t.Cleanup(server.Stop)
	return l.Addr().String()
}

package relay

import (
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// The upstream-fault suite: an endpoint misbehaves frame by frame, and each
// test says what its caller sees, how soon, and that nobody else is harmed.
// This file has the stage and what RST_STREAM does; the others are
// upstreamfaults_goaway (leaving), _frames (broken bytes), _credit (windows),
// _settings, and _silence (connections that die unseen).

// soon bounds how long a caller may wait for the news of a fault. It is far
// more than it takes, and far less than any timeout that would hide a fault.
const soon = 5 * time.Second

// stage is a relay between a caller and two services: "echo", whose endpoint
// misbehaves, and "good". Two streams to the good one are under way from
// before the fault to after it: one shares the caller's connection.
type stage struct {
	*fixture
	endpoint string // the one that misbehaves
	caller   *grpc.ClientConn
	books    ledger
	streams  []grpc.ClientStream // to the good endpoint
}

func newStage(t *testing.T, script upstreamScript, settings ...http2.Setting) *stage {
	t.Helper()
	return newStageWith(t, Options{}, policy.Policy{}, script.start(t, settings...))
}

func newStageWith(t *testing.T, o Options, p policy.Policy, endpoints ...string) *stage {
	t.Helper()
	goodAddress, _ := new(echoServer).start(t)
	service := func(name string, p policy.Policy, endpoints ...string) *policy.Service {
		s := policy.NewService(name, policy.Settings{Policy: p}, nil)
		var specs []balancer.Spec
		for _, e := range endpoints {
			specs = append(specs, balancer.Spec{Address: e})
		}
		s.SetEndpoints(specs)
		return s
	}
	echo, good := service("echo", p, endpoints...), service("good", policy.Policy{}, goodAddress)
	s := &stage{endpoint: endpoints[0]}
	o.Observer = &s.books
	o.Table = NewTable([]Route{
		{Target: Target{Service: echo}, Authorities: []string{"echo"}},
		{Target: Target{Service: good}, Authorities: []string{"good"}},
	}, nil)
	s.fixture = newFixtureAround(t, o, echo)
	s.caller = s.client(t)
	for _, cc := range []*grpc.ClientConn{s.caller, s.client(t)} {
		stream, err := cc.NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi", grpc.CallAuthority("good"))
		if err != nil {
			t.Fatal(err)
		}
		s.streams = append(s.streams, stream)
	}
	s.unharmed(t)
	return s
}

var bidiDesc = &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}

// unharmed has the good endpoint answer on both streams, and new calls to it.
func (s *stage) unharmed(t testing.TB) {
	t.Helper()
	for i, stream := range s.streams {
		out := new(wrapperspb.BytesValue)
		if err := stream.SendMsg(wrapperspb.Bytes([]byte("still there?"))); err != nil {
			t.Fatalf("good stream %d: %v", i, err)
		}
		if err := stream.RecvMsg(out); err != nil || string(out.Value) != "still there?" {
			t.Fatalf("good stream %d: %q, %v", i, out.Value, err)
		}
	}
	if _, err := unary(testContext(t), s.caller, nil, grpc.CallAuthority("good")); err != nil {
		t.Fatalf("a call to the good endpoint: %v", err)
	}
}

// verdict is what a caller sees of a fault.
type verdict struct {
	code   codes.Code
	reason string // in ErrorInfo; empty: the answer is the endpoint's own
	says   string // part of the message
	within time.Duration
}

// judge compares the error that a caller got at once after began with what it
// should be, and looks after the others.
func (s *stage) judge(t testing.TB, began time.Time, err error, want verdict) {
	t.Helper()
	took, within := time.Since(began), want.within
	if within == 0 {
		within = soon
	}
	if took > within {
		t.Errorf("the caller knew after %v, want %v", took, within)
	}
	reason, meta, _ := refusalOf(err)
	if status.Code(err) != want.code || reason != want.reason || !strings.Contains(status.Convert(err).Message(), want.says) {
		t.Errorf("the caller saw %v (reason %q), want %v (reason %q) saying %q", err, reason, want.code, want.reason, want.says)
	}
	if want.reason != "" && (meta["endpoint"] != s.endpoint || !strings.Contains(err.Error(), s.endpoint)) {
		t.Errorf("%v (%v) does not name the endpoint %s", err, meta, s.endpoint)
	}
	s.unharmed(t)
}

// call makes a unary call to the endpoint under test.
func (s *stage) call(t testing.TB, options ...grpc.CallOption) error {
	_, err := unary(testContext(t), s.caller, nil, options...)
	return err
}

// open starts a stream to the endpoint under test with one message.
func (s *stage) open(t testing.TB) grpc.ClientStream {
	t.Helper()
	stream, err := s.caller.NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
	if err == nil {
		err = stream.SendMsg(wrapperspb.Bytes([]byte("x")))
	}
	if err != nil && err != io.EOF { // EOF: it has ended; receiving says how
		t.Fatal(err)
	}
	return stream
}

// receive takes one message.
func receive(s grpc.ClientStream) error { return s.RecvMsg(new(wrapperspb.BytesValue)) }

// ledger keeps what the relay wrote into its books of calls to "echo".
type ledger struct {
	mu      sync.Mutex
	entries []policy.Record
}

func (l *ledger) CallEnded(r *policy.Record) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Service == "echo" {
		l.entries = append(l.entries, *r)
	}
}

// first waits for the first entry.
func (l *ledger) first(t testing.TB) (r policy.Record) {
	t.Helper()
	waitFor(t, func() bool {
		l.mu.Lock()
		defer l.mu.Unlock()
		if len(l.entries) == 0 {
			return false
		}
		r = l.entries[0]
		return true
	})
	return r
}

// forEach makes a script that does the same to every request.
func forEach(do func(c *scriptConn, id uint32)) upstreamScript {
	return func(c *scriptConn) {
		for id := c.nextHeaders(); id != 0; id = c.nextHeaders() {
			do(c, id)
		}
	}
}

// thenGood makes a script whose first connection goes by first, and whose
// others answer.
func thenGood(first upstreamScript) upstreamScript {
	return func(c *scriptConn) {
		if c.number == 1 {
			first(c)
			return
		}
		forEach((*scriptConn).answer)(c)
	}
}

// headers sends the headers of a gRPC answer that goes on.
func (c *scriptConn) headers(stream uint32) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: literal(":status", "200", "content-type", "application/grpc"), EndHeaders: true})
}

// message sends an empty gRPC message.
func (c *scriptConn) message(stream uint32) {
	c.WriteData(stream, false, make([]byte, messagePrefixLen))
}

// trailers sends the trailers of a gRPC answer.
func (c *scriptConn) trailers(stream uint32, status string) {
	c.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: literal("grpc-status", status), EndHeaders: true, EndStream: true})
}

// until reads frames until done says so; false: the connection ended. SETTINGS
// are acknowledged.
func (c *scriptConn) until(done func(http2.Frame) bool) bool {
	for {
		f, err := c.ReadFrame()
		if err != nil {
			return false
		}
		if s, ok := f.(*http2.SettingsFrame); ok && !s.IsAck() {
			c.WriteSettingsAck()
		}
		if done(f) {
			return true
		}
	}
}

// heard returns once the relay has read what was sent so far.
func (c *scriptConn) heard() bool {
	c.WritePing(false, [8]byte{'h', 'e', 'a', 'r', 'd', '?'})
	return c.until(func(f http2.Frame) bool {
		p, ok := f.(*http2.PingFrame)
		return ok && p.IsAck()
	})
}

// hangUp sends FIN and waits for the other side to close.
func (c *scriptConn) hangUp() {
	c.Conn.(*net.TCPConn).CloseWrite()
	c.drain()
}

// cutOff sends a TCP RST.
func (c *scriptConn) cutOff() {
	c.Conn.(*net.TCPConn).SetLinger(0)
	c.Conn.Close()
}

// TestEveryResetCode: RST_STREAM before any answer passes to the caller as it
// came. What grpc-go makes of it differs from the gRPC protocol (section
// Errors) in two rows; the books go by the protocol.
func TestEveryResetCode(t *testing.T) {
	for _, row := range []struct {
		reset  http2.ErrCode
		caller codes.Code
		books  policy.Code
	}{
		{http2.ErrCodeNo, codes.Internal, policy.Internal},
		{http2.ErrCodeProtocol, codes.Internal, policy.Internal},
		{http2.ErrCodeInternal, codes.Internal, policy.Internal},
		{http2.ErrCodeFlowControl, codes.ResourceExhausted, policy.Internal},
		{http2.ErrCodeSettingsTimeout, codes.Internal, policy.Internal},
		{http2.ErrCodeStreamClosed, codes.Internal, policy.Internal},
		{http2.ErrCodeFrameSize, codes.Internal, policy.Internal},
		{http2.ErrCodeRefusedStream, codes.Unavailable, policy.Unavailable},
		{http2.ErrCodeCancel, codes.Canceled, policy.Canceled},
		{http2.ErrCodeCompression, codes.Internal, policy.Internal},
		{http2.ErrCodeConnect, codes.Internal, policy.Internal},
		{http2.ErrCodeEnhanceYourCalm, codes.ResourceExhausted, policy.ResourceExhausted},
		{http2.ErrCodeInadequateSecurity, codes.PermissionDenied, policy.PermissionDenied},
		{http2.ErrCodeHTTP11Required, codes.Internal, policy.Internal},
		{0x77, codes.Unknown, policy.Internal},
	} {
		t.Run(row.reset.String(), func(t *testing.T) {
			s := newStage(t, forEach(func(c *scriptConn, id uint32) { c.WriteRSTStream(id, row.reset) }))

			began := time.Now()
			err := s.call(t)

			s.judge(t, began, err, verdict{code: row.caller, says: "RST_STREAM with error code: " + row.reset.String()})
			if r := s.books.first(t); r.Code != row.books || r.Endpoint != s.endpoint || !strings.Contains(r.Message, errCode(row.reset).String()) {
				t.Errorf("the books say %v of %s: %q; want %v", r.Code, r.Endpoint, r.Message, row.books)
			}
		})
	}
}

func TestResetAfterHeaders(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.headers(id)
		c.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm)
	}))
	stream := s.open(t)

	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.ResourceExhausted, says: "ENHANCE_YOUR_CALM"})
}

func TestResetAfterDataKeepsWhatCame(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.headers(id)
		c.message(id)
		c.heard()
		c.WriteRSTStream(id, http2.ErrCodeInternal)
	}))
	stream := s.open(t)

	if err := receive(stream); err != nil {
		t.Fatalf("the message before the reset: %v", err)
	}
	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.Internal, says: "INTERNAL_ERROR"})
}

// TestRefusedStreamAfterHeadersIsNotRepeated: whoever answered has processed
// the call, whatever it says then. (grpc-go repeats it once all the same.)
func TestRefusedStreamAfterHeadersIsNotRepeated(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.headers(id)
		c.heard()
		c.WriteRSTStream(id, http2.ErrCodeRefusedStream)
	}))
	stream := s.open(t)

	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.Unavailable, says: "REFUSED_STREAM"})
	if n := s.books.first(t).Attempts; n != 1 {
		t.Errorf("the relay made %d attempts", n)
	}
}

// TestResetAfterTheAnswerIsNoFault: a server that has answered may reset the
// rest of the request (RFC 9113, 8.1).
func TestResetAfterTheAnswerIsNoFault(t *testing.T) {
	s := newStage(t, forEach(func(c *scriptConn, id uint32) {
		c.answer(id)
		c.WriteRSTStream(id, http2.ErrCodeNo)
	}))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.OK})
}

// TestRefusedStreamIsTriedFourTimesAtMost: an endpoint that refuses everything
// costs a bounded number of attempts.
func TestRefusedStreamIsTriedFourTimesAtMost(t *testing.T) {
	var seen atomic.Int64
	var endpoints []string
	for range 6 {
		endpoints = append(endpoints, forEach(func(c *scriptConn, id uint32) {
			seen.Add(1)
			c.WriteRSTStream(id, http2.ErrCodeRefusedStream)
		}).start(t))
	}
	s := newStageWith(t, Options{}, policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin}}, endpoints...)

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Unavailable, says: "REFUSED_STREAM"})
	// grpc-go, told REFUSED_STREAM, repeats the call once on its own.
	if n := seen.Load(); n > 2*transparentAttempts {
		t.Errorf("%d attempts, want at most %d", n, 2*transparentAttempts)
	}
}

// transparentAttempts is how many endpoints see a call that none processed.
const transparentAttempts = 4

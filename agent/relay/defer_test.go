package relay

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/encoding/gzip"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/policy"
)

// keeper is a Deferrer: keep, which may be nil, says what becomes of a call; with
// nil it is kept at once.
type keeper struct {
	keep func(call DeferredCall, done func(id string, refused *policy.Refusal))

	mu    sync.Mutex
	calls []DeferredCall
}

func (k *keeper) Defer(call DeferredCall, done func(id string, refused *policy.Refusal)) {
	k.mu.Lock()
	k.calls = append(k.calls, call)
	id := fmt.Sprintf("task-%d", len(k.calls))
	k.mu.Unlock()
	if k.keep == nil {
		done(id, nil)
		return
	}
	k.keep(call, done)
}

// kept waits for n calls.
func (k *keeper) kept(t testing.TB, n int) []DeferredCall {
	t.Helper()
	waitFor(t, func() bool { k.mu.Lock(); defer k.mu.Unlock(); return len(k.calls) >= n })
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.calls
}

func (k *keeper) count() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return len(k.calls)
}

// slowly is a store that says nothing before tell is called.
func slowly() (k *keeper, tell func(id string, refused *policy.Refusal)) {
	asked := make(chan func(string, *policy.Refusal), 16)
	k = &keeper{keep: func(_ DeferredCall, done func(string, *policy.Refusal)) { asked <- done }}
	return k, func(id string, refused *policy.Refusal) { (<-asked)(id, refused) }
}

func onRequest() policy.Policy {
	return policy.Policy{Defer: policy.DeferPolicy{Mode: policy.DeferOnRequest}}
}

// later asks for a call to be kept.
func later(ctx context.Context, md ...string) context.Context {
	return metadata.AppendToOutgoingContext(ctx, append(md, "outrigger-defer", "true")...)
}

// wellKept has a caller see that its call is kept as the task.
func wellKept(t *testing.T, cc *grpc.ClientConn, ctx context.Context, body, task string, options ...grpc.CallOption) {
	t.Helper()
	var header, trailer metadata.MD
	out, err := unary(ctx, cc, []byte(body), append(options, grpc.Header(&header), grpc.Trailer(&trailer))...)
	if err != nil || len(out) != 0 || strings.Join(trailer.Get("outrigger-task-id"), ",") != task || strings.Join(header.Get("content-type"), ",") != "application/grpc" {
		t.Fatalf("%q, %v; header %v, trailer %v; want task %s", out, err, header, trailer, task)
	}
}

// left checks that nothing is held of calls that are over.
func (f *fixture) left(t testing.TB) {
	t.Helper()
	waitFor(t, func() bool { return f.relay.buffered.Load() == 0 && f.relay.active.Load() == 0 })
}

func (f *fixture) actions() map[string]uint64 {
	out := make(map[string]uint64)
	for _, n := range f.service.Actions() {
		out[n.Label] = n.Total
	}
	return out
}

func messageIn(t testing.TB, call DeferredCall) string {
	t.Helper()
	in := new(wrapperspb.BytesValue)
	if err := proto.Unmarshal(call.Message, in); err != nil {
		t.Fatal(err)
	}
	return string(in.Value)
}

func TestACallThatIsDeferredIsKeptAndNeverSent(t *testing.T) {
	s := new(echoServer)
	address, _ := s.start(t)
	k := new(keeper)
	books := new(ledger)
	f := newFixtureWith(t, Options{Deferrer: k, Observer: books}, onRequest(), address)

	wellKept(t, f.client(t), later(testContext(t), "x-user", "ann", "x-user", "bob", "x-id-bin", "\x00\x01", "outrigger-idempotency-key", "order 7", "outrigger-hash-key", "h",
		"traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"), "hello", "task-1")

	call := k.kept(t, 1)[0]
	if call.Service != "echo" || call.Method != "/test.Echo/Unary" || messageIn(t, call) != "hello" || call.IdempotencyKey != "order 7" ||
		call.Traceparent != "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01" {
		t.Errorf("kept %+v", call)
	}
	var names []string
	values := make(map[string]string)
	for _, field := range call.Metadata {
		names = append(names, field.Name)
		values[field.Name] += field.Value + ";"
	}
	if values["x-user"] != "ann;bob;" || values["x-id-bin"] != "AAE;" || values["content-type"] != "application/grpc;" {
		t.Errorf("metadata %v", call.Metadata)
	}
	for _, name := range names {
		if strings.HasPrefix(name, "outrigger-") || name[0] == ':' || name == "te" || name == "grpc-timeout" || name == "traceparent" {
			t.Errorf("%s was kept: %v", name, names)
		}
	}
	f.left(t)
	if r := books.first(t); r.Code != policy.OK || r.TaskID != "task-1" || r.Attempts != 0 || r.Reason != policy.ReasonNone {
		t.Errorf("record %+v", r)
	}
	if s.calls.Load() != 0 || f.service.Recorder().Lifetime().Calls != 0 || f.actions()["deferred"] != 1 {
		t.Errorf("%d calls reached the endpoint, the SLA has %+v, actions %v", s.calls.Load(), f.service.Recorder().Lifetime(), f.actions())
	}
}

func TestDeferringWorksWithoutAnyEndpoint(t *testing.T) {
	k := new(keeper)
	p := onRequest()
	p.RateLimit = policy.RateLimitPolicy{PerSecond: 0.001, Burst: 1}
	f := newFixtureWith(t, Options{Deferrer: k}, p)
	cc := f.client(t)
	for n := range 3 { // limits are for when it is made
		wellKept(t, cc, later(testContext(t)), "x", fmt.Sprintf("task-%d", n+1))
	}
}

func TestAStoreThatAnswersLater(t *testing.T) {
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
	answered := make(chan struct{})
	ctx := later(testContext(t))
	go func() {
		defer close(answered)
		wellKept(t, f.client(t), ctx, "x", "late")
	}()
	k.kept(t, 1)
	if n := f.relay.buffered.Load(); n != 3 { // the message: tag, length, x
		t.Errorf("%d bytes are counted as held", n)
	}

	tell("late", nil)

	<-answered
	f.left(t)
}

func TestOneWordOfTheStoreCounts(t *testing.T) {
	k := &keeper{keep: func(_ DeferredCall, done func(string, *policy.Refusal)) {
		done("first", nil)
		done("second", nil)
	}}
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())

	wellKept(t, f.client(t), later(testContext(t)), "x", "first")

	f.left(t)
	if n := f.actions()["deferred"]; n != 1 {
		t.Fatalf("counted %d", n)
	}
}

func TestWhatAStoreRefuses(t *testing.T) {
	k := &keeper{keep: func(_ DeferredCall, done func(string, *policy.Refusal)) {
		done("", &policy.Refusal{Reason: policy.TaskQueueFull, Message: "the queue is full", RetryAfter: 2 * time.Second})
	}}
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())

	_, err := unary(later(testContext(t)), f.client(t), nil)

	reason, meta, retry := refusalOf(err)
	if status.Code(err) != codes.ResourceExhausted || reason != "TASK_QUEUE_FULL" || meta["service"] != "echo" || retry.AsDuration() != 2*time.Second {
		t.Fatalf("%v: %s %v %v", err, reason, meta, retry)
	}
	if n := f.actions()["defer_refused"]; n != 1 || f.service.Recorder().Lifetime().Calls != 0 {
		t.Fatalf("counted %d; SLA %+v", n, f.service.Recorder().Lifetime())
	}
	f.left(t)
}

func TestTheCallersDeadlineHoldsWhileTheStoreTakesItsTime(t *testing.T) {
	k, tell := slowly()
	p := onRequest()
	p.Timeout = time.Millisecond // is for calls to the endpoints
	f := newFixtureWith(t, Options{Deferrer: k}, p)

	got := askLater(t, f, make([]byte, 5), "content-type", "application/grpc", "grpc-timeout", "50m")

	if got["grpc-status"] != "4" || !strings.Contains(got["grpc-message"], "deadline of 50ms") {
		t.Fatalf("got %v", got)
	}
	tell("late", nil)
	f.left(t)
	if n := f.actions()["deferred"]; n != 1 { // it is kept all the same
		t.Fatalf("counted %d", n)
	}
}

// askLater sends a request by hand that is to be kept, and returns the header
// fields of its answer.
func askLater(t testing.TB, f *fixture, body []byte, pairs ...string) map[string]string {
	t.Helper()
	fr, _ := rawClient(t, f)
	openLater(fr, pairs...)
	fr.WriteData(1, true, body)
	return trailersOf(t, fr, 1)
}

func openLater(fr *http2.Framer, pairs ...string) {
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: literal(append([]string{
		":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo", "te", "trailers", "outrigger-defer", "true"}, pairs...)...)})
}

// trailersOf reads until a stream ends and returns all its header fields.
func trailersOf(t testing.TB, fr *http2.Framer, stream uint32) map[string]string {
	t.Helper()
	fr.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
	got := make(map[string]string)
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if f.Header().StreamID != stream {
			continue
		}
		switch f := f.(type) {
		case *http2.MetaHeadersFrame:
			for _, field := range f.Fields {
				got[field.Name] = field.Value
			}
			if f.StreamEnded() {
				return got
			}
		case *http2.RSTStreamFrame:
			got["reset"] = f.ErrCode.String()
			return got
		}
	}
}

// moved is a clock that tests move ahead of the real one.
type moved struct {
	origin time.Time
	by     atomic.Int64
}

func newMoved() *moved { return &moved{origin: time.Now().Add(-time.Second)} }

func (m *moved) now() policy.Instant { return time.Since(m.origin) + time.Duration(m.by.Load()) }

func TestAStoreThatNeverAnswers(t *testing.T) {
	clock := newMoved()
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k, Now: clock.now}, onRequest())
	ended := make(chan error, 1)
	ctx := later(context.Background())
	go func() { _, err := unary(ctx, f.client(t), nil); ended <- err }()
	k.kept(t, 1)

	clock.by.Add(int64(storePatience))

	err := <-ended
	reason, _, retry := refusalOf(err)
	if status.Code(err) != codes.Unavailable || reason != "TASK_STORE" || retry == nil || !strings.Contains(err.Error(), "may yet") {
		t.Fatalf("got %v", err)
	}
	tell("", &policy.Refusal{Reason: policy.TaskStore, Message: "no"})
	f.left(t)
}

func TestACallerThatGoesAwayWhileTheStoreTakesItsTime(t *testing.T) {
	for about, leave := range map[string]func(cancel context.CancelFunc, cc *grpc.ClientConn){
		"it cancels":               func(cancel context.CancelFunc, _ *grpc.ClientConn) { cancel() },
		"it closes the connection": func(_ context.CancelFunc, cc *grpc.ClientConn) { cc.Close() },
	} {
		t.Run(about, func(t *testing.T) {
			k, tell := slowly()
			f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
			cc := f.client(t)
			ctx, cancel := context.WithCancel(testContext(t))
			defer cancel()
			ended := make(chan struct{})
			go func() { defer close(ended); _, _ = unary(later(ctx), cc, []byte("x")) }()
			k.kept(t, 1)

			leave(cancel, cc)

			<-ended
			waitFor(t, func() bool { return f.relay.active.Load() == 0 })
			tell("late", nil)
			f.left(t)
		})
	}
}

func TestARelayThatClosesWhileTheStoreTakesItsTime(t *testing.T) {
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
	ended := make(chan error, 1)
	ctx := later(testContext(t))
	go func() { _, err := unary(ctx, f.client(t), nil); ended <- err }()
	k.kept(t, 1)

	f.relay.Close()
	tell("late", nil)

	if err := <-ended; status.Code(err) != codes.Unavailable {
		t.Fatalf("got %v", err)
	}
}

func TestWhereDeferringIsRefused(t *testing.T) {
	on := onRequest()
	for about, tc := range map[string]struct {
		policy  policy.Policy
		without bool // a Deferrer
		body    string
		options []grpc.CallOption
		code    codes.Code
		reason  string
		says    string
	}{
		"OFF":                   {code: codes.FailedPrecondition, reason: "DEFER_OFF", says: "echo keeps no calls for later; write defer: {mode: ON_REQUEST}"},
		"no tasks":              {policy: on, without: true, code: codes.FailedPrecondition, reason: "DEFER_OFF", says: "write a tasks block"},
		"a long request":        {policy: on, body: strings.Repeat("x", 256<<10), code: codes.ResourceExhausted, reason: "REQUEST_TOO_LARGE", says: "262144 bytes"},
		"long when it is plain": {policy: on, body: strings.Repeat("x", 256<<10), options: []grpc.CallOption{grpc.UseCompressor(gzip.Name)}, code: codes.ResourceExhausted, reason: "REQUEST_TOO_LARGE", says: "decompressed"},
	} {
		t.Run(about, func(t *testing.T) {
			s := new(echoServer)
			address, _ := s.start(t)
			k := new(keeper)
			o := Options{Deferrer: k}
			if tc.without {
				o.Deferrer = nil
			}
			f := newFixtureWith(t, o, tc.policy, address)

			_, err := unary(later(testContext(t)), f.client(t), []byte(tc.body), tc.options...)

			reason, meta, _ := refusalOf(err)
			if status.Code(err) != tc.code || reason != tc.reason || meta["service"] != "echo" || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("%v (%s)", err, reason)
			}
			if s.calls.Load() != 0 || k.count() != 0 {
				t.Errorf("%d calls were made, %d kept", s.calls.Load(), k.count())
			}
			if n := f.actions()["defer_refused"]; n != 1 {
				t.Errorf("counted %d", n)
			}
			f.left(t)
		})
	}
}

func TestACompressedRequestIsKeptPlain(t *testing.T) {
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
	body := strings.Repeat("much the same ", 1000)

	wellKept(t, f.client(t), later(testContext(t)), body, "task-1", grpc.UseCompressor(gzip.Name))

	call := k.kept(t, 1)[0]
	if got := messageIn(t, call); got != body {
		t.Fatalf("kept %d bytes", len(got))
	}
	for _, field := range call.Metadata {
		if strings.HasSuffix(field.Name, "-encoding") {
			t.Fatalf("kept %s", field.Name)
		}
	}
}

func TestAStreamIsNotDeferred(t *testing.T) {
	for about, send := range map[string]func(s grpc.ClientStream){
		"two messages": func(s grpc.ClientStream) {
			_ = s.SendMsg(wrapperspb.Bytes([]byte("one")))
			_ = s.SendMsg(wrapperspb.Bytes([]byte("two")))
		},
		"none": func(s grpc.ClientStream) { _ = s.CloseSend() },
	} {
		t.Run(about, func(t *testing.T) {
			k := new(keeper)
			f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
			stream, err := f.client(t).NewStream(later(testContext(t)), bidiDesc, "/test.Echo/Bidi")
			if err != nil {
				t.Fatal(err)
			}
			send(stream)

			err = receive(stream)

			if reason, _, _ := refusalOf(err); status.Code(err) != codes.FailedPrecondition || reason != "NOT_DEFERRABLE" || k.count() != 0 {
				t.Fatalf("%v, %d kept", err, k.count())
			}
			f.left(t)
		})
	}
}

func TestARequestThatStaysOpenAfterItsMessageIsAStreams(t *testing.T) {
	clock := newMoved()
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k, Now: clock.now}, onRequest())
	stream, err := f.client(t).NewStream(later(context.Background()), bidiDesc, "/test.Echo/Bidi")
	if err == nil {
		err = stream.SendMsg(wrapperspb.Bytes([]byte("one")))
	}
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return f.relay.buffered.Load() > 0 })

	clock.by.Add(int64(openBeforeDeferral))

	err = receive(stream)
	if reason, _, _ := refusalOf(err); reason != "NOT_DEFERRABLE" || !strings.Contains(err.Error(), "the request stays open") {
		t.Fatalf("got %v", err)
	}
	f.left(t)
}

func TestARequestInManyPieces(t *testing.T) {
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
	fr, _ := rawClient(t, f)
	openLater(fr, "content-type", "application/grpc+proto", "outrigger-explain", "true")
	message := bytes.Repeat([]byte("0123456789"), 600)
	framed := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(message))), message...)
	for i := 0; i < len(framed); i += 3 {
		fr.WriteData(1, i+3 >= len(framed), framed[i:min(i+3, len(framed))])
	}

	got := trailersOf(t, fr, 1)

	if got["grpc-status"] != "0" || got["outrigger-task-id"] != "task-1" || got["content-type"] != "application/grpc+proto" || got["outrigger-attempts"] != "0" {
		t.Fatalf("got %v", got)
	}
	if call := k.kept(t, 1)[0]; !bytes.Equal(call.Message, message) {
		t.Fatalf("kept %d bytes", len(call.Message))
	}
	f.left(t)
}

func TestMessagesThatCanNotBeKept(t *testing.T) {
	for about, tc := range map[string]struct {
		encoding, body, says string
	}{
		"half a message":             {"identity", "\x00\x00\x00\x00\x05ab", "without one whole message"},
		"half a prefix":              {"identity", "\x00\x00", "without one whole message"},
		"nothing":                    {"identity", "", "without one whole message"},
		"a flag that is none":        {"identity", "\x02\x00\x00\x00\x00", "first byte is 2"},
		"compressed, nobody knows":   {"identity", "\x01\x00\x00\x00\x01a", "no grpc-encoding says how"},
		"compressed, and is no gzip": {"gzip", "\x01\x00\x00\x00\x01a", "is no gzip"},
	} {
		k := new(keeper)
		f := newFixtureWith(t, Options{Deferrer: k}, onRequest())

		got := askLater(t, f, []byte(tc.body), "content-type", "application/grpc", "grpc-encoding", tc.encoding)

		if got["grpc-status"] != "9" || !strings.Contains(got["grpc-message"], tc.says) || k.count() != 0 {
			t.Errorf("%s: %v", about, got)
		}
		f.left(t)
	}
}

func TestCodecsAndCompressionsThatTheExecutorDoesNotSpeak(t *testing.T) {
	for about, tc := range map[string]struct{ contentType, encoding, says string }{
		"another codec":       {"application/grpc+json", "identity", "application/grpc+json"},
		"another compression": {"application/grpc", "snappy", `grpc-encoding "snappy"`},
	} {
		k := new(keeper)
		f := newFixtureWith(t, Options{Deferrer: k}, onRequest())

		got := askLater(t, f, make([]byte, 5), "content-type", tc.contentType, "grpc-encoding", tc.encoding)

		if got["grpc-status"] != "12" || !strings.Contains(got["grpc-message"], tc.says) || k.count() != 0 {
			t.Errorf("%s: %v", about, got)
		}
		f.left(t)
	}
}

func TestPlainHTTPIsNotDeferred(t *testing.T) {
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, onRequest())
	fr, _ := rawClient(t, f)
	fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, EndStream: true, BlockFragment: literal(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "echo", "outrigger-defer", "true")})
	fr.ReadMetaHeaders = hpack.NewDecoder(defaultTableSize, nil)
	for {
		frame, err := fr.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if h, ok := frame.(*http2.MetaHeadersFrame); ok {
			if h.PseudoValue("status") != "400" || fieldOf(h, "outrigger-reason") != "NOT_DEFERRABLE" {
				t.Fatalf("got %v", h.Fields)
			}
			return
		}
	}
}

func fieldOf(h *http2.MetaHeadersFrame, name string) string {
	for _, f := range h.Fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

func TestMuchThatIsHeldLetsNoMoreBeKept(t *testing.T) {
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k, Limits: Limits{BufferedBytes: 20_000}}, onRequest())
	cc := f.client(t)
	first := make(chan struct{})
	ctx := later(testContext(t))
	go func() { defer close(first); wellKept(t, cc, ctx, strings.Repeat("x", 12_000), "one") }()
	k.kept(t, 1)

	_, err := unary(later(testContext(t)), cc, []byte("x"))

	reason, _, retry := refusalOf(err)
	if status.Code(err) != codes.ResourceExhausted || reason != "CONCURRENCY_LIMIT" || retry == nil {
		t.Fatalf("got %v", err)
	}
	tell("one", nil)
	<-first
	f.left(t)
}

func TestTheExecutorsOwnCallsReachTheEndpointWithTheirTask(t *testing.T) {
	var got metadata.MD
	s := &echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) {
		got, _ = metadata.FromIncomingContext(ctx)
		return in, nil
	}}
	address, _ := s.start(t)
	f := newFixtureWith(t, Options{Deferrer: new(keeper)}, onRequest(), address)
	ctx := metadata.AppendToOutgoingContext(testContext(t), "outrigger-task-id", "7", "outrigger-idempotency-key", "k")

	if _, err := unary(ctx, f.client(t), nil); err != nil {
		t.Fatal(err)
	}

	if strings.Join(got.Get("outrigger-task-id"), ",") != "7" || len(got.Get("outrigger-idempotency-key")) != 0 {
		t.Fatalf("the endpoint got %v", got)
	}
}

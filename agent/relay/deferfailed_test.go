package relay

import (
	"context"
	"encoding/base64"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

func onFailure() policy.Policy {
	return policy.Policy{Defer: policy.DeferPolicy{Mode: policy.DeferOnFailure}}
}

// nowhere is an address that refuses connections.
func nowhere(t testing.TB) string {
	t.Helper()
	address, server := new(echoServer).start(t)
	server.Stop()
	return address
}

func TestACallThatFailsIsKeptForLater(t *testing.T) {
	for about, tc := range map[string]struct {
		change func(*policy.Policy)
		script func(c *scriptConn, id uint32) // nil: nothing listens there
		reason policy.Reason                  // in the record
	}{
		"the endpoint says UNAVAILABLE": {script: func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "down")
		}},
		"it says so behind headers": {script: func(c *scriptConn, id uint32) {
			c.block(id, false, ":status", "200", "content-type", "application/grpc", "x-mine", "a")
			c.block(id, true, "grpc-status", "14", "grpc-message", "down")
		}},
		"it says RESOURCE_EXHAUSTED": {script: func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "8")
		}},
		"no connection":         {reason: policy.ConnectFailed},
		"it refuses the stream": {script: func(c *scriptConn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeRefusedStream) }},
		"a lost connection, where a call may run twice": {change: func(p *policy.Policy) { p.Idempotent = true }, reason: policy.ConnectionLost,
			script: func(c *scriptConn, _ uint32) { c.cutOff() }},
		"a timeout, where a call may run twice": {change: func(p *policy.Policy) { p.Idempotent, p.Timeout = true, 30*time.Millisecond }, reason: policy.Timeout,
			script: func(*scriptConn, uint32) {}},
		"a slow attempt, where a call may run twice": {change: func(p *policy.Policy) { p.Idempotent, p.PerTryTimeout = true, 30*time.Millisecond }, reason: policy.Timeout,
			script: func(*scriptConn, uint32) {}},
		"an HTTP error, where a call may run twice": {change: func(p *policy.Policy) { p.Idempotent = true },
			script: func(c *scriptConn, id uint32) {
				c.block(id, false, ":status", "503", "content-type", "text/html")
				c.WriteData(id, true, []byte("<html>"))
			}},
		"an injected fault": {change: func(p *policy.Policy) { p.Fault = policy.FaultPolicy{Abort: policy.Unavailable, AbortPercent: 100} }, reason: policy.FaultInjected},
	} {
		t.Run(about, func(t *testing.T) {
			address := nowhere(t)
			if tc.script != nil {
				address = forEach(tc.script).start(t)
			}
			p := onFailure()
			if tc.change != nil {
				tc.change(&p)
			}
			k, books := new(keeper), new(ledger)
			f := newFixtureWith(t, Options{Deferrer: k, Observer: books}, p, address)
			body := strings.Repeat("the whole request ", 5000)

			wellKept(t, f.client(t), metadata.AppendToOutgoingContext(testContext(t), "x-user", "ann"), body, "task-1")

			if call := k.kept(t, 1)[0]; messageIn(t, call) != body || call.Method != "/test.Echo/Unary" {
				t.Errorf("kept %d bytes of %s", len(call.Message), call.Method)
			}
			if r := books.first(t); r.Code != policy.OK || r.Reason != tc.reason || r.TaskID != "task-1" {
				t.Errorf("record %+v", r)
			}
			if got := f.service.Recorder().Lifetime(); got.Calls != 1 || tc.reason != policy.ReasonNone && got.Unavailable != 1 {
				t.Errorf("the SLA has %+v", got)
			}
			if n := f.actions(); n["deferred_on_failure"] != 1 || n["deferred"] != 0 {
				t.Errorf("actions %v", n)
			}
			f.left(t)
			if e := f.service.Endpoints().All()[0]; e.InFlight() != 0 {
				t.Errorf("%d in flight", e.InFlight())
			}
		})
	}
}

func TestAFailureThatIsNotKept(t *testing.T) {
	for about, tc := range map[string]struct {
		change func(*policy.Policy)
		script func(c *scriptConn, id uint32)
		md     []string
		code   codes.Code
	}{
		"INTERNAL": {script: func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "13")
		}, code: codes.Internal},
		"INVALID_ARGUMENT": {script: func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "3")
		}, code: codes.InvalidArgument},
		"a lost connection":               {script: func(c *scriptConn, _ uint32) { c.cutOff() }, code: codes.Unavailable},
		"a reset in mid-call":             {script: func(c *scriptConn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeEnhanceYourCalm) }, code: codes.ResourceExhausted},
		"a timeout":                       {script: func(*scriptConn, uint32) {}, change: func(p *policy.Policy) { p.Timeout = 30 * time.Millisecond }, code: codes.DeadlineExceeded},
		"an HTTP error":                   {script: func(c *scriptConn, id uint32) { c.block(id, true, ":status", "502", "content-type", "text/html") }, code: codes.Unavailable},
		"the caller's deadline":           {script: func(*scriptConn, uint32) {}, change: func(p *policy.Policy) { p.Idempotent = true }, md: []string{"outrigger-timeout-ms", "30"}, code: codes.DeadlineExceeded},
		"the caller forbids a second try": {script: unavailable, md: []string{"outrigger-retry", "off"}, code: codes.Unavailable},
		"the executor's own call":         {script: unavailable, md: []string{"outrigger-task-id", "7"}, code: codes.Unavailable},
		"ON_REQUEST":                      {script: unavailable, change: func(p *policy.Policy) { p.Defer.Mode = policy.DeferOnRequest }, code: codes.Unavailable},
		"half an answer": {change: func(p *policy.Policy) { p.Idempotent = true }, script: func(c *scriptConn, id uint32) {
			c.block(id, false, ":status", "200", "content-type", "application/grpc")
			c.WriteData(id, false, []byte{0, 0, 0, 0, 9})
			c.cutOff()
		}, code: codes.Internal},
	} {
		t.Run(about, func(t *testing.T) {
			p := onFailure()
			if tc.change != nil {
				tc.change(&p)
			}
			k := new(keeper)
			f := newFixtureWith(t, Options{Deferrer: k}, p, forEach(tc.script).start(t))

			_, err := unary(metadata.AppendToOutgoingContext(testContext(t), tc.md...), f.client(t), []byte("x"))

			if status.Code(err) != tc.code || k.count() != 0 || f.actions()["deferred_on_failure"] != 0 {
				t.Errorf("%v; %d kept", err, k.count())
			}
			f.left(t)
		})
	}
}

func unavailable(c *scriptConn, id uint32) {
	c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "down")
}

func TestARefusedCallIsKeptOnceItsRequestIsHere(t *testing.T) {
	for about, tc := range map[string]struct {
		change func(*policy.Policy)
		reason policy.Reason
	}{
		"no endpoints": {reason: policy.NoEndpoints},
		"an open breaker": {reason: policy.BreakerOpen, change: func(p *policy.Policy) {
			p.Breaker.Options = breaker.Reference()
		}},
		"a rate limit": {reason: policy.RateLimit, change: func(p *policy.Policy) { p.RateLimit = policy.RateLimitPolicy{PerSecond: 0.001, Burst: 1} }},
	} {
		t.Run(about, func(t *testing.T) {
			p := onFailure()
			if tc.change != nil {
				tc.change(&p)
			}
			k, books := new(keeper), new(ledger)
			var endpoints []string
			if tc.reason != policy.NoEndpoints {
				address, _ := new(echoServer).start(t)
				endpoints = append(endpoints, address)
			}
			f := newFixtureWith(t, Options{Deferrer: k, Observer: books}, p, endpoints...)
			cc := f.client(t)
			if tc.reason == policy.RateLimit {
				if _, err := unary(testContext(t), cc, nil); err != nil {
					t.Fatal(err)
				}
			}
			if tc.reason == policy.BreakerOpen {
				if _, err := unary(testContext(t), cc, nil); err != nil {
					t.Fatal(err)
				}
				for _, b := range f.service.Breakers() {
					b.Breaker.ForceOpen(f.relay.now())
				}
			}
			// The headers alone make it fail; the message comes afterwards.
			fr, _ := rawClient(t, f)
			fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndHeaders: true, BlockFragment: literal(
				":method", "POST", ":scheme", "http", ":path", "/test.Echo/Unary", ":authority", "echo", "te", "trailers", "content-type", "application/grpc")})
			before := f.relay.calls.Load()
			waitFor(t, func() bool { return f.relay.active.Load() == 1 && f.relay.calls.Load() >= before })
			fr.WriteData(1, false, []byte{0, 0, 0, 0, 3, 'a'})
			fr.WriteData(1, true, []byte("bc"))

			got := trailersOf(t, fr, 1)

			if got["grpc-status"] != "0" || got["outrigger-task-id"] != "task-1" || string(k.kept(t, 1)[0].Message) != "abc" {
				t.Fatalf("got %v", got)
			}
			f.left(t)
			if got := f.service.Recorder().Lifetime(); got.Unavailable != 1 {
				t.Errorf("the SLA has %+v", got)
			}
		})
	}
}

func TestRetriesComeBeforeACallIsKept(t *testing.T) {
	s := newFailing(1000, codes.Unavailable)
	address, _ := s.start(t)
	p := retrying(3)
	p.Defer.Mode = policy.DeferOnFailure
	books, k := new(ledger), new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k, Observer: books}, p, address)

	wellKept(t, f.client(t), testContext(t), "x", "task-1")

	if r := books.first(t); s.calls.Load() != 3 || r.Attempts != 3 || r.Endpoint != address {
		t.Fatalf("%d attempts; record %+v", s.calls.Load(), r)
	}
	f.left(t)
}

func TestACallThatGoesWellIsNotKept(t *testing.T) {
	s := newFailing(1, codes.Unavailable)
	address, _ := s.start(t)
	p := retrying(2)
	p.Defer.Mode = policy.DeferOnFailure
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, p, address)

	if out, err := unary(testContext(t), f.client(t), []byte("x")); err != nil || string(out) != "x" || k.count() != 0 {
		t.Fatalf("%q, %v; %d kept", out, err, k.count())
	}
}

func TestOnFailureIsOnRequestToo(t *testing.T) {
	s := new(echoServer)
	address, _ := s.start(t)
	f := newFixtureWith(t, Options{Deferrer: new(keeper)}, onFailure(), address)

	wellKept(t, f.client(t), later(testContext(t)), "x", "task-1")

	if n := f.actions(); s.calls.Load() != 0 || n["deferred"] != 1 || n["deferred_on_failure"] != 0 {
		t.Fatalf("%d calls, actions %v", s.calls.Load(), n)
	}
}

func TestAFailureIsTheCallersWhereItCanNotBeKept(t *testing.T) {
	full := &keeper{keep: func(_ DeferredCall, done func(string, *policy.Refusal)) {
		done("", &policy.Refusal{Reason: policy.TaskQueueFull, Message: "100 % full"})
	}}
	details := func() string {
		b, _ := proto.Marshal(&spb.Status{Code: 14, Message: "down: 50%"})
		return base64.RawStdEncoding.EncodeToString(b)
	}()
	for about, tc := range map[string]struct {
		keeper *keeper
		script func(c *scriptConn, id uint32)
		change func(*policy.Policy)
		body   string
		code   codes.Code
		reason string
		says   []string
		header string
	}{
		"an answer without a message": {keeper: full, script: unavailable, code: codes.Unavailable, says: []string{"down (and the call was not kept for later: TASK_QUEUE_FULL: 100 % full)"}},
		"an answer with details": {keeper: full, code: codes.Unavailable, says: []string{"down: 50% (and", "100 % full)"}, script: func(c *scriptConn, id uint32) {
			c.block(id, true, ":status", "200", "content-type", "application/grpc", "grpc-status", "14", "grpc-message", "down: 50%25", "grpc-status-details-bin", details)
		}},
		"an answer behind headers": {keeper: full, code: codes.Unavailable, says: []string{"down (and", "TASK_QUEUE_FULL"}, header: "a", script: func(c *scriptConn, id uint32) {
			c.block(id, false, ":status", "200", "content-type", "application/grpc", "x-mine", "a")
			c.block(id, true, "grpc-status", "14", "grpc-message", "down")
		}},
		"a refused stream": {keeper: full, code: codes.Unavailable, says: []string{"REFUSED_STREAM", "TASK_QUEUE_FULL"},
			script: func(c *scriptConn, id uint32) { c.WriteRSTStream(id, http2.ErrCodeRefusedStream) }},
		"an HTTP error": {keeper: full, code: codes.Unavailable, says: []string{"HTTP status 503", "TASK_QUEUE_FULL"}, change: func(p *policy.Policy) { p.Idempotent = true },
			script: func(c *scriptConn, id uint32) { c.block(id, true, ":status", "503", "content-type", "text/html") }},
		"the agent's own refusal": {keeper: full, code: codes.Unavailable, reason: "CONNECT_FAILED", says: []string{"can't be reached", "TASK_QUEUE_FULL: 100 % full"}},
		"no tasks":                {script: unavailable, code: codes.Unavailable, says: []string{"down (and", "tasks are not configured"}},
		"a long request":          {keeper: new(keeper), script: readThenUnavailable, body: strings.Repeat("x", 300<<10), code: codes.Unavailable, says: []string{"down (and", "REQUEST_TOO_LARGE"}},
	} {
		t.Run(about, func(t *testing.T) {
			address := nowhere(t)
			if tc.script != nil {
				address = forEach(tc.script).start(t)
			}
			p := onFailure()
			if tc.change != nil {
				tc.change(&p)
			}
			var o Options
			if tc.keeper != nil {
				o.Deferrer = tc.keeper
			}
			f := newFixtureWith(t, o, p, address)
			var header metadata.MD

			_, err := unary(testContext(t), f.client(t), []byte(tc.body), grpc.Header(&header))

			reason, _, _ := refusalOf(err)
			if status.Code(err) != tc.code || reason != tc.reason || strings.Join(header.Get("x-mine"), ",") != tc.header {
				t.Errorf("%v (%s), header %v", err, reason, header)
			}
			for _, part := range tc.says {
				if !strings.Contains(status.Convert(err).Message(), part) {
					t.Errorf("%q does not say %q", status.Convert(err).Message(), part)
				}
			}
			if n := f.actions(); n["defer_refused"] != 1 || n["deferred_on_failure"] != 0 {
				t.Errorf("actions %v", n)
			}
			f.left(t)
		})
	}
}

// readThenUnavailable takes all of a request before it answers it.
func readThenUnavailable(c *scriptConn, id uint32) {
	taken := uint32(0)
	c.until(func(f http2.Frame) bool {
		d, ok := f.(*http2.DataFrame)
		if !ok {
			return false
		}
		if taken += d.Length; taken > 1<<14 {
			c.WriteWindowUpdate(0, taken)
			c.WriteWindowUpdate(id, taken)
			taken = 0
		}
		return d.StreamEnded()
	})
	unavailable(c, id)
}

func TestAFallbackAnswersWhereAFailedCallCanNotBeKept(t *testing.T) {
	p := onFailure()
	p.Fallback = policy.FallbackPolicy{Enabled: true}
	full := &keeper{keep: func(_ DeferredCall, done func(string, *policy.Refusal)) {
		done("", &policy.Refusal{Reason: policy.TaskQueueFull, Message: "full"})
	}}
	f := newFixtureWith(t, Options{Deferrer: full}, p)
	var header metadata.MD

	_, err := unary(testContext(t), f.client(t), nil, grpc.Header(&header))

	if err != nil || strings.Join(header.Get("outrigger-fallback"), ",") != "NO_ENDPOINTS" {
		t.Fatalf("%v, %v", err, header)
	}
}

func TestAStaleAnswerComesBeforeACallIsKept(t *testing.T) {
	s := &echoServer{unary: func(_ context.Context, in []byte) ([]byte, error) { return in, nil }}
	address, server := s.start(t)
	p := caching()
	p.Defer.Mode = policy.DeferOnFailure
	p.Cache.TTL, p.Cache.StaleIfError = time.Millisecond, time.Minute
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, p, address)
	cc := f.client(t)
	if _, err := unary(testContext(t), cc, []byte("a")); err != nil {
		t.Fatal(err)
	}
	time.Sleep(10 * time.Millisecond)
	server.Stop()

	out, err := unary(testContext(t), cc, []byte("a"))
	if err != nil || string(out) != "a" || k.count() != 0 {
		t.Fatalf("%q, %v; %d kept", out, err, k.count())
	}
	wellKept(t, cc, testContext(t), "something new", "task-1")
	f.left(t)
}

func TestCallersThatWaitForTheSameAnswerAreEachKept(t *testing.T) {
	let := make(chan struct{})
	s := &echoServer{unary: func(context.Context, []byte) ([]byte, error) {
		<-let
		return nil, status.Error(codes.Unavailable, "down")
	}}
	address, _ := s.start(t)
	p := caching()
	p.Defer.Mode = policy.DeferOnFailure
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, p, address)
	cc := f.client(t)
	errs := make(chan error, 3)
	for range 3 {
		go func() { _, err := unary(testContext(t), cc, []byte("same")); errs <- err }()
	}
	waitFor(t, func() bool { return f.relay.active.Load() == 3 })

	close(let)

	for range 3 {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	k.kept(t, 3)
	f.left(t)
}

func TestAFailedCallLeavesItsSlotWhileTheStoreTakesItsTime(t *testing.T) {
	s := newFailing(1, codes.Unavailable)
	address, _ := s.start(t)
	p := onFailure()
	p.Concurrency = policy.ConcurrencyPolicy{MaxInFlight: 1}
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k}, p, address)
	cc := f.client(t)
	ended := make(chan error, 1)
	ctx := testContext(t)
	go func() { _, err := unary(ctx, cc, []byte("x")); ended <- err }()
	k.kept(t, 1)

	if out, err := unary(testContext(t), cc, []byte("next")); err != nil || string(out) != "next" {
		t.Errorf("%q, %v", out, err)
	}

	tell("late", nil)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	f.left(t)
}

func TestACallerThatGoesAwayWhileItsFailedCallIsStored(t *testing.T) {
	k, tell := slowly()
	f := newFixtureWith(t, Options{Deferrer: k}, onFailure(), nowhere(t))
	ctx, cancel := context.WithCancel(testContext(t))
	ended := make(chan error, 1)
	go func() { _, err := unary(ctx, f.client(t), []byte("x")); ended <- err }()
	k.kept(t, 1)

	cancel()

	if err := <-ended; status.Code(err) != codes.Canceled {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return f.relay.active.Load() == 0 })
	tell("late", nil)
	f.left(t)
	if got := f.service.Recorder().Lifetime(); got.Unavailable != 1 || got.Calls != 1 {
		t.Fatalf("the SLA has %+v", got)
	}
}

func TestAStreamThatFailsIsTheCallersToSee(t *testing.T) {
	k := new(keeper)
	f := newFixtureWith(t, Options{Deferrer: k}, onFailure(), nowhere(t))
	stream, err := f.client(t).NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		_ = stream.SendMsg(wrapperspb.Bytes([]byte("x")))
	}

	err = receive(stream)

	if reason, _, _ := refusalOf(err); status.Code(err) != codes.Unavailable || reason != "CONNECT_FAILED" || k.count() != 0 {
		t.Fatalf("%v, %d kept", err, k.count())
	}
	f.left(t)
}

func TestAHeadIsHeldForAMomentWhereAFailureMayBeKept(t *testing.T) {
	var released atomic.Bool
	s := newStageWith(t, Options{Deferrer: new(keeper)}, onFailure(), forEach(func(c *scriptConn, id uint32) {
		c.block(id, false, ":status", "200", "content-type", "application/grpc")
		time.Sleep(50 * time.Millisecond) // longer than a head is held
		released.Store(true)
		c.WriteData(id, false, make([]byte, 5))
		c.block(id, true, "grpc-status", "0")
	}).start(t))

	if err := s.call(t); err != nil || !released.Load() {
		t.Fatal(err)
	}
}

func TestTheMessageOfDetails(t *testing.T) {
	raw, _ := proto.Marshal(&spb.Status{Code: 14, Message: "old", Details: nil})
	for about, encoded := range map[string]string{"unpadded": base64.RawStdEncoding.EncodeToString(raw), "padded": base64.StdEncoding.EncodeToString(raw)} {
		out, err := base64.RawStdEncoding.DecodeString(detailsWithMessage(encoded, "new%3A 50%25"))
		var got spb.Status
		if err != nil || proto.Unmarshal(out, &got) != nil || got.GetCode() != 14 || got.GetMessage() != "new: 50%" {
			t.Errorf("%s: %v, %v", about, &got, err)
		}
	}
	if got := detailsWithMessage("!", "m"); got != "!" {
		t.Errorf("what is no base64 became %q", got)
	}
	if got := withMessage(fieldsOf("grpc-status", "14"), "m"); len(got) != 2 || got[1].Name != "grpc-message" || got[1].Value != "m" {
		t.Errorf("got %v", got)
	}
}

package relay

import (
	"context"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/policy"
)

// retrying is a policy of so many attempts, 1 to 2 ms apart.
func retrying(attempts int) policy.Policy {
	return policy.Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin},
		Retry: policy.RetryPolicy{MaxAttempts: attempts, BackoffBase: time.Millisecond, BackoffMax: 2 * time.Millisecond, Budget: policy.DefaultBudget()}}
}

// failing is an echo server that fails its first calls.
type failing struct {
	echoServer
	first    int64
	code     codes.Code
	trailer  metadata.MD
	mu       sync.Mutex
	previous []string // grpc-previous-rpc-attempts of each call
	bodies   []string
}

func newFailing(first int64, code codes.Code) *failing {
	s := &failing{first: first, code: code}
	s.unary = func(ctx context.Context, in []byte) ([]byte, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		s.mu.Lock()
		s.previous = append(s.previous, strings.Join(md.Get(previousAttempts), ","))
		s.bodies = append(s.bodies, string(in))
		s.mu.Unlock()
		if s.calls.Load() <= s.first {
			grpc.SetTrailer(ctx, s.trailer)
			return nil, status.Error(s.code, "not yet")
		}
		return in, nil
	}
	return s
}

func TestAFailedCallIsSentAgainElsewhere(t *testing.T) {
	bad, good := newFailing(1000, codes.Unavailable), newFailing(0, codes.OK)
	first, _ := bad.start(t)
	second, _ := good.start(t)
	f := newFixture(t, retrying(3), first, second)
	body := strings.Repeat("the whole request ", 1000)

	for range 10 {
		out, err := unary(testContext(t), f.client(t), []byte(body))
		if err != nil || string(out) != body {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	}

	if good.calls.Load() != 10 || bad.calls.Load() == 0 {
		t.Fatalf("the good endpoint got %d calls, the bad one %d", good.calls.Load(), bad.calls.Load())
	}
	for _, seen := range bad.bodies {
		if seen != body {
			t.Fatalf("the bad endpoint got %d bytes", len(seen))
		}
	}
	for i, n := range good.previous {
		if n != "" && n != "1" {
			t.Fatalf("call %d said %q previous attempts", i, n)
		}
	}
}

func TestRetriesAddToThoseOfTheCallersLibrary(t *testing.T) {
	s := newFailing(1, codes.Unavailable)
	address, _ := s.start(t)
	f := newFixture(t, retrying(2), address)

	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), previousAttempts, "4"), f.client(t), nil)

	if err != nil || len(s.previous) != 2 || s.previous[0] != "4" || s.previous[1] != "5" {
		t.Fatalf("%v: the endpoint was told %q", err, s.previous)
	}
}

func TestWhenAttemptsAreUsedUpTheLastAnswerIsTheCallers(t *testing.T) {
	s := newFailing(1000, codes.Unavailable)
	address, _ := s.start(t)
	f := newFixture(t, retrying(4), address)

	var header metadata.MD
	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), "outrigger-explain", "true"), f.client(t), nil, grpc.Header(&header))

	if status.Code(err) != codes.Unavailable || status.Convert(err).Message() != "not yet" || s.calls.Load() != 4 {
		t.Fatalf("%v after %d attempts", err, s.calls.Load())
	}
}

func TestWhatIsNotSentAgain(t *testing.T) {
	for about, tc := range map[string]struct {
		code   codes.Code
		md     []string
		policy func(*policy.Policy)
		body   int
	}{
		"a code that is not listed": {code: codes.Internal},
		"the caller says no":        {code: codes.Unavailable, md: []string{"outrigger-retry", "off"}},
		"OBSERVE":                   {code: codes.Unavailable, policy: func(p *policy.Policy) { p.Retry.Mode = policy.Observe }},
		"more than is kept":         {code: codes.Unavailable, body: 300 << 10},
		"no budget":                 {code: codes.Unavailable, policy: func(p *policy.Policy) { p.Retry.Budget = policy.BudgetPolicy{} }},
		"a retry would come after the timeout": {code: codes.Unavailable, policy: func(p *policy.Policy) {
			p.Timeout, p.Retry.BackoffBase = time.Second, time.Hour
			p.Retry.BackoffMax = 1000 * time.Hour
		}},
	} {
		t.Run(about, func(t *testing.T) {
			p := retrying(3)
			if tc.policy != nil {
				tc.policy(&p)
			}
			s := newFailing(1000, tc.code)
			address, _ := s.start(t)
			f := newFixture(t, p, address)

			_, err := unary(metadata.AppendToOutgoingContext(testContext(t), tc.md...), f.client(t), make([]byte, tc.body))

			if status.Code(err) != tc.code || s.calls.Load() != 1 {
				t.Fatalf("%v after %d attempts", err, s.calls.Load())
			}
		})
	}
}

func TestServersSayWhenToTryAgain(t *testing.T) {
	for pushback, attempts := range map[string]int64{"-1": 1, "1": 3, "60000": 1, "nonsense": 1} {
		p := retrying(3)
		p.Timeout = 5 * time.Second
		s := newFailing(1000, codes.Unavailable)
		s.trailer = metadata.Pairs("grpc-retry-pushback-ms", pushback)
		address, _ := s.start(t)
		f := newFixture(t, p, address)

		_, err := unary(testContext(t), f.client(t), nil)

		if status.Code(err) != codes.Unavailable || s.calls.Load() != attempts {
			t.Errorf("pushback %q: %v after %d attempts, want %d", pushback, err, s.calls.Load(), attempts)
		}
	}
}

func TestNothingIsSentAgainOnceTheAnswerBegan(t *testing.T) {
	var seen atomic.Int64
	s := newStageWith(t, Options{}, retrying(3), forEach(func(c *scriptConn, id uint32) {
		seen.Add(1)
		c.headers(id)
		c.message(id)
		c.trailers(id, strconv.Itoa(int(codes.Unavailable)))
	}).start(t))

	if err := s.call(t); status.Code(err) != codes.Unavailable || seen.Load() != 1 {
		t.Fatalf("%v after %d attempts", err, seen.Load())
	}
}

func TestAnErrorBehindHeadersIsTriedAgainToo(t *testing.T) {
	var seen atomic.Int64
	s := newStageWith(t, Options{}, retrying(2), forEach(func(c *scriptConn, id uint32) {
		if seen.Add(1) > 1 {
			c.answer(id)
			return
		}
		c.headers(id)
		c.trailers(id, strconv.Itoa(int(codes.Unavailable)))
	}).start(t))

	if err := s.call(t); err != nil || seen.Load() != 2 {
		t.Fatalf("%v after %d attempts", err, seen.Load())
	}
}

func TestHeadersThatComeAloneAreHeldForAMomentOnly(t *testing.T) {
	s := newStageWith(t, Options{}, retrying(2), forEach(func(c *scriptConn, id uint32) { c.headers(id) }).start(t))
	stream := s.open(t)

	header, err := stream.Header()

	if err != nil || len(header.Get("content-type")) != 1 {
		t.Fatalf("%v, %v", header, err)
	}
}

func TestAnHTTPErrorOfAProxyBeforeTheEndpointIsTriedAgain(t *testing.T) {
	var seen atomic.Int64
	s := newStageWith(t, Options{}, retrying(2), forEach(func(c *scriptConn, id uint32) {
		if seen.Add(1) > 1 {
			c.answer(id)
			return
		}
		c.block(id, false, ":status", "503", "content-type", "text/html")
		c.WriteData(id, true, []byte("<html>"))
	}).start(t))

	if err := s.call(t); err != nil || seen.Load() != 2 {
		t.Fatalf("%v after %d attempts", err, seen.Load())
	}
}

func TestALostConnectionIsTriedAgainOnlyWhereACallMayRunTwice(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		var seen atomic.Int64
		p := retrying(2)
		p.Idempotent = idempotent
		s := newStageWith(t, Options{}, p, forEach(func(c *scriptConn, id uint32) {
			if seen.Add(1) == 1 {
				c.cutOff()
				return
			}
			c.answer(id)
		}).start(t))

		err := s.call(t)

		if idempotent && (err != nil || seen.Load() != 2) || !idempotent && (status.Code(err) != codes.Unavailable || seen.Load() != 1) {
			t.Errorf("idempotent: %v: %v after %d attempts", idempotent, err, seen.Load())
		}
	}
}

func TestAnAttemptThatTakesTooLongIsTriedAgain(t *testing.T) {
	p := retrying(2)
	p.Idempotent, p.PerTryTimeout = true, 50*time.Millisecond
	var seen, reset atomic.Int64
	s := newStageWith(t, Options{}, p, forEach(func(c *scriptConn, id uint32) {
		if seen.Add(1) > 1 {
			c.answer(id)
			return
		}
		c.until(func(f http2.Frame) bool {
			r, ok := f.(*http2.RSTStreamFrame)
			if ok && r.ErrCode == http2.ErrCodeCancel {
				reset.Add(1)
			}
			return ok || f.Header().Type == http2.FrameHeaders && seen.Add(1) > 0 && answered(c, f)
		})
	}).start(t))

	if err := s.call(t); err != nil {
		t.Fatal(err)
	}
	waitFor(t, func() bool { return reset.Load() == 1 })
}

// answered answers the request that a HEADERS frame begins.
func answered(c *scriptConn, f http2.Frame) bool {
	c.answer(f.Header().StreamID)
	return false
}

func TestRetriesKeepWithinTheBudget(t *testing.T) {
	p := retrying(5)
	p.Retry.Budget = policy.BudgetPolicy{Ratio: 0.2, MinPerSecond: 1}
	s := newFailing(1<<40, codes.Unavailable)
	address, _ := s.start(t)
	f := newFixture(t, p, address)
	cc := f.client(t)

	for range 200 {
		_, _ = unary(testContext(t), cc, nil)
	}

	if n := s.calls.Load(); n > 200+40+10 || n < 200+30 {
		t.Fatalf("%d attempts of 200 calls: the budget is 40 and 10", n)
	}
}

func TestAnOpenBreakerAnswersWithAFallback(t *testing.T) {
	for _, tc := range []struct {
		fallback policy.FallbackPolicy
		code     codes.Code
		says     string
	}{
		{policy.FallbackPolicy{Enabled: true, Body: "\x0a\x02hi"}, codes.OK, "hi"},
		{policy.FallbackPolicy{Enabled: true, Code: policy.NotFound, Message: "no greeting today"}, codes.NotFound, "no greeting today"},
	} {
		p := policy.Policy{Fallback: tc.fallback}
		p.Breaker.Options.ConsecutiveFailures = 1
		s := newFailing(1000, codes.Internal)
		address, _ := s.start(t)
		f := newFixture(t, p, address)
		cc := f.client(t)
		_, _ = unary(testContext(t), cc, nil)

		var header, trailer metadata.MD
		out, err := unary(testContext(t), cc, nil, grpc.Header(&header), grpc.Trailer(&trailer))

		said := string(out)
		if err != nil {
			said = status.Convert(err).Message()
		}
		if status.Code(err) != tc.code || said != tc.says || strings.Join(append(header.Get("outrigger-fallback"), trailer.Get("outrigger-fallback")...), "") != "BREAKER_OPEN" || s.calls.Load() != 1 {
			t.Errorf("%v: %q, %v", err, said, header)
		}
	}
}

func TestPlainHTTPIsSentAgainWhereItsMethodMayBe(t *testing.T) {
	for method, attempts := range map[string]int64{"GET": 2, "PUT": 2, "POST": 1} {
		var seen atomic.Int64
		s := newStageWith(t, Options{}, retrying(2), forEach(func(c *scriptConn, id uint32) {
			status := "503"
			if seen.Add(1) > 1 {
				status = "200"
			}
			c.block(id, true, ":status", status)
		}).start(t))
		transport := &http.Transport{Protocols: new(http.Protocols), DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", s.address)
		}}
		transport.Protocols.SetUnencryptedHTTP2(true)
		request, err := http.NewRequestWithContext(testContext(t), method, "http://echo/x", nil)
		if err != nil {
			t.Fatal(err)
		}

		res, err := transport.RoundTrip(request)

		if err != nil || seen.Load() != attempts || (res.StatusCode == http.StatusOK) != (attempts > 1) {
			t.Errorf("%s: %v, %v after %d attempts, want %d", method, res, err, seen.Load(), attempts)
		}
		transport.CloseIdleConnections()
	}
}

package relay

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

// caching is a policy that keeps answers for a minute.
func caching() policy.Policy {
	return policy.Policy{Idempotent: true, Cache: policy.CachePolicy{TTL: time.Minute}}
}

// counting is an echo server that answers how often it was asked.
func counting(t *testing.T) (s *echoServer, address string) {
	s = &echoServer{}
	s.unary = func(ctx context.Context, in []byte) ([]byte, error) {
		_ = grpc.SetHeader(ctx, metadata.Pairs("x-kept", "too"))
		_ = grpc.SetTrailer(ctx, metadata.Pairs("x-trailer", "too"))
		return fmt.Appendf(nil, "%s: answer %d", in, s.calls.Load()), nil
	}
	address, _ = s.start(t)
	return s, address
}

func ask(t *testing.T, cc *grpc.ClientConn, body string, md ...string) (answer, found string) {
	t.Helper()
	var header, trailer metadata.MD
	ctx := metadata.AppendToOutgoingContext(testContext(t), append(md, "outrigger-explain", "true")...)
	out, err := unary(ctx, cc, []byte(body), grpc.Header(&header), grpc.Trailer(&trailer))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(header.Get("x-kept"), "") != "too" || strings.Join(trailer.Get("x-trailer"), "") != "too" {
		t.Fatalf("header %v, trailer %v", header, trailer)
	}
	return string(out), strings.Join(header.Get("outrigger-cache"), "")
}

func TestAnAnswerIsGivenAgainToWhoAsksTheSame(t *testing.T) {
	_, address := counting(t)
	f := newFixture(t, caching(), address)
	cc := f.client(t)
	for _, tc := range []struct {
		about, body string
		md          []string
		want, found string
	}{
		{"the first", "a", nil, "a: answer 1", ""},
		{"the same again", "a", nil, "a: answer 1", "HIT"},
		{"another request", "b", nil, "b: answer 2", ""},
		{"another caller", "a", []string{"authorization", "Bearer x"}, "a: answer 3", ""},
		{"that caller again", "a", []string{"authorization", "Bearer x"}, "a: answer 3", "HIT"},
		{"no-cache", "a", []string{"cache-control", "no-cache"}, "a: answer 4", ""},
		{"after it", "a", nil, "a: answer 4", "HIT"},
		{"no-store", "a", []string{"cache-control", "no-store"}, "a: answer 5", ""},
		{"only-if-cached", "a", []string{"cache-control", "only-if-cached"}, "a: answer 4", "HIT"},
	} {
		if got, found := ask(t, cc, tc.body, tc.md...); got != tc.want || found != tc.found {
			t.Errorf("%s: %q (%s), want %q (%s)", tc.about, got, found, tc.want, tc.found)
		}
	}
	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), "cache-control", "only-if-cached"), cc, []byte("new"))
	if reason, _, _ := refusalOf(err); reason != "NOT_CACHED" {
		t.Errorf("only-if-cached of something new: %v", err)
	}
	if n := f.relay.buffered.Load(); n != 0 {
		t.Errorf("%d bytes are still held", n)
	}
}

func TestManyWhoAskAtOnceAreAnsweredByOneCall(t *testing.T) {
	let := make(chan struct{})
	s := &echoServer{unary: func(_ context.Context, in []byte) ([]byte, error) { <-let; return in, nil }}
	address, _ := s.start(t)
	f := newFixture(t, caching(), address)
	cc := f.client(t)
	var all sync.WaitGroup
	var wrong atomic.Int64
	for range 50 {
		all.Go(func() {
			if out, err := unary(testContext(t), cc, []byte("x")); err != nil || string(out) != "x" {
				wrong.Add(1)
			}
		})
	}
	waitFor(t, func() bool { return f.relay.active.Load() == 50 })
	close(let)
	all.Wait()

	if s.calls.Load() != 1 || wrong.Load() != 0 {
		t.Fatalf("%d calls reached the endpoint, %d answers were wrong", s.calls.Load(), wrong.Load())
	}
}

func TestAFollowerWhoseTimeIsUpLeaves(t *testing.T) {
	let := make(chan struct{})
	s := &echoServer{unary: func(_ context.Context, in []byte) ([]byte, error) { <-let; return in, nil }}
	address, _ := s.start(t)
	f := newFixture(t, caching(), address)
	cc := f.client(t)
	first := make(chan error, 1)
	go func() { _, err := unary(testContext(t), cc, nil); first <- err }()
	waitFor(t, func() bool { return s.calls.Load() == 1 })
	hurry, cancel := context.WithTimeout(testContext(t), 30*time.Millisecond)
	defer cancel()

	_, err := unary(hurry, cc, nil)

	if status.Code(err) != codes.DeadlineExceeded || s.calls.Load() != 1 {
		t.Fatalf("%v after %d calls", err, s.calls.Load())
	}
	close(let)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
}

func TestAStaleAnswerIsGivenWhileOneCallRefreshesIt(t *testing.T) {
	s, address := counting(t)
	p := caching()
	p.Cache.TTL, p.Cache.StaleWhileRevalidate = time.Millisecond, time.Minute
	f := newFixture(t, p, address)
	cc := f.client(t)
	ask(t, cc, "a")
	time.Sleep(10 * time.Millisecond)

	got, found := ask(t, cc, "a")

	if got != "a: answer 1" || found != "REFRESH" {
		t.Fatalf("%q (%s)", got, found)
	}
	waitFor(t, func() bool { return s.calls.Load() == 2 && f.relay.active.Load() == 0 })
	if got, _ := ask(t, cc, "a"); got != "a: answer 2" {
		t.Fatalf("after the refresh: %q", got)
	}
}

func TestAStaleAnswerStandsInWhereNoneCanBeHad(t *testing.T) {
	for about, fail := range map[string]func(s *echoServer, g *grpc.Server){
		"the endpoint fails": func(s *echoServer, _ *grpc.Server) {
			s.unary = func(context.Context, []byte) ([]byte, error) { return nil, status.Error(codes.Unavailable, "down") }
		},
		"the endpoint is gone": func(_ *echoServer, g *grpc.Server) { g.Stop() },
	} {
		t.Run(about, func(t *testing.T) {
			s := &echoServer{unary: func(ctx context.Context, in []byte) ([]byte, error) { return in, nil }}
			address, g := s.start(t)
			p := caching()
			p.Cache.TTL, p.Cache.StaleIfError = time.Millisecond, time.Minute
			f := newFixture(t, p, address)
			cc := f.client(t)
			if _, err := unary(testContext(t), cc, []byte("a")); err != nil {
				t.Fatal(err)
			}
			time.Sleep(10 * time.Millisecond)
			fail(s, g)

			out, err := unary(testContext(t), cc, []byte("a"))

			if err != nil || string(out) != "a" {
				t.Fatalf("%q, %v", out, err)
			}
			if e := f.service.Endpoints().All()[0]; e.InFlight() != 0 {
				t.Fatalf("%d in flight", e.InFlight())
			}
		})
	}
}

func TestObserveKeepsAnswersAndGivesNone(t *testing.T) {
	_, address := counting(t)
	p := caching()
	p.Cache.Mode = policy.Observe
	f := newFixture(t, p, address)
	cc := f.client(t)
	ask(t, cc, "a")

	got, _ := ask(t, cc, "a")

	if hits := f.service.Cache().Snapshot().Hits; got != "a: answer 2" || hits != 1 {
		t.Fatalf("%q, %d hits", got, hits)
	}
}

func TestLargeRequestsAndStreamsGoPastTheCache(t *testing.T) {
	s := new(echoServer)
	address, _ := s.start(t)
	f := newFixture(t, caching(), address)
	cc := f.client(t)
	big := strings.Repeat("x", 1<<20)
	for range 2 {
		if out, err := unary(testContext(t), cc, []byte(big)); err != nil || string(out) != big {
			t.Fatalf("%d bytes, %v", len(out), err)
		}
	}
	stream, err := cc.NewStream(testContext(t), bidiDesc, "/test.Echo/Bidi")
	if err != nil {
		t.Fatal(err)
	}
	echo(t, stream, "one")
	echo(t, stream, "two")
	if s.calls.Load() != 3 {
		t.Fatalf("%d calls", s.calls.Load())
	}
}

package relay

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/outrigger-rpc/outrigger/policy"
)

// explained makes a unary call and returns how many endpoints it was sent to.
func (s *stage) explained(t testing.TB) (attempts string, err error) {
	var header metadata.MD
	ctx := metadata.AppendToOutgoingContext(testContext(t), "outrigger-explain", "true")
	_, err = unary(ctx, s.caller, nil, grpc.Header(&header))
	for _, v := range header.Get("outrigger-attempts") {
		attempts += v
	}
	return attempts, err
}

// inFlight reads until n requests are there.
func (c *scriptConn) inFlight(n int) {
	for range n {
		c.nextHeaders()
	}
}

// outcome is how a call went that somebody waits for.
type outcome struct {
	attempts string
	err      error
}

// callTwice makes two calls at once and counts the outcomes.
func (s *stage) callTwice(t testing.TB) map[outcome]int {
	var mu sync.Mutex
	outcomes := make(map[outcome]int)
	var calls sync.WaitGroup
	for range 2 {
		calls.Go(func() {
			attempts, err := s.explained(t)
			mu.Lock()
			defer mu.Unlock()
			outcomes[outcome{attempts, err}]++
		})
	}
	calls.Wait()
	return outcomes
}

// TestGoAwayWithTheHighestStreamLetsCallsFinish: the usual way of a server that
// shuts down. Its calls finish, new ones find another connection.
func TestGoAwayWithTheHighestStreamLetsCallsFinish(t *testing.T) {
	announced, release := make(chan struct{}), make(chan struct{})
	var later atomic.Int64
	s := newStage(t, func(c *scriptConn) {
		if c.number > 1 {
			forEach(func(c *scriptConn, id uint32) {
				later.Add(1)
				c.answer(id)
			})(c)
			return
		}
		id := c.nextHeaders()
		c.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil)
		c.heard()
		close(announced)
		<-release
		c.answer(id)
		c.drain() // the relay closes: nothing is left on the connection
	})
	first := make(chan error, 1)
	began := time.Now()
	go func() { first <- s.call(t) }()
	<-announced

	if err := s.call(t); err != nil || later.Load() != 1 {
		t.Errorf("a call after GOAWAY: %v; the second connection saw %d calls", err, later.Load())
	}
	close(release)

	s.judge(t, began, <-first, verdict{code: codes.OK})
}

// TestStreamsAboveGoAwayLeaveThoseBelowAlone: of two calls in flight, the one
// above the last stream id moves, unseen; the other finishes where it is.
func TestStreamsAboveGoAwayLeaveThoseBelowAlone(t *testing.T) {
	for name, announce := range map[string]func(c *scriptConn){
		"at once": func(c *scriptConn) { c.WriteGoAway(1, http2.ErrCodeNo, nil) },
		"in two steps": func(c *scriptConn) {
			c.WriteGoAway(maxStreamID, http2.ErrCodeNo, nil)
			c.WriteGoAway(1, http2.ErrCodeNo, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, thenGood(func(c *scriptConn) {
				c.inFlight(2)
				announce(c)
				c.heard()
				c.answer(1)
				c.drain()
			}))

			began := time.Now()
			outcomes := s.callTwice(t)

			if outcomes[outcome{"1", nil}] != 1 || outcomes[outcome{"2", nil}] != 1 {
				t.Errorf("%v; want one call after 1 attempt, one after 2", outcomes)
			}
			s.judge(t, began, nil, verdict{code: codes.OK})
		})
	}
}

// TestGoAwayWithoutStreams: an idle connection that the endpoint takes leave of
// is closed, and the next call never knew it.
func TestGoAwayWithoutStreams(t *testing.T) {
	closed := make(chan struct{})
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.answer(c.nextHeaders())
		c.heard()
		c.WriteGoAway(1, http2.ErrCodeNo, nil)
		c.drain()
		close(closed)
	}))
	if err := s.call(t); err != nil {
		t.Fatal(err)
	}
	<-closed

	began := time.Now()
	attempts, err := s.explained(t)

	if attempts != "1" {
		t.Errorf("%s attempts", attempts)
	}
	s.judge(t, began, err, verdict{code: codes.OK})
}

// TestGoAwayWithAnErrorThenClose: what the endpoint may have processed is lost,
// and the caller reads why; what it did not goes elsewhere.
func TestGoAwayWithAnErrorThenClose(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.inFlight(2)
		c.WriteGoAway(1, http2.ErrCodeEnhanceYourCalm, []byte("too_many_pings"))
		c.hangUp()
	}))

	began := time.Now()
	outcomes := s.callTwice(t)

	if outcomes[outcome{"2", nil}] != 1 {
		t.Errorf("%v; want one call after 2 attempts", outcomes)
	}
	delete(outcomes, outcome{"2", nil})
	for lost := range outcomes {
		s.judge(t, began, lost.err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "closed by the endpoint after GOAWAY ENHANCE_YOUR_CALM (too_many_pings)"})
	}
}

// TestGoAwayThatNamesAllThenClose: a server that dies after a graceful GOAWAY
// takes its calls with it.
func TestGoAwayThatNamesAllThenClose(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.inFlight(1)
		c.WriteGoAway(maxStreamID, http2.ErrCodeNo, []byte("bye"))
		c.hangUp()
	}))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "closed by the endpoint after GOAWAY NO_ERROR (bye)"})
	if err := s.call(t); err != nil {
		t.Errorf("the next call: %v", err)
	}
}

// TestGoAwayOnALongRequestIsTold: what is longer than Limits.ReplayBytes can't
// be sent again.
func TestGoAwayOnALongRequestIsTold(t *testing.T) {
	s := newStageWith(t, Options{Limits: Limits{ReplayBytes: 1000}}, policy.Policy{}, thenGood(func(c *scriptConn) {
		c.answer(c.nextHeaders())
		c.nextHeaders()
		c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameData && f.Header().Length > 1000 })
		c.WriteGoAway(1, http2.ErrCodeNo, nil)
		c.drain()
	}).start(t))
	if err := s.call(t); err != nil {
		t.Fatal(err)
	}

	began := time.Now()
	_, err := unary(testContext(t), s.caller, make([]byte, 2000))

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "the endpoint goes away: NO_ERROR"})
}

// TestGoAwayOnACallThatMayNotBeRepeated: outrigger-retry: off holds here too.
func TestGoAwayOnACallThatMayNotBeRepeated(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		c.nextHeaders()
		c.WriteGoAway(0, http2.ErrCodeNo, nil)
		c.drain()
	}))

	began := time.Now()
	_, err := unary(metadata.AppendToOutgoingContext(testContext(t), "outrigger-retry", "off"), s.caller, nil)

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "the endpoint goes away: NO_ERROR"})
}

// TestStreamMovedByGoAwayGoesOn: a stream with several messages sent, none
// answered, moves with all of them.
func TestStreamMovedByGoAwayGoesOn(t *testing.T) {
	seen := make(chan string, 1)
	s := newStage(t, func(c *scriptConn) {
		id := c.nextHeaders()
		var got []byte
		messages := func(f http2.Frame) bool {
			if d, ok := f.(*http2.DataFrame); ok {
				got = append(got, d.Data()...)
			}
			return len(got) == 3*(messagePrefixLen+len("\x0a\x01x"))
		}
		if id == 0 || !c.until(messages) {
			return
		}
		if c.number == 1 {
			c.WriteGoAway(0, http2.ErrCodeNo, nil)
			c.drain()
			return
		}
		seen <- string(got)
		c.headers(id)
		c.message(id)
		c.trailers(id, "0")
		c.drain()
	})
	stream := s.open(t)
	for range 2 {
		if err := stream.SendMsg(wrapperspb.Bytes([]byte("x"))); err != nil {
			t.Fatal(err)
		}
	}

	began := time.Now()
	err := receive(stream)

	s.judge(t, began, err, verdict{code: codes.OK})
	if got, message := <-seen, "\x00\x00\x00\x00\x03\x0a\x01x"; got != message+message+message {
		t.Errorf("the second connection got %q", got)
	}
}

package relay

import (
	"context"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/outrigger-rpc/outrigger/policy"
)

// closedWindow makes every stream of an endpoint begin without credit.
var closedWindow = http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0}

// stuck takes requests and gives no credit for any.
var stuck upstreamScript = func(c *scriptConn) { c.until(func(http2.Frame) bool { return false }) }

// TestWindowThatNeverOpensEndsWithTheCallersDeadline: it is no fault that
// anybody could tell from slowness, so the deadline decides; what waited is
// given up.
func TestWindowThatNeverOpensEndsWithTheCallersDeadline(t *testing.T) {
	s := newStage(t, stuck, closedWindow)
	ctx, cancel := context.WithTimeout(testContext(t), 200*time.Millisecond)
	defer cancel()

	began := time.Now()
	_, err := unary(ctx, s.caller, make([]byte, 10_000))

	// Where the caller's own timer is first, there is no reason.
	if reason, _, _ := refusalOf(err); status.Code(err) != codes.DeadlineExceeded || reason != "" && reason != "DEADLINE" {
		t.Errorf("the caller saw %v (reason %q)", err, reason)
	}
	if took := time.Since(began); took > soon {
		t.Errorf("after %v", took)
	}
	if r := s.books.first(t); r.Code != policy.DeadlineExceeded && r.Code != policy.Canceled {
		t.Errorf("the books say %v", r.Code)
	}
	waitFor(t, func() bool { return s.relay.buffered.Load() == 0 })
	s.unharmed(t)
}

// TestWindowThatNeverOpensEndsWithTheTimeout: without a deadline of the
// caller, the policy's timeout decides.
func TestWindowThatNeverOpensEndsWithTheTimeout(t *testing.T) {
	s := newStageWith(t, Options{}, policy.Policy{Timeout: 200 * time.Millisecond}, stuck.start(t, closedWindow))

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.DeadlineExceeded, reason: "TIMEOUT"})
	waitFor(t, func() bool { return s.relay.buffered.Load() == 0 })
}

// TestStuckStreamsStallNobodyOnTheirConnection: 20 calls wait for credit, and
// one whose stream got some goes through on the same connection.
func TestStuckStreamsStallNobodyOnTheirConnection(t *testing.T) {
	const stalled = 20
	s := newStage(t, func(c *scriptConn) {
		c.inFlight(stalled)
		for {
			id := c.nextHeaders()
			if id == 0 {
				return
			}
			c.WriteWindowUpdate(id, 1000)
			c.answer(id)
		}
	}, closedWindow)
	for range stalled {
		s.open(t)
	}

	began := time.Now()
	err := s.call(t)

	s.judge(t, began, err, verdict{code: codes.OK})
}

// TestConnectionWindowThatNeverOpens: streams have credit, the connection has
// 65,535 bytes. The caller's bytes beyond them wait, and the deadline ends it.
func TestConnectionWindowThatNeverOpens(t *testing.T) {
	s := newStageWith(t, Options{}, policy.Policy{Timeout: 200 * time.Millisecond},
		stuck.start(t, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1 << 20}))

	began := time.Now()
	_, err := unary(testContext(t), s.caller, make([]byte, 100_000))

	s.judge(t, began, err, verdict{code: codes.DeadlineExceeded, reason: "TIMEOUT"})
	waitFor(t, func() bool { return s.relay.buffered.Load() == 0 })
}

// TestWindowBelowZeroWaitsForWhatItOwes (RFC 9113, 6.9.2): 100 bytes went when
// the window shrank from 100 to 0, so it stands at -100; credit of 100 sends
// nothing, the next byte of credit sends one byte.
func TestWindowBelowZeroWaitsForWhatItOwes(t *testing.T) {
	sizes := make(chan int, 10)
	s := newStage(t, func(c *scriptConn) {
		id := c.nextHeaders()
		data := func(f http2.Frame) bool {
			d, ok := f.(*http2.DataFrame)
			if ok {
				sizes <- len(d.Data())
			}
			return ok
		}
		if id == 0 || !c.until(data) {
			return
		}
		c.WriteSettings(closedWindow)
		c.WriteWindowUpdate(id, 100)
		c.WritePing(false, [8]byte{1})
		c.until(func(f http2.Frame) bool { // no DATA before the answer to the PING
			data(f)
			p, ok := f.(*http2.PingFrame)
			return ok && p.IsAck()
		})
		c.WriteWindowUpdate(id, 1)
		if !c.until(data) {
			return
		}
		c.answer(id)
		c.drain()
	}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 100})

	began := time.Now()
	_, err := unary(testContext(t), s.caller, make([]byte, 1000))

	s.judge(t, began, err, verdict{code: codes.OK})
	if first, second := <-sizes, <-sizes; first != 100 || second != 1 || len(sizes) > 0 {
		t.Errorf("DATA of %d, %d bytes and %d more; want 100 and 1", first, second, len(sizes))
	}
}

// TestInitialWindowSizeThatOverflowsAStream (RFC 9113, 6.9.2): the endpoint
// broke the connection.
func TestInitialWindowSizeThatOverflowsAStream(t *testing.T) {
	s := newStage(t, thenGood(func(c *scriptConn) {
		id := c.nextHeaders()
		c.WriteWindowUpdate(id, 1000)
		c.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: maxWindow})
		c.drain()
	}))

	began := time.Now()
	err := receive(s.open(t))

	s.judge(t, began, err, verdict{code: codes.Unavailable, reason: "CONNECTION_LOST", says: "FLOW_CONTROL_ERROR: INITIAL_WINDOW_SIZE takes a stream's window past 2^31-1"})
}

// TestDataOfAStreamResetByTheCallerGivesItsCreditBack: bytes for a call that
// is over still count on the endpoint's connection, which must not dry up.
func TestDataOfAStreamResetByTheCallerGivesItsCreditBack(t *testing.T) {
	const window = 1 << 16
	arrived, sent := make(chan struct{}, 1), make(chan int, 1)
	s := newStageWith(t, Options{Limits: Limits{ConnectionWindow: window, StreamWindow: window}}, policy.Policy{}, forEach(func(c *scriptConn, id uint32) {
		arrived <- struct{}{}
		c.until(func(f http2.Frame) bool { return f.Header().Type == http2.FrameRSTStream })
		for range 4 { // half a window of DATA, past the call's end
			c.WriteData(id, false, make([]byte, window/8))
		}
		if c.heard() {
			sent <- c.number
		}
	}).start(t))

	for range 10 {
		ctx, cancel := context.WithCancel(testContext(t))
		go func() { _, _ = unary(ctx, s.caller, nil) }()
		<-arrived
		cancel()
		if n := <-sent; n != 1 {
			t.Fatalf("connection %d: the one before was ended", n)
		}
	}

	waitFor(t, func() bool { return s.relay.buffered.Load() == 0 && s.relay.active.Load() == int64(len(s.streams)) })
	s.unharmed(t)
}

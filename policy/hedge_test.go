package policy

import (
	"testing"
	"time"
)

func hedged() Policy {
	return Policy{Idempotent: true, Hedge: HedgePolicy{Delay: 50 * time.Millisecond, MaxAttempts: 3}, Retry: RetryPolicy{Budget: DefaultBudget()}}
}

func TestAHedgeIsSentWhenTheFirstIsSlow(t *testing.T) {
	s := newTestService(hedged(), "a:1", "b:1", "c:1")
	var c Call
	var first, second Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &first)
	if due := c.Expiry(&first); due != start+50*time.Millisecond {
		t.Fatalf("due after %v", due-start)
	}
	if d := c.Due(start+50*time.Millisecond, false); d != Nothing {
		t.Fatalf("the request is not whole yet: %v", d)
	}
	now := c.Expiry(&first)
	if d := c.Due(now, true); d != Another {
		t.Fatalf("%v at %v", d, now-start)
	}
	if r := c.Pick(now, 1, &second); r != nil || second.Endpoint == first.Endpoint || !second.Hedge() {
		t.Fatalf("%v: %v beside %v", r, second.Endpoint.Address(), first.Endpoint.Address())
	}

	// The hedge answers: the call is over, the first is abandoned.
	v := c.Finish(&second, now+time.Millisecond, Ending{}, 1)
	loser := first.Endpoint
	c.Abandon(&first, now+time.Millisecond, 1)

	if v.Action != Return || loser.Failures() != 0 || loser.InFlight() != 0 {
		t.Fatalf("%+v, the loser has %d failures and %d in flight", v, loser.Failures(), loser.InFlight())
	}
}

func TestAFailureBesideAnotherAttemptBringsTheNextHedgeOn(t *testing.T) {
	s := newTestService(hedged(), "a:1", "b:1", "c:1")
	var c Call
	var attempts [3]Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &attempts[0])
	now := start + 50*time.Millisecond
	c.Due(now, true)
	_ = c.Pick(now, 1, &attempts[1])

	v := c.Finish(&attempts[0], now+time.Millisecond, ends(Unavailable), 1)

	if v.Action != Await {
		t.Fatalf("%+v", v)
	}
	if d := c.Due(now+time.Millisecond, true); d != Another {
		t.Fatalf("%v: the third attempt is due at once", d)
	}
}

func TestAFatalAnswerEndsACallWithHedges(t *testing.T) {
	s := newTestService(hedged(), "a:1", "b:1")
	var c Call
	var first, second Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &first)
	c.Due(start+50*time.Millisecond, true)
	_ = c.Pick(start+50*time.Millisecond, 1, &second)

	if v := c.Finish(&first, start+60*time.Millisecond, ends(PermissionDenied), 1); v.Action != Return {
		t.Fatalf("%+v", v)
	}
}

func TestPushbackHoldsHedgesBack(t *testing.T) {
	for _, tc := range []struct {
		pushback time.Duration
		due      Instant // after the answer; 0: never
	}{{200 * time.Millisecond, 200 * time.Millisecond}, {NoMore, 0}} {
		s := newTestService(hedged(), "a:1", "b:1", "c:1")
		var c Call
		var first, second Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &first)
		now := start + 50*time.Millisecond
		c.Due(now, true)
		_ = c.Pick(now, 1, &second)

		c.Finish(&first, now, Ending{Result: Result{Code: Unavailable}, Pushback: tc.pushback}, 1)

		if due := c.Expiry(&second); tc.due == 0 && due != 0 || tc.due != 0 && due != now+tc.due {
			t.Errorf("pushback %v: the next is due after %v", tc.pushback, due-now)
		}
	}
}

func TestOnlyIdempotentUnaryCallsAreHedged(t *testing.T) {
	for about, change := range map[string]func(*Policy, *Call){
		"not idempotent": func(p *Policy, _ *Call) { p.Idempotent = false },
		"OFF":            func(p *Policy, _ *Call) { p.Hedge.Mode = Off },
		"a stream":       func(_ *Policy, c *Call) { c.MarkStream() },
	} {
		p := hedged()
		change(&p, &Call{method: newTestService(p).Method(hello)})
		s := newTestService(p, "a:1", "b:1")
		var c Call
		var a Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)
		if about == "a stream" {
			c.MarkStream()
		}
		if due := c.Expiry(&a); due != 0 {
			t.Errorf("%s: due after %v", about, due-start)
		}
	}
}

func TestHedgesShareTheBudgetOfRetries(t *testing.T) {
	p := hedged()
	p.Retry.Budget = BudgetPolicy{Ratio: 0.1}
	s := newTestService(p, "a:1", "b:1")
	sent := 0
	for range 100 {
		var c Call
		var first, second Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &first)
		if c.Due(start+50*time.Millisecond, true) == Another {
			_ = c.Pick(start+50*time.Millisecond, 1, &second)
			c.Abandon(&second, start+60*time.Millisecond, 1)
			sent++
		}
		c.Settle(&first, start+60*time.Millisecond, Result{}, 1)
		c.End(start+60*time.Millisecond, Result{}, 1)
	}
	if sent != 10 {
		t.Fatalf("%d hedges of 100 calls, want 10", sent)
	}
}

func TestObserveCountsTheHedgeThatItDoesNotSend(t *testing.T) {
	p := hedged()
	p.Hedge.Mode, p.Hedge.MaxAttempts = Observe, 2
	s := newTestService(p, "a:1", "b:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)

	if d := c.Due(start+50*time.Millisecond, true); d != Nothing || s.counts.wouldHedge.Load() != 1 || c.Expiry(&a) != 0 {
		t.Fatalf("%v, would hedge %d, due %v", d, s.counts.wouldHedge.Load(), c.Expiry(&a))
	}
}

func TestTheDelayFollowsALiveQuantile(t *testing.T) {
	p := hedged()
	p.Hedge.Delay, p.Hedge.DelayQuantile = 500*time.Millisecond, 0.9
	s := newTestService(p, "a:1")
	delay := func(now Instant) time.Duration {
		var c Call
		var a Attempt
		send(t, &c, s, now, Arrival{Timeout: NoTimeout}, &a)
		return c.Expiry(&a) - now
	}
	if d := delay(start); d != 500*time.Millisecond {
		t.Fatalf("before calls are known: %v, want the fixed delay", d)
	}
	for i := range 100 { // 1 ms to 100 ms
		now := start + time.Duration(i)*time.Millisecond
		var c Call
		var a Attempt
		send(t, &c, s, now, Arrival{Timeout: NoTimeout}, &a)
		c.Settle(&a, now+time.Duration(i+1)*time.Millisecond, Result{}, 1)
		c.End(now+time.Duration(i+1)*time.Millisecond, Result{}, 1)
	}

	if d := delay(start + 2*time.Second); d < 88*time.Millisecond || d > 92*time.Millisecond {
		t.Fatalf("%v, want about 90 ms", d)
	}
}

func TestNoHedgeFallsDueWhileARetryWaits(t *testing.T) {
	p := hedged()
	p.Retry = RetryPolicy{MaxAttempts: 2, Budget: DefaultBudget()}
	s := newTestService(p, "a:1", "b:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)

	v := c.Finish(&a, start+10*time.Millisecond, Ending{Result: Result{Code: Unavailable}, Pushback: time.Second}, 1)

	if v.Action != Again || c.Expiry(nil) != v.At {
		t.Fatalf("%+v; due after %v, where nothing would be done", v, c.Expiry(nil)-start)
	}
	if d := c.Due(v.At, true); d != Another {
		t.Fatalf("%v", d)
	}
}

package policy

import (
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/balancer"
	"github.com/outrigger-rpc/outrigger/breaker"
)

// thrice is a policy of three attempts without a pause.
func thrice() Policy {
	return Policy{Retry: RetryPolicy{MaxAttempts: 3, BackoffBase: 100 * time.Millisecond, BackoffMax: time.Second, Budget: DefaultBudget()}}
}

// send begins a call's first attempt.
func send(t testing.TB, c *Call, s *Service, now Instant, a Arrival, attempt *Attempt) {
	t.Helper()
	c.Begin(s.Method(hello), now, a)
	if admission := c.Admit(now, 1); admission.Refusal != nil || admission.Wait {
		t.Fatalf("not admitted: %+v", admission)
	}
	if r := c.Pick(now, 1, attempt); r != nil {
		t.Fatal(r)
	}
}

func ends(code Code) Ending { return Ending{Result: Result{Code: code}} }

func TestWhatIsTriedAgain(t *testing.T) {
	const most = ^uint64(0)
	refused := func(r Reason) Ending { return Ending{Result: Result{Code: r.Code(), Reason: r}} }
	for _, tc := range []struct {
		about   string
		ending  Ending
		arrival Arrival
		change  func(*Policy)
		want    Action
		after   time.Duration
	}{
		{about: "UNAVAILABLE, after a pause", ending: ends(Unavailable), want: Again, after: 100 * time.Millisecond},
		{about: "a code that is not listed", ending: ends(Internal), want: Return},
		{about: "a code that is", ending: ends(Aborted), change: func(p *Policy) { p.Retry.Codes = Codes(Aborted) }, want: Again, after: 100 * time.Millisecond},
		{about: "OK", ending: ends(OK), change: func(p *Policy) { p.Retry.Codes = ^CodeSet(0) }, want: Return},
		{about: "the answer's head went out", ending: Ending{Result: Result{Code: Unavailable}, Committed: true}, want: Return},
		{about: "the caller wants none", ending: ends(Unavailable), arrival: Arrival{NoRetry: true}, want: Return},
		{about: "the server says when", ending: Ending{Result: Result{Code: Unavailable}, Pushback: 700 * time.Millisecond}, want: Again, after: 700 * time.Millisecond},
		{about: "the server says never", ending: Ending{Result: Result{Code: Unavailable}, Pushback: NoMore}, want: Return},
		{about: "a lost connection: who knows what the server did", ending: refused(ConnectionLost), want: Return},
		{about: "a lost connection of an idempotent call", ending: refused(ConnectionLost), arrival: Arrival{Idempotent: true}, want: Again, after: 100 * time.Millisecond},
		{about: "the attempt took too long", ending: refused(Timeout), want: Return},
		{about: "an idempotent attempt took too long", ending: refused(Timeout), arrival: Arrival{Idempotent: true}, want: Again, after: 100 * time.Millisecond},
		{about: "what must not be processed twice", ending: ends(Unavailable), arrival: Arrival{Once: true}, want: Return},
		{about: "that, where the policy says it may", ending: ends(Unavailable), arrival: Arrival{Once: true, Idempotent: true}, want: Again, after: 100 * time.Millisecond},
		{about: "that, never processed", ending: Ending{Result: Result{Unavailable, Draining}, Unprocessed: true}, arrival: Arrival{Once: true}, want: Again},
		{about: "the pause would outlast the deadline", ending: ends(Unavailable), arrival: Arrival{Timeout: 90 * time.Millisecond}, want: Return},
		{about: "the pause would outlast the timeout", ending: ends(Unavailable), change: func(p *Policy) { p.Timeout = 90 * time.Millisecond }, want: Return},
		{about: "OBSERVE", ending: ends(Unavailable), change: func(p *Policy) { p.Retry.Mode = Observe }, want: Return},
		{about: "OFF", ending: ends(Unavailable), change: func(p *Policy) { p.Retry.Mode = Off }, want: Return},
		{about: "no budget", ending: ends(Unavailable), change: func(p *Policy) { p.Retry.Budget = BudgetPolicy{} }, want: Return},
		{about: "never reached: elsewhere at once", ending: Ending{Result: Result{Unavailable, ConnectFailed}, Unreached: true}, change: func(p *Policy) { p.Retry = RetryPolicy{} }, want: Again},
		{about: "never processed: again at once", ending: Ending{Result: Result{Unavailable, Draining}, Unprocessed: true}, change: func(p *Policy) { p.Retry = RetryPolicy{} }, want: Again},
	} {
		p := thrice()
		if tc.change != nil {
			tc.change(&p)
		}
		if tc.arrival.Timeout == 0 {
			tc.arrival.Timeout = NoTimeout
		}
		s := newTestService(p, "a:1", "b:1")
		var c Call
		var a Attempt
		send(t, &c, s, start, tc.arrival, &a)

		v := c.Finish(&a, start, tc.ending, most)

		if v.Action != tc.want {
			t.Errorf("%s: %v, want %v", tc.about, v.Action, tc.want)
			continue
		}
		if v.Action == Again && (v.At < start+tc.after-time.Microsecond || v.At > start+tc.after) {
			t.Errorf("%s: after %v, want %v", tc.about, v.At-start, tc.after)
		}
	}
}

func TestARetryGoesToAnotherEndpointAndTellsThatItIsOne(t *testing.T) {
	s := newTestService(thrice(), "a:1", "b:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)
	first := a.Endpoint

	v := c.Finish(&a, start, ends(Unavailable), 1<<63)

	if due := c.Expiry(nil); due != v.At {
		t.Fatalf("due at %v, want %v", due, v.At)
	}
	if d := c.Due(v.At-1, true); d != Nothing {
		t.Fatalf("before its time: %v", d)
	}
	if d := c.Due(v.At, true); d != Another {
		t.Fatalf("at its time: %v", d)
	}
	if r := c.Pick(v.At, 1, &a); r != nil || a.Endpoint == first || c.Previous() != 1 {
		t.Fatalf("%v, to %v again, %d previous attempts", r, a.Endpoint.Address(), c.Previous())
	}
}

func TestBackoffDoublesUpToItsMaximum(t *testing.T) {
	p := RetryPolicy{BackoffBase: 100 * time.Millisecond, BackoffMax: 300 * time.Millisecond}
	for n, want := range []time.Duration{100, 200, 300, 300} {
		if got := p.backoff(n, ^uint64(0)).Round(time.Millisecond); got != want*time.Millisecond {
			t.Errorf("before retry %d: at most %v, want %v", n+1, got, want*time.Millisecond)
		}
		if got := p.backoff(n, 0); got != 0 {
			t.Errorf("before retry %d: at least %v, want 0", n+1, got)
		}
	}
}

func TestAttemptsAreCounted(t *testing.T) {
	s := newTestService(thrice(), "a:1", "b:1", "c:1", "d:1", "e:1", "f:1")
	var c Call
	var a Attempt
	now := start
	send(t, &c, s, now, Arrival{Timeout: NoTimeout}, &a)
	// Two endpoints can't be reached: that costs nothing.
	for range 2 {
		if v := c.Finish(&a, now, Ending{Result: Result{Unavailable, ConnectFailed}, Unreached: true}, 1); v.Action != Again || v.At != now {
			t.Fatalf("%+v", v)
		}
		if r := c.Pick(now, 1, &a); r != nil {
			t.Fatal(r)
		}
	}
	for range 2 {
		v := c.Finish(&a, now, ends(Unavailable), 1)
		if v.Action != Again {
			t.Fatalf("%+v", v)
		}
		now = v.At
		if r := c.Pick(now, 1, &a); r != nil {
			t.Fatal(r)
		}
	}

	v := c.Finish(&a, now, ends(Unavailable), 1)

	if v.Action != Return || c.Attempts() != 5 || c.Previous() != 2 {
		t.Fatalf("%+v after %d attempts, %d of them processed before", v, c.Attempts(), c.Previous())
	}
	if got := s.Actions(); got[0] != (Count{"retry", 2}) || got[1] != (Count{"transparent_retry", 2}) {
		t.Fatalf("%v", got)
	}
}

func TestAnOpenBreakerEndsRetries(t *testing.T) {
	p := thrice()
	p.Breaker.Options = breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Second}
	s := newTestService(p, "a:1", "b:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)

	if v := c.Finish(&a, start, ends(Unavailable), 1); v.Action != Return {
		t.Fatalf("%+v, with the breaker open", v)
	}
}

func TestAFailureThatOpensTheBreakerIsNotTriedAgainOnceItsHeadIsHere(t *testing.T) {
	for _, scope := range []Scope{ScopeService, ScopeMethod} {
		p := thrice()
		p.Breaker = BreakerPolicy{Scope: scope, Options: breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Second}}
		s := newTestService(p, "a:1", "b:1")
		var c Call
		var a Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)

		if v := c.Judge(&a, start, ends(Unavailable), 1); v.Action != Return {
			t.Fatalf("%v: %+v, with the breaker open", scope, v)
		}

		c.Settle(&a, start+time.Second, Result{Code: Unavailable}, 1)
		for _, b := range s.Breakers() {
			if b.Key.Method == OtherMethods {
				continue
			}
			if b := b.Breaker.Snapshot(start); b.Transitions != 1 || b.ConsecutiveFailures != 1 {
				t.Fatalf("%v: the breaker heard of it twice: %+v", scope, b)
			}
		}
	}
}

func TestAnAnswerThatIsNoFailureIsLearntAtItsEnd(t *testing.T) {
	p := thrice()
	p.Breaker.Options = breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Second}
	s := newTestService(p, "a:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)
	if v := c.Judge(&a, start, ends(NotFound), 1); v.Action != Return {
		t.Fatalf("%+v", v)
	}

	c.Settle(&a, start+time.Second, Result{Unavailable, ConnectionLost}, 1)

	if b := s.Breakers()[0].Breaker.Snapshot(start); b.State != breaker.Open {
		t.Fatalf("%+v after the connection was lost in mid-answer", b)
	}
}

func TestTheServicesBreakerCountsACallThatGoesElsewhereOnce(t *testing.T) {
	p := Policy{}
	p.Breaker.Options = breaker.Options{ConsecutiveFailures: 2, OpenFor: time.Second}
	s := newTestService(p, "a:1", "b:1", "c:1")
	for calls, want := range []breaker.State{breaker.Closed, breaker.Open} {
		var c Call
		var a Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)
		for v := (Verdict{Action: Again}); v.Action == Again; {
			if v = c.Finish(&a, start, Ending{Result: Result{Unavailable, ConnectFailed}, Unreached: true}, 1); v.Action == Again {
				if r := c.Pick(start, 1, &a); r != nil {
					t.Fatal(r)
				}
			}
		}
		c.End(start, Result{Unavailable, ConnectFailed}, 1)

		if b := s.Breakers()[0].Breaker.Snapshot(start); c.Attempts() != 3 || b.State != want {
			t.Fatalf("after call %d of %d attempts: %v, want %v", calls+1, c.Attempts(), b.State, want)
		}
	}
}

func TestACallDoesNotGoElsewherePastABreakerThatOpenedMeanwhile(t *testing.T) {
	unreached := Ending{Result: Result{Unavailable, ConnectFailed}, Unreached: true}
	for _, tc := range []struct {
		about string
		at    Instant // the attempt ends, after start
		want  Action
	}{
		{"the breaker is open", time.Millisecond, Return},
		{"its open time is over: the next attempt is a probe", time.Second, Again},
	} {
		t.Run(tc.about, func(t *testing.T) {
			p := Policy{}
			p.Breaker.Options = breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Second, HalfOpenProbes: 1}
			s := newTestService(p, "a:1", "b:1")
			var slow Call
			var a Attempt
			send(t, &slow, s, start, Arrival{Timeout: NoTimeout}, &a)
			if _, refusal := one(t, s, start, Result{Code: Unavailable}); refusal != nil {
				t.Fatal(refusal)
			}
			now := start + tc.at

			v := slow.Finish(&a, now, unreached, 1)

			if v.Action != tc.want {
				t.Fatalf("%+v, want %v", v, tc.want)
			}
			if v.Action == Return {
				return
			}
			if r := slow.Pick(now, 1, &a); r != nil {
				t.Fatal(r)
			}
			if b := s.Breakers()[0].Breaker.Snapshot(now); b.State != breaker.HalfOpen || b.ProbesInFlight != 1 {
				t.Fatalf("%+v, want the call's attempt to be its probe", b)
			}
			if _, refusal := one(t, s, now, Result{}); refusal == nil || refusal.Reason != BreakerOpen {
				t.Fatalf("another call beside the probe: %+v", refusal)
			}
		})
	}
}

func TestObserveCountsTheRetryThatItDoesNotMake(t *testing.T) {
	p := thrice()
	p.Retry.Mode = Observe
	s := newTestService(p, "a:1")
	var c Call
	var a Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &a)
	c.Finish(&a, start, ends(Unavailable), 1)

	for _, n := range s.Actions() {
		if n.Label == "would_retry" && n.Total != 1 || n.Label == "retry" && n.Total != 0 {
			t.Errorf("%s: %d", n.Label, n.Total)
		}
	}
}

// TestNothingIsSentOutOfTime drives calls through any endings: no attempt is
// made after the call's end, none above the bounds, and everything that was
// taken is given back.
func TestNothingIsSentOutOfTime(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := Policy{
			Timeout: time.Duration(rapid.IntRange(0, 400).Draw(t, "timeout")) * time.Millisecond, Idempotent: rapid.Bool().Draw(t, "idempotent"),
			Retry: RetryPolicy{MaxAttempts: rapid.IntRange(0, 5).Draw(t, "attempts"), BackoffBase: 50 * time.Millisecond, BackoffMax: 200 * time.Millisecond,
				Codes: Codes(Unavailable, Internal), Budget: BudgetPolicy{Ratio: 1, MinPerSecond: 100}},
			Hedge:   HedgePolicy{MaxAttempts: rapid.IntRange(0, 4).Draw(t, "hedges"), Delay: 30 * time.Millisecond},
			Breaker: BreakerPolicy{Scope: Scope(rapid.IntRange(0, 2).Draw(t, "scope")), Options: breaker.Options{ConsecutiveFailures: 3, OpenFor: 100 * time.Millisecond, HalfOpenProbes: 1}},
		}
		s := newTestService(p, "a:1", "b:1", "c:1")
		now := start
		for range rapid.IntRange(1, 8).Draw(t, "calls") {
			now = oneOfMany(t, s, &p, now)
		}
		for _, e := range s.Endpoints().All() {
			if e.InFlight() != 0 {
				t.Fatalf("%d attempts are still in flight at %s", e.InFlight(), e.Address())
			}
		}
		for _, b := range s.Breakers() {
			if n := b.Breaker.Snapshot(now).ProbesInFlight; n != 0 {
				t.Fatalf("%d probes are still in flight", n)
			}
		}
	})
}

// oneOfMany plays a call to its end and returns when that was.
func oneOfMany(t *rapid.T, s *Service, p *Policy, now Instant) Instant {
	var c Call
	c.Begin(s.Method(hello), now, Arrival{Timeout: time.Duration(rapid.IntRange(-1, 500).Draw(t, "deadline")) * time.Millisecond})
	result := Result{Code: Canceled, Reason: CallerCanceled}
	if admission := c.Admit(now, 1); admission.Refusal != nil {
		c.End(now, Refused(admission.Refusal), 1)
		return now
	}
	limit := c.limit()
	var flying []*Attempt
	pick := func() {
		if limit != 0 && now >= limit {
			t.Fatalf("an attempt %v after the call's end", now-limit)
		}
		a := new(Attempt)
		if r := c.Pick(now, rapid.Uint64().Draw(t, "rnd"), a); r == nil {
			flying = append(flying, a)
		}
	}
	pick()
	for steps := 0; steps < 60; steps++ {
		if c.Attempts() > max(p.Retry.MaxAttempts, 1)+max(p.Hedge.MaxAttempts, 1)+maxTransparent {
			t.Fatalf("%d attempts", c.Attempts())
		}
		if c.InFlight() != len(flying) {
			t.Fatalf("%d attempts in flight, %d are known", c.InFlight(), len(flying))
		}
		now += time.Duration(rapid.IntRange(0, 60).Draw(t, "passes")) * time.Millisecond
		if r := c.Expire(now, nil); r != nil {
			result = Refused(r)
			break
		}
		if c.Due(now, true) == Another {
			pick()
			continue
		}
		if len(flying) == 0 {
			if c.again == 0 {
				break
			}
			continue
		}
		a := flying[0]
		flying = flying[1:]
		e := Ending{Result: Result{Code: rapid.SampledFrom([]Code{OK, Unavailable, Internal, NotFound}).Draw(t, "code")}}
		switch rapid.IntRange(0, 5).Draw(t, "how") {
		case 0:
			e = Ending{Result: Result{Unavailable, ConnectFailed}, Unreached: true}
		case 1:
			e = Ending{Result: Result{Unavailable, Draining}, Unprocessed: true}
		case 2:
			e.Pushback = time.Duration(rapid.IntRange(-1, 100).Draw(t, "pushback")) * time.Millisecond
		}
		v := c.Finish(a, now, e, rapid.Uint64().Draw(t, "rnd"))
		if v.Action == Await && len(flying) == 0 {
			t.Fatal("the call waits for nobody")
		}
		if v.Action == Again && v.At <= now {
			pick()
		} else if v.Action == Return {
			result = e.Result
			break
		}
	}
	for _, a := range flying {
		c.Abandon(a, now, 1)
	}
	c.End(now, result, 1)
	return now
}

func TestPushback(t *testing.T) {
	for text, want := range map[string]time.Duration{"": 0, "0": 1, "250": 250 * time.Millisecond, "-1": NoMore, "soon": NoMore, "99999999999": NoMore, "2147483647": maxPushback} {
		if got := ParsePushback(text); got != want {
			t.Errorf("grpc-retry-pushback-ms: %q: %v, want %v", text, got, want)
		}
	}
	for text, want := range map[string]time.Duration{"": 0, "2": 2 * time.Second, "Wed, 21 Oct 2026 07:28:00 GMT": 0} {
		if got := ParseRetryAfter(text); got != want {
			t.Errorf("Retry-After: %q: %v, want %v", text, got, want)
		}
	}
}

func TestABreakerByEndpointThatObservesSteersNobodyAndCountsWhomNoneWouldTake(t *testing.T) {
	p := Policy{LoadBalancing: balancer.Options{Policy: balancer.RoundRobin},
		Breaker: BreakerPolicy{Scope: ScopeEndpoint, Options: breaker.Options{ConsecutiveFailures: 1, OpenFor: time.Minute, Mode: Observe}}}
	s := newTestService(p, "a:1", "b:1")
	for range 2 {
		// a opens at once; b would take what ENFORCE kept from a.
		_, _ = one(t, s, start, Result{Code: Unavailable})
		if got := s.WouldRefuse(); got != 0 {
			t.Fatalf("%d calls would have been refused, with one endpoint closed", got)
		}
	}

	if e, r := one(t, s, start, Result{}); r != nil || e != "a:1" {
		t.Fatalf("to %q, %v: OBSERVE does not act", e, r)
	}

	if got := s.Observed(); len(got) != 1 || got[0] != (Count{"BREAKER_OPEN", 1}) {
		t.Fatalf("observed %v, with both open", got)
	}
}

package policy

import (
	"testing"
	"time"
)

// deferring keeps failed calls for later.
func deferring() Policy { return Policy{Defer: DeferPolicy{Mode: DeferOnFailure}} }

func TestWhatIsKeptForLaterWhenItFails(t *testing.T) {
	answer := func(code Code) Ending { return Ending{Result: Result{Code: code}} }
	refused := func(r Reason) Ending { return Ending{Result: Result{Code: r.Code(), Reason: r}} }
	lost := refused(ConnectionLost)
	untouched := Ending{Result: Result{Code: Unavailable, Reason: Draining}, Unprocessed: true}
	for _, tc := range []struct {
		about       string
		ending      Ending // of the one attempt
		end         Result // of the call; zero: as the attempt's
		arrival     Arrival
		mode        DeferMode
		once, twice bool // kept where the call may be done once, twice
	}{
		{about: "UNAVAILABLE", ending: answer(Unavailable), once: true, twice: true},
		{about: "RESOURCE_EXHAUSTED", ending: answer(ResourceExhausted), once: true, twice: true},
		{about: "the server's own DEADLINE_EXCEEDED", ending: answer(DeadlineExceeded), twice: true},
		{about: "INTERNAL", ending: answer(Internal)},
		{about: "NOT_FOUND", ending: answer(NotFound)},
		{about: "OK", ending: answer(OK)},
		{about: "no connection", ending: Ending{Result: Result{Code: Unavailable, Reason: ConnectFailed}, Unreached: true}, once: true, twice: true},
		{about: "a lost connection", ending: lost, twice: true},
		{about: "a lost connection, above the last stream of a GOAWAY", ending: untouched, end: lost.Result, once: true, twice: true},
		{about: "a timeout", ending: refused(Timeout), twice: true},
		{about: "an open breaker after a lost connection", ending: lost, end: Result{Code: Unavailable, Reason: BreakerOpen}, twice: true},
		{about: "an open breaker after UNAVAILABLE", ending: answer(Unavailable), end: Result{Code: Unavailable, Reason: BreakerOpen}, once: true, twice: true},
		{about: "a broken protocol", ending: refused(Protocol)},
		{about: "the caller's deadline", ending: refused(Deadline)},
		{about: "the caller's cancel", ending: Ending{Result: Result{Code: Canceled, Reason: CallerCanceled}}},
		{about: "the agent's shutdown", ending: refused(Draining)},
		{about: "UNAVAILABLE once the caller's deadline is over", ending: answer(Unavailable), arrival: Arrival{Timeout: 500 * time.Millisecond}},
		{about: "the caller forbids a second try", ending: answer(Unavailable), arrival: Arrival{NoRetry: true}},
		{about: "ON_REQUEST", ending: answer(Unavailable), mode: DeferOnRequest},
	} {
		for _, idempotent := range []bool{false, true} {
			p, a := deferring(), tc.arrival
			p.Idempotent = idempotent
			if tc.mode != DeferNever {
				p.Defer.Mode = tc.mode
			}
			if a.Timeout == 0 {
				a.Timeout = NoTimeout
			}
			s := newTestService(p, "a:1")
			var c Call
			var attempt Attempt
			send(t, &c, s, start, a, &attempt)
			c.Finish(&attempt, start+time.Second, tc.ending, 1)
			end := tc.end
			if end == (Result{}) {
				end = tc.ending.Result
			}

			got := c.Deferrable(start+time.Second, end)

			want := tc.once
			if idempotent {
				want = tc.twice
			}
			if got != want {
				t.Errorf("%s (idempotent: %v): %v", tc.about, idempotent, got)
			}
		}
	}
}

func TestWhatAnEndpointStillWorksOnIsKeptOnlyIfItMayBeDoneTwice(t *testing.T) {
	for _, idempotent := range []bool{false, true} {
		p := deferring()
		p.Idempotent, p.Timeout = idempotent, time.Second
		s := newTestService(p, "a:1")
		var c Call
		var attempt Attempt
		send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &attempt)

		r := c.Expire(start+time.Second, &attempt)

		if got := c.Deferrable(start+time.Second, Refused(r)); got != idempotent {
			t.Errorf("idempotent: %v: %v", idempotent, got)
		}
	}
}

func TestACallThatTimesOutInTheQueueWasNeverSent(t *testing.T) {
	p := deferring()
	p.Timeout = time.Second
	p.Concurrency = ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, QueueTimeout: time.Minute}
	s := newTestService(p, "a:1")
	var first, waits Call
	_ = begin(&first, s.Method(hello), start, NoTimeout, 1)
	waits.Begin(s.Method(hello), start, Arrival{Timeout: NoTimeout})
	if admission := waits.Admit(start, 1); !admission.Wait {
		t.Fatalf("%+v", admission)
	}

	r := waits.Expire(start+time.Second, nil)

	if r == nil || r.Reason != Timeout || !waits.Deferrable(start+time.Second, Refused(r)) {
		t.Fatalf("%v is not kept", r)
	}
}

func TestDoubtAboutAnAnswer(t *testing.T) {
	s := newTestService(deferring(), "a:1")
	var c Call
	var attempt Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &attempt)
	c.Doubt()
	c.Judge(&attempt, start, ends(Unavailable), 1)

	if c.Deferrable(start, Result{Code: Unavailable}) {
		t.Fatal("a call that its endpoint may have done is kept")
	}
}

func TestAStreamIsNotKeptForLater(t *testing.T) {
	s := newTestService(deferring(), "a:1")
	var c Call
	var attempt Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &attempt)
	c.MarkStream()
	c.Finish(&attempt, start, ends(Unavailable), 1)

	if c.Deferrable(start, Result{Code: Unavailable}) {
		t.Fatal("kept")
	}
}

func TestAPostponedCallIsNoneOfTheServices(t *testing.T) {
	p := Policy{Timeout: time.Second, Defer: DeferPolicy{Mode: DeferOnRequest}}
	s := newTestService(p, "a:1")
	var c Call
	c.Begin(s.Method(hello), start, Arrival{Timeout: 3 * time.Second})
	c.Postpone()
	if due := c.Expiry(nil); due != start+3*time.Second {
		t.Errorf("due at %v, want the caller's deadline", due)
	}
	if r := c.Expire(start+2*time.Second, nil); r != nil {
		t.Errorf("the service's timeout ended it: %v", r)
	}
	if r := c.Expire(start+3*time.Second, nil); r == nil || r.Reason != Deadline {
		t.Errorf("got %v at the caller's deadline", r)
	}

	c.End(start+4*time.Second, Result{}, 1)

	if n := s.Recorder().Lifetime().Calls; n != 0 {
		t.Errorf("the SLA counts %d calls", n)
	}
	if codes := s.Codes(); len(codes) != 1 || codes[0] != (Count{"OK", 1}) {
		t.Errorf("statuses %v", codes)
	}
}

func TestTheSLACountsTheFailureOfACallThatIsKept(t *testing.T) {
	p := deferring()
	p.Concurrency = ConcurrencyPolicy{MaxInFlight: 1, MaxQueue: 1, QueueTimeout: time.Minute}
	s := newTestService(p, "a:1")
	var c, next Call
	var attempt Attempt
	send(t, &c, s, start, Arrival{Timeout: NoTimeout}, &attempt)
	next.Begin(s.Method(hello), start, Arrival{Timeout: NoTimeout})
	next.Admit(start, 1)
	c.Finish(&attempt, start+100*time.Millisecond, ends(Unavailable), 1)

	woken := c.PostponeFailed(start+100*time.Millisecond, Result{Code: Unavailable}, 1)
	more := c.End(start+5*time.Second, Result{}, 1)

	if len(woken) != 1 || len(more) != 0 {
		t.Errorf("its slot was given to %d and %d others", len(woken), len(more))
	}
	if got := s.Recorder().Lifetime(); got.Calls != 1 || got.Unavailable != 1 {
		t.Errorf("the SLA counts %+v", got)
	}
	if codes := s.Codes(); len(codes) != 1 || codes[0] != (Count{"OK", 1}) {
		t.Errorf("statuses %v", codes)
	}
}

func TestDeferralsAreCounted(t *testing.T) {
	s := newTestService(Policy{}, "a:1")
	s.CountDeferral(DeferredOnRequest)
	for range 2 {
		s.CountDeferral(DeferredOnFailure)
	}
	for range 3 {
		s.CountDeferral(DeferRefused)
	}
	got := make(map[string]uint64)
	for _, n := range s.Actions() {
		got[n.Label] = n.Total
	}
	if got["deferred"] != 1 || got["deferred_on_failure"] != 2 || got["defer_refused"] != 3 {
		t.Fatalf("got %v", got)
	}
}

func TestWhatIsTheCallersOwnIsNoUnavailability(t *testing.T) {
	for _, reason := range []Reason{DeferOff, NotDeferrable, TaskQueueFull, TaskStore} {
		s := newTestService(Policy{}, "a:1")
		var c Call
		c.Begin(s.Method(hello), start, Arrival{Timeout: NoTimeout})
		c.End(start, Result{Code: reason.Code(), Reason: reason}, 1)
		if got := s.Recorder().Lifetime(); got.Excluded != 1 || got.Calls != 1 {
			t.Errorf("%v: %+v", reason, got)
		}
	}
}

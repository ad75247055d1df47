package balancer

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func wantCondition(t *testing.T, e *Endpoint, condition Condition, reason string, since Instant) {
	t.Helper()
	if c, r, s := e.Condition(); c != condition || r != reason || s != since {
		t.Errorf("%v, %q since %v; want %v, %q since %v", c, r, s, condition, reason, since)
	}
}

func TestTheStrongestWordIsTheCondition(t *testing.T) {
	// Given an endpoint that everybody objects to, one after the other,
	e := NewEndpoint(Spec{Address: "a:1"})
	wantCondition(t, e, Ready, "", 0)
	e.SetConnected(false, "connection refused", 1*time.Second)
	wantCondition(t, e, Connecting, "connection refused", 1*time.Second)
	e.SetHealthy(false, "status 500", 2*time.Second)
	wantCondition(t, e, Unhealthy, "status 500", 2*time.Second)
	e.Eject("5 failures in a row", 3*time.Second, 33*time.Second)
	wantCondition(t, e, Ejected, "5 failures in a row", 3*time.Second)
	if until := e.EjectedUntil(); until != 33*time.Second {
		t.Errorf("ejected until %v", until)
	}
	e.SetTerminating(true)
	wantCondition(t, e, Draining, "terminating, by discovery", 3*time.Second)
	e.SetDraining(true)
	wantCondition(t, e, Draining, "drained by an operator", 3*time.Second)
	// when they take their words back in another order, then the others stand,
	e.SetHealthy(true, "", 4*time.Second)
	e.SetDraining(false)
	e.SetTerminating(false)
	wantCondition(t, e, Ejected, "5 failures in a row", 3*time.Second)
	e.Restore(5 * time.Second)
	wantCondition(t, e, Connecting, "connection refused", 1*time.Second)
	if e.EjectedUntil() != 0 || e.Fit() {
		t.Error("restored, and still ejected; or fit without a connection")
	}
	// and at the end none.
	e.SetConnected(true, "", 6*time.Second)
	wantCondition(t, e, Ready, "", 6*time.Second)
	if !e.Fit() || e.Barred() {
		t.Error("not fit")
	}
}

func TestANewReasonKeepsTheTime(t *testing.T) {
	e := NewEndpoint(Spec{Address: "a:1"})
	e.SetConnected(false, "connection refused", 1*time.Second)
	e.SetConnected(false, "no route to host", 9*time.Second)
	wantCondition(t, e, Connecting, "no route to host", 1*time.Second)
}

func TestATerminatingEndpointIsBarredAndNotDrained(t *testing.T) {
	e := NewEndpoint(Spec{Address: "a:1"})
	e.SetTerminating(true)
	if !e.Barred() || e.Drained() || e.Fit() {
		t.Error("barred, not by an operator")
	}
}

func TestFitAgreesWithEveryOrderOfWords(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		e := NewEndpoint(Spec{Address: "a:1"})
		var objects [owners]bool
		for i := range rapid.IntRange(1, 30).Draw(t, "words") {
			o, ok, now := rapid.IntRange(0, int(owners)-1).Draw(t, "owner"), rapid.Bool().Draw(t, "ok"), Instant(i+1)
			objects[o] = !ok
			switch owner(o) {
			case connection:
				e.SetConnected(ok, "lost", now)
			case health:
				e.SetHealthy(ok, "sick", now)
			case outliers:
				if ok {
					e.Restore(now)
				} else {
					e.Eject("failing", now, now+1)
				}
			case discovery:
				e.SetTerminating(!ok)
			case operator:
				e.SetDraining(!ok)
			}
			want := Ready
			for o, yes := range objects {
				if yes {
					want = max(want, conditions[o])
				}
			}
			c, reason, _ := e.Condition()
			if c != want || (reason == "") != (want == Ready) || e.Fit() != (want == Ready) || e.Barred() != (want == Draining) {
				t.Fatalf("%v %q fit %v barred %v; want %v", c, reason, e.Fit(), e.Barred(), want)
			}
		}
	})
}

func TestOwnersDoNotLoseEachOthersWords(t *testing.T) {
	// Given owners that change their minds at once, and end with an objection,
	e := NewEndpoint(Spec{Address: "a:1"})
	var wg sync.WaitGroup
	for _, say := range []func(bool){
		func(ok bool) { e.SetConnected(ok, "lost", 1) },
		func(ok bool) { e.SetHealthy(ok, "sick", 1) },
		func(ok bool) { e.SetDraining(!ok) },
	} {
		wg.Go(func() {
			for i := range 1001 {
				say(i%2 == 1)
			}
		})
	}
	wg.Wait()
	// then all three stand.
	if got, want := e.word.standing.Load(), connection.bit()|health.bit()|operator.bit(); got != want || e.word.fitness.Load().standing != want {
		t.Errorf("%b; want %b", got, want)
	}
}

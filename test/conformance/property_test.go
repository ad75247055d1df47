package conformance

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/breaker"
	"github.com/outrigger-rpc/outrigger/policy"
)

// Properties of the whole core, by scripts that nobody wrote: any policy, and
// any calls, answers and silences under it.

// anyPolicy draws a policy of which every part may be on.
func anyPolicy(t *rapid.T) policy.Policy {
	on := func(what string) bool { return rapid.Bool().Draw(t, what) }
	ms := func(least, most int, what string) time.Duration {
		return time.Duration(rapid.IntRange(least, most).Draw(t, what)) * time.Millisecond
	}
	var p policy.Policy
	p.Idempotent = on("idempotent")
	p.Breaker.Options.Mode = policy.Off
	if on("timeout") {
		p.Timeout = ms(1, 500, "timeout")
	}
	if on("per_try_timeout") {
		p.PerTryTimeout = ms(1, 300, "per_try_timeout")
	}
	budget := policy.BudgetPolicy{Ratio: rapid.Float64Range(0, 1).Draw(t, "ratio"), MinPerSecond: rapid.Float64Range(0, 1).Draw(t, "floor")}
	p.Retry.Budget = budget
	if on("retry") {
		p.Retry = policy.RetryPolicy{MaxAttempts: rapid.IntRange(1, 5).Draw(t, "attempts"), Codes: policy.Codes(policy.Unavailable, policy.Aborted),
			BackoffBase: ms(1, 100, "base"), BackoffMax: 200 * time.Millisecond, Budget: budget}
	}
	if p.Idempotent && on("hedge") {
		p.Hedge = policy.HedgePolicy{MaxAttempts: rapid.IntRange(2, 4).Draw(t, "hedges"), Delay: ms(1, 200, "delay")}
	}
	if on("breaker") {
		p.Breaker = policy.BreakerPolicy{Scope: policy.Scope(rapid.IntRange(0, 2).Draw(t, "scope")), Options: breaker.Options{
			ConsecutiveFailures: rapid.IntRange(1, 3).Draw(t, "failures"), OpenFor: ms(50, 500, "open_for"), MaxOpenFor: time.Second, Jitter: 0.1,
			HalfOpenProbes: rapid.IntRange(1, 3).Draw(t, "probes"), ProbeTimeout: time.Second}}
	}
	if on("concurrency") {
		p.Concurrency = policy.ConcurrencyPolicy{MaxInFlight: rapid.IntRange(1, 4).Draw(t, "in flight"), MaxQueue: rapid.IntRange(0, 4).Draw(t, "queue"),
			QueueTimeout: ms(1, 500, "queue_timeout")}
	}
	if on("rate limit") {
		p.RateLimit = policy.RateLimitPolicy{PerSecond: rapid.Float64Range(1, 100).Draw(t, "per_second"), Burst: rapid.IntRange(1, 5).Draw(t, "burst")}
	}
	return p
}

// script plays calls, answers and silences, and looks after each.
func script(t *rapid.T, d *coreDoor, look func(what string)) {
	codes := []policy.Code{policy.OK, policy.OK, policy.Unavailable, policy.Unavailable, policy.Internal, policy.NotFound, policy.ResourceExhausted, policy.Canceled}
	passed, called := time.Duration(0), 0
	for range rapid.IntRange(1, 80).Draw(t, "steps") {
		var flying []*coreCall
		for _, c := range d.calls {
			if len(c.flying) > 0 {
				flying = append(flying, c)
			}
		}
		what := rapid.IntRange(0, 9).Draw(t, "what")
		switch {
		case what <= 3 || what <= 7 && len(flying) == 0:
			called++
			w := with{Method: rapid.SampledFrom([]string{"/t.T/A", "/t.T/B"}).Draw(t, "method"), NoRetry: rapid.IntRange(0, 9).Draw(t, "no_retry") == 0,
				Criticality: rapid.SampledFrom([]string{"", "SHEDDABLE", "CRITICAL_PLUS"}).Draw(t, "criticality")}
			if rapid.Bool().Draw(t, "deadline") {
				timeout := time.Duration(rapid.IntRange(0, 500).Draw(t, "deadline")) * time.Millisecond
				w.Timeout = &timeout
			}
			_ = d.arrive(fmt.Sprint("c", called), w) // it never fails
		case what <= 7:
			c := rapid.SampledFrom(flying).Draw(t, "call")
			h := how{Attempt: rapid.SampledFrom(c.flying).Draw(t, "attempt").number}
			switch rapid.IntRange(0, 7).Draw(t, "how") {
			case 0:
				h.Unreached = true
			case 1:
				h.Unprocessed = true
			case 2:
				h.Lost = true
			case 3:
				h.Code = code(policy.Unavailable)
				pause := pushback(rapid.IntRange(-1, 200).Draw(t, "pushback")) * pushback(time.Millisecond)
				h.Pushback = &pause
			default:
				h.Code = code(rapid.SampledFrom(codes).Draw(t, "code"))
			}
			if err := d.answer(c.name, h); err != nil {
				t.Fatal(err)
			}
		case what == 8 && len(d.calls) > 0:
			_ = d.cancel(rapid.SampledFrom(d.calls).Draw(t, "call").name) // there is one
		default:
			passed += time.Duration(rapid.IntRange(1, 400).Draw(t, "passes")) * time.Millisecond
			if err := d.advance(passed); err != nil {
				t.Fatal(err)
			}
		}
		look(fmt.Sprint("step ", what))
	}
}

// anyDoor returns the core under a policy, with up to three endpoints.
func anyDoor(t *rapid.T, p policy.Policy) *coreDoor {
	n := rapid.IntRange(0, 3).Draw(t, "endpoints")
	d := newCoreDoor(&row{Endpoints: &n, settings: policy.Settings{Policy: p}}, rapid.Uint64().Draw(t, "seed"))
	d.audits = true
	return d
}

// TestWhateverHappens holds the core against what is always so.
func TestWhateverHappens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := anyPolicy(t)
		d := anyDoor(t, p)
		script(t, d, func(what string) {
			wantFewProbes(t, d, p, what)
			wantFewInside(t, d, p, what)
			wantInTime(t, d, p, what)
		})
		wantWithinBudget(t, d, p)
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	})
}

// wantFewProbes: of the attempts that a half-open breaker let in since it is
// half-open, no more are under way than it may have probes.
func wantFewProbes(t *rapid.T, d *coreDoor, p policy.Policy, what string) {
	for _, b := range d.service.Breakers() {
		s := b.Breaker.Snapshot(d.clock)
		if s.State != breaker.HalfOpen {
			continue
		}
		probes := 0
		for _, c := range d.calls {
			for _, a := range c.flying {
				mine := b.Key.Endpoint != "" && a.Endpoint != nil && a.Endpoint.Address() == b.Key.Endpoint ||
					b.Key.Endpoint == "" && (b.Key.Method == "" || b.Key.Method == c.policy.Method().Name())
				if mine && a.Start() >= s.Since {
					probes++
				}
			}
		}
		if most := p.Breaker.Options.HalfOpenProbes; probes > most || s.ProbesInFlight > most {
			t.Fatalf("%s: %d probes of %v are under way, and it knows of %d; at most %d may be", what, probes, b.Key, s.ProbesInFlight, most)
		}
	}
}

// wantFewInside: no more calls are let in at once than the limit says.
func wantFewInside(t *rapid.T, d *coreDoor, p policy.Policy, what string) {
	l := d.service.Limiter()
	if l == nil {
		return
	}
	inside := 0
	for _, c := range d.calls {
		if c.outcome == "" && c.policy.Attempts() > 0 {
			inside++
		}
	}
	if s := l.Snapshot(d.clock); inside > p.Concurrency.MaxInFlight || s.InFlight != inside || s.Waiting > p.Concurrency.MaxQueue {
		t.Fatalf("%s: %d calls are inside, and the limit knows of %d of %d; %d wait", what, inside, s.InFlight, p.Concurrency.MaxInFlight, s.Waiting)
	}
}

// wantInTime: no attempt began when its call's time was over, and none is
// under way then.
func wantInTime(t *rapid.T, d *coreDoor, p policy.Policy, what string) {
	for _, c := range d.calls {
		end := policy.Instant(0)
		if p.Timeout > 0 {
			end = c.policy.Start() + p.Timeout
		}
		if c.timeout >= 0 && (end == 0 || c.policy.Start()+c.timeout < end) {
			end = c.policy.Start() + c.timeout
		}
		if end == 0 {
			continue
		}
		for _, a := range c.flying {
			if a.Start() >= end || d.clock > end {
				t.Fatalf("%s: attempt %d of %s began at %v and is under way at %v; the call's time was over at %v", what, a.number, c.name, a.Start(), d.clock, end)
			}
		}
	}
}

// wantWithinBudget: in no window were there more retries and hedges than the
// budget allows for the calls in it.
func wantWithinBudget(t *rapid.T, d *coreDoor, p policy.Policy) {
	var spent, calls []policy.Instant
	for _, c := range d.calls {
		spent = append(spent, c.again...)
		spent = append(spent, c.hedged...)
		if c.admitted != 0 {
			calls = append(calls, c.admitted)
		}
	}
	slices.Sort(spent)
	within := func(all []policy.Instant, end policy.Instant) (n int) {
		for _, at := range all {
			if at > end-policy.BudgetWindow && at <= end {
				n++
			}
		}
		return n
	}
	for _, end := range spent {
		got, allowed := within(spent, end), p.Retry.Budget.Ratio*float64(within(calls, end))+p.Retry.Budget.MinPerSecond*policy.BudgetWindow.Seconds()
		if float64(got) > allowed+1e-6 {
			t.Fatalf("%d retries and hedges in the window up to %v, %d calls: at most %.2f may be", got, end, within(calls, end), allowed)
		}
	}
}

// TestAStaleResultChangesNothing: how an attempt ends that a breaker let in
// before its last change of state is nothing to it.
func TestAStaleResultChangesNothing(t *testing.T) {
	stale := 0
	rapid.Check(t, func(t *rapid.T) {
		p := policy.Policy{Breaker: policy.BreakerPolicy{Options: breaker.Options{
			ConsecutiveFailures: rapid.IntRange(1, 3).Draw(t, "failures"), OpenFor: 100 * time.Millisecond, HalfOpenProbes: rapid.IntRange(1, 2).Draw(t, "probes")}}}
		d := newCoreDoor(&row{settings: policy.Settings{Policy: p}}, 1)
		passed := time.Duration(0)
		for i := range rapid.IntRange(1, 100).Draw(t, "steps") {
			passed += time.Duration(rapid.IntRange(1, 60).Draw(t, "passes")) * time.Millisecond
			if err := d.advance(passed); err != nil {
				t.Fatal(err)
			}
			var flying []*coreCall
			for _, c := range d.calls {
				if len(c.flying) > 0 {
					flying = append(flying, c)
				}
			}
			if len(flying) == 0 || rapid.Bool().Draw(t, "call") {
				_ = d.arrive(fmt.Sprint("c", i), with{}) // it never fails
				continue
			}
			c := rapid.SampledFrom(flying).Draw(t, "call")
			b := d.service.Breakers()[0].Breaker
			before := b.Snapshot(d.clock)
			old := c.flying[0].Start() < before.Since
			if err := d.answer(c.name, how{Code: code(rapid.SampledFrom([]policy.Code{policy.OK, policy.Unavailable}).Draw(t, "code"))}); err != nil {
				t.Fatal(err)
			}
			if !old {
				continue
			}
			stale++
			if after := b.Snapshot(d.clock); after != before {
				t.Fatalf("%s began before %v, and changed %+v into %+v", c.name, before.Since, before, after)
			}
		}
		if err := d.close(); err != nil {
			t.Fatal(err)
		}
	})
	if stale == 0 {
		t.Error("no result was stale")
	}
}

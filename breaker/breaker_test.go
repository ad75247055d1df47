package breaker

import (
	"strings"
	"testing"
	"time"
)

const second = time.Second

// start is when the tests begin: an instant is never zero.
const start = 100 * second

// half is a random number that makes no jitter.
const half = uint64(1) << 63

func acquire(t *testing.T, b *Breaker, now Instant) Permit {
	t.Helper()
	p, refusal, ok := b.Acquire(now, half)
	if !ok {
		t.Fatalf("at %v: refused: %+v", now, refusal)
	}
	return p
}

func call(t *testing.T, b *Breaker, now Instant, o Outcome) {
	t.Helper()
	b.Report(acquire(t, b, now), now, o, 0, half)
}

// opened returns a breaker that five failures opened at start.
func opened(t *testing.T, o Options) *Breaker {
	t.Helper()
	b := New(o, nil)
	for range 5 {
		call(t, b, start, Failure)
	}
	return b
}

func wantState(t *testing.T, b *Breaker, now Instant, want State) {
	t.Helper()
	if s := b.Snapshot(now); s.State != want {
		t.Fatalf("at %v: %v (%s), want %v", now, s.State, s.Reason, want)
	}
}

func TestOpensAfterConsecutiveFailures(t *testing.T) {
	b := New(Reference(), nil)
	for range 4 {
		call(t, b, start, Failure)
	}
	wantState(t, b, start, Closed)

	call(t, b, start, Failure)

	wantState(t, b, start, Open)
	_, refusal, ok := b.Acquire(start+10*second, half)
	if ok || refusal.State != Open || refusal.Reason != "5 failures in a row" || refusal.RetryAfter != 20*second {
		t.Fatalf("got %+v, %v", refusal, ok)
	}
}

func TestASuccessBreaksTheRow(t *testing.T) {
	b := New(Reference(), nil)
	for range 20 {
		call(t, b, start, Failure)
		call(t, b, start, Failure)
		call(t, b, start, Success)
	}
	wantState(t, b, start, Closed)
}

func TestIgnoredNeitherBreaksNorExtendsTheRow(t *testing.T) {
	b := New(Reference(), nil)
	for range 4 {
		call(t, b, start, Failure)
		call(t, b, start, Ignored)
	}
	wantState(t, b, start, Closed)
	call(t, b, start, Failure)
	wantState(t, b, start, Open)
}

func TestOpensOnFailureRate(t *testing.T) {
	b := New(Options{FailureRate: 0.5, MinimumCalls: 20, Window: 10 * second}, nil)
	for range 10 {
		call(t, b, start, Success)
	}
	for range 9 {
		call(t, b, start, Failure)
	}
	wantState(t, b, start, Closed) // 9 of 19: below the minimum

	call(t, b, start, Failure)

	wantState(t, b, start, Open)
	if r := b.Snapshot(start).Reason; r != "50 % of 20 calls in 10s failed, the limit is 50 %" {
		t.Fatalf("reason: %s", r)
	}
}

func TestFailuresSlideOutOfTheWindow(t *testing.T) {
	b := New(Options{FailureRate: 0.5, MinimumCalls: 10, Window: 10 * second}, nil)
	for range 9 {
		call(t, b, start, Failure)
	}
	// Ten seconds later they are forgotten: one failure of one call is below
	// the minimum.
	call(t, b, start+10*second, Failure)
	wantState(t, b, start+10*second, Closed)
	if s := b.Snapshot(start + 10*second); s.Calls != 1 || s.Failures != 1 {
		t.Fatalf("the window holds %d calls, %d failures", s.Calls, s.Failures)
	}
}

func TestOpensOnSlowCalls(t *testing.T) {
	b := New(Options{SlowRate: 0.8, SlowerThan: second, MinimumCalls: 5}, nil)
	b.Report(acquire(t, b, start), start, Success, 10*time.Millisecond, half)
	for range 3 {
		b.Report(acquire(t, b, start), start, Success, 2*second, half)
	}
	wantState(t, b, start, Closed)

	b.Report(acquire(t, b, start), start, Success, second, half)

	wantState(t, b, start, Open)
	if r := b.Snapshot(start).Reason; !strings.Contains(r, "took 1s or longer") {
		t.Fatalf("reason: %s", r)
	}
}

func TestOneProbeAtATime(t *testing.T) {
	b := opened(t, Reference())

	probe := acquire(t, b, start+30*second)

	for range 200 {
		if _, refusal, ok := b.Acquire(start+30*second, half); ok || refusal.State != HalfOpen {
			t.Fatalf("a second probe: %+v", refusal)
		}
	}
	b.Report(probe, start+31*second, Success, second, half)
	wantState(t, b, start+31*second, Closed)
}

func TestAFailedProbeOpensForTwiceAsLong(t *testing.T) {
	b := opened(t, Reference())
	now := start + 30*second
	for _, open := range []time.Duration{60 * second, 120 * second, 240 * second, 300 * second, 300 * second} {
		b.Report(acquire(t, b, now), now, Failure, 0, half)
		if s := b.Snapshot(now); s.State != Open || s.OpenUntil-now != open {
			t.Fatalf("%v until %v, want OPEN for %v", s.State, s.OpenUntil-now, open)
		}
		now += open
	}
}

func TestACalmWhileEndsTheGrowth(t *testing.T) {
	b := opened(t, Reference())
	now := start + 30*second
	b.Report(acquire(t, b, now), now, Success, 0, half)

	now += 31 * second // calm for longer than it was open
	for range 5 {
		call(t, b, now, Failure)
	}

	if s := b.Snapshot(now); s.OpenUntil-now != 30*second {
		t.Fatalf("open for %v, want 30s again", s.OpenUntil-now)
	}
}

func TestAQuickRelapseGoesOnGrowing(t *testing.T) {
	b := opened(t, Reference())
	now := start + 30*second
	b.Report(acquire(t, b, now), now, Success, 0, half)

	for range 5 {
		call(t, b, now+second, Failure)
	}

	if s := b.Snapshot(now + second); s.OpenUntil-(now+second) != 60*second {
		t.Fatalf("open for %v, want 60s", s.OpenUntil-(now+second))
	}
}

func TestAProbeThatNeverReportsExpires(t *testing.T) {
	o := Reference()
	o.ProbeTimeout = 5 * second
	b := opened(t, o)
	lost := acquire(t, b, start+30*second)

	_, refusal, ok := b.Acquire(start+35*second, half)

	if ok || refusal.State != Open || refusal.Reason != "a probe did not end within 5s" {
		t.Fatalf("got %+v, %v", refusal, ok)
	}
	b.Report(lost, start+36*second, Success, 0, half) // too late: changes nothing
	wantState(t, b, start+36*second, Open)
}

func TestAnIgnoredProbeFreesItsSlot(t *testing.T) {
	b := opened(t, Reference())
	now := start + 30*second

	call(t, b, now, Ignored)

	wantState(t, b, now, HalfOpen)
	call(t, b, now, Success)
	wantState(t, b, now, Closed)
}

func TestResultsFromBeforeAChangeAreDiscarded(t *testing.T) {
	b := New(Reference(), nil)
	slow := acquire(t, b, start) // still on its way when the breaker opens
	for range 5 {
		call(t, b, start, Failure)
	}
	b.Report(acquire(t, b, start+30*second), start+30*second, Success, 0, half)

	for range 10 {
		b.Report(slow, start+31*second, Failure, 0, half)
	}

	wantState(t, b, start+31*second, Closed)
	if n := b.Snapshot(start + 31*second).ConsecutiveFailures; n != 0 {
		t.Fatalf("%d failures counted", n)
	}
}

func TestJitterSpreadsTheOpenTime(t *testing.T) {
	for rnd, want := range map[uint64]time.Duration{0: 27 * second, half: 30 * second, ^uint64(0): 33 * second} {
		b := New(Reference(), nil)
		for range 5 {
			b.Report(acquire(t, b, start), start, Failure, 0, rnd)
		}
		got := b.Snapshot(start).OpenUntil - start
		if d := got - want; d < -time.Millisecond || d > time.Millisecond {
			t.Errorf("open for %v, want %v", got, want)
		}
	}
}

func TestObserveRefusesNothingAndCounts(t *testing.T) {
	o := Reference()
	o.Mode = Observe
	b := opened(t, o)

	p := acquire(t, b, start+second)

	if !p.WouldRefuse() {
		t.Fatal("the permit does not say that it would have been refused")
	}
	b.Report(p, start+second, Success, 0, half)
	if s := b.Snapshot(start + second); s.State != Open || s.WouldRefuse != 1 || s.Refused != 0 {
		t.Fatalf("got %+v", s)
	}
}

func TestOperators(t *testing.T) {
	b := New(Reference(), nil)

	b.ForceOpen(start)
	if _, r, ok := b.Acquire(start+24*time.Hour, half); ok || r.Reason != "opened by an operator" || r.RetryAfter != 0 {
		t.Fatalf("after ForceOpen: %+v, %v", r, ok)
	}
	b.ForceClose(start + 24*time.Hour)
	wantState(t, b, start+24*time.Hour, Closed)
	for range 5 {
		call(t, b, start+25*time.Hour, Failure)
	}
	wantState(t, b, start+25*time.Hour, Open) // it goes on to protect
	b.Reset(start + 25*time.Hour)
	if s := b.Snapshot(start + 25*time.Hour); s.State != Closed || s.ConsecutiveFailures != 0 {
		t.Fatalf("after Reset: %+v", s)
	}
}

func TestTransitionsAreTold(t *testing.T) {
	var got []string
	b := New(Reference(), func(t Transition) { got = append(got, t.From.String()+">"+t.To.String()+": "+t.Reason) })
	for range 5 {
		call(t, b, start, Failure)
	}
	call(t, b, start+30*second, Success)

	want := "CLOSED>OPEN: 5 failures in a row|OPEN>HALF_OPEN: the open time is over: probing|HALF_OPEN>CLOSED: 1 of 1 probes succeeded"
	if s := strings.Join(got, "|"); s != want {
		t.Fatalf("got  %s\nwant %s", s, want)
	}
}

func TestUpdateKeepsTheState(t *testing.T) {
	b := opened(t, Reference())
	o := Reference()
	o.ConsecutiveFailures = 50

	b.Update(o)

	wantState(t, b, start, Open)
}

func TestZeroPermitIsNothing(t *testing.T) {
	b := New(Options{ConsecutiveFailures: 1}, nil)
	b.Report(Permit{}, start, Failure, 0, half)
	wantState(t, b, start, Closed)
}

func TestValidate(t *testing.T) {
	if err := Reference().Validate(); err != nil {
		t.Fatal(err)
	}
	for about, o := range map[string]Options{
		"a rate over 1":          {FailureRate: 1.5},
		"a negative count":       {ConsecutiveFailures: -1},
		"slow without a measure": {SlowRate: 0.5},
		"an unknown mode":        {Mode: 9},
	} {
		if o.Validate() == nil {
			t.Errorf("%s: taken", about)
		}
	}
}

func TestClosedPathAllocatesNothing(t *testing.T) {
	o := Reference()
	o.FailureRate, o.MinimumCalls = 0.5, 20
	b := New(o, nil)
	if n := testing.AllocsPerRun(1000, func() {
		p, _, _ := b.Acquire(start, 7)
		b.Report(p, start, Success, 0, 7)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func TestSetKeepsOneBreakerAKey(t *testing.T) {
	s := NewSet(Reference(), nil)
	a := s.Get(Key{Service: "a"})
	if s.Get(Key{Service: "a"}) != a || s.Get(Key{Service: "a", Method: "m"}) == a {
		t.Fatal("keys are mixed up")
	}
}

func TestAFullSetKeepsWhatIsOpen(t *testing.T) {
	s := NewSet(Reference(), nil)
	open := s.Get(Key{Service: "open"})
	open.ForceOpen(start)
	for i := range MaxBreakers + 100 {
		s.Get(Key{Service: "s", Endpoint: time.Duration(i).String()})
	}
	if n := len(s.All()); n != MaxBreakers {
		t.Fatalf("%d breakers, want %d", n, MaxBreakers)
	}
	if s.Get(Key{Service: "open"}) != open {
		t.Fatal("the open breaker was dropped")
	}
}

func BenchmarkClosed(b *testing.B) { // budget: 15 ns, 0 allocs
	br := New(Reference(), nil)
	b.ReportAllocs()
	for b.Loop() {
		p, _, _ := br.Acquire(start, 7)
		br.Report(p, start, Success, 0, 7)
	}
}

func BenchmarkClosedParallel64(b *testing.B) { // budget: 25 ns, 0 allocs
	br := New(Reference(), nil)
	b.SetParallelism(32)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			p, _, _ := br.Acquire(start, 7)
			br.Report(p, start, Success, 0, 7)
		}
	})
}

func BenchmarkClosedWithRates(b *testing.B) { // budget: 30 ns, 0 allocs
	o := Reference()
	o.FailureRate, o.MinimumCalls = 0.5, 20
	br := New(o, nil)
	b.ReportAllocs()
	for b.Loop() {
		p, _, _ := br.Acquire(start, 7)
		br.Report(p, start, Success, 0, 7)
	}
}

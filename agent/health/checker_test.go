package health

import (
	"context"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// place is an endpoint under test; its fields are read between checks.
type place struct {
	address string
	mu      sync.Mutex
	bad     string // why it fails; empty: it is well
	checks  int
	at      []Instant // when
	history []string  // what it was told
}

func (p *place) Address() string { return p.address }

func (p *place) SetHealthy(ok bool, reason string, _ Instant) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if ok {
		reason = "READY"
	}
	if n := len(p.history); n > 0 && p.history[n-1] == reason || n == 0 && ok {
		return
	}
	p.history = append(p.history, reason)
}

func (p *place) told() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return strings.Join(p.history, "; ")
}

func (p *place) seen() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.checks
}

func (p *place) fail(why string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.bad = why
}

// bench is a checker whose checks only look at the place, in a synctest bubble.
type bench struct {
	*Checker
	log   strings.Builder
	takes time.Duration // each check
	busy  int           // at this moment
	most  int           // ever
	mu    sync.Mutex
}

func newBench(t *testing.T, o Options) *bench {
	t.Helper()
	b := &bench{}
	o.Logger = slog.New(slog.NewTextHandler(&b.log, nil))
	b.Checker = New(o)
	b.ask = func(ctx context.Context, c *Checker, j *job) result {
		p := j.entry.endpoint.(*place)
		p.mu.Lock()
		p.checks++
		p.at = append(p.at, c.now())
		bad := p.bad
		p.mu.Unlock()
		b.mu.Lock()
		b.busy++
		b.most = max(b.most, b.busy)
		b.mu.Unlock()
		select {
		case <-time.After(b.takes):
		case <-ctx.Done():
			bad = "no answer"
		}
		b.mu.Lock()
		b.busy--
		b.mu.Unlock()
		if bad != "" {
			return failed("%s", bad)
		}
		return result{}
	}
	t.Cleanup(b.Close)
	return b
}

func (b *bench) follow(s Settings, places ...*place) {
	service := Service{Name: "greeter", Settings: s}
	for _, p := range places {
		service.Endpoints = append(service.Endpoints, p)
	}
	b.Follow(service)
}

func TestAnEndpointThatFailsIsUnhealthyAfterThreeChecks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1", bad: "NOT_SERVING"}
		b.follow(Settings{}, p)

		time.Sleep(15 * time.Second)

		if got := p.told(); got != "health check: NOT_SERVING (3 in a row)" {
			t.Errorf("told %q", got)
		}
		p.fail("")
		time.Sleep(7 * time.Second)
		if got := p.told(); !strings.HasSuffix(got, "; READY") {
			t.Errorf("two checks passed: %q", got)
		}
		if b.Close(); strings.Count(b.log.String(), "\n") != 2 {
			t.Errorf("the log says\n%s", b.log.String())
		}
	})
}

func TestChecksComeAtTheInterval(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1"}
		b.follow(Settings{Interval: 10 * time.Second}, p)

		time.Sleep(10 * time.Minute)

		if n := p.seen(); n < 54 || n > 68 {
			t.Errorf("%d checks in 10 min at 10 s ± 10 %%", n)
		}
	})
}

func TestAThousandNewEndpointsAreSpreadAndBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Concurrency: 8})
		b.takes = 20 * time.Millisecond
		var places []*place
		for range 1000 {
			places = append(places, &place{address: "a:1"})
		}
		b.follow(Settings{Interval: 5 * time.Second}, places...)

		time.Sleep(5*time.Second + time.Second)

		slots := make([]int, 6)
		for _, p := range places {
			if p.seen() == 0 {
				t.Fatal("an endpoint was not checked within the interval")
			}
			slots[p.at[0]/time.Second]++
		}
		for _, n := range slots[:5] {
			if n < 100 || n > 300 {
				t.Errorf("first checks by second: %v, want about 200 each", slots)
			}
		}
		if b.mu.Lock(); b.most > 8 {
			t.Errorf("%d checks at a time", b.most)
		}
		b.mu.Unlock()
	})
}

func TestMoreChecksThanCanBeMadeAreMadeInTheOrderOfTheirTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{Concurrency: 2})
		b.takes = time.Second
		var places []*place
		for range 20 {
			places = append(places, &place{address: "a:1"})
		}
		b.follow(Settings{Interval: time.Second, Timeout: 2 * time.Second}, places...)

		time.Sleep(100 * time.Second)

		for i, p := range places {
			if n := p.seen(); n < 8 || n > 12 {
				t.Errorf("endpoint %d was checked %d times, want about 10", i, n)
			}
		}
	})
}

func TestNothingRunsWhenNothingIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1"}
		runs := func() bool {
			synctest.Wait()
			b.Checker.mu.Lock()
			defer b.Checker.mu.Unlock()
			return b.turning || b.running > 0
		}
		if runs() {
			t.Error("it runs before anything is followed")
		}
		b.follow(Settings{}, p)
		time.Sleep(time.Minute)
		if !runs() {
			t.Error("it does not run")
		}
		b.Forget("greeter")
		if runs() {
			t.Error("it runs on")
		}
		before := p.seen()
		time.Sleep(time.Minute)
		if p.seen() != before {
			t.Error("a forgotten endpoint is checked")
		}
	})
}

func TestEndpointsThatLeaveAreNotCheckedAndOthersKeepTheirState(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, Options{})
		stays, leaves := &place{address: "a:1", bad: "refused"}, &place{address: "b:1", bad: "refused"}
		b.follow(Settings{}, stays, leaves)
		time.Sleep(20 * time.Second)

		b.follow(Settings{}, stays)
		before := leaves.seen()
		time.Sleep(time.Minute)

		if leaves.seen() != before || leaves.told() != "health check: refused (3 in a row); READY" {
			t.Errorf("left: %d checks more, told %q", leaves.seen()-before, leaves.told())
		}
		if got := stays.told(); got != "health check: refused (3 in a row)" {
			t.Errorf("stayed: %q", got)
		}
	})
}

func TestObserveDecidesAndDoesNotAct(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1", bad: "refused"}
		b.follow(Settings{Observe: true}, p)
		time.Sleep(20 * time.Second)

		if p.told() != "" {
			t.Errorf("told %q", p.told())
		}
		if got := b.Note(p); got != "would be UNHEALTHY: health check: refused (3 in a row)" {
			t.Errorf("note %q", got)
		}
		if b.Note(&place{}) != "" {
			t.Error("a note on a stranger")
		}

		b.follow(Settings{}, p) // enforced from now on
		if got := p.told(); got != "health check: refused (3 in a row)" || b.Note(p) != "" {
			t.Errorf("enforced: told %q, note %q", got, b.Note(p))
		}
		b.follow(Settings{Observe: true}, p)
		if got := p.told(); !strings.HasSuffix(got, "; READY") {
			t.Errorf("observed again: %q", got)
		}
	})
}

func TestOutcomesAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, good, bad := newBench(t, Options{}), &place{address: "a:1"}, &place{address: "b:1", bad: "refused"}
		b.follow(Settings{}, good, bad)
		time.Sleep(time.Minute)
		b.Close()

		total := map[Outcome]uint64{}
		for _, n := range b.Counts() {
			if n.Service != "greeter" {
				t.Errorf("service %q", n.Service)
			}
			total[n.Outcome] += n.Total
		}
		if total[Passed] != uint64(good.seen()) || total[Failed] != uint64(bad.seen()) || total[TimedOut] != 0 {
			t.Errorf("%v; want %d passed, %d failed", total, good.seen(), bad.seen())
		}
	})
}

func TestACheckEndsAtItsTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1"}
		b.takes = time.Hour
		b.follow(Settings{UnhealthyAfter: 1}, p)

		time.Sleep(7 * time.Second)

		if got := p.told(); got != "health check: no answer" {
			t.Errorf("told %q", got)
		}
	})
}

func TestAShorterIntervalHoldsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, p := newBench(t, Options{}), &place{address: "a:1"}
		b.follow(Settings{Interval: time.Hour}, p)
		b.follow(Settings{Interval: time.Second}, p)

		time.Sleep(10 * time.Second)

		if n := p.seen(); n < 8 {
			t.Errorf("%d checks in 10 s", n)
		}
	})
}

// TestWhoPassesIsTold: every check that passed, with what is new about it; in
// OBSERVE none.
func TestWhoPassesIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var told []bool
		heard := func() []bool { mu.Lock(); defer mu.Unlock(); all := told; told = nil; return all }
		p := &place{address: "a:1"}
		b := newBench(t, Options{Passed: func(e Endpoint, news bool) {
			mu.Lock()
			defer mu.Unlock()
			if e != p {
				t.Errorf("told of %v", e)
			}
			told = append(told, news)
		}})
		b.follow(Settings{}, p)

		time.Sleep(16 * time.Second) // within the interval the first, then every 5 s ± 10 %
		if all := heard(); len(all) < 2 || slices.Contains(all, true) {
			t.Errorf("well all along: %v", all)
		}
		p.fail("NOT_SERVING")
		time.Sleep(16 * time.Second)
		heard()
		time.Sleep(6 * time.Second)
		if all := heard(); all != nil {
			t.Errorf("ill: %v", all)
		}
		p.fail("")
		time.Sleep(12 * time.Second)
		// The first after a failure is news, and the second, which turns it.
		if all := heard(); len(all) < 3 || !all[0] || !all[1] || slices.Contains(all[2:], true) {
			t.Errorf("well again: %v", all)
		}
		b.follow(Settings{Observe: true}, p)
		time.Sleep(time.Second)
		heard()
		time.Sleep(12 * time.Second)
		if all := heard(); all != nil {
			t.Errorf("observed: %v", all)
		}
	})
}

package policy

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// spend withdraws until there is nothing left.
func spend(b *budget, now Instant) (n int) {
	for b.withdraw(now) {
		n++
	}
	return n
}

func deposits(b *budget, now Instant, n int) {
	for i := range n {
		b.deposit(now, uint64(i))
	}
}

func TestWhatABudgetHolds(t *testing.T) {
	for _, tc := range []struct {
		about  string
		policy BudgetPolicy
		calls  int
		after  time.Duration
		want   int
	}{
		{"a fresh service has the whole floor", DefaultBudget(), 0, 0, 100},
		{"a fifth of the calls and the floor", DefaultBudget(), 500, 0, 200},
		{"no floor", BudgetPolicy{Ratio: 0.2}, 500, 0, 100},
		{"a fraction is no retry", BudgetPolicy{Ratio: 0.2}, 4, 0, 0},
		{"rounding takes none away", BudgetPolicy{Ratio: 0.29}, 100, 0, 29},
		{"a floor of one in 4 s", BudgetPolicy{MinPerSecond: 0.25}, 1000, 0, 2},
		{"the calls still count", BudgetPolicy{Ratio: 1}, 10, 9999 * time.Millisecond, 10},
		{"the calls are over", BudgetPolicy{Ratio: 1}, 10, 10 * time.Second, 0},
		{"nothing", BudgetPolicy{}, 1000, 0, 0},
	} {
		b := newBudget(tc.policy)
		deposits(b, start, tc.calls)
		if got := spend(b, start+tc.after); got != tc.want {
			t.Errorf("%s: %d retries, want %d", tc.about, got, tc.want)
		}
	}
}

func TestWhatWasSpentComesBack(t *testing.T) {
	b := newBudget(BudgetPolicy{MinPerSecond: 1})
	if n := spend(b, start+500*time.Millisecond); n != 10 {
		t.Fatalf("%d at first", n)
	}
	for _, after := range []time.Duration{501 * time.Millisecond, 10 * time.Second, 10_999 * time.Millisecond} {
		if b.withdraw(start + after) {
			t.Fatalf("another after %v", after)
		}
	}
	if n := spend(b, start+11*time.Second); n != 10 {
		t.Fatalf("%d when they are over", n)
	}
}

func TestAWithdrawalThatComesLateIsOfTheNewestSlice(t *testing.T) {
	b := newBudget(BudgetPolicy{MinPerSecond: 1})
	b.withdraw(start + 20*time.Second)

	n := spend(b, start) // its clock was read long before

	if n != 9 {
		t.Fatalf("%d, want 9", n)
	}
}

func TestTheBudgetTakesUpAnUpdate(t *testing.T) {
	b := newBudget(BudgetPolicy{Ratio: 0.5})
	deposits(b, start, 100)
	if n := spend(b, start); n != 50 {
		t.Fatalf("%d at first", n)
	}

	b.update(BudgetPolicy{Ratio: 0.6})
	if n := spend(b, start); n != 10 {
		t.Errorf("%d more, want 10", n)
	}
	b.update(BudgetPolicy{Ratio: 0.1})
	if calls, spent, left := b.snapshot(start); calls != 100 || spent != 60 || left != 0 {
		t.Errorf("%d calls, %d spent, %v left", calls, spent, left)
	}
}

func TestTheSnapshotOfABudget(t *testing.T) {
	b := newBudget(DefaultBudget())
	deposits(b, start, 7)
	b.withdraw(start)

	calls, spent, left := b.snapshot(start + time.Second)

	if calls != 7 || spent != 1 || left < 100.399 || left > 100.401 {
		t.Fatalf("%d calls, %d spent, %v left; want 7, 1, 100.4", calls, spent, left)
	}
}

// TestARetryStorm: an upstream fails all of 500 calls a second for 20 s, with
// max_attempts 3; the storm begins anywhere in a slice.
func TestARetryStorm(t *testing.T) {
	const every = 2 * time.Millisecond
	for phase := time.Duration(0); phase < time.Second; phase += 50 * time.Millisecond {
		for about, before := range map[string]func(b *budget, begin Instant){
			"a fresh service":            func(*budget, Instant) {},
			"a service idle for an hour": func(b *budget, begin Instant) { b.withdraw(begin - time.Hour) },
			"a service that was well": func(b *budget, begin Instant) {
				for now := begin - 20*time.Second; now < begin; now += every {
					b.deposit(now, uint64(now))
				}
			},
		} {
			b, begin := newBudget(DefaultBudget()), 2*time.Hour+phase
			before(b, begin)
			calls, attempts := 0, 0
			for now := begin; now < begin+20*time.Second; now += every {
				b.deposit(now, uint64(now))
				calls++
				attempts++
				for retry := 1; retry < 3 && b.withdraw(now+Instant(retry)*time.Microsecond); retry++ {
					attempts++
				}
			}
			if most := calls*12/10 + 10*20; attempts > most || attempts < calls*115/100 {
				t.Errorf("%s, begun at %v: %d attempts of %d calls, at most %d", about, phase, attempts, calls, most)
			}
		}
	}
}

// TestBudgetProperty: in the window that ends with a retry, aligned to slices
// or not, there are never more retries than the ratio of the calls in it and
// the floor; in a window anywhere, never more than the ratio of the calls in it
// and in the one before it, and the floor.
func TestBudgetProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		p := BudgetPolicy{Ratio: rapid.Float64Range(0, 1).Draw(t, "ratio"), MinPerSecond: rapid.Float64Range(0, 3).Draw(t, "floor")}
		b := newBudget(p)
		now := start
		var calls, retries []Instant
		within := func(all []Instant, after, until Instant) (n float64) {
			for _, at := range all {
				if at > after && at <= until {
					n++
				}
			}
			return n
		}
		check := func(about string, after, counted, until Instant) {
			most := p.Ratio*within(calls, counted, until) + p.MinPerSecond*10 + 1e-6
			if n := within(retries, after, until); n > most {
				t.Fatalf("%s (%v, %v]: %v retries, at most %v", about, after, until, n, most)
			}
		}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(3*time.Second)).Draw(t, "wait"))
			for range rapid.IntRange(0, 40).Draw(t, "calls") {
				b.deposit(now, rapid.Uint64().Draw(t, "rnd"))
				calls = append(calls, now)
			}
			granted := false
			for range rapid.IntRange(0, 40).Draw(t, "tries") {
				_, _, left := b.snapshot(now)
				ok := b.withdraw(now)
				if ok != (left >= 1) {
					t.Fatalf("%v left, granted: %v", left, ok)
				}
				if ok {
					retries = append(retries, now)
					granted = true
				}
			}
			if granted {
				aligned := now/time.Second*time.Second - 9*time.Second - 1
				check("aligned window", aligned, aligned, now)
				check("window ending with a retry", now-BudgetWindow, now-BudgetWindow, now)
			}
			end := now + time.Duration(rapid.Int64Range(0, int64(BudgetWindow)).Draw(t, "later"))
			check("any window", end-BudgetWindow, end-2*BudgetWindow, end)
		}
	})
}

func TestManyGoroutinesDontOverdraw(t *testing.T) {
	b := newBudget(BudgetPolicy{Ratio: 0.2, MinPerSecond: 1})
	var granted atomic.Int64
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(1000) {
				b.deposit(start, g+i)
				if b.withdraw(start) {
					granted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if n := granted.Load() + int64(spend(b, start)); n != 1610 {
		t.Fatalf("%d retries of 8000 calls, want 1610", n)
	}
}

func TestTheBudgetAllocatesNothing(t *testing.T) {
	b, now := newBudget(DefaultBudget()), start
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Millisecond
		b.deposit(now, 7)
		b.withdraw(now)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkDeposit(b *testing.B) { // budget: 15 ns, 0 allocs
	m := newBudget(DefaultBudget())
	b.ReportAllocs()
	now := start
	for b.Loop() {
		now += 10 * time.Microsecond
		m.deposit(now, uint64(now))
	}
}

func BenchmarkDepositParallel(b *testing.B) { // budget: 30 ns, 0 allocs
	m := newBudget(DefaultBudget())
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rnd, now := uint64(0), start
		for pb.Next() {
			rnd, now = rnd+1, now+10*time.Microsecond
			m.deposit(now, rnd)
		}
	})
}

func BenchmarkWithdraw(b *testing.B) { // budget: 150 ns, 0 allocs
	m := newBudget(BudgetPolicy{Ratio: 1, MinPerSecond: 1e9})
	b.ReportAllocs()
	for b.Loop() {
		m.withdraw(start)
	}
}

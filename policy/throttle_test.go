package policy

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var reference = ThrottlePolicy{Ratio: DefaultThrottleRatio}

// ended makes n calls that all go out, some of which the endpoint accepts.
func ended(d *throttle, now Instant, n, accepted int) {
	for i := range n {
		d.admit(now, uint64(i))
		d.report(now, uint64(i), i < accepted)
	}
}

func TestTheChanceOfBeingDropped(t *testing.T) {
	for _, tc := range []struct {
		about              string
		policy             ThrottlePolicy
		requests, accepted int
		after              time.Duration
		chance             float64
	}{
		{"nothing known", reference, 0, 0, 10 * time.Millisecond, 0},
		{"all accepted", reference, 99, 99, 10 * time.Millisecond, 0},
		{"half accepted: K leaves room for it", reference, 100, 50, 10 * time.Millisecond, 0},
		{"a quarter accepted", reference, 99, 25, 10 * time.Millisecond, 0.49},
		{"none accepted", reference, 99, 0, 10 * time.Millisecond, 0.99},
		{"a smaller K drops sooner", ThrottlePolicy{Ratio: 1.1}, 99, 50, 10 * time.Millisecond, 0.44},
		{"not read again yet", reference, 99, 0, 9 * time.Millisecond, 0},
		{"the window still holds it", reference, 99, 0, 119 * time.Second, 0.99},
		{"the window is over", reference, 99, 0, 2 * time.Minute, 0},
		{"off", ThrottlePolicy{Ratio: 2, Mode: Off}, 99, 0, time.Second, 0},
		{"zero is off", ThrottlePolicy{}, 99, 0, time.Second, 0},
		{"OBSERVE answers what ENFORCE would do", ThrottlePolicy{Ratio: 2, Mode: Observe}, 99, 0, time.Second, 0.99},
	} {
		d := newThrottle(tc.policy)
		ended(d, 120*time.Second, tc.requests, tc.accepted)

		chance, _ := d.admit(120*time.Second+tc.after, 1)

		if math.Abs(chance-tc.chance) > 1e-9 {
			t.Errorf("%s: %v, want %v", tc.about, chance, tc.chance)
		}
	}
}

func TestCallsUnderWayAreNoneThatWereRefused(t *testing.T) {
	d := newThrottle(reference)
	for i := range 500 {
		now := start + Instant(i)*time.Millisecond
		if chance, ok := d.admit(now, uint64(i)); !ok || chance != 0 {
			t.Fatalf("call %d while none has ended: dropped with chance %v", i, chance)
		}
	}
	d.report(start+600*time.Millisecond, 1, true)

	if chance, _ := d.admit(start+700*time.Millisecond, 1); chance != 0 {
		t.Fatalf("499 are under way and 1 was accepted: chance %v", chance)
	}
}

func TestDropsAreOfTheChance(t *testing.T) {
	d := newThrottle(reference)
	ended(d, start, 99, 25)
	rnd := rand.New(rand.NewPCG(1, 2))
	const draws = 100_000
	drops := 0.0
	for range draws {
		if _, ok := d.admit(start+10*time.Millisecond, rnd.Uint64()); !ok {
			drops += 1. / draws
		}
	}
	if math.Abs(drops-0.49) > 0.005 {
		t.Fatalf("%.4f dropped, want 0.49", drops)
	}
}

// overloaded sends 1000 calls a second for a minute to an endpoint that takes
// the first 100 of each second and refuses the others for overload.
func overloaded(d *throttle) (sent int) {
	rnd := rand.New(rand.NewPCG(1, 2))
	accepted := 0
	for ms := range 60_000 {
		if ms%1000 == 0 {
			accepted = 0
		}
		now := start + Instant(ms)*time.Millisecond
		_, ok := d.admit(now, rnd.Uint64())
		r := rnd.Uint64()
		if !ok {
			continue
		}
		takes := accepted < 100
		if takes {
			accepted++
		}
		d.report(now, r, takes)
		if ms >= 50_000 {
			sent++
		}
	}
	return sent
}

func TestAnOverloadedEndpointIsSentKTimesWhatItAccepts(t *testing.T) {
	sent := overloaded(newThrottle(ThrottlePolicy{Ratio: 2, Window: 10 * time.Second}))

	if sent < 1800 || sent > 2200 {
		t.Fatalf("%d sent in the last 10 s, want about 2 × 1000", sent)
	}
}

func TestAnEndpointThatIsBackIsUsedAgain(t *testing.T) {
	d := newThrottle(ThrottlePolicy{Ratio: 2, Window: 10 * time.Second})
	rnd := rand.New(rand.NewPCG(1, 2))
	dropped := 0
	for ms := range 130_000 {
		now := start + Instant(ms)*time.Millisecond
		_, ok := d.admit(now, rnd.Uint64())
		if r := rnd.Uint64(); ok {
			d.report(now, r, ms >= 20_000)
		} else if ms >= 120_000 {
			dropped++
		}
	}
	if dropped != 0 {
		t.Fatalf("%d dropped in the last 10 s", dropped)
	}
}

func TestTheThrottleTakesUpAnUpdate(t *testing.T) {
	d := newThrottle(reference)
	ended(d, start, 99, 25)

	d.update(ThrottlePolicy{Ratio: 3})
	if chance, _ := d.admit(start, 1); math.Abs(chance-0.24) > 1e-9 {
		t.Errorf("with K 3: %v, want 0.24 at once", chance)
	}
	d.update(ThrottlePolicy{Ratio: 3, Window: time.Minute})
	if chance, _ := d.admit(start, 1); chance != 0 {
		t.Errorf("another window starts again: %v", chance)
	}
}

// TestThrottleProperty: the chance is the formula's of what was counted, at
// most 10 ms ago.
func TestThrottleProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		k := rapid.Float64Range(1, 4).Draw(t, "k")
		d := newThrottle(ThrottlePolicy{Ratio: k, Window: time.Hour})
		now, requests, accepts := start, 0.0, 0.0
		for range rapid.IntRange(1, 100).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(10, 100).Draw(t, "wait")) * time.Millisecond
			rnd := rapid.Uint64().Draw(t, "rnd")
			chance, ok := d.admit(now, rnd)
			if want := max(0, (requests-k*accepts)/(requests+1)); math.Abs(chance-want) > 1e-9 {
				t.Fatalf("%v of %v accepted: %v, want %v", accepts, requests, chance, want)
			}
			if chance >= 1 || chance == 0 && !ok {
				t.Fatalf("chance %v, let through: %v", chance, ok)
			}
			requests++
			if accepted := rapid.Bool().Draw(t, "accepted"); ok {
				d.report(now, rnd, accepted)
				if accepted {
					accepts++
				}
			}
		}
	})
}

func TestTheThrottleAllocatesNothing(t *testing.T) {
	d, now := newThrottle(reference), start
	if n := testing.AllocsPerRun(1000, func() {
		now += time.Millisecond
		d.admit(now, 7)
		d.report(now, 7, true)
	}); n != 0 {
		t.Fatalf("%v allocations", n)
	}
}

func BenchmarkThrottle(b *testing.B) { // budget: 40 ns with the report, 0 allocs
	d := newThrottle(reference)
	b.ReportAllocs()
	now := start
	for b.Loop() {
		now += 10 * time.Microsecond
		d.admit(now, 7)
		d.report(now, 7, true)
	}
}

func BenchmarkThrottleParallel(b *testing.B) { // budget: 100 ns with the report, 0 allocs
	d := newThrottle(reference)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		rnd, now := rand.Uint64(), start
		for pb.Next() {
			rnd, now = rnd+1, now+10*time.Microsecond
			d.admit(now, rnd)
			d.report(now, rnd, true)
		}
	})
}

func BenchmarkThrottleReading(b *testing.B) { // budget: 200 ns, every 10 ms; 0 allocs
	d := newThrottle(reference)
	ended(d, start, 1000, 500)
	b.ReportAllocs()
	s := d.state.Load()
	for b.Loop() {
		s.read(start)
	}
}

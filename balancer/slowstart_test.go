package balancer

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"
)

func TestTheRamp(t *testing.T) {
	for _, c := range []struct {
		aggression float64
		passed     time.Duration
		want       float64
	}{{0, 0, 0.1}, {0, 500 * time.Millisecond, 0.1}, {0, 5 * time.Second, 0.5}, {0, 10 * time.Second, 1}, {2, 2500 * time.Millisecond, 0.5}} {
		o := Options{SlowStart: 10 * time.Second, SlowStartAggression: c.aggression}.withDefaults()
		if got := o.ramp(c.passed); math.Abs(got-c.want) > 1e-9 {
			t.Errorf("aggression %v after %v: %v; want %v", c.aggression, c.passed, got, c.want)
		}
	}
}

// at counts where so many picks of one moment go.
func at(p *Picker, set *Set, now Instant, picks int) []int {
	rnd := rand.New(rand.NewPCG(1, uint64(now)))
	counts := make([]int, set.Len())
	for range picks {
		e := p.Pick(set, Ask{Now: now, Rnd: rnd.Uint64()})
		for i := range counts {
			if set.All()[i] == e {
				counts[i]++
			}
		}
	}
	return counts
}

func TestARecoveredEndpointGetsItsShareByAndBy(t *testing.T) {
	for _, p := range []Policy{RoundRobin, WeightedRoundRobin, Random, LeastRequest, PeakEWMA} {
		// Given four endpoints that are long since there, one of them ill,
		set, picker := newTestSet(1, 1, 1, 1), NewPicker(Options{Policy: p, SlowStart: 10 * time.Second})
		at(picker, set, 1*time.Second, 100)
		set.All()[2].SetHealthy(false, "status 500", 50*time.Second)
		// when it recovers at 100 s,
		set.All()[2].SetHealthy(true, "", 100*time.Second)
		// then it gets a tenth of its share at first, half of it after 5 s, all
		// after 10 s: of n that the others get, n/10, n/2, n.
		for _, c := range []struct {
			now  Instant
			part float64
		}{{100 * time.Second, 0.1}, {105 * time.Second, 0.5}, {110 * time.Second, 1}} {
			n := at(picker, set, c.now, 40_000)
			if got := float64(n[2]) / (float64(n[0]+n[1]+n[3]) / 3); math.Abs(got-c.part) > 0.05 {
				t.Errorf("%v at %v: %v, %.2f of the others'; want %.2f", p, c.now, n, got, c.part)
			}
		}
	}
}

func TestANewEndpointStartsWhenCallsFirstSeeIt(t *testing.T) {
	set, picker := newTestSet(1, 1), NewPicker(Options{Policy: RoundRobin, SlowStart: 10 * time.Second})
	at(picker, set, 1*time.Second, 100)
	next, _ := set.With(specs(1, 1, 1))
	if n := at(picker, next, 60*time.Second, 10_000); n[2] < 300 || n[2] > 700 {
		t.Errorf("new: %v", n)
	}
	if n := at(picker, next, 70*time.Second, 9000); n[2] < 2990 {
		t.Errorf("10 s later: %v", n)
	}
}

func TestWhereAllAreNewNoneIsHeldBackForLong(t *testing.T) {
	for _, p := range []Policy{RoundRobin, WeightedRoundRobin, Random, LeastRequest, PeakEWMA} {
		set, picker := newTestSet(1, 1, 1, 1), NewPicker(Options{Policy: p, SlowStart: 10 * time.Second})
		for i, n := range at(picker, set, 1*time.Second, 40_000) {
			if n < 9000 || n > 11_000 {
				t.Errorf("%v: endpoint %d got %d of 40,000", p, i, n)
			}
		}
	}
}

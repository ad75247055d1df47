package balancer

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

// TestOutlierProperties drives one detection under ENFORCE and one under
// OBSERVE with the same attempts, waits, drains and changes of membership.
func TestOutlierProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		options := OutlierOptions{
			ConsecutiveFailures:  rapid.IntRange(1, 3).Draw(t, "failures"),
			ConsecutiveLocal:     rapid.IntRange(0, 3).Draw(t, "local"),
			FailureRate:          rapid.SampledFrom([]float64{0, 0.5}).Draw(t, "rate"),
			SuccessRateDeviation: rapid.SampledFrom([]float64{0, 1}).Draw(t, "deviation"),
			LatencyFactor:        rapid.SampledFrom([]float64{0, 2}).Draw(t, "factor"),
			MaxEjected:           rapid.SampledFrom([]float64{0.01, 0.3, 0.5, 1}).Draw(t, "share"),
			MinimumCalls:         2, MinimumHosts: 2,
			Interval: 10 * time.Second, EjectFor: 5 * time.Second, MaxEjectFor: 20 * time.Second,
		}
		specs := func(n int) (all []Spec) {
			for i := range n {
				all = append(all, Spec{Address: fmt.Sprintf("10.0.0.%d:1", i)})
			}
			return all
		}
		n := rapid.IntRange(1, 8).Draw(t, "endpoints")
		enforced, _ := (&Set{}).With(specs(n))
		observed, _ := (&Set{}).With(specs(n))
		enforce := NewOutliers(options, nil)
		options.ObserveOnly = true
		observe := NewOutliers(options, nil)
		now := start
		next := enforce.Sweep(enforced, now, 1)
		observe.Sweep(observed, now, 1)
		check := func() {
			t.Helper()
			e, o := enforce.Snapshot(), observe.Snapshot()
			allowed := enforce.options.Load().allowed(enforce.eligible())
			if len(e.Out) > allowed {
				t.Fatalf("%d of %d are out, %d may be", len(e.Out), enforce.eligible(), allowed)
			}
			if e.Ejected != o.WouldEject || e.Bounded != o.Bounded || len(e.Out) != len(o.Out) {
				t.Fatalf("ENFORCE %+v, OBSERVE %+v", e, o)
			}
			for i := range e.Out {
				a, b := e.Out[i], o.Out[i]
				if a.Endpoint.Address() != b.Endpoint.Address() || a.Reason != b.Reason || a.Since != b.Since || a.Until != b.Until {
					t.Fatalf("ENFORCE has %+v out, OBSERVE %+v", a, b)
				}
				if lasts := a.Until - a.Since; lasts < 5*time.Second || lasts > 22*time.Second {
					t.Fatalf("out for %v", lasts)
				}
			}
			for i, member := range enforced.All() {
				out := slices.ContainsFunc(e.Out, func(g Ejection) bool { return g.Endpoint == member })
				if c, _, _ := member.Condition(); !member.Barred() && (c == Ejected) != out {
					t.Fatalf("%s is %v, and out: %v", member.Address(), c, out)
				}
				if c, _, _ := observed.All()[i].Condition(); c == Ejected {
					t.Fatalf("OBSERVE ejected %s", member.Address())
				}
			}
		}
		sweep := func() {
			rnd := rapid.Uint64().Draw(t, "sweep's rnd")
			next = enforce.Sweep(enforced, now, rnd)
			if other := observe.Sweep(observed, now, rnd); other != next {
				t.Fatalf("ENFORCE sweeps again at %v, OBSERVE at %v", next, other)
			}
			check()
		}
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 9).Draw(t, "step") {
			case 0:
				now += time.Duration(rapid.IntRange(0, 4000).Draw(t, "wait")) * time.Millisecond
			case 1:
				now = max(now, next)
				sweep()
			case 2:
				n = rapid.IntRange(1, 8).Draw(t, "members")
				enforced, _ = enforced.With(specs(n))
				observed, _ = observed.With(specs(n))
				sweep()
			case 3:
				i, on := rapid.IntRange(0, n-1).Draw(t, "drained"), rapid.Bool().Draw(t, "on")
				enforced.All()[i].SetDraining(on)
				observed.All()[i].SetDraining(on)
				now = max(now, next) // Sweep looks at what changed beside it once an interval
				sweep()
			default:
				i := rapid.IntRange(0, n-1).Draw(t, "endpoint")
				a := Attempt{
					Outcome: rapid.SampledFrom([]Outcome{Ignored, Success, Failure, LocalFailure, Overloaded}).Draw(t, "outcome"),
					Took:    time.Duration(rapid.SampledFrom([]int{1, 10, 1000}).Draw(t, "took")) * time.Millisecond,
				}
				rnd := rapid.Uint64().Draw(t, "rnd")
				for range rapid.IntRange(1, 4).Draw(t, "times") {
					enforce.Observe(enforced, enforced.All()[i], now, a, rnd)
					observe.Observe(observed, observed.All()[i], now, a, rnd)
				}
				check()
			}
		}
		// Everything that is out comes back, on time, by doing what Sweep says.
		last := now
		for _, g := range enforce.Snapshot().Out {
			last = max(last, g.Until)
		}
		for now < last {
			now = max(next, now)
			sweep()
			for _, g := range enforce.Snapshot().Out {
				if g.Until <= now {
					t.Fatalf("%s is out %v past its time", g.Endpoint.Address(), now-g.Until)
				}
			}
			if next <= now {
				t.Fatalf("swept at %v, and again at %v", now, next)
			}
		}
	})
}

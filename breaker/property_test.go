package breaker

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

// held is a permit that was not reported yet, and under which state it was
// given.
type held struct {
	permit     Permit
	generation uint32
}

// TestProperties drives a breaker with arrivals, ends and waits in any order.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Options{
			ConsecutiveFailures: rapid.IntRange(0, 4).Draw(t, "consecutive"),
			FailureRate:         rapid.SampledFrom([]float64{0, 0.3, 1}).Draw(t, "rate"),
			MinimumCalls:        rapid.IntRange(1, 5).Draw(t, "minimum"),
			Window:              10 * time.Second,
			OpenFor:             5 * time.Second, MaxOpenFor: 20 * time.Second,
			HalfOpenProbes: rapid.IntRange(1, 3).Draw(t, "probes"),
			ProbeTimeout:   3 * time.Second,
		}
		enforce := New(o, nil)
		o.Mode = Observe
		observe := New(o, nil)
		now := start
		var inEnforce, inObserve []held
		for range rapid.IntRange(1, 80).Draw(t, "steps") {
			switch rapid.IntRange(0, 3).Draw(t, "step") {
			case 0: // time passes
				now += time.Duration(rapid.IntRange(0, 4000).Draw(t, "wait")) * time.Millisecond
			case 1: // a call arrives
				before := enforce.Snapshot(now)
				p, refusal, ok := enforce.Acquire(now, half)
				q, _, okObserve := observe.Acquire(now, half)
				if !okObserve {
					t.Fatal("OBSERVE refused a call")
				}
				if q.WouldRefuse() == ok {
					t.Fatalf("ENFORCE let through: %v; OBSERVE would have refused: %v", ok, q.WouldRefuse())
				}
				if ok && before.State == Open && now < before.OpenUntil {
					t.Fatalf("let through %v before the open time was over", before.OpenUntil-now)
				}
				if !ok && refusal.RetryAfter < 0 {
					t.Fatalf("retry after %v", refusal.RetryAfter)
				}
				if ok {
					generation, _ := unpack(enforce.word.Load())
					inEnforce = append(inEnforce, held{p, generation})
					inObserve = append(inObserve, held{q, 0})
				}
			default: // a call ends
				if len(inEnforce) == 0 {
					continue
				}
				i := rapid.IntRange(0, len(inEnforce)-1).Draw(t, "which")
				outcome := rapid.SampledFrom([]Outcome{Success, Failure, Ignored}).Draw(t, "outcome")
				before := enforce.Snapshot(now)
				generation, _ := unpack(enforce.word.Load())
				enforce.Report(inEnforce[i].permit, now, outcome, 0, half)
				observe.Report(inObserve[i].permit, now, outcome, 0, half)
				if inEnforce[i].generation != generation {
					if after := enforce.Snapshot(now); after != before {
						t.Fatalf("a stale result changed %+v to %+v", before, after)
					}
				}
				inEnforce = append(inEnforce[:i], inEnforce[i+1:]...)
				inObserve = append(inObserve[:i], inObserve[i+1:]...)
			}
			s, w := enforce.Snapshot(now), observe.Snapshot(now)
			if s.ProbesInFlight > o.HalfOpenProbes {
				t.Fatalf("%d probes in flight, %d allowed", s.ProbesInFlight, o.HalfOpenProbes)
			}
			if s.State != w.State || s.OpenUntil != w.OpenUntil || s.Reason != w.Reason || s.Refused != w.WouldRefuse {
				t.Fatalf("ENFORCE %+v\nOBSERVE %+v", s, w)
			}
		}
	})
}

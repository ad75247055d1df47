package health

import (
	"math"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestWhenTheNextCheckComes(t *testing.T) {
	const lowest, middle, highest = 0, 1 << 63, math.MaxUint64
	for _, test := range []struct {
		name     string
		interval time.Duration
		doubtful bool
		rnd      uint64
		want     time.Duration
	}{
		{"after the interval", 5 * time.Second, false, middle, 5 * time.Second},
		{"or up to a tenth sooner", 5 * time.Second, false, lowest, 4500 * time.Millisecond},
		{"or later", 5 * time.Second, false, highest, 5500 * time.Millisecond},
		{"after half of it in doubt", 5 * time.Second, true, middle, 2500 * time.Millisecond},
		{"but not below a second", 1500 * time.Millisecond, true, middle, time.Second},
		{"unless the interval is", 200 * time.Millisecond, true, middle, 200 * time.Millisecond},
	} {
		if got := next(test.interval, test.doubtful, test.rnd); (got - test.want).Abs() > time.Microsecond {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestFirstChecksAreSpreadOverTheInterval(t *testing.T) {
	for rnd, want := range map[uint64]time.Duration{0: 0, 1 << 62: 2500 * time.Millisecond, 1 << 63: 5 * time.Second, math.MaxUint64: 10 * time.Second} {
		if got := first(10*time.Second, rnd); (got - want).Abs() > time.Microsecond {
			t.Errorf("%d: %v, want %v", rnd, got, want)
		}
	}
}

// TestTheQueueGivesTheEarliest holds the heap against a sorted list, under any
// sequence of puts, moves and removals.
func TestTheQueueGivesTheEarliest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var q queue
		var all []*entry
		for i := range 20 {
			all = append(all, &entry{due: Instant(i)})
		}
		in := make(map[*entry]bool)
		t.Repeat(map[string]func(*rapid.T){
			"put": func(t *rapid.T) {
				e := rapid.SampledFrom(all).Draw(t, "entry")
				q.put(e, Instant(rapid.IntRange(1, 50).Draw(t, "due")))
				in[e] = true
			},
			"take": func(t *rapid.T) {
				e := rapid.SampledFrom(all).Draw(t, "entry")
				q.take(e)
				delete(in, e)
			},
			"due": func(t *rapid.T) {
				now := Instant(rapid.IntRange(1, 50).Draw(t, "now"))
				var earliest *entry
				for e := range in {
					if e.due <= now && (earliest == nil || e.due < earliest.due) {
						earliest = e
					}
				}
				got := q.due(now)
				if (got == nil) != (earliest == nil) || got != nil && (got.due != earliest.due || !in[got]) {
					t.Fatalf("got %+v, want %+v", got, earliest)
				}
				delete(in, got)
			},
			"": func(t *rapid.T) {
				if len(q.items) != len(in) {
					t.Fatalf("%d items, want %d", len(q.items), len(in))
				}
				for _, e := range all {
					if in[e] != (e.place > 0) || in[e] && q.items[e.place-1] != e {
						t.Fatalf("an entry does not know its place: %+v", e)
					}
				}
				if wait, some := q.wait(0); some != (len(in) > 0) || some && wait != slices.MinFunc(q.items, func(a, b *entry) int { return int(a.due - b.due) }).due {
					t.Fatalf("wait %v %v", wait, some)
				}
			},
		})
	})
}

package discovery

import (
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/balancer"
)

const ms = time.Millisecond

func set(addresses ...string) []Endpoint {
	var list []Endpoint
	for _, a := range addresses {
		list = append(list, Endpoint{Spec: balancer.Spec{Address: a, Weight: 1}})
	}
	return list
}

func terminating(list []Endpoint, address string) []Endpoint {
	list = slices.Clone(list)
	for i := range list {
		if list[i].Address == address {
			list[i].Terminating = true
		}
	}
	return list
}

func newDamper() *damper { return &damper{coalesce: 100 * ms, hold: 2000 * ms} }

// taken fails the test unless exactly want is passed on at now.
func (d *damper) taken(t *testing.T, now time.Duration, want []Endpoint) {
	t.Helper()
	if got, ok := d.take(now); !ok || !slices.Equal(got, want) {
		t.Fatalf("at %v: got %v %v, want %v", now, got, ok, want)
	}
}

func (d *damper) quiet(t *testing.T, now time.Duration) {
	t.Helper()
	if got, ok := d.take(now); ok {
		t.Fatalf("at %v: got %v, want nothing", now, got)
	}
}

func TestTheFirstSetIsPassedOnAtOnceEvenEmpty(t *testing.T) {
	d := newDamper()
	d.offer(5*ms, nil)
	d.taken(t, 5*ms, nil)
}

func TestABurstIsOneChange(t *testing.T) {
	d := newDamper()
	d.offer(0, set("a"))
	d.taken(t, 0, set("a"))

	d.offer(1000*ms, set("a", "b"))
	d.offer(1050*ms, set("a", "b", "c"))
	d.quiet(t, 1099*ms)
	d.taken(t, 1100*ms, set("a", "b", "c"))
	d.quiet(t, 1200*ms)
}

func TestAnEndpointThatIsGoneDrainsAndThenLeaves(t *testing.T) {
	d := newDamper()
	d.offer(0, set("a", "b"))
	d.taken(t, 0, set("a", "b"))

	d.offer(1000*ms, set("a"))
	d.taken(t, 1100*ms, terminating(set("a", "b"), "b"))
	d.quiet(t, 2999*ms)
	d.taken(t, 3000*ms, set("a"))
	if _, waits := d.due(); waits {
		t.Error("something waits")
	}
}

func TestAnEndpointThatComesBackInTimeWasNeverGone(t *testing.T) {
	d := newDamper()
	d.offer(0, set("a", "b"))
	d.taken(t, 0, set("a", "b"))

	// Back within the time that changes are gathered for: nobody hears of it.
	d.offer(1000*ms, set("a"))
	d.offer(1050*ms, set("a", "b"))
	d.quiet(t, 1100*ms)
	// Back later: it drained, and takes calls again; it never left.
	d.offer(2000*ms, set("a"))
	d.taken(t, 2100*ms, terminating(set("a", "b"), "b"))
	d.offer(3000*ms, set("a", "b"))
	d.taken(t, 3100*ms, set("a", "b"))
	d.quiet(t, 9000*ms)
}

func TestTheLastEndpointsTakeCallsUntilTheyLeave(t *testing.T) {
	d := newDamper()
	d.offer(0, set("a", "b"))
	d.taken(t, 0, set("a", "b"))

	d.offer(1000*ms, nil)
	d.quiet(t, 1100*ms)
	d.taken(t, 3000*ms, nil)
}

// TestDamping: whatever a source says, what is passed on never loses an
// endpoint that was named within the hold, never withholds one for longer than
// the coalescing, and ends as what the source said last.
func TestDamping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := newDamper()
		now := time.Duration(0)
		named := make(map[string]time.Duration)
		var last, shown []Endpoint
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			now += time.Duration(rapid.IntRange(0, 900).Draw(t, "ms")) * ms
			if rapid.Bool().Draw(t, "offer") {
				last = ordered(set(rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 0, 4, rapid.ID).Draw(t, "set")...))
				d.offer(now, last)
				for _, e := range last {
					named[e.Address] = now
				}
			}
			if at, waits := d.due(); waits && at <= now {
				if next, ok := d.take(now); ok {
					for _, e := range shown {
						if !slices.ContainsFunc(next, func(x Endpoint) bool { return x.Address == e.Address }) && now-named[e.Address] < d.hold {
							t.Fatalf("%s left %v after it was named", e.Address, now-named[e.Address])
						}
					}
					shown = next
				}
			}
			if at, waits := d.due(); waits && at < now {
				t.Fatalf("something was due at %v and is still at %v", at, now)
			}
		}
		for {
			at, waits := d.due()
			if !waits {
				break
			}
			if next, ok := d.take(max(now, at)); ok {
				shown = next
			}
		}
		if !slices.Equal(shown, last) {
			t.Fatalf("ended as %v, want %v", shown, last)
		}
	})
}

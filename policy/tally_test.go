package policy

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestATallyForgetsSlicesThatAreOver(t *testing.T) {
	c := newTally(10 * time.Second)
	for range 3 {
		c.add(100*time.Second, 1)
	}
	c.add(105*time.Second, 2)

	for now, want := range map[Instant]uint64{
		99 * time.Second:  0, // not yet
		100 * time.Second: 3,
		105 * time.Second: 4,
		109_999_999_999:   4,
		110 * time.Second: 1,
		114_999_999_999:   1,
		115 * time.Second: 0,
		1<<63 - 1:         0,
	} {
		if got := c.read(now); got != want {
			t.Errorf("at %v: %d, want %d", now, got, want)
		}
	}
}

func TestATallyLeavesOutWhatComesTooLate(t *testing.T) {
	c := newTally(10 * time.Second)
	c.add(100*time.Second, 1)

	c.add(90*time.Second, 1) // the same slot, a window earlier

	if got := c.read(100 * time.Second); got != 1 {
		t.Fatalf("%d, want 1", got)
	}
}

func TestATallyStaysAtItsMost(t *testing.T) {
	c := newTally(10 * time.Second)
	c.add(100*time.Second, 1)
	n := c.number(100 * time.Second)
	c.stripes[1].slots[n%tallySlices].Store(n<<tallyCountBits | tallyMost)

	c.add(100*time.Second, 1)

	if got := c.read(100 * time.Second); got != tallyMost {
		t.Fatalf("%d, want %d", got, tallyMost)
	}
}

// TestTallyProperty compares a tally with a list of what was added.
func TestTallyProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		length := time.Duration(rapid.SampledFrom([]int64{1, int64(time.Second), int64(10 * time.Second), int64(2 * time.Minute)}).Draw(t, "length"))
		c := newTally(length)
		now := Instant(rapid.Int64Range(1, 1<<63-1-1<<58).Draw(t, "origin"))
		var added []uint64
		for range rapid.IntRange(1, 200).Draw(t, "steps") {
			now += Instant(rapid.Int64Range(0, int64(3*c.slice)).Draw(t, "wait"))
			c.add(now, rapid.Uint64().Draw(t, "rnd"))
			added = append(added, c.number(now))
			want := uint64(0)
			for _, n := range added {
				if n+tallySlices > c.number(now) {
					want++
				}
			}
			if got := c.read(now); got != want {
				t.Fatalf("at %v: %d, want %d", now, got, want)
			}
		}
	})
}

func TestATallyLosesNothingAmongGoroutines(t *testing.T) {
	c := newTally(10 * time.Second)
	var wg sync.WaitGroup
	for g := range uint64(8) {
		wg.Go(func() {
			for i := range uint64(1000) {
				c.add(100*time.Second+Instant(i)*5*time.Millisecond, g) // over 5 slices
			}
		})
	}
	wg.Wait()
	if got := c.read(105 * time.Second); got != 8000 {
		t.Fatalf("%d, want 8000", got)
	}
}

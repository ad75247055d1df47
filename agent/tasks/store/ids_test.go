package store

import (
	"testing"
	"time"
)

func TestIDsOfNodesNeverMeet(t *testing.T) {
	// Given two agents that draw 4,000 ids in each of 50 milliseconds,
	var a, b ids
	a.join(1)
	b.join(2)
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	seen := make(map[int64]bool)
	last := map[*ids]int64{}
	for ms := range 50 {
		for range 4000 {
			for _, i := range []*ids{&a, &b} {
				id := i.next(at.Add(time.Duration(ms) * time.Millisecond))

				// then none is drawn twice, and each agent's grow.
				if seen[id] || id <= last[i] {
					t.Fatalf("%d was drawn after %d, seen %v", id, last[i], seen[id])
				}
				seen[id], last[i] = true, id
			}
		}
	}
}

func TestIDsGrowWithTheClockAndWithoutIt(t *testing.T) {
	var i ids
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

	first := i.next(at)
	back := i.next(at.Add(-time.Hour)) // the clock was set back
	later := i.next(at.Add(time.Millisecond))

	if back <= first || later <= back {
		t.Errorf("%d, %d, %d do not grow", first, back, later)
	}
}

package api

import (
	"container/heap"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/outrigger-rpc/outrigger/policy"
)

func TestWhatFallsDueComesInItsOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		var list dueList
		var want []policy.Instant
		for range rapid.IntRange(1, 50).Draw(t, "permits") {
			p := &permit{due: policy.Instant(rapid.IntRange(1, 20).Draw(t, "due")), place: nowhere}
			heap.Push(&list, p)
		}
		for _, p := range slices.Clone(list) {
			switch rapid.IntRange(0, 2).Draw(t, "what") {
			case 0:
				heap.Remove(&list, p.place)
				if p.place != nowhere {
					t.Fatal("it is out and has a place")
				}
				continue
			case 1:
				p.due = policy.Instant(rapid.IntRange(1, 20).Draw(t, "moved"))
				heap.Fix(&list, p.place)
			}
			want = append(want, p.due)
		}
		slices.Sort(want)
		var got []policy.Instant
		for len(list) > 0 {
			got = append(got, heap.Pop(&list).(*permit).due)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("%v, want %v", got, want)
		}
	})
}

func TestTheAlarmRingsForTheEarliest(t *testing.T) {
	origin := time.Now()
	rung := make(chan policy.Instant, 4)
	a := &alarm{now: func() policy.Instant { return time.Since(origin) }}
	a.ring = func() { rung <- a.now() }
	a.set(time.Hour)
	a.set(20 * time.Millisecond)
	a.set(time.Minute)
	if at := <-rung; at < 20*time.Millisecond || at > 10*time.Second {
		t.Errorf("it rang at %v", at)
	}
	a.set(a.now() + 10*time.Millisecond)
	<-rung
	// Once it is stopped it is silent.
	a.set(a.now() + time.Hour)
	a.stop()
	a.set(1)
	a.stop()
	if len(rung) != 0 {
		t.Error("it rang after it was stopped")
	}
}

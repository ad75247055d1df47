package balancer

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// cycle returns how often each endpoint has its turn in one cycle, and how far
// any was from its share at any moment of it.
func cycle(l *lots, weights []uint32, sum, divisor uint64) (counts []uint64, furthest float64) {
	counts = make([]uint64, len(weights))
	for turn := range l.total {
		i := l.turn(turn + 3*l.total) // not only the first one
		counts[i]++
		due := float64(turn+1) * float64(weights[i]/uint32(divisor)) / float64(sum/divisor)
		furthest = max(furthest, math.Abs(float64(counts[i])-due))
	}
	return counts, furthest
}

func TestEachCycleIsExactAndSmooth(t *testing.T) {
	for _, weights := range [][]uint32{
		{5, 1, 1}, {1, 2, 3, 4}, {3, 1}, {100, 1}, {1, 1_000_000}, {7, 13, 29, 31, 97, 1}, {10, 20, 30, 40}, {1, 2, 4, 8, 16, 32, 64, 128, 256, 512},
	} {
		l := newLots(weights)
		sum, divisor := uint64(0), uint64(0)
		for _, w := range weights {
			sum, divisor = sum+uint64(w), gcd(divisor, uint64(w))
		}
		counts, furthest := cycle(l, weights, sum, divisor)
		for i, w := range weights {
			if counts[i] != uint64(w)/divisor {
				t.Errorf("%v: endpoint %d had %d turns of %d", weights, i, counts[i], l.total)
			}
		}
		t.Logf("%v: never more than %.2f turns from its share", weights, furthest)
		if furthest > 2.5 {
			t.Errorf("%v: %.2f turns from its share", weights, furthest)
		}
	}
}

func TestNobodyIsTakenTwiceInARowWithoutNeed(t *testing.T) {
	l := newLots([]uint32{4, 3, 3}) // none has more than half
	row, last := 0, -1
	for turn := range uint64(100) {
		i := l.turn(turn)
		if i != last {
			row, last = 0, i
		}
		if row++; row > 2 {
			t.Fatalf("endpoint %d had %d turns in a row at %d", i, row, turn)
		}
	}
}

func TestTheMemoryIsThatOfTheEndpoints(t *testing.T) {
	weights := make([]uint32, 10_000)
	for i := range weights {
		weights[i] = 1
	}
	weights[7] = math.MaxUint32
	l := newLots(weights)
	if n := len(l.guide); n > 3*len(weights) {
		t.Errorf("%d entries", n)
	}
	for _, number := range []uint64{0, 6, 7, 7 + math.MaxUint32 - 1, 7 + math.MaxUint32, l.total - 1} {
		i := l.of(number)
		if l.ends[i] <= number || i > 0 && l.ends[i-1] > number {
			t.Errorf("%d is endpoint %d's", number, i)
		}
	}
}

func TestLotsOfAnyWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		weights := rapid.SliceOfN(rapid.OneOf(rapid.Uint32Range(1, 10), rapid.Uint32Min(1)), 2, 50).Draw(t, "weights")
		l := newLots(weights)
		if l == nil {
			for _, w := range weights {
				if w != weights[0] {
					t.Fatal("not all alike")
				}
			}
			return
		}
		if gcd(l.stride, l.total) != 1 {
			t.Fatalf("stride %d of %d", l.stride, l.total)
		}
		number := rapid.Uint64Range(0, l.total-1).Draw(t, "number")
		for _, i := range []int{l.of(number), l.turn(number), l.draw(number * 7919)} {
			if i < 0 || i >= len(weights) {
				t.Fatalf("endpoint %d", i)
			}
		}
		if i := l.of(number); l.ends[i] <= number || i > 0 && l.ends[i-1] > number {
			t.Fatalf("%d is endpoint %d's", number, i)
		}
	})
}

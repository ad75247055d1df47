package sla

import (
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestLayoutConstants(t *testing.T) {
	if got := positionOf(Shortest); got != firstPosition {
		t.Errorf("positionOf(%v) = %d, the constant says %d", Shortest, got, firstPosition)
	}
	if got := positionOf(Longest); got != lastPosition {
		t.Errorf("positionOf(%v) = %d, the constant says %d", Longest, got, lastPosition)
	}
}

func TestBucketsAreContiguous(t *testing.T) {
	low, high := edges(0)
	if low > Shortest || high <= Shortest {
		t.Fatalf("the first bucket is %v..%v", low, high)
	}
	for bucket := 1; bucket < numBuckets; bucket++ {
		before := high
		if low, high = edges(bucket); low != before {
			t.Fatalf("bucket %d begins at %v, the one before ends at %v", bucket, low, before)
		}
	}
	if low > Longest || high <= Longest {
		t.Fatalf("the last bucket is %v..%v", low, high)
	}
}

func TestBucketHoldsItsValues(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := anyLatency().Draw(t, "d")
		low, high := edges(bucketOf(d))
		if d < low || d >= high {
			t.Fatalf("%v lies in %v..%v", d, low, high)
		}
	})
}

func TestLatenciesOutsideTheRangeCountAtItsEnds(t *testing.T) {
	for d, want := range map[time.Duration]int{
		-time.Hour: 0, -1: 0, 0: 0, time.Microsecond - 1: 0, Shortest: 0,
		Longest: numBuckets - 1, Longest + 1: numBuckets - 1, 1<<63 - 1: numBuckets - 1,
	} {
		if got := bucketOf(d); got != want {
			t.Errorf("bucketOf(%d) = %d, want %d", d, got, want)
		}
	}
}

// anyLatency draws from the whole range, each octave as likely as the next.
func anyLatency() *rapid.Generator[time.Duration] {
	return rapid.Custom(func(t *rapid.T) time.Duration {
		octave := rapid.IntRange(9, 41).Draw(t, "octave")
		low := int64(1) << octave
		return time.Duration(min(max(rapid.Int64Range(low, 2*low-1).Draw(t, "ns"), int64(Shortest)), int64(Longest)))
	})
}

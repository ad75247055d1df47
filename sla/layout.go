package sla

import (
	"math/bits"
	"time"
)

// The range of latencies that a histogram tells apart. What lies outside is
// counted at the nearer end.
const (
	Shortest = time.Microsecond
	Longest  = time.Hour
)

// Buckets are log-linear, as in HdrHistogram: every octave (from a power of two
// nanoseconds to the next) is cut into 64 buckets of equal width. A bucket is
// at most 1/64 of its lower edge wide, so that its middle is within 0.79 % of
// each value in it.
const (
	octaveBits = 6
	octaveLen  = 1 << octaveBits

	// firstPosition and lastPosition are positionOf(Shortest) and of Longest,
	// as constants for the compiler; a test compares them.
	firstPosition = 317
	lastPosition  = 2344

	numBuckets = lastPosition - firstPosition + 1

	// Counters are allocated by the block, so that a service whose latencies
	// lie within a few octaves pays for those only.
	blockBits = 6
	blockLen  = 1 << blockBits
	numBlocks = (numBuckets + blockLen - 1) / blockLen
)

// bucketOf returns the bucket that holds d.
func bucketOf(d time.Duration) int {
	return positionOf(min(max(d, Shortest), Longest)) - firstPosition
}

// positionOf numbers the buckets of all octaves. d is at least 64 ns.
func positionOf(d time.Duration) int {
	v := uint64(d)
	shift := bits.Len64(v) - 1 - octaveBits
	return shift<<octaveBits + int(v>>(shift&63))
}

// edges returns the values that the bucket holds: from low up to but not
// including high.
func edges(bucket int) (low, high time.Duration) {
	position := bucket + firstPosition
	shift := position>>octaveBits - 1
	low = time.Duration(position-shift<<octaveBits) << shift
	return low, low + 1<<shift
}

// middle returns the value that stands for all of the bucket's.
func middle(bucket int) time.Duration {
	low, high := edges(bucket)
	return low + (high-low)/2
}

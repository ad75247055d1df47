package balancer

import (
	"math"
	"math/bits"
)

// lots are the numbers from zero to the sum of weights, as many of them an
// endpoint's as its weight says. Whose a number is takes one look at a guide
// table and a few steps from there (Chen and Asau, 1974), whatever the weights;
// the memory is that of the endpoints. It serves draws by weight and turns by
// weight alike.
type lots struct {
	ends   []uint64 // where each endpoint's numbers end
	total  uint64
	guide  []int32 // by number >> shift: the first endpoint it can be of
	shift  uint8
	stride uint64 // of turns
}

// newLots returns the lots of so many weights, none of them zero; nil where all
// weights are alike.
func newLots(weights []uint32) *lots {
	divisor, alike := uint64(0), true
	for _, w := range weights {
		divisor = gcd(divisor, uint64(w))
		alike = alike && w == weights[0]
	}
	if alike {
		return nil
	}
	l := &lots{ends: make([]uint64, len(weights))}
	for i, w := range weights {
		l.total += uint64(w) / divisor
		l.ends[i] = l.total
	}
	for l.total>>l.shift > 2*uint64(len(weights)) {
		l.shift++
	}
	l.guide = make([]int32, l.total>>l.shift+2)
	at := 0
	for b := range l.guide {
		for at < len(weights)-1 && l.ends[at] <= uint64(b)<<l.shift {
			at++
		}
		l.guide[b] = int32(at)
	}
	l.stride = goldenStride(l.total)
	return l
}

// of returns whose the number is, which is below total.
func (l *lots) of(number uint64) int {
	b := number >> l.shift
	low, high := int(l.guide[b]), int(l.guide[b+1])
	for high-low > 8 { // many small weights beside a big one
		if middle := int(uint(low+high) >> 1); l.ends[middle] <= number {
			low = middle + 1
		} else {
			high = middle
		}
	}
	for l.ends[low] <= number {
		low++
	}
	return low
}

// draw returns whose a uniform random number is.
func (l *lots) draw(rnd uint64) int { return l.of(below(rnd, l.total)) }

// turn returns whose turn it is. In total turns in a row each endpoint has its
// exact share, and its turns are spread evenly over them: the numbers are gone
// through by golden stride, as in Weyl's sequence.
func (l *lots) turn(turn uint64) int {
	high, low := bits.Mul64(turn%l.total, l.stride)
	if high == 0 {
		return l.of(low % l.total)
	}
	return l.of(bits.Rem64(high, low, l.total))
}

// goldenStride returns the number next to total / φ, of those that share no
// divisor with it, whose multiples are spread the most evenly: the one whose
// continued fraction has the smallest sum (Niederreiter, 1992, chapter 3).
func goldenStride(total uint64) uint64 {
	if total < 3 {
		return 1
	}
	near := uint64(float64(total) / math.Phi)
	best, least := uint64(1), uint64(math.MaxUint64)
	for off := range uint64(64) {
		for _, stride := range [...]uint64{near + off, near - off} {
			if stride == 0 || stride >= total {
				continue
			}
			if sum, prime := quotients(total, stride); prime && sum < least {
				best, least = stride, sum
			}
		}
	}
	return best
}

// quotients returns the sum of the partial quotients of a / b, and whether the
// two share no divisor.
func quotients(a, b uint64) (sum uint64, coprime bool) {
	for b != 0 {
		sum += a / b
		a, b = b, a%b
	}
	return sum, a == 1
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}

// below maps a uniform 64-bit number to [0, n) (Lemire, 2019; the bias is
// under n/2^64).
func below(rnd, n uint64) uint64 {
	high, _ := bits.Mul64(rnd, n)
	return high
}

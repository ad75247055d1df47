package balancer

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// Outcome is what an attempt says of its endpoint.
type Outcome uint8

// The outcomes.
const (
	// Ignored says nothing: the caller gave up, or was at fault for its own
	// deadline.
	Ignored Outcome = iota
	// Success: the endpoint answered, with whatever is not its failure.
	Success
	// Failure: the endpoint answered, and failed.
	Failure
	// LocalFailure: no answer came. The connection could not be made or was
	// lost, or the time was up.
	LocalFailure
	// Overloaded: the endpoint answered that it has too much to do. That is
	// load, not sickness: it counts neither as success nor as failure.
	Overloaded
)

// Attempt is a finished attempt as outlier detection sees it.
type Attempt struct {
	Outcome Outcome
	// Took is how long it lasted, from its sending on.
	Took time.Duration
	// Stream says that Took is the life of a stream: it tells nothing of how
	// fast the endpoint answers.
	Stream bool
}

// never is the begin of attempts that count while an endpoint is out.
const never = math.MaxInt64

// record is what outlier detection keeps of one endpoint. Every attempt writes
// it; the padding keeps it off the neighbours' cache lines.
type record struct {
	_          [64]byte
	inRow      atomic.Int32 // failures in a row
	localInRow atomic.Int32 // of attempts without an answer, where told apart
	// from is when the endpoint came back: attempts that began before are old
	// news. never while it is out.
	from atomic.Int64
	// Of the interval. Successes and failures are counted apart so that a
	// reader between two writes never finds more failures than calls.
	successes, failures atomic.Uint64
	untimed             atomic.Uint64 // of the successes, those of streams
	logs                atomic.Uint64 // sum of log2 of the other successes' nanoseconds
	_                   [64]byte

	// Of Outliers.mu.
	repeats int     // ejections that count for the length of the next
	back    Instant // when the last one was over
}

// restart forgets what was counted; attempts count that begin at from or later.
func (r *record) restart(from Instant) {
	r.from.Store(int64(from))
	r.inRow.Store(0)
	r.localInRow.Store(0)
	r.take()
}

// counts are what an interval has of one endpoint.
type counts struct{ successes, failures, timed, logs uint64 }

// take returns the counts and begins anew. An attempt that ends at this moment
// may be counted half here and half in the next interval.
func (r *record) take() counts {
	c := counts{successes: r.successes.Swap(0), failures: r.failures.Swap(0), logs: r.logs.Swap(0)}
	c.timed = c.successes - min(r.untimed.Swap(0), c.successes)
	return c
}

func (c counts) calls() uint64 { return c.successes + c.failures }

func (c counts) successRate() float64 { return float64(c.successes) / float64(c.calls()) }

// typical is the base-2 logarithm of the geometric mean of the latencies in
// nanoseconds.
func (c counts) typical() float64 {
	return float64(c.logs) / float64(c.timed) / (1 << logBits)
}

// logBits are the fraction bits of log2: sums of 2^42 latencies fit.
const logBits = 16

// log2 returns the base-2 logarithm of a latency in nanoseconds, in fixed
// point. The fraction is the mantissa's, which is at most 0.086 too small
// (Mitchell, "Computer Multiplication and Division Using Binary Logarithms",
// 1962); all endpoints are measured with the same rule.
func log2(took time.Duration) uint64 {
	x := uint64(max(took, 1))
	whole := uint(bits.Len64(x) - 1)
	mantissa := x << (63 - whole) &^ (1 << 63)
	return uint64(whole)<<logBits | mantissa>>(63-logBits)
}

// exp2 is log2's inverse.
func exp2(log float64) time.Duration {
	whole, fraction := math.Modf(log)
	return time.Duration(math.Ldexp(1+fraction, int(whole)))
}

package policy

import (
	"sync"
	"time"
)

// BudgetWindow is how far back a retry budget looks. It slides in slices of 1 s.
const BudgetWindow = 10 * time.Second

const (
	budgetSlice = BudgetWindow / tallySlices
	// Retries count for a slice longer than the window, calls for the window's
	// slices only, the last of them not over yet. So what is counted of retries
	// holds all of the last BudgetWindow, and what is counted of calls nothing
	// from before it, wherever in a slice it begins.
	budgetSlices = tallySlices + 1
)

// budget bounds what retries and hedges add to a service's load.
//
// It is exact: in the BudgetWindow that ends with a retry, aligned to slices or
// not, there are never more retries than Ratio × the calls in it + MinPerSecond
// × BudgetWindow. Over any longer time of n windows it follows that there are
// never more than Ratio × the calls of that time and of the window before it +
// n × MinPerSecond × BudgetWindow. The price is that a steady storm gets 9/11
// to 10/11 of that, never all.
//
// A fresh service has the whole floor at once, not a second's worth of it after
// a second: its first calls are the ones that meet endpoints still starting.
//
// Safe for concurrent use.
type budget struct {
	calls *tally

	mu     sync.Mutex
	policy BudgetPolicy
	last   uint64 // the newest slice that spent counts for
	spent  [budgetSlices]uint64
}

func newBudget(p BudgetPolicy) *budget { return &budget{calls: newTally(BudgetWindow), policy: p} }

// update changes the policy. What was spent stays spent.
func (b *budget) update(p BudgetPolicy) {
	b.mu.Lock()
	b.policy = p
	b.mu.Unlock()
}

// deposit counts a call that arrived. rnd is a fresh uniform random number.
func (b *budget) deposit(now Instant, rnd uint64) { b.calls.add(now, rnd) } // budget: 15 ns, 0 allocs

// withdraw takes one retry or hedge, or says that there is none.
func (b *budget) withdraw(now Instant) bool { // budget: 150 ns, 0 allocs
	b.mu.Lock()
	defer b.mu.Unlock()
	now = b.advance(now)
	if _, _, left := b.read(now); left < 1 {
		return false
	}
	b.spent[b.last%budgetSlices]++
	return true
}

// snapshot returns the calls and the retries that count at now, and how many
// retries are left; a fraction is not enough for one.
func (b *budget) snapshot(now Instant) (calls, spent uint64, left float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.read(b.advance(now))
}

// advance forgets the slices that are over. It returns now, or the start of the
// newest slice for one who read the clock before it and came after.
func (b *budget) advance(now Instant) Instant {
	n := b.calls.number(now)
	if n < b.last {
		return Instant(b.last-1) * budgetSlice
	}
	if n-b.last >= budgetSlices {
		b.spent = [budgetSlices]uint64{}
		b.last = n
	}
	for b.last < n {
		b.last++
		b.spent[b.last%budgetSlices] = 0
	}
	return now
}

func (b *budget) read(now Instant) (calls, spent uint64, left float64) {
	for _, n := range b.spent {
		spent += n
	}
	calls = b.calls.read(now)
	// A ratio is no exact binary number: 0.29 × 100 must be 29, not 28.99…
	const rounding = 1e-9
	allowed := b.policy.Ratio*float64(calls) + b.policy.MinPerSecond*BudgetWindow.Seconds() + rounding
	return calls, spent, max(0, allowed-float64(spent))
}

package policy

import (
	"math"
	"sync/atomic"
	"time"
)

// chanceFor is how long a chance once worked out is used: reading all slices
// of the window for each call would cost more than the call's whole admission.
// What happened since the last reading has no effect until the next, so a new
// throttle lets its first 10 ms through.
const chanceFor = 10 * time.Millisecond

// throttle drops calls here that the endpoints would refuse: Google's adaptive
// client-side throttling (Beyer et al., "Site Reliability Engineering", 2016,
// chapter 21, "Handling Overload"). A call that is dropped here counts as a
// request and not as an accept: that is what makes the chance grow until the
// endpoints are sent K times what they accept. One that goes out counts when it
// ends: were it a request before it can be an accept, a healthy endpoint that
// takes its time would look like one that accepts nothing, and a start with
// many calls at once would drop most of them.
//
// One that accepted nothing for a whole window is sent about one call a window.
// When it is back, what it is sent grows by a factor of about 5 a window with
// K = 2: at 1000 calls a second it takes some 6 windows until none is dropped.
//
// Safe for concurrent use.
type throttle struct {
	state atomic.Pointer[throttleState]
}

// throttleState is what one policy needs. Of one that follows it with the same
// window it is the counts.
type throttleState struct {
	k                 float64
	requests, accepts *tally
	due               atomic.Int64  // the Instant at which chance is worked out again
	chance            atomic.Uint64 // bits of a float64
}

func newThrottle(p ThrottlePolicy) *throttle {
	t := &throttle{}
	t.update(p)
	return t
}

// update changes the policy. The counts stay, unless the window's length
// changes: then they start again.
func (t *throttle) update(p ThrottlePolicy) {
	next := &throttleState{}
	if p.On() {
		next.k = p.Ratio
	}
	window := p.Window
	if window <= 0 {
		window = DefaultThrottleWindow
	}
	next.requests, next.accepts = newTally(window), newTally(window)
	if old := t.state.Load(); old != nil && old.requests.slice == next.requests.slice {
		next.requests, next.accepts = old.requests, old.accepts
	}
	t.state.Store(next)
}

// admit says whether a request may go out, and with which chance it would have
// been dropped; it counts one that may not. rnd is a fresh uniform random
// number.
//
// In OBSERVE the caller sends what is not ok all the same, and must not report
// how it ended: in ENFORCE it would not have ended. So both decide the same on
// the same script.
func (t *throttle) admit(now Instant, rnd uint64) (chance float64, ok bool) { // budget: 15 ns, 0 allocs
	s := t.state.Load()
	if s.k == 0 {
		return 0, true
	}
	if due := s.due.Load(); int64(now) >= due && s.due.CompareAndSwap(due, int64(now+chanceFor)) {
		s.chance.Store(math.Float64bits(s.read(now)))
	}
	chance = math.Float64frombits(s.chance.Load())
	// rnd's low bits choose the stripe, and rnd itself chooses elsewhere too.
	if ok = float64(scramble(rnd^throttleDraw)>>11)/(1<<53) >= chance; !ok {
		s.requests.add(now, rnd)
	}
	return chance, ok
}

// throttleDraw tells the throttle's draw from others of the same number.
const throttleDraw = 0x7468726f74746c65

// report counts a request that went out, at its end. accepted: the endpoint did
// not refuse it for overload, whatever else it answered.
func (t *throttle) report(now Instant, rnd uint64, accepted bool) { // budget: 25 ns, 0 allocs
	s := t.state.Load()
	if s.k == 0 {
		return
	}
	s.requests.add(now, rnd)
	if accepted {
		s.accepts.add(now, rnd)
	}
}

// read works the chance out.
func (s *throttleState) read(now Instant) float64 {
	requests, accepts := float64(s.requests.read(now)), float64(s.accepts.read(now))
	return max(0, (requests-s.k*accepts)/(requests+1))
}

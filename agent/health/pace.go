package health

import "time"

// Instant is a monotonic time since an origin of the caller's choice.
type Instant = time.Duration

const (
	// jitter is by how much of the interval checks come sooner or later, so
	// that those of several agents don't fall into step.
	jitter = 0.1
	// minDoubt bounds how much sooner a check comes where there is doubt.
	minDoubt = time.Second
)

// first returns how long the first check of an endpoint waits: any time within
// the interval, so that a thousand new endpoints are not asked at once. rnd is
// a fresh uniform random number.
func first(interval time.Duration, rnd uint64) time.Duration {
	return time.Duration(fraction(rnd) * float64(interval))
}

// next returns how long the check after this one waits: the interval, or half
// of it while there is doubt, but not below a second unless the interval is;
// ± jitter.
func next(interval time.Duration, doubtful bool, rnd uint64) time.Duration {
	wait := interval
	if doubtful {
		wait = max(interval/2, min(interval, minDoubt))
	}
	return time.Duration(float64(wait) * (1 + jitter*(2*fraction(rnd)-1)))
}

// fraction maps a uniform number to [0, 1).
func fraction(rnd uint64) float64 { return float64(rnd>>11) / (1 << 53) }

// queue holds what waits for its time, the earliest first: a binary heap whose
// items know their place, so that one that left is taken out in O(log n).
type queue struct{ items []*entry }

func (q *queue) put(e *entry, due Instant) {
	if e.place > 0 {
		q.take(e)
	}
	e.due = due
	q.items = append(q.items, e)
	e.place = len(q.items)
	q.up(e.place - 1)
}

// due takes the earliest item out if its time has come.
func (q *queue) due(now Instant) *entry {
	if len(q.items) == 0 || q.items[0].due > now {
		return nil
	}
	e := q.items[0]
	q.take(e)
	return e
}

// wait returns how long it is until the next item falls due; false: there is
// none.
func (q *queue) wait(now Instant) (time.Duration, bool) {
	if len(q.items) == 0 {
		return 0, false
	}
	return max(q.items[0].due-now, 0), true
}

// take takes the item out, if it is in.
func (q *queue) take(e *entry) {
	if e.place == 0 {
		return
	}
	i, last := e.place-1, len(q.items)-1
	q.swap(i, last)
	q.items[last] = nil
	q.items = q.items[:last]
	e.place = 0
	if i < last {
		q.up(i)
		q.down(i)
	}
}

func (q *queue) swap(i, j int) {
	q.items[i], q.items[j] = q.items[j], q.items[i]
	q.items[i].place, q.items[j].place = i+1, j+1
}

func (q *queue) up(i int) {
	for i > 0 {
		parent := (i - 1) / 2
		if q.items[parent].due <= q.items[i].due {
			return
		}
		q.swap(i, parent)
		i = parent
	}
}

func (q *queue) down(i int) {
	for {
		child := 2*i + 1
		if child >= len(q.items) {
			return
		}
		if child+1 < len(q.items) && q.items[child+1].due < q.items[child].due {
			child++
		}
		if q.items[i].due <= q.items[child].due {
			return
		}
		q.swap(i, child)
		i = child
	}
}

package tasks

import "sync"

// maxWaiters bounds the requests that wait for tasks.
const maxWaiters = 10000

// roundMost is how many waiters look again in a round, so that many of them cost
// the store no more than that.
const roundMost = 100

// waiters are those who wait for a task to change. The zero value is ready for use.
type waiters struct {
	mu sync.Mutex
	by map[int64][]chan struct{}
	n  int
}

// add returns a channel that gets something whenever the task may have changed,
// and what ends that. false: there are too many already.
func (w *waiters) add(id int64) (wake <-chan struct{}, done func(), ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n >= maxWaiters {
		return nil, nil, false
	}
	if w.by == nil {
		w.by = map[int64][]chan struct{}{}
	}
	c := make(chan struct{}, 1)
	w.by[id] = append(w.by[id], c)
	w.n++
	return c, func() { w.remove(id, c) }, true
}

func (w *waiters) remove(id int64, c chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	list := w.by[id]
	for i := range list {
		if list[i] == c {
			list[i] = list[len(list)-1]
			list = list[:len(list)-1]
			w.n--
			break
		}
	}
	if len(list) == 0 {
		delete(w.by, id)
		return
	}
	w.by[id] = list
}

// wake tells those who wait for the task.
func (w *waiters) wake(id int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.n > 0 {
		tell(w.by[id])
	}
}

// round lets some look that nobody told: another agent may have moved their task.
func (w *waiters) round() {
	w.mu.Lock()
	defer w.mu.Unlock()
	told := 0
	for _, list := range w.by { // Go begins anywhere, so that each gets its turn
		tell(list)
		if told += len(list); told >= roundMost {
			return
		}
	}
}

func tell(list []chan struct{}) {
	for _, c := range list {
		select {
		case c <- struct{}{}:
		default: // it has been told, and has not looked yet
		}
	}
}

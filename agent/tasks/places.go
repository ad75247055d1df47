package tasks

import "sync"

// places are the places in queues that submits under way have taken: the store
// counts a task only once it is kept. The zero value is ready for use.
type places struct {
	mu    sync.Mutex
	taken map[string]int
}

// take reserves places, by queue: all of them or none. capacity and waiting say how
// many tasks a queue may hold, and does. It returns a queue that is full, or false.
func (p *places) take(wanted map[string]int, capacity, waiting func(queue string) int) (full string, ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for queue, n := range wanted {
		if waiting(queue)+p.taken[queue]+n > capacity(queue) {
			return queue, false
		}
	}
	if p.taken == nil {
		p.taken = map[string]int{}
	}
	for queue, n := range wanted {
		p.taken[queue] += n
	}
	return "", true
}

// give returns places: their tasks are kept, or were not.
func (p *places) give(wanted map[string]int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for queue, n := range wanted {
		if p.taken[queue] -= n; p.taken[queue] <= 0 {
			delete(p.taken, queue)
		}
	}
}

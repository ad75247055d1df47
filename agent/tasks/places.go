package tasks

import "sync"

// places are the places in queues that submits under way have taken: the store
// counts a task only once it is kept. The zero value is ready for use.
type places struct {
	mu    sync.Mutex
	taken map[string]int
}

// take reserves n places of a queue that holds waiting tasks and may hold
// capacity. It reports whether there are so many.
func (p *places) take(queue string, n, capacity int, waiting func(queue string) int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if waiting(queue)+p.taken[queue]+n > capacity {
		return false
	}
	if p.taken == nil {
		p.taken = map[string]int{}
	}
	p.taken[queue] += n
	return true
}

// give returns n places: their tasks are kept, or were not.
func (p *places) give(queue string, n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.taken[queue] -= n; p.taken[queue] <= 0 {
		delete(p.taken, queue)
	}
}

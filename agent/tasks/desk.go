package tasks

import "sync"

// desk is where workers wait for tasks of their kinds. One arrival wakes one
// worker; a worker that found some wakes the next, since there may be more. The
// zero value is ready for use.
type desk struct {
	mu    sync.Mutex
	lines map[string][]*place // by queue, who came first in front
}

// place is one worker's, in the line of each of its queues.
type place struct {
	queues []string
	called chan struct{} // gets something once it is the worker's turn
}

// line puts a worker in line.
func (d *desk) line(queues []string) *place {
	p := &place{queues: queues, called: make(chan struct{}, 1)}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lines == nil {
		d.lines = map[string][]*place{}
	}
	for _, q := range queues {
		d.lines[q] = append(d.lines[q], p)
	}
	return p
}

// leave takes a worker out of its lines.
func (d *desk) leave(p *place) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.drop(p)
}

func (d *desk) drop(p *place) {
	for _, q := range p.queues {
		line := d.lines[q]
		for i := range line {
			if line[i] == p {
				line = append(line[:i], line[i+1:]...)
				break
			}
		}
		if len(line) == 0 {
			delete(d.lines, q)
			continue
		}
		d.lines[q] = line
	}
}

// arrived calls the worker that waits longest for tasks of the queue.
func (d *desk) arrived(queue string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.call(queue)
}

func (d *desk) call(queue string) {
	line := d.lines[queue]
	if len(line) == 0 {
		return
	}
	p := line[0]
	d.drop(p) // the channel is empty: it was in line
	p.called <- struct{}{}
}

// round calls one worker of each queue: another agent may have got a task, or the
// time of one may have come.
func (d *desk) round() {
	d.mu.Lock()
	defer d.mu.Unlock()
	queues := make([]string, 0, len(d.lines))
	for q := range d.lines {
		queues = append(queues, q)
	}
	for _, q := range queues {
		d.call(q)
	}
}

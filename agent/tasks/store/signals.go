package store

import (
	"container/heap"
	"context"
	"encoding/json"
	"errors"
	"sync"
	"time"

	"github.com/riverqueue/river/riverdriver"
)

// River's topics.
const (
	topicInsert     = "river_insert"
	topicControl    = "river_control"
	topicLeadership = "river_leadership"
)

type insertPayload struct {
	Queue string `json:"queue"`
}

type controlPayload struct {
	Action string `json:"action"`
	JobID  int64  `json:"job_id,omitempty"`
	Queue  string `json:"queue"`
}

func payload(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // names and numbers can always be written
	}
	return string(text)
}

// hub carries notifications within the process to River's client, as its listener:
// it hears of what this process committed at once, and without a poll of a table or
// a turn over PostgreSQL. What other agents tell comes by ear.
type hub struct {
	mu        sync.Mutex
	listeners map[*listener]struct{}
}

func newHub() *hub { return &hub{listeners: make(map[*listener]struct{})} }

// publish tells River's client.
func (h *hub) publish(topic string, payloads ...string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for l := range h.listeners {
		for _, p := range payloads {
			l.put(topic, p)
		}
	}
}

// maxPending bounds what a listener that does not listen holds: past it, polling
// finds the rest.
const maxPending = 4096

// listener is River's ear at the hub. It implements riverdriver.Listener.
type listener struct {
	hub    *hub
	schema string

	mu      sync.Mutex
	topics  map[string]bool
	pending []riverdriver.Notification
	known   map[riverdriver.Notification]bool // pending: the same twice is once
	wake    chan struct{}
}

func (h *hub) listener(schema string) *listener {
	return &listener{hub: h, schema: schema, topics: make(map[string]bool), known: make(map[riverdriver.Notification]bool), wake: make(chan struct{}, 1)}
}

func (l *listener) put(topic, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := riverdriver.Notification{Topic: topic, Payload: text}
	if !l.topics[topic] || l.known[n] || len(l.pending) >= maxPending {
		return
	}
	l.pending, l.known[n] = append(l.pending, n), true
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

func (l *listener) Connect(context.Context) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	if _, twice := l.hub.listeners[l]; twice {
		return errors.New("the listener is connected already")
	}
	l.hub.listeners[l] = struct{}{}
	return nil
}

func (l *listener) Close(context.Context) error {
	l.hub.mu.Lock()
	defer l.hub.mu.Unlock()
	delete(l.hub.listeners, l)
	return nil
}

func (l *listener) Listen(_ context.Context, topic string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.topics[topic] = true
	return nil
}

func (l *listener) Unlisten(_ context.Context, topic string) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.topics, topic)
	return nil
}

func (l *listener) Ping(context.Context) error { return nil }
func (l *listener) Schema() string             { return l.schema }
func (l *listener) SetAfterConnectExec(string) {}

func (l *listener) WaitForNotification(ctx context.Context) (*riverdriver.Notification, error) {
	for {
		l.mu.Lock()
		if len(l.pending) > 0 {
			n := l.pending[0]
			l.pending = l.pending[1:]
			delete(l.known, n)
			l.mu.Unlock()
			return &n, nil
		}
		l.mu.Unlock()
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-l.wake:
		}
	}
}

// alarms wake queues at times: River itself looks once a second.
type alarms struct {
	ring func(queue string)
	set  chan struct{} // there is an earlier one

	mu   sync.Mutex
	due  alarmHeap
	seen map[alarm]bool
}

// alarmStep is how fine alarms are: those within one are one.
const alarmStep = 5 * time.Millisecond

// alarmHorizon is how far ahead alarms are set: River's scheduler makes jobs
// available that are due in its next round, of 5 s.
const alarmHorizon = 10 * time.Second

// maxAlarms bounds them; past it, polling finds the rest.
const maxAlarms = 65536

type alarm struct {
	step  int64
	queue string
}

type alarmHeap []alarm

func (h alarmHeap) Len() int           { return len(h) }
func (h alarmHeap) Less(i, j int) bool { return h[i].step < h[j].step }
func (h alarmHeap) Swap(i, j int)      { h[i], h[j] = h[j], h[i] }
func (h *alarmHeap) Push(x any)        { *h = append(*h, x.(alarm)) }
func (h *alarmHeap) Pop() any {
	last := (*h)[len(*h)-1]
	*h = (*h)[:len(*h)-1]
	return last
}

func newAlarms(ring func(string)) *alarms {
	return &alarms{ring: ring, set: make(chan struct{}, 1), seen: make(map[alarm]bool)}
}

// at rings a queue at a time, or at once where it has come.
func (a *alarms) at(queue string, when time.Time) {
	d := time.Until(when)
	if d <= 0 {
		a.ring(queue)
		return
	}
	if d > alarmHorizon {
		return
	}
	x := alarm{when.UnixNano()/int64(alarmStep) + 1, queue}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.seen[x] || len(a.due) >= maxAlarms {
		return
	}
	a.seen[x] = true
	heap.Push(&a.due, x)
	if a.due[0] == x {
		select {
		case a.set <- struct{}{}:
		default:
		}
	}
}

func (a *alarms) run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		a.mu.Lock()
		var ring []string
		now := time.Now().UnixNano() / int64(alarmStep)
		for len(a.due) > 0 && a.due[0].step <= now {
			x := heap.Pop(&a.due).(alarm)
			delete(a.seen, x)
			ring = append(ring, x.queue)
		}
		wait := time.Hour
		if len(a.due) > 0 {
			wait = time.Until(time.Unix(0, a.due[0].step*int64(alarmStep)))
		}
		a.mu.Unlock()
		for _, queue := range ring {
			a.ring(queue)
		}
		timer.Reset(wait)
		select {
		case <-ctx.Done():
			return
		case <-a.set:
		case <-timer.C:
		}
	}
}

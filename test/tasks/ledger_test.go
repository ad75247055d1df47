//go:build linux

package tasks

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// ledger has both sides of every piece of work: that the agent took it on, and
// what was seen of it outside. A piece of work is named by the test; safe for
// concurrent use.
type ledger struct {
	mu       sync.Mutex
	accepted map[string]accepted
	effects  map[string]*effect
}

// accepted is what the agent acknowledged.
type accepted struct {
	id string
	at time.Time
	// effects must be there, each once at least, in this order.
	effects []string
	// never must not be there: what a chain would do if it failed.
	never []string
}

// effect is what was seen outside.
type effect struct {
	first time.Time
	ids   map[string]int // how often, by the id that came with it
}

func newLedger() *ledger {
	return &ledger{accepted: make(map[string]accepted), effects: make(map[string]*effect)}
}

// accept notes that the agent acknowledged a piece of work.
func (l *ledger) accept(work string, a accepted) {
	l.mu.Lock()
	defer l.mu.Unlock()
	a.at = time.Now()
	l.accepted[work] = a
}

// see notes an effect with the id that came with it.
func (l *ledger) see(what, id string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	e := l.effects[what]
	if e == nil {
		e = &effect{first: time.Now(), ids: make(map[string]int)}
		l.effects[what] = e
	}
	e.ids[id]++
}

// times returns how often an effect was seen.
func (l *ledger) times(what string) (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e := l.effects[what]; e != nil {
		for _, m := range e.ids {
			n += m
		}
	}
	return n
}

// behind is how many effects are still owed.
func (l *ledger) behind() (n int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, a := range l.accepted {
		for _, what := range a.effects {
			if l.effects[what] == nil {
				n++
			}
		}
	}
	return n
}

// ids returns the ids of what was accepted.
func (l *ledger) ids() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var all []string
	for _, a := range l.accepted {
		all = append(all, a.id)
	}
	return all
}

// balance is what the two sides come to.
type balance struct {
	accepted, effects     int
	repeated, repetitions int // effects that came more than once, and how often beyond the first
	unasked               int // effects of work whose acknowledgement never came
	wrong                 []string
}

// audit compares both sides.
func (l *ledger) audit() balance {
	l.mu.Lock()
	defer l.mu.Unlock()
	var b balance
	owed := make(map[string]bool)
	ids := make(map[string]string) // the work of each id
	for _, work := range slices.Sorted(maps.Keys(l.accepted)) {
		a := l.accepted[work]
		b.accepted++
		if other, twice := ids[a.id]; twice {
			b.wrong = append(b.wrong, fmt.Sprintf("%s and %s have one id: %s", other, work, a.id))
		}
		ids[a.id] = work
		var last time.Time
		for _, what := range a.effects {
			owed[what] = true
			e := l.effects[what]
			if e == nil {
				b.wrong = append(b.wrong, fmt.Sprintf("LOST %s (task %s): %s was never done", work, a.id, what))
				continue
			}
			if e.first.Before(last) {
				b.wrong = append(b.wrong, fmt.Sprintf("%s (task %s): %s came before the step that it waits for", work, a.id, what))
			}
			last = e.first
			if _, same := e.ids[a.id]; len(a.effects) == 1 && !same && !messageIDs(e.ids, a.id) {
				b.wrong = append(b.wrong, fmt.Sprintf("%s: accepted as %s, done as %v", work, a.id, slices.Collect(maps.Keys(e.ids))))
			}
		}
		for _, what := range a.never {
			if l.effects[what] != nil {
				b.wrong = append(b.wrong, fmt.Sprintf("%s (task %s): %s was done, and nothing failed", work, a.id, what))
			}
		}
	}
	for _, what := range slices.Sorted(maps.Keys(l.effects)) {
		e := l.effects[what]
		b.effects++
		times := 0
		for id, n := range e.ids {
			times += n
			if id == "" {
				b.wrong = append(b.wrong, what+" came without an id")
			}
		}
		if times > 1 {
			b.repeated++
			b.repetitions += times - 1
		}
		if len(e.ids) > 1 {
			b.wrong = append(b.wrong, fmt.Sprintf("%s came under %d ids: %v", what, len(e.ids), slices.Sorted(maps.Keys(e.ids))))
		}
		if !owed[what] {
			b.unasked++
		}
	}
	return b
}

// messageIDs reports whether these are Message-IDs made of a task's id.
func messageIDs(ids map[string]int, id string) bool {
	for found := range ids {
		if !strings.Contains(found, "@") || !strings.Contains(found, id) {
			return false
		}
	}
	return len(ids) > 0
}

func (b balance) String() string {
	return fmt.Sprintf("%d tasks acknowledged, %d effects seen; %d of them more than once (%d repetitions, each under the same id unless told below); %d of tasks whose acknowledgement was lost; %d wrong",
		b.accepted, b.effects, b.repeated, b.repetitions, b.unasked, len(b.wrong))
}

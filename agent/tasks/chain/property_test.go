package chain

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// play is a random chain that a test plays, and what it has seen of it.
type play struct {
	*rapid.T
	p        *Program
	state    State
	input    Value
	running  map[string]bool
	undoing  map[string]bool
	over     map[string]bool // done or skipped in this run
	begun    map[string]int  // in this run
	done     []string        // in this order, what stands
	undone   []string        // in this run
	past     []Event         // told before
	finished bool
}

func drawDefinition(t *rapid.T) Definition {
	n := rapid.IntRange(1, 8).Draw(t, "steps")
	// Steps may come after others that stand behind them in the list.
	rank := rapid.Permutation(slices.Collect(func(yield func(int) bool) {
		for i := range n {
			if !yield(i) {
				return
			}
		}
	})).Draw(t, "rank")
	var d Definition
	for i := range n {
		s := Step{Name: fmt.Sprintf("s%d", i), After: []string{}}
		for k := range n {
			if rank[k] < rank[i] && rapid.Bool().Draw(t, "after") {
				s.After = append(s.After, fmt.Sprintf("s%d", k))
			}
		}
		s.When = rapid.SampledFrom([]string{"", "", "", "input.go", "!input.go"}).Draw(t, "when")
		if len(s.After) > 0 && rapid.IntRange(0, 3).Draw(t, "map") == 0 {
			s.Map = map[string]string{"of": "steps." + s.After[0] + ".output", "whole": "int(steps." + s.After[0] + ".output)"} // fails where that was skipped
		}
		if rapid.Bool().Draw(t, "undo") {
			s.Compensation = &Compensation{}
			if rapid.IntRange(0, 3).Draw(t, "undo map") == 0 {
				s.Compensation.Map = map[string]string{"id": "steps." + s.Name + ".output + 1", "why": "failed", "broken": "[1][steps." + s.Name + ".output]"}
			}
		}
		d.Steps = append(d.Steps, s)
	}
	return d
}

// take checks a decision and does what it says.
func (t *play) take(d Decision) {
	for _, x := range d.Start {
		if x.Undo {
			if len(t.running) > 0 || len(t.undoing) > 0 {
				t.Fatalf("%s is undone while %v runs and %v is undone", x.Step, t.running, t.undoing)
			}
			t.undoing[x.Step] = true
			t.undone = append(t.undone, x.Step)
			continue
		}
		if t.state.Phase != Running {
			t.Fatalf("%s begins while the chain is %s", x.Step, t.state.Phase)
		}
		t.begun[x.Step]++
		t.running[x.Step] = true
	}
	for name, step := range t.state.Steps {
		if step.Status == StatusSkipped {
			t.over[name] = true
		}
	}
	for _, x := range d.Start {
		for _, k := range t.p.after[t.p.index[x.Step]] {
			if before := t.p.definition.Steps[k].Name; !x.Undo && !t.over[before] {
				t.Fatalf("%s began before %s was over", x.Step, before)
			}
		}
	}
	for _, name := range d.Cancel {
		if !t.running[name] {
			t.Fatalf("%s is stopped and does not run", name)
		}
	}
	t.finished = t.finished || d.Finished
}

// tell tells an event, after a crash.
func (t *play) tell(e Event) Decision {
	data, err := t.state.Encode()
	if err != nil {
		t.Fatal(err)
	}
	kept, err := Decode(data)
	if err != nil {
		t.Fatal(err)
	}
	live, livingDecision, err := t.p.Next(t.state, e)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := t.state.Encode(); string(again) != string(data) {
		t.Fatalf("Next changed the state it was given: %s became %s", data, again)
	}
	next, d, err := t.p.Next(kept, e)
	if err != nil {
		t.Fatal(err)
	}
	a, _ := live.Encode()
	b, _ := next.Encode()
	if string(a) != string(b) || !reflect.DeepEqual(d, livingDecision) {
		t.Fatalf("after a crash %+v and %s, without %+v and %s", d, b, livingDecision, a)
	}
	t.state = next
	return d
}

// event draws what happens next, and notes it.
func (t *play) event() Event {
	names := slices.Sorted(maps.Keys(t.running))
	switch {
	case rapid.IntRange(0, 19).Draw(t.T, "stop") == 0:
		return Event{Kind: rapid.SampledFrom([]EventKind{Cancel, Fail}).Draw(t.T, "by"), Error: "stopped"}
	case len(names) > 0:
		e := Event{Step: rapid.SampledFrom(names).Draw(t.T, "who"), Error: "no"}
		e.Kind = rapid.SampledFrom([]EventKind{StepDone, StepDone, StepDone, StepDone, StepFailed, StepCancelled}).Draw(t.T, "how")
		delete(t.running, e.Step)
		if e.Kind == StepDone {
			e.Output = jsonValue(rapid.SampledFrom([]string{"0", "1", "7"}).Draw(t.T, "output"))
			t.over[e.Step], t.done = true, append(t.done, e.Step)
		}
		return e
	case len(t.undoing) > 0:
		e := Event{Step: slices.Collect(maps.Keys(t.undoing))[0], Kind: rapid.SampledFrom([]EventKind{UndoDone, UndoFailed}).Draw(t.T, "undo"), Error: "no"}
		delete(t.undoing, e.Step)
		return e
	}
	t.Fatalf("nothing runs and it has not ended: %+v", t.state)
	return Event{}
}

// run plays until the chain ends.
func (t *play) run() {
	for range 1000 {
		if t.finished {
			return
		}
		e := t.event()
		t.take(t.tell(e))
		t.past = append(t.past, e)
		late := []Event{e}
		if rapid.Bool().Draw(t.T, "late") {
			late = append(late, rapid.SampledFrom(t.past).Draw(t.T, "which"))
		}
		for _, e := range late {
			if e.Step == "" && t.state.Phase == Running || t.running[e.Step] || t.undoing[e.Step] {
				continue // of the run before: the executor tells its tasks apart
			}
			if d := t.tell(e); len(d.Start)+len(d.Cancel) > 0 || d.Finished {
				t.Fatalf("%+v, told once more, led to %+v", e, d)
			}
		}
	}
	t.Fatal("it does not end")
}

// ended checks how a run ended.
func (t *play) ended() {
	for name, times := range t.begun {
		if times > 1 {
			t.Fatalf("%s began %d times", name, times)
		}
	}
	var want []string
	switch t.state.Phase {
	case Completed:
		for name, step := range t.state.Steps {
			if step.Status != StatusDone && step.Status != StatusSkipped {
				t.Fatalf("it completed and %s is %s", name, step.Status)
			}
		}
	case Failed, Cancelled:
		for _, name := range slices.Backward(t.done) {
			c := t.p.definition.Steps[t.p.index[name]].Compensation
			// Where the map can't be evaluated it is not started, and recorded.
			broken := c != nil && len(c.Map) > 0 && string(t.state.Steps[name].Output.Data) != "0"
			if broken && t.state.Steps[name].Status != StatusNotCompensated {
				t.Fatalf("%s is %s", name, t.state.Steps[name].Status)
			}
			if c != nil && !broken {
				want = append(want, name)
			}
		}
	default:
		t.Fatalf("it ended and is %s", t.state.Phase)
	}
	if !slices.Equal(t.undone, want) {
		t.Fatalf("undone %v, want %v", t.undone, want)
	}
}

// TestProperties plays random chains with random ends in random order, each told
// several times, with a crash at each event, and some of them retried.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		d := drawDefinition(r)
		p, err := Compile(d)
		if err != nil {
			r.Fatal(err)
		}
		t := &play{T: r, p: p, input: jsonValue(rapid.SampledFrom([]string{`{"go": true}`, `{"go": false}`}).Draw(r, "input"))}
		t.reset()
		s, decision, err := p.Begin("c", t.input)
		if err != nil {
			r.Fatal(err)
		}
		t.state = s
		t.take(decision)
		for range rapid.IntRange(1, 3).Draw(r, "runs") {
			t.run()
			t.ended()
			if t.state.Phase == Completed {
				return
			}
			t.reset()
			if t.state, decision, err = p.Retry(t.state); err != nil {
				r.Fatal(err)
			}
			for name, step := range t.state.Steps {
				if step.Status == StatusDone || step.Status == StatusSkipped {
					t.over[name] = true
				}
			}
			t.done = slices.Clone(t.state.Order)
			t.take(decision)
		}
	})
}

func (t *play) reset() {
	t.running, t.undoing, t.over, t.begun = make(map[string]bool), make(map[string]bool), make(map[string]bool), make(map[string]int)
	t.done, t.undone, t.finished = nil, nil, false
}

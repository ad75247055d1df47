package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func compiled(t testing.TB, d Definition) *Program {
	t.Helper()
	p, err := Compile(d)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func jsonValue(text string) Value { return Value{JSON: true, Data: []byte(text)} }

// run is a chain under way in a test; its state goes through JSON at each event, as
// it does when the agent crashes between any two.
type run struct {
	t     testing.TB
	p     *Program
	state State
}

func (r *run) begin(input Value) Decision {
	r.t.Helper()
	s, d, err := r.p.Begin("c1", input)
	if err != nil {
		r.t.Fatal(err)
	}
	r.state = s
	return d
}

func (r *run) next(e Event) Decision {
	r.t.Helper()
	data, err := r.state.Encode()
	if err != nil {
		r.t.Fatal(err)
	}
	if r.state, err = Decode(data); err != nil {
		r.t.Fatal(err)
	}
	s, d, err := r.p.Next(r.state, e)
	if err != nil {
		r.t.Fatal(err)
	}
	r.state = s
	return d
}

func starts(d Decision) string {
	var names []string
	for _, s := range d.Start {
		name := s.Step
		if s.Undo {
			name = "undo " + name
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}

var register = Definition{
	Steps: []Step{
		{Name: "validate", Map: map[string]string{"app.payload": "input"}},
		{Name: "save", Map: map[string]string{"app.payload": "steps.validate.output"}, Compensation: &Compensation{Map: map[string]string{"app.payload": "steps.save.output.id"}}},
		{Name: "welcome", Map: map[string]string{"email.to": "[steps.save.output.email]", "email.template.data_json": `json({"name": input.name, "id": steps.save.output.id})`}},
	},
	Output: "steps.save.output",
}

func TestTheReferenceChain(t *testing.T) {
	r := &run{t: t, p: compiled(t, register)}

	d := r.begin(jsonValue(`{"name": "Ada", "email": "ada@example.com"}`))
	if starts(d) != "validate" || !reflect.DeepEqual(d.Start[0].Fields["app.payload"], map[string]any{"name": "Ada", "email": "ada@example.com"}) {
		t.Fatalf("%+v", d)
	}
	d = r.next(Event{Kind: StepDone, Step: "validate", Output: jsonValue(`{"email": "ada@example.com"}`)})
	if starts(d) != "save" {
		t.Fatalf("%+v", d)
	}
	d = r.next(Event{Kind: StepDone, Step: "save", Output: jsonValue(`{"id": 9007199254740993, "email": "ada@example.com"}`)})
	want := map[string]any{"email.to": []any{"ada@example.com"}, "email.template.data_json": `{"id":9007199254740993,"name":"Ada"}`}
	if starts(d) != "welcome" || !reflect.DeepEqual(d.Start[0].Fields, want) {
		t.Fatalf("%+v", d)
	}
	d = r.next(Event{Kind: StepDone, Step: "welcome"})

	if !d.Finished || r.state.Phase != Completed || !d.Output.JSON || string(d.Output.Data) != `{"email":"ada@example.com","id":9007199254740993}` {
		t.Errorf("%+v, %s", d, d.Output.Data)
	}
}

func TestAStepThatFailsHasTheOthersUndone(t *testing.T) {
	r := &run{t: t, p: compiled(t, register)}
	r.begin(jsonValue(`{"name": "Ada"}`))
	r.next(Event{Kind: StepDone, Step: "validate", Output: jsonValue(`{}`)})
	r.next(Event{Kind: StepDone, Step: "save", Output: jsonValue(`{"id": 7, "email": "a@b"}`)})

	d := r.next(Event{Kind: StepFailed, Step: "welcome", Error: "550 no such user"})
	if starts(d) != "undo save" || d.Start[0].Fields["app.payload"] != int64(7) || d.Finished || r.state.Phase != Compensating {
		t.Fatalf("%+v", d)
	}
	d = r.next(Event{Kind: UndoDone, Step: "save"})

	if !d.Finished || r.state.Phase != Failed || d.Error != "step welcome: 550 no such user" {
		t.Errorf("%+v", d)
	}
	if got := r.state.Steps; got["validate"].Status != StatusDone || got["save"].Status != StatusCompensated || got["welcome"].Status != StatusFailed {
		t.Errorf("%+v %+v %+v", got["validate"], got["save"], got["welcome"])
	}
}

var diamond = Definition{Steps: []Step{
	{Name: "a"},
	{Name: "b", Compensation: &Compensation{}},
	{Name: "c", After: []string{"a"}, Compensation: &Compensation{}},
	{Name: "d", After: []string{"b", "c"}},
}}

func TestStepsRunSideBySideAndMeet(t *testing.T) {
	r := &run{t: t, p: compiled(t, diamond)}

	for _, step := range []struct {
		event Event
		want  string
	}{
		{Event{Kind: StepDone, Step: "a"}, "b, c"},
		{Event{Kind: StepDone, Step: "c"}, ""},
		{Event{Kind: StepDone, Step: "c"}, ""}, // once more
		{Event{Kind: StepDone, Step: "b"}, "d"},
		{Event{Kind: StepDone, Step: "a"}, ""}, // late
	} {
		if r.state.ID == "" {
			r.begin(Value{})
		}
		if d := r.next(step.event); starts(d) != step.want {
			t.Errorf("%+v: %q, want %q", step.event, starts(d), step.want)
		}
	}
	if d := r.next(Event{Kind: StepDone, Step: "d", Output: Value{Data: []byte{1, 2}}}); !d.Finished || string(d.Output.Data) != "\x01\x02" {
		t.Errorf("%+v", d)
	}
}

func TestWhatRunsBesideAFailureIsStoppedAndThenUndone(t *testing.T) {
	r := &run{t: t, p: compiled(t, diamond)}
	r.begin(Value{})
	r.next(Event{Kind: StepDone, Step: "a"})

	// b fails while c runs: c is to stop, and nothing is undone before it says how it ended.
	d := r.next(Event{Kind: StepFailed, Step: "b", Error: "gone"})
	if !slices.Equal(d.Cancel, []string{"c"}) || len(d.Start) != 0 || d.Finished {
		t.Fatalf("%+v", d)
	}
	// It was done after all: it is undone.
	if d = r.next(Event{Kind: StepDone, Step: "c"}); starts(d) != "undo c" {
		t.Fatalf("%+v", d)
	}
	d = r.next(Event{Kind: UndoFailed, Step: "c", Error: "refused"})
	if !d.Finished || d.Error != "step b: gone; not undone: c (refused)" || r.state.Steps["d"].Status != StatusCancelled {
		t.Errorf("%+v", d)
	}
}

func TestACancelledChainIsUndone(t *testing.T) {
	r := &run{t: t, p: compiled(t, diamond)}
	r.begin(Value{})
	r.next(Event{Kind: StepDone, Step: "a"})
	r.next(Event{Kind: StepDone, Step: "b"})

	if d := r.next(Event{Kind: Cancel, Error: "somebody cancelled it"}); !slices.Equal(d.Cancel, []string{"c"}) {
		t.Fatalf("%+v", d)
	}
	if d := r.next(Event{Kind: Cancel}); len(d.Cancel)+len(d.Start) != 0 {
		t.Fatalf("%+v", d)
	}
	if d := r.next(Event{Kind: StepCancelled, Step: "c"}); starts(d) != "undo b" {
		t.Fatalf("%+v", d)
	}
	d := r.next(Event{Kind: UndoDone, Step: "b"})
	if !d.Finished || r.state.Phase != Cancelled || d.Error != "somebody cancelled it" {
		t.Errorf("%+v", d)
	}
}

func TestAStepIsSkipped(t *testing.T) {
	p := compiled(t, Definition{Steps: []Step{{Name: "a", When: "input.vip"}, {Name: "b", Map: map[string]string{"x": "steps.a.status"}}}})
	r := &run{t: t, p: p}

	d := r.begin(jsonValue(`{"vip": false}`))

	if starts(d) != "b" || d.Start[0].Fields["x"] != "SKIPPED" || r.state.Steps["a"].Status != StatusSkipped {
		t.Errorf("%+v", d)
	}
}

func TestAnExpressionThatFailsFailsItsStep(t *testing.T) {
	p := compiled(t, Definition{Steps: []Step{{Name: "a", Compensation: &Compensation{}}, {Name: "b", Map: map[string]string{"x": "steps.a.output.nothing"}}}})
	r := &run{t: t, p: p}
	r.begin(Value{})

	d := r.next(Event{Kind: StepDone, Step: "a", Output: jsonValue(`{}`)})

	if starts(d) != "undo a" || !strings.Contains(r.state.Steps["b"].Error, `steps[1].map["x"]: no such key: nothing`) {
		t.Errorf("%+v, %+v", d, r.state.Steps["b"])
	}
}

func TestAFailedChainIsRetriedFromWhereItFailed(t *testing.T) {
	r := &run{t: t, p: compiled(t, register)}
	r.begin(jsonValue(`{"name": "Ada"}`))
	r.next(Event{Kind: StepDone, Step: "validate", Output: jsonValue(`{}`)})
	r.next(Event{Kind: StepFailed, Step: "save", Error: "down"})
	if r.state.Phase != Failed {
		t.Fatalf("%+v", r.state)
	}

	s, d, err := r.p.Retry(r.state)

	if err != nil || starts(d) != "save" || s.Phase != Running || s.Why != "" {
		t.Errorf("%+v %+v %v", s, d, err)
	}
}

func TestBrokenDefinitionsNameTheField(t *testing.T) {
	for _, test := range []struct{ name, definition, want string }{
		{"none", `{}`, `steps: has 0; want 1 to 64`},
		{"a bad name", `{"Steps": [{"Name": "1a"}]}`, `steps[0].name: "1a"; want a letter, then letters, digits and _, up to 64`},
		{"a word", `{"Steps": [{"Name": "in"}]}`, `steps[0].name: "in" is a word of the expression language; want another name`},
		{"twice", `{"Steps": [{"Name": "a"}, {"Name": "a"}]}`, `steps[1].name: "a" is the name of steps[0] already; want a name of its own`},
		{"after nobody", `{"Steps": [{"Name": "a", "After": ["z"]}]}`, `steps[0].after[0]: "z" is no step of the chain; known: a`},
		{"after itself", `{"Steps": [{"Name": "a", "After": ["a"]}]}`, `steps[0].after[0]: "a" would wait for itself`},
		{"a circle", `{"Steps": [{"Name": "a", "After": ["b"]}, {"Name": "b", "After": ["a"]}]}`, `steps[0].after: "a" waits for itself, through others: such a chain never begins`},
		{"no CEL", `{"Steps": [{"Name": "a", "Map": {"x": "1 +"}}]}`, `steps[0].map["x"]: 1:4: Syntax error`},
		{"unknown", `{"Steps": [{"Name": "a", "When": "inptu.x"}]}`, `steps[0].when: 1:1: undeclared reference to 'inptu'`},
		{"too early", `{"Steps": [{"Name": "a", "Map": {"x": "steps.b.output"}}, {"Name": "b"}]}`, `steps[0].map["x"]: steps.b may not be over by then; name "b" in after, or use steps that come before`},
		{"too early by index", `{"Steps": [{"Name": "a", "Map": {"x": "steps['b'].output"}}, {"Name": "b"}]}`, `steps[0].map["x"]: steps.b may not be over`},
		{"no step", `{"Steps": [{"Name": "a", "Map": {"x": "steps.z"}}]}`, `steps[0].map["x"]: steps.z: there is no such step; known: a`},
		{"failed outside", `{"Steps": [{"Name": "a", "Map": {"x": "failed"}}]}`, `steps[0].map["x"]: failed is known to compensations alone`},
		{"output", `{"Steps": [{"Name": "a"}], "Output": "nope("}`, `output: 1:6: Syntax error`},
		{"too long", `{"Steps": [{"Name": "a", "When": "` + strings.Repeat("1", 5000) + `"}]}`, `steps[0].when: has 5000 bytes; want 4096 at most`},
	} {
		var d Definition
		if err := json.Unmarshal([]byte(test.definition), &d); err != nil {
			t.Fatal(err)
		}
		_, err := Compile(d)
		var broken *Error
		if !errors.As(err, &broken) || !strings.HasPrefix(err.Error(), test.want) {
			t.Errorf("%s: %v, want %s", test.name, err, test.want)
		}
	}
}

func TestAnExpressionThatCostsTooMuchEnds(t *testing.T) {
	long := "[" + strings.Repeat("1,", 500) + "1]"
	p := compiled(t, Definition{Steps: []Step{{Name: "a", Map: map[string]string{"x": long + ".map(a, " + long + ".map(b, " + long + ".map(c, a*b*c)))"}}}})

	s, d, err := p.Begin("c", Value{})

	if err != nil || !d.Finished || s.Phase != Failed || !strings.Contains(d.Error, "cost limit exceeded") {
		t.Errorf("%+v %v", d, err)
	}
}

// TestProperties runs random chains with random ends in random order, each told
// once or twice.
func TestProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 8).Draw(t, "steps")
		var d Definition
		after := make([][]string, n)
		for i := range n {
			s := Step{Name: fmt.Sprintf("s%d", i), After: []string{}}
			for k := range i {
				if rapid.Bool().Draw(t, "after") {
					s.After = append(s.After, fmt.Sprintf("s%d", k))
				}
			}
			if rapid.Bool().Draw(t, "undo") {
				s.Compensation = &Compensation{}
			}
			after[i], d.Steps = s.After, append(d.Steps, s)
		}
		p, err := Compile(d)
		if err != nil {
			t.Fatal(err)
		}
		s, decision, err := p.Begin("c", Value{})
		if err != nil {
			t.Fatal(err)
		}
		running, undoing := make(map[string]bool), make(map[string]bool)
		begun, over := make(map[string]int), make(map[string]bool)
		var done, undone []string
		take := func(d Decision) {
			for _, x := range d.Start {
				if x.Undo {
					if len(running) > 0 || len(undoing) > 0 {
						t.Fatalf("%s is undone while %v runs and %v is undone", x.Step, running, undoing)
					}
					undoing[x.Step], undone = true, append(undone, x.Step)
					continue
				}
				begun[x.Step]++
				for _, a := range after[p.index[x.Step]] {
					if !over[a] {
						t.Fatalf("%s began before %s was done", x.Step, a)
					}
				}
				running[x.Step] = true
			}
		}
		take(decision)
		finished := decision.Finished
		for !finished {
			var e Event
			names := slices.Sorted(maps.Keys(running))
			if rapid.IntRange(0, 15).Draw(t, "cancel") == 0 {
				e = Event{Kind: Cancel}
			} else if len(names) > 0 {
				e = Event{Step: rapid.SampledFrom(names).Draw(t, "who"), Kind: rapid.SampledFrom([]EventKind{StepDone, StepDone, StepDone, StepFailed, StepCancelled}).Draw(t, "how")}
				delete(running, e.Step)
				if e.Kind == StepDone {
					over[e.Step], done = true, append(done, e.Step)
				}
			} else if len(undoing) > 0 {
				e = Event{Step: slices.Collect(maps.Keys(undoing))[0], Kind: rapid.SampledFrom([]EventKind{UndoDone, UndoFailed}).Draw(t, "undo")}
				delete(undoing, e.Step)
			} else {
				t.Fatalf("nothing runs and it has not ended: %+v", s)
			}
			for range rapid.IntRange(1, 2).Draw(t, "told") {
				data, err := s.Encode()
				if err != nil {
					t.Fatal(err)
				}
				if s, err = Decode(data); err != nil {
					t.Fatal(err)
				}
				if s, decision, err = p.Next(s, e); err != nil {
					t.Fatal(err)
				}
				take(decision)
				finished = finished || decision.Finished
			}
		}
		for name, times := range begun {
			if times > 1 {
				t.Fatalf("%s began %d times", name, times)
			}
		}
		var want []string
		if s.Phase != Completed {
			for _, name := range slices.Backward(done) {
				if d.Steps[p.index[name]].Compensation != nil {
					want = append(want, name)
				}
			}
		} else if len(done) != n {
			t.Fatalf("it completed with %d of %d steps", len(done), n)
		}
		if !slices.Equal(undone, want) {
			t.Fatalf("undone %v, want %v", undone, want)
		}
		if _, d, err := p.Next(s, Event{Kind: Cancel}); err != nil || d.Finished || len(d.Start) > 0 {
			t.Fatalf("after the end: %+v %v", d, err)
		}
	})
}

func FuzzCompile(f *testing.F) {
	f.Add("a", "b", "input", "steps.a.output")
	f.Add("a", "a", "1 +", "json(parse_json('{}'))")
	f.Fuzz(func(t *testing.T, one, two, when, field string) {
		p, err := Compile(Definition{Steps: []Step{{Name: one, When: when}, {Name: two, Map: map[string]string{"x": field}}}, Output: field})
		if err != nil {
			if err.Error() == "" {
				t.Error("an error that says nothing")
			}
			return
		}
		s, d, err := p.Begin("c", jsonValue(`{"a": [1, 2.5, null, {"b": "c"}]}`))
		if err != nil || !d.Finished && len(d.Start) == 0 {
			t.Errorf("%+v %+v %v", s, d, err)
		}
	})
}

func FuzzDecode(f *testing.F) {
	p := compiled(f, diamond)
	s, _, _ := p.Begin("c", Value{})
	data, _ := s.Encode()
	f.Add(data)
	f.Add([]byte(`{"v":1,"steps":{"a":null}}`))
	f.Fuzz(func(_ *testing.T, data []byte) {
		s, err := Decode(data)
		if err != nil {
			return
		}
		for _, e := range []Event{{Kind: StepDone, Step: "a"}, {Kind: StepFailed, Step: "b"}, {Kind: Cancel}, {Kind: UndoDone, Step: "c"}} {
			if s, _, err = p.Next(s, e); err != nil {
				return
			}
		}
	})
}

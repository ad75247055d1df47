package chain

import (
	"reflect"
	"slices"
	"strings"
	"testing"
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

	if starts(d) != "undo a" || !strings.Contains(r.state.Steps["b"].Error, `steps[1].map["x"]: 1:15: no such key: nothing`) {
		t.Errorf("%+v, %+v", d, r.state.Steps["b"])
	}
}

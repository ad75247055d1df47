package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

func TestBrokenDefinitionsNameTheField(t *testing.T) {
	for _, test := range []struct{ name, definition, want string }{
		{"none", `{}`, `steps: has 0; want 1 to 64`},
		{"a bad name", `{"Steps": [{"Name": "1a"}]}`, `steps[0].name: "1a"; want a letter, then letters, digits and _, up to 64`},
		{"a word", `{"Steps": [{"Name": "in"}]}`, `steps[0].name: "in" is a word of the expression language; want another name`},
		{"twice", `{"Steps": [{"Name": "a"}, {"Name": "a"}]}`, `steps[1].name: "a" is the name of steps[0] already; want a name of its own`},
		{"after nobody", `{"Steps": [{"Name": "a", "After": ["z"]}]}`, `steps[0].after[0]: "z" is no step of the chain; known: a`},
		{"after itself", `{"Steps": [{"Name": "a", "After": ["a"]}]}`, `steps[0].after[0]: "a" would wait for itself`},
		{"a circle", `{"Steps": [{"Name": "a", "After": ["b"]}, {"Name": "b", "After": ["a"]}]}`, `steps[0].after: a → b → a: each waits for the next, so that "a" waits for itself; take one of them out`},
		{"no CEL", `{"Steps": [{"Name": "a", "Map": {"x": "1 +"}}]}`, `steps[0].map["x"]: 1:4: Syntax error`},
		{"unknown", `{"Steps": [{"Name": "a", "When": "inptu.x"}]}`, `steps[0].when: 1:1: undeclared reference to 'inptu'`},
		{"too early", `{"Steps": [{"Name": "a", "Map": {"x": "steps.b.output"}}, {"Name": "b"}]}`, `steps[0].map["x"]: steps.b.output: it may not be over by then; name "b" in after, or use steps that come before`},
		{"too early by index", `{"Steps": [{"Name": "a", "Map": {"x": "steps['b'].output"}}, {"Name": "b"}]}`, `steps[0].map["x"]: steps.b.output: it may not be over`},
		{"no step", `{"Steps": [{"Name": "a", "Map": {"x": "steps.z.output"}}]}`, `steps[0].map["x"]: steps.z.output: there is no such step; known: a`},
		{"failed outside", `{"Steps": [{"Name": "a", "Map": {"x": "failed"}}]}`, `steps[0].map["x"]: 1:1: undeclared reference to 'failed'; it is known to compensations alone`},
		{"output", `{"Steps": [{"Name": "a"}], "Output": "nope("}`, `output: 1:6: Syntax error`},
		{"too long", `{"Steps": [{"Name": "a", "When": "` + strings.Repeat("1", 5000) + `"}]}`, `steps[0].when: has 5000 bytes; want 4096 at most`},
		{"its own", `{"Steps": [{"Name": "a", "Map": {"x": "steps.a.output"}}]}`, `steps[0].map["x"]: steps.a.output: it is this step's own, and not over by then`},
		{"an error", `{"Steps": [{"Name": "a"}], "Output": "steps.a.error"}`, `output: steps.a.error: errors are known to compensations alone: a step that failed ends the chain`},
		{"all steps", `{"Steps": [{"Name": "a", "Map": {"x": "1 + size(steps)"}}]}`, `steps[0].map["x"]: 1:10: steps can't be read as a whole; want steps.<name>.output`},
		{"some step", `{"Steps": [{"Name": "a", "Map": {"x": "steps[input].output"}}]}`, `steps[0].map["x"]: 1:1: steps can't be read as a whole`},
		{"a whole step", `{"Steps": [{"Name": "a"}, {"Name": "b", "Map": {"x": "steps.a"}}]}`, `steps[1].map["x"]: 1:6: a step can't be read as a whole; want steps.a.output`},
		{"a whole step by index", `{"Steps": [{"Name": "a"}, {"Name": "b", "Map": {"x": "json(steps['a'])"}}]}`, `steps[1].map["x"]: 1:11: a step can't be read as a whole; want steps.a.output`},
		{"no field", `{"Steps": [{"Name": "a"}, {"Name": "b", "Map": {"x": "steps.a.result"}}]}`, `steps[1].map["x"]: 1:8: a step has no "result"; want steps.a.output, .status or .error`},
		{"a hidden name", `{"Steps": [{"Name": "a", "Map": {"x": "[1].map(steps, steps)"}}]}`, `steps[0].map["x"]: 1:8: steps is what the chain gives; want another name for the macro's variable`},
		{"no bool", `{"Steps": [{"Name": "a", "When": "1 + 1"}]}`, `steps[0].when: it is of type int; want bool`},
		{"a type", `{"Steps": [{"Name": "a", "Map": {"x": "type(1)"}}]}`, `steps[0].map["x"]: it is of type type(int), which can't be kept; want string(…)`},
		{"a message", `{"Steps": [{"Name": "a", "Map": {"x": "google.protobuf.Any{}"}}]}`, `steps[0].map["x"]: 1:20: a message google.protobuf.Any can't be made here; want a map such as {'name': 1}`},
		{"empty", `{"Steps": [{"Name": "a", "Map": {"x": " "}}]}`, `steps[0].map["x"]: it is empty; want an expression such as input`},
		{"a compensation", `{"Steps": [{"Name": "a", "Compensation": {"Map": {"x": "inptu"}}}]}`, `steps[0].compensation.map["x"]: 1:1: undeclared reference to 'inptu' (did you mean 'input'?); known: input, chain.id, steps.<name>.output`},
		{"deep literals", `{"Steps": [{"Name": "a", "Map": {"x": "` + strings.Repeat("[", 40) + strings.Repeat("]", 40) + `"}}]}`, `steps[0].map["x"]: 1:18: it nests too deeply; macros may be 5 deep, literals and macros over macros 16: let a step do the work`},
		{"deep macros", `{"Steps": [{"Name": "a", "Map": {"x": "` + strings.Repeat("[1].map(a, ", 6) + "1" + strings.Repeat(")", 6) + `"}}]}`, `steps[0].map["x"]: 1:63: it nests too deeply`},
		{"deep parentheses", `{"Steps": [{"Name": "a", "Map": {"x": "` + strings.Repeat("(", 80) + "1" + strings.Repeat(")", 80) + `"}}]}`, `steps[0].map["x"]: expression recursion limit exceeded: 64; it nests too deeply, let a step do the work`},
		{"a large pattern", `{"Steps": [{"Name": "a", "When": "'a'.matches('(a{100}){100}')"}]}`, `steps[0].when: `},
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

func TestAllThatIsWrongIsTold(t *testing.T) {
	_, err := Compile(Definition{
		Steps: []Step{
			{Name: "a", After: []string{"nobody"}, When: "1"},
			{Name: "a", Map: map[string]string{"y": "(", "x": "unknown"}, Compensation: &Compensation{Map: map[string]string{"z": "steps.c.output"}}},
		},
		Output: "steps.b.output",
	})

	var broken *Error
	if !errors.As(err, &broken) {
		t.Fatal(err)
	}
	var fields []string
	for _, p := range broken.Problems {
		if p.Description == "" {
			t.Errorf("nothing is said of %s", p.Field)
		}
		if !slices.Contains(fields, p.Field) {
			fields = append(fields, p.Field)
		}
	}
	want := []string{`steps[1].name`, `steps[0].after[0]`, `steps[0].when`, `steps[1].map["x"]`, `steps[1].map["y"]`, `steps[1].compensation.map["z"]`, `output`}
	if !slices.Equal(fields, want) {
		t.Errorf("fields %q, want %q", fields, want)
	}
}

func TestExpressionsOfAChainAreBoundedTogether(t *testing.T) {
	var d Definition
	for i := range 33 {
		d.Steps = append(d.Steps, Step{Name: fmt.Sprintf("s%d", i), When: "true" + strings.Repeat(" ", 4092)})
	}

	_, err := Compile(d)
	if err == nil || err.Error() != "steps: their expressions have 135168 bytes together; want 131072 at most" {
		t.Errorf("33 of 4096 bytes: %v", err)
	}
	d.Steps = d.Steps[:32]
	if _, err := Compile(d); err != nil {
		t.Errorf("32 of 4096 bytes: %v", err)
	}
}

func TestTooManySteps(t *testing.T) {
	var d Definition
	for i := range 65 {
		d.Steps = append(d.Steps, Step{Name: fmt.Sprintf("s%d", i)})
	}

	_, err := Compile(d)

	if err == nil || err.Error() != "steps: has 65; want 1 to 64" {
		t.Error(err)
	}
}

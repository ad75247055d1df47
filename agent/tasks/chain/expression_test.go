package chain

import (
	"reflect"
	"strings"
	"testing"
)

// given is what an expression gives in a step after one named before, and the error
// of the step if it fails.
func given(t *testing.T, expression string, input, before Value) (any, string) {
	t.Helper()
	p := compiled(t, Definition{Steps: []Step{{Name: "before"}, {Name: "x", Map: map[string]string{"f": expression}}}})
	s, _, err := p.Begin("chain-7", input)
	if err != nil {
		t.Fatal(err)
	}
	s, d, err := p.Next(s, Event{Kind: StepDone, Step: "before", Output: before})
	if err != nil {
		t.Fatal(err)
	}
	if len(d.Start) == 0 {
		return nil, s.Steps["x"].Error
	}
	return d.Start[0].Fields["f"], ""
}

func TestExpressionsGive(t *testing.T) {
	input := jsonValue(`{"n": 1, "id": 9007199254740993, "huge": 18446744073709551615, "price": 2.50, "name": "Ada <&>", "tags": ["a", "b"], "none": null, "on": true}`)
	before := Value{Data: []byte{0xff, 0}}
	for _, test := range []struct {
		expression string
		want       any
	}{
		{"steps.before.output", []byte{0xff, 0}},
		{`steps["before"].output`, []byte{0xff, 0}},
		{"steps.before.status", "DONE"},
		{"chain.id", "chain-7"},
		{"b'\\xff'", []byte{0xff}},
		// Numbers keep their value.
		{"input.id", int64(9007199254740993)},
		{"input.id + 1", int64(9007199254740994)},
		{"input.huge", uint64(18446744073709551615)},
		{"input.price", 2.5},
		{"input.n < 1.5", true},
		{"double(input.n) * 1.5", 1.5},
		// Other values.
		{"input.none", nil},
		{"{'z': input.name, 'a': [1, 2.5, null]}", map[string]any{"z": "Ada <&>", "a": []any{int64(1), 2.5, nil}}},
		{"{1: 'int', true: 'bool'}", map[string]any{"1": "int", "true": "bool"}},
		{"timestamp('2026-01-02T03:04:05+01:00').getHours()", int64(2)},
		{"duration('90s')", "90s"},
		// Functions.
		{"json(input.tags)", `["a","b"]`},
		{"json({'b': b'1', 'n': input.name})", `{"b":"MQ==","n":"Ada <&>"}`},
		{"parse_json('{\"a\": 1}').a + 1", int64(2)},
		{"parse_json(b'[1]')[0]", int64(1)},
		{"base64.encode(steps.before.output)", "/wA="},
		{"base64.decode('/wA=')", []byte{0xff, 0}},
		{"input.name.lowerAscii()", "ada <&>"},
		{"input.tags.join('-') + input.tags.join()", "a-bab"},
		{"'%s costs %.2f'.format(['it', 2.5])", "it costs 2.50"},
		{"'abab'.replace('b', 'cc') + 'abab'.replace('b', 'cc', 1)", "accaccaccab"},
		{"['abab'.indexOf('b', 2), 'abab'.lastIndexOf('b')]", []any{int64(3), int64(3)}},
		{"[matches('aab', 'a+b'), 'a'.matches('b')]", []any{true, false}},
		{"has(input.name) && !has(input.nothing)", true},
		{"input.tags.map(t, t + '!')", []any{"a!", "b!"}},
	} {
		got, failed := given(t, test.expression, input, before)
		if failed != "" || !reflect.DeepEqual(got, test.want) {
			t.Errorf("%s: %#v %s, want %#v", test.expression, got, failed, test.want)
		}
	}
}

func TestAnOutputWithoutBytesIsNullBeforeAndAfterItWasKept(t *testing.T) {
	for _, output := range []Value{{}, {Data: []byte{}}, {JSON: true}} {
		if got, failed := given(t, "steps.before.output == null", Value{}, output); got != true {
			t.Errorf("%+v: %v %s", output, got, failed)
		}
	}
}

func TestExpressionsFail(t *testing.T) {
	for _, test := range []struct{ expression, input, want string }{
		{"input.nobody", `{}`, `1:6: no such key: nobody`},
		{"input * 1.5", `2`, `1:7: no such overload; convert one side by int(…), double(…) or string(…)`},
		{"1 / input", `0`, `1:3: division by zero`},
		{"1.0 / 0.0", `0`, `it is no number that JSON has`},
		{"parse_json(input)", `"1]"`, `1:11: parse_json: this is not JSON`},
		{"{1: 2, '1': 3}", `0`, `a key of the map is there twice, once as a string and once as something else`},
		{"{1.5: 2}", `0`, `a key of the map is a double; want strings`},
		{"input", `[1e999]`, `input: a number in it is too large`},
		{"input", strings.Repeat("[", 66) + strings.Repeat("]", 66), `input: it is nested deeper than 64`},
		{"string(b'\\xff')", `0`, `1:7: invalid UTF-8 in bytes, cannot convert to string`},
	} {
		_, failed := given(t, test.expression, jsonValue(test.input), Value{})
		if want := `steps[1].map["f"]: ` + test.want; failed != want {
			t.Errorf("%s: %q, want %q", test.expression, failed, want)
		}
	}
}

// What fails is shown in lists, where payloads are not.
func TestErrorsTellNoValue(t *testing.T) {
	for _, test := range []struct{ expression, want string }{
		{"{'a': 1}[input]", "1:9: no such key"},
		{"timestamp(input)", "1:10: invalid RFC 3339 timestamp"},
		{"int(input)", "1:4: type conversion error from 'string' to 'int'"},
		{"[1][input]", "1:4: unsupported index"},
		{"'a'.matches(input + '[')", "1:12: matches: this is no regular expression"},
		{"'%d'.format([input])", "1:12: "},
		{"base64.decode(input)", "1:14: "},
		{"parse_json(input)", "1:11: parse_json: this is not JSON"},
		{"[dyn(1), input].join()", "1:21: "},
		{"timestamp('2026-01-02T03:04:05Z').getHours(input)", "1:43: unknown time zone"},
		{"duration(input)", "1:9: "},
	} {
		_, failed := given(t, test.expression, jsonValue(`"hunter2 [x"`), Value{})
		if strings.Contains(failed, "hunter2") || !strings.HasPrefix(failed, `steps[1].map["f"]: `+test.want) {
			t.Errorf("%s: %q, want %q", test.expression, failed, test.want)
		}
	}
}

// Inputs of a megabyte, which could become terabytes, or hours, before CEL's own count
// of cost looks.
func TestExpressionsAreBounded(t *testing.T) {
	letters := jsonValue(`"` + strings.Repeat("a", 1<<20) + `"`)
	numbers := jsonValue("[" + strings.Repeat("1,", 300_000) + "1]")
	for _, test := range []struct {
		name, expression string
		input            Value
		want             string
	}{
		{"replace", "input.replace('a', input)", letters, "replace: this makes"},
		{"join", "input.split('').join(input)", letters, "join: this makes"},
		{"format", "'%s%s%s%s%s'.format([input, input, input, input, input])", letters, "format: this makes"},
		{"json", "json([input, input, input, input, input])", letters, "json: "},
		{"a large pattern", "'a'.matches(input)", letters, "matches: the pattern has 1048576 bytes, at most 1024 are allowed"},
		{"a pattern that repeats", "'a'.matches('(((a{10}){10}){10}b{500})' + 'c')", letters, "states, at most 1000 are allowed"},
		{"a pattern over a large text", "input.matches('a{500}b')", letters, "comparisons, at most 20000000 are allowed"},
		{"indexOf", "input.indexOf(input.substring(500000) + 'b')", letters, "let a step do the work"},
		{"loops in loops", "input.all(x, input.all(y, x == y))", numbers, "actual cost limit exceeded; it computes too much, let a step do the work"},
		{"lists that double", "[1]" + strings.Repeat(".map(a,[a,a,a,a,a])", 14), Value{}, "it makes more than may come of one event, some 32 MiB"},
		{"lists that double, compared", "[[1]" + strings.Repeat(".map(a,[a,a,a,a,a])", 12) + "].all(x, x == x)", Value{}, "cost limit exceeded"},
		{"lists that double, searched", "[[1]" + strings.Repeat(".map(a,[a,a,a,a,a])", 12) + "].all(x, [x] in [[x]])", Value{}, "cost limit exceeded"},
		{"lists that double, put together", "[[1]]" + strings.Repeat(".map(a,a+a+a+a+a)", 13), Value{}, "it makes more than may come of one event"},
		{"lists that double, as text", "json([1]" + strings.Repeat(".map(a,[a,a,a,a,a])", 12) + ")", Value{}, "json: this makes more than the 4194304 bytes that are allowed"},
		{"products of a list", "input.map(x, input) == input.map(x, input)", numbers, "cost limit exceeded"},
		{"copies as bytes", "input.split('').map(x, bytes(input))", letters, "cost limit exceeded"},
		{"searches in a list", "input.all(x, x + 1 in input || true)", numbers, "cost limit exceeded"},
		{"JSON read again and again", "[1, 2, 3, 4].all(x, parse_json('[' + input + ']') != 1)", jsonValue(`"` + strings.Repeat("1,", 300_000) + `1"`), "cost limit exceeded"},
		{"the same text many times", "[" + strings.Repeat("input,", 40) + "1]", letters, "it makes more than may come of one event"},
	} {
		t.Run(test.name, func(t *testing.T) {
			if _, failed := given(t, test.expression, test.input, Value{}); !strings.Contains(failed, test.want) {
				t.Errorf("%q, want %q", failed, test.want)
			}
		})
	}
}

// Many expressions may follow from one event, in the transaction that takes it.
func TestWhatFollowsFromOneEventIsBoundedTogether(t *testing.T) {
	costly := "input.map(x, x + 1).size()"
	fields := make(map[string]string)
	for _, name := range strings.Split("a b c d e f g h i j k l m n o p", " ") {
		fields[name] = costly
	}
	p := compiled(t, Definition{Steps: []Step{{Name: "x", Map: fields}}})
	input := jsonValue("[" + strings.Repeat("1,", 100_000) + "1]")

	s, _, err := p.Begin("c", input)

	if err != nil || !strings.Contains(s.Steps["x"].Error, "compute too much together; let a step do the work") {
		t.Errorf("%q %v", s.Steps["x"].Error, err)
	}
}

package chain

import "testing"

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

package chain

import (
	"encoding/json"
	"testing"
)

func TestAStateOfALaterVersionIsRefused(t *testing.T) {
	_, err := Decode([]byte(`{"v": 2, "phase": "RUNNING", "steps": {"a": {"status": "WAITING"}}}`))
	if err == nil || err.Error() != "the chain's state is of version 2, and this program knows 1: run the one that wrote it, or a later one" {
		t.Error(err)
	}
}

func TestFieldsOfALaterProgramAreIgnored(t *testing.T) {
	s, err := Decode([]byte(`{"v": 1, "id": "c", "phase": "RUNNING", "new": [1], "steps": {"a": {"status": "STARTED", "new": 1}}}`))
	if err != nil {
		t.Fatal(err)
	}
	p := compiled(t, Definition{Steps: []Step{{Name: "a"}}})
	if _, d, err := p.Next(s, Event{Kind: StepDone, Step: "a"}); err != nil || !d.Finished {
		t.Errorf("%+v %v", d, err)
	}
}

func TestWhatIsNoStateIsRefused(t *testing.T) {
	for _, text := range []string{
		`{`, `{}`, `null`,
		`{"v": 1, "phase": "RUNNING", "steps": {}}`,
		`{"v": 1, "phase": "SLEEPING", "steps": {"a": {"status": "WAITING"}}}`,
		`{"v": 1, "phase": "RUNNING", "steps": {"a": null}}`,
		`{"v": 1, "phase": "RUNNING", "steps": {"a": {"status": "LOST"}}}`,
		`{"v": 1, "phase": "RUNNING", "steps": {"a": {"status": "DONE"}}}`,
		`{"v": 1, "phase": "RUNNING", "steps": {"a": {"status": "WAITING"}}, "order": ["a"]}`,
		`{"v": 1, "phase": "RUNNING", "steps": {"a": {"status": "DONE"}}, "order": ["a", "a"]}`,
	} {
		if s, err := Decode([]byte(text)); err == nil {
			t.Errorf("%s is %+v", text, s)
		}
	}
}

func TestAStateOfAnotherChainIsRefused(t *testing.T) {
	var s State
	if err := json.Unmarshal([]byte(`{"v": 1, "phase": "RUNNING", "steps": {"a": {"status": "STARTED"}}}`), &s); err != nil {
		t.Fatal(err)
	}
	for want, d := range map[string]Definition{
		`the chain's state does not fit its steps: there is no step "a"`:  {Steps: []Step{{Name: "b"}}},
		"the chain's state does not fit its steps: it has 1, the chain 2": {Steps: []Step{{Name: "a"}, {Name: "b"}}},
	} {
		if _, _, err := compiled(t, d).Next(s, Event{Kind: StepDone, Step: "a"}); err == nil || err.Error() != want {
			t.Errorf("%v, want %s", err, want)
		}
	}
}

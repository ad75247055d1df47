package chain

import (
	"strings"
	"testing"
)

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

func TestWhatCameAfterSomethingUndoneIsDoneAgain(t *testing.T) {
	// a can be undone, and b, which used it, can't: c must see the b of the new a.
	p := compiled(t, Definition{Steps: []Step{
		{Name: "a", Compensation: &Compensation{}},
		{Name: "b", When: "true"},
		{Name: "beside", After: []string{}},
		{Name: "c", After: []string{"b", "beside"}},
	}})
	r := &run{t: t, p: p}
	r.begin(Value{})
	for _, e := range []Event{{Kind: StepDone, Step: "beside"}, {Kind: StepDone, Step: "a"}, {Kind: StepDone, Step: "b"}, {Kind: StepFailed, Step: "c"}, {Kind: UndoDone, Step: "a"}} {
		r.next(e)
	}

	s, d, err := p.Retry(r.state)
	if err != nil {
		t.Fatal(err)
	}
	r.state = s

	if starts(d) != "a" || s.Steps["b"].Status != StatusWaiting || s.Steps["beside"].Status != StatusDone {
		t.Fatalf("%+v, b is %s, beside is %s", d, s.Steps["b"].Status, s.Steps["beside"].Status)
	}
	var order []string
	for _, step := range []string{"a", "b"} {
		order = append(order, starts(r.next(Event{Kind: StepDone, Step: step})))
	}
	if strings.Join(order, ", ") != "b, c" {
		t.Errorf("then %v", order)
	}
}

func TestWhatCouldNotBeUndoneStandsAtARetry(t *testing.T) {
	r := &run{t: t, p: compiled(t, register)}
	r.begin(jsonValue(`{"name": "Ada"}`))
	r.next(Event{Kind: StepDone, Step: "validate", Output: jsonValue(`{}`)})
	r.next(Event{Kind: StepDone, Step: "save", Output: jsonValue(`{"id": 7, "email": "a@b"}`)})
	r.next(Event{Kind: StepFailed, Step: "welcome", Error: "down"})
	r.next(Event{Kind: UndoFailed, Step: "save", Error: "down, too"})

	s, d, err := r.p.Retry(r.state)

	if err != nil || starts(d) != "welcome" || s.Steps["save"].Status != StatusDone || s.Steps["save"].Error != "" {
		t.Errorf("%+v %+v %v", s.Steps["save"], d, err)
	}
}

func TestOnlyAChainThatEndedBadlyIsRetried(t *testing.T) {
	r := &run{t: t, p: compiled(t, register)}
	r.begin(Value{})

	_, d, err := r.p.Retry(r.state)

	if err == nil || err.Error() != "the chain is RUNNING; only one that is FAILED or CANCELLED can be tried again" || len(d.Start) > 0 {
		t.Errorf("%+v %v", d, err)
	}
}

package tasks

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"buf.build/go/protovalidate"

	"github.com/outrigger-rpc/outrigger/agent/tasks/chain"
	outriggerv1 "github.com/outrigger-rpc/outrigger/gen/outrigger/v1"
)

// checkChain returns what is wrong with a chain; fields are of the spec.
func (s *Settings) checkChain(spec *outriggerv1.TaskSpec, now time.Time) error {
	switch {
	case spec.GetRetry() != nil:
		return &FieldError{"retry", "is not for chains, whose steps have their own"}
	case spec.GetTimeout() != nil:
		return &FieldError{"timeout", "is not for chains, whose steps have their own; want a deadline"}
	}
	c := spec.GetChain()
	if problem := checkPayload("chain.input", c.GetInput()); problem != nil {
		return problem
	}
	for i, step := range c.GetSteps() {
		at := fmt.Sprintf("chain.steps[%d]", i)
		if err := s.checkStep(step.GetTask(), step.GetMap(), now); err != nil {
			return withinField(at, err)
		}
		if undo := step.GetCompensation(); undo != nil {
			if err := s.checkStep(undo.GetTask(), undo.GetMap(), now); err != nil {
				return withinField(at+".compensation", err)
			}
		}
	}
	_, err := chain.Compile(definitionOf(c))
	var wrong *chain.Error
	if errors.As(err, &wrong) {
		p := wrong.Problems[0]
		return &FieldError{"chain." + p.Field, p.Description}
	}
	return err
}

// checkStep returns what is wrong with a step's task and the fields that
// expressions fill.
func (s *Settings) checkStep(task *outriggerv1.TaskSpec, fill map[string]string, now time.Time) error {
	if task == nil {
		return &FieldError{"task", "is missing"}
	}
	if problem := onlyOfTasks(task); problem != nil {
		return problem.within("task")
	}
	_, work := kindOf(task)
	for _, path := range slices.Sorted(maps.Keys(fill)) {
		if problem := checkPath(path, work); problem != "" {
			return &FieldError{fmt.Sprintf("map[%q]", path), problem}
		}
	}
	if err := s.checkSpec(task, filled(fill), now); err != nil {
		return withinField("task", err)
	}
	return withinField("task", checkRules(task, filled(fill)))
}

// onlyOfTasks refuses what is of tasks alone and not of steps.
func onlyOfTasks(task *outriggerv1.TaskSpec) *FieldError {
	for _, only := range []struct {
		field string
		given bool
	}{
		{"chain", task.GetChain() != nil}, {"run_at", task.GetRunAt() != nil}, {"delay", task.GetDelay() != nil}, {"deadline", task.GetDeadline() != nil},
		{"retention", task.GetRetention() != nil}, {"unique", task.GetUnique() != nil}, {"schedule", task.GetSchedule() != nil},
	} {
		if only.given {
			return &FieldError{only.field, "is not for a step of a chain"}
		}
	}
	return nil
}

// ofSteps are the fields of a step's task that expressions may fill, beside those
// of its work.
var ofSteps = []string{"priority", "retry", "timeout", "tenant", "tags"}

// checkPath says what is wrong with a field that an expression is to fill.
func checkPath(path, work string) string {
	if _, err := findField(specDescriptor, path); err != nil {
		return err.Error()
	}
	first, _, _ := strings.Cut(path, ".")
	switch {
	case path == "app.kind":
		return "what kind of work a step does can't come from an expression"
	case first != work && !slices.Contains(ofSteps, first):
		return fmt.Sprintf("it is no field of the step's work, which is %s; want one of %s, or %s", work, work, strings.Join(ofSteps, ", "))
	}
	return ""
}

// checkRules holds a step's task against the rules of the proto file, which the API
// leaves to us since fields may be filled later. Those of fields that later will be
// filled are left out.
func checkRules(task *outriggerv1.TaskSpec, later filled) error {
	err := protovalidate.Validate(task)
	var broken *protovalidate.ValidationError
	if !errors.As(err, &broken) {
		return err
	}
	for _, v := range broken.Violations {
		field := protovalidate.FieldPathString(v.Proto.GetField())
		if !later.later(field) {
			return &FieldError{field, v.Proto.GetMessage()}
		}
	}
	return nil
}

// definitionOf returns a chain as its machine knows it.
func definitionOf(c *outriggerv1.ChainWork) chain.Definition {
	d := chain.Definition{Output: c.GetOutput()}
	for _, s := range c.GetSteps() {
		step := chain.Step{Name: s.GetName(), When: s.GetWhen(), Map: s.GetMap()}
		if s.GetAfter() != nil {
			step.After = append([]string{}, s.GetAfter().GetSteps()...)
		}
		if undo := s.GetCompensation(); undo != nil {
			step.Compensation = &chain.Compensation{Map: undo.GetMap()}
		}
		d.Steps = append(d.Steps, step)
	}
	return d
}

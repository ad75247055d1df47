package chain

import (
	"fmt"
	"slices"
	"strings"
)

// Begin begins a chain; input is what expressions see under that name.
func (p *Program) Begin(id string, input Value) (State, Decision, error) {
	s := State{Version: version, ID: id, Phase: Running, Input: input, Steps: make(map[string]*StepState, len(p.definition.Steps))}
	for _, step := range p.definition.Steps {
		s.Steps[step.Name] = &StepState{Status: StatusWaiting}
	}
	var d Decision
	p.advance(&s, &d)
	return s, d, nil
}

// Next says what an event leads to. s is not changed. An event that came before, or
// that is too late to matter, leads to nothing.
func (p *Program) Next(s State, e Event) (State, Decision, error) {
	next, err := p.copied(s)
	var d Decision
	if err != nil || s.Phase.Ended() {
		return s, d, err
	}
	var step *StepState
	if e.Kind != Cancel && e.Kind != Fail {
		if step = next.Steps[e.Step]; step == nil {
			return s, d, fmt.Errorf("%w: there is no step %q", errState, e.Step)
		}
	}
	if e.Kind > Fail {
		return s, d, fmt.Errorf("there is no event of kind %d", e.Kind)
	}
	if !p.happened(&next, &d, step, e) {
		return s, d, nil
	}
	p.advance(&next, &d)
	return next, d, nil
}

// happened takes an event in; false: it changes nothing.
func (p *Program) happened(s *State, d *Decision, step *StepState, e Event) bool {
	switch e.Kind {
	case StepDone, StepFailed, StepCancelled:
		if step.Status != StatusStarted {
			return false
		}
	case UndoDone, UndoFailed:
		if step.Status != StatusCompensating {
			return false
		}
	}
	switch e.Kind {
	case StepDone:
		step.Status, step.Output = StatusDone, e.Output
		s.Order = append(s.Order, e.Step)
	case StepFailed:
		step.Status, step.Error = StatusFailed, short(e.Error)
		p.end(s, d, e.Step, e.Error)
	case StepCancelled:
		step.Status, step.Error = StatusCancelled, short(e.Error)
		p.end(s, d, e.Step, "it was cancelled")
	case UndoDone:
		step.Status = StatusCompensated
	case UndoFailed:
		step.Status, step.Error = StatusNotCompensated, short(e.Error)
	case Cancel, Fail:
		if s.Phase != Running {
			return false
		}
		s.Cancelled = e.Kind == Cancel
		p.end(s, d, "", e.Error)
	}
	return true
}

// end lets no step begin any more. The first reason counts.
func (p *Program) end(s *State, d *Decision, step, why string) {
	if s.Phase != Running {
		return
	}
	s.Phase, s.FailedStep, s.Why = Compensating, step, short(why)
	for _, x := range p.definition.Steps {
		switch state := s.Steps[x.Name]; state.Status {
		case StatusWaiting:
			state.Status = StatusCancelled
		case StatusStarted:
			d.Cancel = append(d.Cancel, x.Name)
		}
	}
}

// advance does all that can be done now.
func (p *Program) advance(s *State, d *Decision) {
	known := newScope(s)
	if s.Phase == Running {
		p.start(s, d, known)
	}
	if s.Phase == Compensating {
		p.undoNext(s, d, known)
	}
}

// start begins the steps whose turn it is, and ends the chain once all are over.
func (p *Program) start(s *State, d *Decision, known *scope) {
	for changed := true; changed && s.Phase == Running; {
		changed = false
		for i, step := range p.definition.Steps {
			if s.Phase != Running || s.Steps[step.Name].Status != StatusWaiting || !p.ready(s, i) {
				continue
			}
			changed = true
			p.startOne(s, d, i, known)
		}
	}
	if s.Phase != Running {
		d.Start = nil // what would have begun beside the one that failed: it did not
		return
	}
	for _, step := range s.Steps {
		if step.Status != StatusDone && step.Status != StatusSkipped {
			return
		}
	}
	output, err := p.result(s, known)
	if err != nil {
		p.end(s, d, "", err.Error())
		return
	}
	s.Phase = Completed
	d.Finished, d.Output = true, output
}

func (p *Program) ready(s *State, i int) bool {
	for _, k := range p.after[i] {
		if status := s.Steps[p.definition.Steps[k].Name].Status; status != StatusDone && status != StatusSkipped {
			return false
		}
	}
	return true
}

func (p *Program) startOne(s *State, d *Decision, i int, known *scope) {
	name := p.definition.Steps[i].Name
	step := s.Steps[name]
	fail := func(err error) {
		step.Status, step.Error = StatusFailed, short(err.Error())
		for _, begun := range d.Start { // in this very decision: not begun yet
			s.Steps[begun.Step].Status = StatusWaiting
		}
		p.end(s, d, name, err.Error())
	}
	if p.when[i] != nil {
		v, err := p.when[i].eval(known)
		if err != nil {
			fail(err)
			return
		}
		yes, ok := v.(bool)
		if !ok {
			fail(fmt.Errorf("%s: it is neither true nor false; compare it with something", p.when[i].field))
			return
		}
		if !yes {
			step.Status = StatusSkipped
			return
		}
	}
	fields, err := p.maps[i].eval(known)
	if err != nil {
		fail(err)
		return
	}
	step.Status = StatusStarted
	d.Start = append(d.Start, Start{Step: name, Fields: fields})
}

// result evaluates the chain's.
func (p *Program) result(s *State, known *scope) (Value, error) {
	if p.output == nil {
		return s.Steps[p.definition.Steps[len(p.definition.Steps)-1].Name].Output, nil
	}
	v, err := p.output.eval(known)
	if err != nil {
		return Value{}, err
	}
	out, err := ValueOf(v)
	if err != nil {
		return out, fmt.Errorf("output: %w", err)
	}
	return out, nil
}

// undoNext undoes the step that was done last and is not undone yet, once nothing
// runs; when none is left, the chain ends.
func (p *Program) undoNext(s *State, d *Decision, known *scope) {
	for _, step := range s.Steps {
		if step.Status == StatusStarted || step.Status == StatusCompensating {
			return
		}
	}
	for _, name := range slices.Backward(s.Order) {
		i, step := p.index[name], s.Steps[name]
		if step.Status != StatusDone || p.undo[i] == nil {
			continue
		}
		fields, err := p.undo[i].eval(known)
		if err != nil {
			step.Status, step.Error = StatusNotCompensated, short(err.Error())
			continue
		}
		step.Status = StatusCompensating
		d.Start = append(d.Start, Start{Step: name, Undo: true, Fields: fields})
		return
	}
	s.Phase = Failed
	if s.Cancelled {
		s.Phase = Cancelled
	}
	d.Finished, d.Error = true, p.why(s)
}

// why says why the chain did not complete, and what could not be undone.
func (p *Program) why(s *State) string {
	why := s.Why
	if s.FailedStep != "" {
		why = fmt.Sprintf("step %s: %s", s.FailedStep, s.Why)
	}
	var left []string
	for _, step := range p.definition.Steps {
		if state := s.Steps[step.Name]; state.Status == StatusNotCompensated {
			left = append(left, fmt.Sprintf("%s (%s)", step.Name, cut(state.Error, maxListed)))
		}
	}
	if len(left) > 0 {
		why = strings.TrimPrefix(why+"; not undone: "+strings.Join(left, ", "), "; ")
	}
	return why
}

// eval returns what the fields are filled with.
func (f fields) eval(known *scope) (map[string]any, error) {
	all := make(map[string]any, len(f))
	for _, field := range f {
		v, err := field.expression.eval(known)
		if err != nil {
			return nil, err
		}
		all[field.name] = v
	}
	return all, nil
}

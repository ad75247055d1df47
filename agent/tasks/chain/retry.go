package chain

import (
	"fmt"
	"slices"
)

// Retry begins a chain anew that failed or was cancelled. What is done stays done, as
// long as all that it came after does; what failed, was stopped or was undone is done
// again, and so is what came after that: it used what is no more.
func (p *Program) Retry(s State) (State, Decision, error) {
	next, err := p.copied(s)
	var d Decision
	if err != nil {
		return s, d, err
	}
	if s.Phase != Failed && s.Phase != Cancelled {
		return s, d, fmt.Errorf("the chain is %s; only one that is %s or %s can be tried again", s.Phase, Failed, Cancelled)
	}
	next.Phase, next.FailedStep, next.Why, next.Cancelled = Running, "", "", false
	stays := make(map[int]bool)
	for changed := true; changed; {
		changed = false
		for i, step := range p.definition.Steps {
			if !stays[i] && next.Steps[step.Name].stands() && !slices.ContainsFunc(p.after[i], func(k int) bool { return !stays[k] }) {
				stays[i], changed = true, true
			}
		}
	}
	for i, step := range p.definition.Steps {
		state := next.Steps[step.Name]
		if !stays[i] {
			*state = StepState{Status: StatusWaiting}
			continue
		}
		if state.Status == StatusNotCompensated {
			state.Status, state.Error = StatusDone, ""
		}
	}
	next.Order = slices.DeleteFunc(next.Order, func(name string) bool { return next.Steps[name].Status != StatusDone })
	p.advance(&next, &d)
	return next, d, nil
}

// stands reports whether what a step did is still there.
func (s *StepState) stands() bool {
	return s.Status == StatusDone || s.Status == StatusSkipped || s.Status == StatusNotCompensated
}

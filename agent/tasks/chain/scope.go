package chain

import "fmt"

const (
	// maxSpent is what all evaluations that one event leads to may cost, in CEL's units.
	maxSpent = 2 * maxCost
	// maxResults is the size of all that they give, in bytes or about.
	maxResults = 32 << 20
)

// scope is what expressions know while one event is looked at. What they read is
// decoded once.
type scope struct {
	state   *State
	cost    int // that is left
	left    int // bytes of results
	decoded map[string]any
}

func newScope(s *State) *scope {
	return &scope{state: s, cost: maxSpent, left: maxResults, decoded: make(map[string]any)}
}

// known are the variables that an expression reads.
func (s *scope) known(e *expression) (map[string]any, error) {
	known := map[string]any{chainVariable + ".id": s.state.ID, failedVariable: s.state.FailedStep}
	if e.input {
		v, err := s.value(inputVariable, s.state.Input)
		if err != nil {
			return nil, err
		}
		known[inputVariable] = v
	}
	if len(e.steps) == 0 {
		return known, nil
	}
	steps := make(map[string]map[string]any)
	for _, read := range e.steps {
		step := s.state.Steps[read.step]
		if steps[read.step] == nil {
			steps[read.step] = make(map[string]any)
		}
		var v any
		switch read.field {
		case errorField:
			v = step.Error
		case statusField:
			v = string(step.Status)
		default:
			var err error
			if v, err = s.value("steps."+read.step+".output", step.Output); err != nil {
				return nil, err
			}
		}
		steps[read.step][read.field] = v
	}
	known[stepsVariable] = steps
	return known, nil
}

func (s *scope) value(name string, of Value) (any, error) {
	if v, ok := s.decoded[name]; ok {
		return v, nil
	}
	v, err := of.known()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	s.decoded[name] = v
	return v, nil
}

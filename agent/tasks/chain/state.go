package chain

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// version is that of State. Fields that it doesn't know are ignored; a form that it
// can't follow has another version.
const version = 1

// maxError is the length of an error that is kept, in bytes; the rest is cut off.
const maxError = 1 << 10

// maxListed is that of each among those of all steps that could not be undone.
const maxListed = 200

// errState is for a state that does not fit its definition.
var errState = errors.New("the chain's state does not fit its steps")

// State is how far a chain is: JSON for its row. Its values are as large as what the
// executor tells; everything else in it is bounded.
type State struct {
	Version int    `json:"v"`
	ID      string `json:"id"`
	Phase   Phase  `json:"phase"`
	Input   Value  `json:"input,omitzero"`
	// Steps by name.
	Steps map[string]*StepState `json:"steps"`
	// Order is which steps were done, in that order.
	Order []string `json:"order,omitempty"`
	// FailedStep is the one that ended the chain; Why says how. Empty: none, or it was
	// cancelled.
	FailedStep string `json:"failed,omitempty"`
	Why        string `json:"why,omitempty"`
	// Cancelled: somebody cancelled it.
	Cancelled bool `json:"cancelled,omitempty"`
}

// StepState is how far a step is.
type StepState struct {
	Status Status `json:"status"`
	Output Value  `json:"output,omitzero"`
	// Error is why it failed, or why it could not be undone.
	Error string `json:"error,omitempty"`
}

// Encode writes a state for its row.
func (s State) Encode() ([]byte, error) { return json.Marshal(s) }

// Decode reads a state. One that is decoded otherwise is checked by Next and Retry.
func Decode(data []byte) (State, error) {
	var s State
	if err := json.Unmarshal(data, &s); err != nil {
		return State{}, fmt.Errorf("the chain's state can't be read: %w", err)
	}
	if err := s.check(); err != nil {
		return State{}, err
	}
	return s, nil
}

// check refuses what no state of this version is.
func (s *State) check() error {
	if s.Version != version {
		return fmt.Errorf("the chain's state is of version %d, and this program knows %d: run the one that wrote it, or a later one", s.Version, version)
	}
	switch s.Phase {
	case Running, Compensating, Completed, Failed, Cancelled:
	default:
		return fmt.Errorf("the chain's state has an unknown phase %.40q", s.Phase)
	}
	for name, step := range s.Steps {
		switch {
		case step == nil:
			return fmt.Errorf("the chain's state says nothing of step %.80q", name)
		case !step.Status.known():
			return fmt.Errorf("the chain's state has an unknown status %.40q of step %.80q", step.Status, name)
		case step.Status.wasDone() != slices.Contains(s.Order, name):
			return fmt.Errorf("the chain's state has step %.80q as %s, and an order of %d that says otherwise", name, step.Status, len(s.Order))
		}
	}
	if len(s.Steps) == 0 || len(s.Order) > len(s.Steps) {
		return errState
	}
	return nil
}

func (s Status) known() bool {
	switch s {
	case StatusWaiting, StatusStarted, StatusDone, StatusSkipped, StatusFailed, StatusCancelled, StatusCompensating, StatusCompensated, StatusNotCompensated:
		return true
	}
	return false
}

// wasDone reports whether a step was done, whatever became of it.
func (s Status) wasDone() bool {
	return s == StatusDone || s == StatusCompensating || s == StatusCompensated || s == StatusNotCompensated
}

// copied returns a state that shares nothing that is changed, and refuses one that
// does not fit.
func (p *Program) copied(s State) (State, error) {
	if err := s.check(); err != nil {
		return s, err
	}
	steps := make(map[string]*StepState, len(s.Steps))
	for name, step := range s.Steps {
		if _, known := p.index[name]; !known {
			return s, fmt.Errorf("%w: there is no step %.80q", errState, name)
		}
		c := *step
		steps[name] = &c
	}
	if len(steps) != len(p.index) {
		return s, fmt.Errorf("%w: it has %d, the chain %d", errState, len(steps), len(p.index))
	}
	s.Steps, s.Order = steps, slices.Clone(s.Order)
	return s, nil
}

// short is an error as it is kept.
func short(text string) string { return cut(strings.ToValidUTF8(text, "\ufffd"), maxError) }

// cut returns a text of at most so many bytes.
func cut(text string, most int) string {
	if len(text) <= most {
		return text
	}
	end := most - len("…")
	for !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + "…"
}

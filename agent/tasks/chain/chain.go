// Package chain is the pure core of tasks of several steps: which step starts when,
// with what values, and what is undone when one fails. It has no goroutine, clock or
// store: the executor keeps State in the chain's row, tells what happened to the
// tasks of its steps, and does what a Decision says, all in one transaction.
//
//	program, err := chain.Compile(chain.Definition{Steps: []chain.Step{
//		{Name: "validate", Map: map[string]string{"app.payload": "input"}},
//		{Name: "save", Map: map[string]string{"app.payload": "steps.validate.output"}, Compensation: &chain.Compensation{Map: …}},
//		{Name: "welcome", Map: map[string]string{"email.to": "[steps.save.output.email]"}},
//	}})
//	state, decision, err := program.Begin(id, input)
//	// start decision.Start; and when a step's task ended:
//	state, decision, err = program.Next(state, chain.Event{Kind: chain.StepDone, Step: "validate", Output: output})
//
// Steps run once those that they come after are done; those that wait for the same
// run side by side. A step that failed for good lets no other one begin, has those
// that run stopped, and waits for them; then what is done is undone, one step after
// another, the last one first. Events that come twice, or late, change nothing, so
// that at-least-once is enough.
//
// # Expressions
//
// They are CEL (https://cel.dev) with its standard library, the string functions and
// base64.encode and base64.decode of cel-go's extensions, and
//
//	json(x)        JSON text of any value; bytes in it are base64
//	parse_json(x)  the value of JSON text, given as a string or as bytes
//
// They read
//
//	input                 the chain's input
//	chain.id              its id
//	steps.<name>.output   what a step gave; null if it was skipped or gave no bytes
//	steps.<name>.status   how far it is, such as "SKIPPED"
//	steps.<name>.error    why it failed, "" if it did not; in compensations
//	failed                the step that failed, "" if none did; in compensations
//
// Those of a step read what surely is over when it begins; those of compensations and
// the chain's output read every step. JSON is read as maps, lists, strings, booleans,
// null and numbers: int where they are written as integers (uint from 2^63 on, double
// where they have more than 64 bits), else double. So where either may come, double(x)
// makes sure before arithmetic; comparisons need none.
//
// What an expression may cost is bounded by count, not by time, so that it gives the
// same everywhere: see maxCost, maxSpent, maxResults and bound.go.
package chain

// Limits of a definition.
const (
	MaxSteps       = 64
	MaxExpression  = 4096      // bytes
	MaxExpressions = 128 << 10 // bytes, all of a chain together
)

// Definition is what a chain does.
type Definition struct {
	// Steps, 1 to MaxSteps.
	Steps []Step
	// Output is an expression: the chain's result. Empty: the last step's.
	Output string
}

// Step is one step. What its task does is not known here.
type Step struct {
	// Name: a letter, then letters, digits and "_".
	Name string
	// After are the steps that have to be done before. nil: the one before it in the
	// list; empty: none.
	After []string
	// When is an expression: false skips the step. Empty: true.
	When string
	// Map are fields of the step's task by expressions.
	Map map[string]string
	// Compensation undoes it. nil: nothing has to be undone.
	Compensation *Compensation
}

// Compensation undoes a step.
type Compensation struct {
	// Map are fields of its task by expressions.
	Map map[string]string
}

// Value is bytes, and whether they are JSON. The zero value is nothing.
type Value struct {
	JSON bool   `json:"json,omitempty"`
	Data []byte `json:"data,omitempty"`
}

// Phase is how far a chain is.
type Phase string

// The phases.
const (
	Running      Phase = "RUNNING"
	Compensating Phase = "COMPENSATING" // a step failed, or it was cancelled
	Completed    Phase = "COMPLETED"
	Failed       Phase = "FAILED"
	Cancelled    Phase = "CANCELLED"
)

// Ended reports whether nothing comes after it.
func (p Phase) Ended() bool { return p == Completed || p == Failed || p == Cancelled }

// Status is how far a step is.
type Status string

// The statuses.
const (
	StatusWaiting        Status = "WAITING"
	StatusStarted        Status = "STARTED"
	StatusDone           Status = "DONE"
	StatusSkipped        Status = "SKIPPED"
	StatusFailed         Status = "FAILED"
	StatusCancelled      Status = "CANCELLED"
	StatusCompensating   Status = "COMPENSATING"
	StatusCompensated    Status = "COMPENSATED"
	StatusNotCompensated Status = "COMPENSATION_FAILED"
)

// EventKind says what happened.
type EventKind uint8

// The kinds of events.
const (
	// StepDone: the task of a step is done, with Output.
	StepDone EventKind = iota
	// StepFailed: it failed for good, with Error.
	StepFailed
	// StepCancelled: it was cancelled.
	StepCancelled
	// UndoDone: the task that undoes a step is done.
	UndoDone
	// UndoFailed: it failed for good, or was cancelled, with Error.
	UndoFailed
	// Cancel: somebody cancels the chain.
	Cancel
	// Fail: the chain is given up from outside, such as at its deadline, with Error.
	Fail
)

// Event is something that happened.
type Event struct {
	Kind   EventKind
	Step   string // none of Cancel and Fail
	Output Value
	Error  string
}

// Decision is what is to be done now.
type Decision struct {
	// Start are tasks to start.
	Start []Start
	// Cancel are steps whose tasks are to be stopped; their ends are still to be told.
	Cancel []string
	// Finished: the chain has ended, in State.Phase.
	Finished bool
	// Output is the chain's result, where it completed.
	Output Value
	// Error is why it did not.
	Error string
}

// Start is a task to start.
type Start struct {
	Step string
	// Undo: the task that undoes it.
	Undo bool
	// Fields are what Map evaluated to: nil, bool, int64, uint64, float64, string,
	// []byte, []any and map[string]any.
	Fields map[string]any
}

// Problem is what is wrong with a field of a definition.
type Problem struct {
	// Field is its path, such as `steps[1].map["app.payload"]`.
	Field string
	// Description says what is wrong, and what to do.
	Description string
}

// Error is all that is wrong with a definition.
type Error struct{ Problems []Problem }

// Error names the first problem, and how many more there are.
func (e *Error) Error() string {
	p := e.Problems[0]
	text := p.Field + ": " + p.Description
	if n := len(e.Problems) - 1; n > 0 {
		text += " (and " + plural(n, "more problem") + ")"
	}
	return text
}

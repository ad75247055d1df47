package chain

import (
	"errors"
	"fmt"
	"regexp"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common"
	"cel.dev/cel-go/common/ast"
	"cel.dev/cel-go/common/types"
)

const (
	// maxCost is what one evaluation may cost, in CEL's units: about one for an
	// operation or for ten characters that a function reads. 2,000,000 took some 50 ms.
	maxCost = 2_000_000
	// maxLoops is how deep macros nest, maxLiterals literals and macros over macros: CEL's check of
	// types takes time that grows with more than the square of it.
	maxLoops    = 5
	maxLiterals = 16
	// shownIssues is how many of CEL's complaints about one expression are told: the
	// first ones often cause the others.
	shownIssues = 3
)

// expression is one that was checked. Safe for concurrent use.
type expression struct {
	field   string // where it stands in the definition
	text    string
	program cel.Program
	source  *ast.SourceInfo
	// input: it reads that; steps are what it reads of which steps.
	input bool
	steps []reading
}

// reading is that an expression reads a field of a step.
type reading struct{ step, field string }

// Fields of a step that expressions read.
const (
	outputField = "output"
	errorField  = "error"
	statusField = "status"
)

// parse checks an expression by itself; refuse gets what is wrong, and nil is
// returned then.
func parse(language *cel.Env, field, text string, want *cel.Type, refuse func(format string, args ...any)) *expression {
	switch {
	case strings.TrimSpace(text) == "":
		refuse("it is empty; want an expression such as input")
		return nil
	case len(text) > MaxExpression:
		refuse("has %d bytes; want %d at most", len(text), MaxExpression)
		return nil
	}
	parsed, issues := language.Parse(text)
	if told(issues, refuse) {
		return nil
	}
	e := &expression{field: field, text: text, source: parsed.NativeRep().SourceInfo()}
	r := reader{expression: e, refuse: refuse}
	if r.visit(parsed.NativeRep().Expr(), 0, 0); r.refused {
		return nil
	}
	checked, issues := language.Check(parsed)
	if told(issues, refuse) {
		return nil
	}
	switch kind := checked.OutputType(); {
	case want != nil && kind.Kind() != types.DynKind && !want.IsAssignableType(kind):
		refuse("it is of type %s; want %s", kind, want)
		return nil
	case kind.Kind() == types.TypeKind || kind.Kind() == types.OpaqueKind || kind.Kind() == types.StructKind:
		refuse("it is of type %s, which can't be kept; want string(…)", kind)
		return nil
	}
	program, err := language.Program(checked, cel.CostTracking(costs{}), cel.CostLimit(maxCost), cel.CustomDecoratorV2(paidBefore))
	if err != nil {
		refuse("%s", oneLine(err.Error()))
		return nil
	}
	e.program, e.source = program, checked.NativeRep().SourceInfo()
	return e
}

// told refuses what CEL complains of, if anything.
func told(issues *cel.Issues, refuse func(format string, args ...any)) bool {
	if issues.Err() == nil {
		return false
	}
	for i, e := range issues.Errors() {
		if i == shownIssues {
			break
		}
		message := oneLine(e.Message)
		refuse("%s%s%s", place(e.Location), message, advice(message))
	}
	return true
}

// oneLine is CEL's message without its drawing of the place and its list of tokens.
func oneLine(message string) string {
	line, _, _ := strings.Cut(message, "\n")
	line, _, _ = strings.Cut(line, " expecting {")
	return strings.TrimSpace(line)
}

// place says line and column; some complaints have none.
func place(l common.Location) string {
	if l.Line() < 1 {
		return ""
	}
	return fmt.Sprintf("%d:%d: ", l.Line(), l.Column()+1)
}

// advice says what to do about a complaint of CEL's.
func advice(message string) string {
	switch {
	case strings.HasPrefix(message, "undeclared reference to '"+failedVariable+"'"):
		return "; it is known to compensations alone"
	case strings.HasPrefix(message, "undeclared reference"):
		return "; known: input, chain.id, steps.<name>.output, steps.<name>.status, and in compensations steps.<name>.error and failed; text stands in quotes"
	case strings.HasPrefix(message, "found no matching overload"), strings.HasPrefix(message, "no such overload"):
		return "; convert one side by int(…), double(…) or string(…)"
	case strings.Contains(message, "recursion"):
		return "; it nests too deeply, let a step do the work"
	case strings.Contains(message, "cost limit exceeded"):
		return "; it computes too much, let a step do the work"
	}
	return ""
}

// reader finds what an expression reads.
type reader struct {
	*expression
	refuse  func(format string, args ...any)
	refused bool
}

func (r *reader) wrong(at ast.Expr, format string, args ...any) {
	r.refused = true
	r.refuse("%s%s", place(r.source.GetStartLocation(at.ID())), fmt.Sprintf(format, args...))
}

// visit sees an expression inside as many macros and literals.
func (r *reader) visit(e ast.Expr, loops, literals int) {
	if loops > maxLoops || literals > maxLiterals {
		if !r.refused {
			r.wrong(e, "it nests too deeply; macros may be %d deep, literals and macros over macros %d: let a step do the work", maxLoops, maxLiterals)
		}
		return
	}
	switch e.Kind() {
	case ast.IdentKind:
		switch strings.TrimPrefix(e.AsIdent(), ".") {
		case inputVariable:
			r.input = true
		case stepsVariable:
			r.wrong(e, "steps can't be read as a whole; want steps.<name>.output")
		}
	case ast.SelectKind:
		r.selected(e, loops, literals)
	case ast.CallKind:
		call := e.AsCall()
		if name, ok := stepOf(e); ok {
			r.wrong(e, "a step can't be read as a whole; want steps.%s.output", name)
			return
		}
		if call.IsMemberFunction() {
			r.visit(call.Target(), loops, literals)
		}
		r.all(call.Args(), loops, literals)
	case ast.ListKind:
		r.all(e.AsList().Elements(), loops, literals+1)
	case ast.MapKind:
		for _, entry := range e.AsMap().Entries() {
			r.visit(entry.AsMapEntry().Key(), loops, literals+1)
			r.visit(entry.AsMapEntry().Value(), loops, literals+1)
		}
	case ast.StructKind:
		r.wrong(e, "a message %s can't be made here; want a map such as {'name': 1}", e.AsStruct().TypeName())
	case ast.ComprehensionKind:
		r.loop(e, loops, literals)
	}
}

func (r *reader) all(each []ast.Expr, loops, literals int) {
	for _, e := range each {
		r.visit(e, loops, literals)
	}
}

func (r *reader) loop(e ast.Expr, loops, literals int) {
	c := e.AsComprehension()
	for _, name := range []string{c.IterVar(), c.IterVar2()} {
		switch name {
		case inputVariable, stepsVariable, chainVariable, failedVariable:
			r.wrong(e, "%s is what the chain gives; want another name for the macro's variable", name)
			return
		}
	}
	// The type of what a macro goes through is within that of what it gives.
	r.visit(c.IterRange(), loops, literals+1)
	r.all([]ast.Expr{c.AccuInit(), c.LoopCondition(), c.LoopStep(), c.Result()}, loops+1, literals)
}

// selected sees steps.<name>.<field>.
func (r *reader) selected(e ast.Expr, loops, literals int) {
	of, field := e.AsSelect().Operand(), e.AsSelect().FieldName()
	if name, ok := stepOf(e); ok {
		r.wrong(e, "a step can't be read as a whole; want steps.%s.output", name)
		return
	}
	name, ok := stepOf(of)
	if !ok {
		r.visit(of, loops, literals)
		return
	}
	switch field {
	case outputField, errorField, statusField:
		r.steps = append(r.steps, reading{name, field})
	default:
		r.wrong(e, "a step has no %q; want steps.%s.output, .status or .error", field, name)
	}
}

// stepOf returns the name in steps.<name> and steps["<name>"].
func stepOf(e ast.Expr) (name string, ok bool) {
	isSteps := func(e ast.Expr) bool {
		return e.Kind() == ast.IdentKind && strings.TrimPrefix(e.AsIdent(), ".") == stepsVariable
	}
	switch e.Kind() {
	case ast.SelectKind:
		return e.AsSelect().FieldName(), isSteps(e.AsSelect().Operand())
	case ast.CallKind:
		call := e.AsCall()
		if call.FunctionName() != "_[_]" || len(call.Args()) != 2 || !isSteps(call.Args()[0]) || call.Args()[1].Kind() != ast.LiteralKind {
			return "", false
		}
		name, ok = call.Args()[1].AsLiteral().Value().(string)
	}
	return name, ok
}

// eval returns what an expression gives: nil, bool, int64, uint64, float64, string,
// []byte, []any or map[string]any.
func (e *expression) eval(s *scope) (any, error) {
	known, err := s.known(e)
	if err == nil && s.cost <= 0 {
		err = errors.New("the expressions that this event leads to compute too much together; let a step do the work")
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.field, err)
	}
	v, details, err := e.program.Eval(known)
	s.cost -= costOf(details)
	if err == nil && types.IsUnknown(v) {
		err = errors.New("it gives no value")
	}
	if err != nil {
		return nil, e.explained(err)
	}
	native, err := goValue(v, &s.left)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", e.field, err)
	}
	return native, nil
}

// costOf is what an evaluation cost; one that ended early says nothing of it.
func costOf(details *cel.EvalDetails) int {
	if details == nil || details.ActualCost() == nil {
		return maxCost
	}
	return int(min(*details.ActualCost(), maxCost))
}

// explained says where an evaluation failed and why.
func (e *expression) explained(err error) error {
	at := ""
	if failed, ok := err.(interface{ NodeID() int64 }); ok {
		at = place(e.source.GetStartLocation(failed.NodeID()))
	}
	message := e.shown(oneLine(err.Error()))
	return fmt.Errorf("%s: %s%s%s", e.field, at, message, advice(message))
}

// shownWhole are messages that hold no value: those of functions that are made here,
// and those of CEL's that name types. Of others only what shownBegin finds is shown.
var (
	shownWhole = regexp.MustCompile(`^(json|parse_json|replace|join|format|indexOf|lastIndexOf|matches): (this|it|a|the pattern) |^type conversion error from '[\w.]+' to '[\w.]+'$|^no such overload|^operation cancelled: |^division by zero$|^modulus by zero$|^(unsigned )?integer overflow$|^invalid UTF-8 in bytes`)
	shownBegin = regexp.MustCompile(`^(no such key|index out of (range|bounds)|index|unsupported index|invalid substring range|invalid RFC 3339 timestamp|invalid duration|unsupported timestamp format|(timestamp|duration) overflow|unknown time zone|range error|could not convert|join|format|illegal base64 data|error parsing regexp|unsupported type)\b`)
)

// shown is a message of an evaluation without what may be a value in it, since values
// may be secret and errors are shown to more people.
func (e *expression) shown(message string) string {
	if shownWhole.MatchString(message) {
		return message
	}
	if key, ok := strings.CutPrefix(message, "no such key: "); ok && strings.Contains(e.text, key) {
		return message
	}
	if begin := shownBegin.FindString(message); begin != "" {
		return begin
	}
	return "this can't be computed from the values that are there"
}

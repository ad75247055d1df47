package chain

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/ast"
)

// Program is a definition that was checked. Safe for concurrent use.
type Program struct {
	definition Definition
	index      map[string]int
	after      [][]int       // of each step
	when       []*expression // nil: always
	maps       []fields
	undo       []fields // nil: nothing to do
	output     *expression
}

// expression is one that was checked.
type expression struct {
	field   string
	program cel.Program
}

// fields are expressions by the field that they fill, in the order of their names.
type fields []struct {
	name string
	*expression
}

var stepName = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_]{0,63}$`)

// reserved are words that CEL would not take for a step's name.
var reserved = []string{"false", "in", "null", "true", "as", "break", "const", "continue", "else", "for", "function", "if", "import", "let", "loop", "package", "namespace", "return", "var", "void", "while"}

// Compile checks a definition. The error is an *Error with all that is wrong.
func Compile(d Definition) (*Program, error) {
	c := &compiler{p: &Program{definition: d, index: make(map[string]int)}}
	c.steps()
	if len(c.problems) == 0 {
		c.order()
	}
	if len(c.problems) == 0 {
		c.expressions()
	}
	if len(c.problems) > 0 {
		return nil, &Error{c.problems}
	}
	return c.p, nil
}

type compiler struct {
	p         *Program
	problems  []Problem
	ancestors [][]bool // of each step: which ones are surely over when it begins
}

func (c *compiler) refuse(field, format string, args ...any) {
	c.problems = append(c.problems, Problem{field, fmt.Sprintf(format, args...)})
}

// steps checks names and resolves who comes after whom.
func (c *compiler) steps() {
	steps := c.p.definition.Steps
	if len(steps) == 0 || len(steps) > MaxSteps {
		c.refuse("steps", "has %d; want 1 to %d", len(steps), MaxSteps)
		return
	}
	for i, s := range steps {
		at := fmt.Sprintf("steps[%d].name", i)
		switch first, twice := c.p.index[s.Name]; {
		case !stepName.MatchString(s.Name):
			c.refuse(at, "%q; want a letter, then letters, digits and _, up to 64", s.Name)
		case slices.Contains(reserved, s.Name):
			c.refuse(at, "%q is a word of the expression language; want another name", s.Name)
		case twice:
			c.refuse(at, "%q is the name of steps[%d] already; want a name of its own", s.Name, first)
		default:
			c.p.index[s.Name] = i
		}
	}
	for i, s := range steps {
		var after []int
		for j, name := range s.After {
			at := fmt.Sprintf("steps[%d].after[%d]", i, j)
			switch k, known := c.p.index[name]; {
			case !known:
				c.refuse(at, "%q is no step of the chain; known: %s", name, c.names())
			case k == i:
				c.refuse(at, "%q would wait for itself", name)
			default:
				after = append(after, k)
			}
		}
		if s.After == nil && i > 0 {
			after = []int{i - 1}
		}
		c.p.after = append(c.p.after, after)
	}
}

func (c *compiler) names() string {
	var names []string
	for _, s := range c.p.definition.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// order finds what surely is over when a step begins, and refuses circles.
func (c *compiler) order() {
	n := len(c.p.after)
	c.ancestors = make([][]bool, n)
	const (
		unseen = iota
		under
		seen
	)
	marks := make([]int, n)
	var visit func(i int) bool
	visit = func(i int) bool {
		if marks[i] == seen {
			return true
		}
		if marks[i] == under {
			c.refuse(fmt.Sprintf("steps[%d].after", i), "%q waits for itself, through others: such a chain never begins", c.p.definition.Steps[i].Name)
			return false
		}
		marks[i] = under
		c.ancestors[i] = make([]bool, n)
		for _, k := range c.p.after[i] {
			if !visit(k) {
				return false
			}
			c.ancestors[i][k] = true
			for a, is := range c.ancestors[k] {
				c.ancestors[i][a] = c.ancestors[i][a] || is
			}
		}
		marks[i] = seen
		return true
	}
	for i := range n {
		if !visit(i) {
			return
		}
	}
}

func (c *compiler) expressions() {
	all := make([]bool, len(c.p.after))
	for i := range all {
		all[i] = true
	}
	for i, s := range c.p.definition.Steps {
		at := fmt.Sprintf("steps[%d]", i)
		var when *expression
		if s.When != "" {
			when = c.expression(at+".when", s.When, c.ancestors[i], false)
		}
		c.p.when = append(c.p.when, when)
		c.p.maps = append(c.p.maps, c.fields(at+".map", s.Map, c.ancestors[i], false))
		var undo fields
		if s.Compensation != nil {
			undo = c.fields(at+".compensation.map", s.Compensation.Map, all, true)
			if undo == nil {
				undo = fields{}
			}
		}
		c.p.undo = append(c.p.undo, undo)
	}
	if c.p.definition.Output != "" {
		c.p.output = c.expression("output", c.p.definition.Output, all, false)
	}
}

func (c *compiler) fields(at string, texts map[string]string, known []bool, undo bool) fields {
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	slices.Sort(names)
	var all fields
	for _, name := range names {
		if e := c.expression(at+"["+strconv.Quote(name)+"]", texts[name], known, undo); e != nil {
			all = append(all, struct {
				name string
				*expression
			}{name, e})
		}
	}
	return all
}

// expression checks one; nil where it is wrong.
func (c *compiler) expression(at, text string, known []bool, undo bool) *expression {
	if len(text) > MaxExpression {
		c.refuse(at, "has %d bytes; want %d at most", len(text), MaxExpression)
		return nil
	}
	env, err := environment()
	if err != nil {
		c.refuse(at, "expressions can't be used: %v", err)
		return nil
	}
	checked, issues := env.Compile(text)
	if issues.Err() != nil {
		for _, e := range issues.Errors() {
			c.refuse(at, "%d:%d: %s", e.Location.Line(), e.Location.Column()+1, e.Message)
		}
		return nil
	}
	before := len(c.problems)
	c.references(at, checked, known, undo)
	if len(c.problems) > before {
		return nil
	}
	program, err := env.Program(checked, cel.CostLimit(maxCost), cel.InterruptCheckFrequency(1000))
	if err != nil {
		c.refuse(at, "%v", err)
		return nil
	}
	return &expression{at, program}
}

// references refuses steps that may not be over when the expression is needed.
func (c *compiler) references(at string, checked *cel.Ast, known []bool, undo bool) {
	told := make(map[string]bool)
	step := func(name string) {
		if told[name] {
			return
		}
		switch i, exists := c.p.index[name]; {
		case !exists:
			told[name] = true
			c.refuse(at, "steps.%s: there is no such step; known: %s", name, c.names())
		case !known[i]:
			told[name] = true
			c.refuse(at, "steps.%s may not be over by then; name %q in after, or use steps that come before", name, name)
		}
	}
	isSteps := func(e ast.Expr) bool { return e.Kind() == ast.IdentKind && e.AsIdent() == "steps" }
	ast.PreOrderVisit(checked.NativeRep().Expr(), ast.NewExprVisitor(func(e ast.Expr) {
		switch e.Kind() {
		case ast.SelectKind:
			if s := e.AsSelect(); isSteps(s.Operand()) {
				step(s.FieldName())
			}
		case ast.CallKind:
			call := e.AsCall()
			if call.FunctionName() == "_[_]" && len(call.Args()) == 2 && isSteps(call.Args()[0]) && call.Args()[1].Kind() == ast.LiteralKind {
				if name, ok := call.Args()[1].AsLiteral().Value().(string); ok {
					step(name)
				}
			}
		case ast.IdentKind:
			if e.AsIdent() == "failed" && !undo && !told["failed"] {
				told["failed"] = true
				c.refuse(at, "failed is known to compensations alone")
			}
		}
	}))
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

package chain

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"cel.dev/cel-go/cel"
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
	languages, err := languages()
	if err != nil {
		return nil, fmt.Errorf("expressions can't be used: %w", err)
	}
	c := &compiler{dialects: languages, p: &Program{definition: d, index: make(map[string]int)}}
	if n := len(d.Steps); n == 0 || n > MaxSteps {
		c.refuse("steps", "has %d; want 1 to %d", n, MaxSteps)
	} else if size := sizeOf(d); size > MaxExpressions {
		c.refuse("steps", "their expressions have %d bytes together; want %d at most", size, MaxExpressions)
	} else {
		c.names()
		c.order()
		c.expressions()
	}
	if len(c.problems) > 0 {
		return nil, &Error{c.problems}
	}
	return c.p, nil
}

// sizeOf is the size of all expressions.
func sizeOf(d Definition) int {
	n := len(d.Output)
	add := func(texts map[string]string) {
		for _, text := range texts {
			n += len(text)
		}
	}
	for _, s := range d.Steps {
		n += len(s.When)
		add(s.Map)
		if s.Compensation != nil {
			add(s.Compensation.Map)
		}
	}
	return n
}

type compiler struct {
	*dialects
	p        *Program
	problems []Problem
	// ancestors of each step are those that are surely over when it begins; nil: that
	// can't be known.
	ancestors [][]bool
}

func (c *compiler) refuse(field, format string, args ...any) {
	c.problems = append(c.problems, Problem{field, fmt.Sprintf(format, args...)})
}

func (c *compiler) names() {
	for i, s := range c.p.definition.Steps {
		at := fmt.Sprintf("steps[%d].name", i)
		switch first, twice := c.p.index[s.Name]; {
		case !stepName.MatchString(s.Name):
			c.refuse(at, "%.80q; want a letter, then letters, digits and _, up to 64", s.Name)
		case slices.Contains(reserved, s.Name):
			c.refuse(at, "%q is a word of the expression language; want another name", s.Name)
		case twice:
			c.refuse(at, "%q is the name of steps[%d] already; want a name of its own", s.Name, first)
		default:
			c.p.index[s.Name] = i
		}
	}
}

func (c *compiler) known() string {
	var names []string
	for _, s := range c.p.definition.Steps {
		names = append(names, s.Name)
	}
	return strings.Join(names, ", ")
}

// order resolves who comes after whom, finds what surely is over when a step begins,
// and refuses circles.
func (c *compiler) order() {
	before := len(c.problems)
	for i, s := range c.p.definition.Steps {
		var after []int
		for j, name := range s.After {
			at := fmt.Sprintf("steps[%d].after[%d]", i, j)
			switch k, known := c.p.index[name]; {
			case !known:
				c.refuse(at, "%.80q is no step of the chain; known: %s", name, c.known())
			case k == i:
				c.refuse(at, "%q would wait for itself", name)
			case !slices.Contains(after, k):
				after = append(after, k)
			}
		}
		if s.After == nil && i > 0 {
			after = []int{i - 1}
		}
		c.p.after = append(c.p.after, after)
	}
	if circle := circleIn(c.p.after); circle != nil {
		var names []string
		for _, i := range append(circle, circle[0]) {
			names = append(names, c.p.definition.Steps[i].Name)
		}
		c.refuse(fmt.Sprintf("steps[%d].after", circle[0]), "%s: each waits for the next, so that %q waits for itself; take one of them out", strings.Join(names, " → "), names[0])
	}
	if len(c.problems) == before {
		c.ancestors = ancestorsIn(c.p.after)
	}
}

// circleIn returns steps of which each comes after the next, and the last one after
// the first; nil: there are none.
func circleIn(after [][]int) []int {
	const (
		unseen = iota
		under
		over
	)
	marks, path := make([]int, len(after)), []int(nil)
	var visit func(i int) []int
	visit = func(i int) []int {
		marks[i], path = under, append(path, i)
		for _, k := range after[i] {
			if marks[k] == under {
				return path[slices.Index(path, k):]
			}
			if marks[k] == unseen {
				if circle := visit(k); circle != nil {
					return circle
				}
			}
		}
		marks[i], path = over, path[:len(path)-1]
		return nil
	}
	for i := range after {
		if marks[i] == unseen {
			if circle := visit(i); circle != nil {
				return circle
			}
		}
	}
	return nil
}

func ancestorsIn(after [][]int) [][]bool {
	ancestors := make([][]bool, len(after))
	var visit func(i int)
	visit = func(i int) {
		ancestors[i] = make([]bool, len(after))
		for _, k := range after[i] {
			if ancestors[k] == nil {
				visit(k)
			}
			ancestors[i][k] = true
			for a, is := range ancestors[k] {
				ancestors[i][a] = ancestors[i][a] || is
			}
		}
	}
	for i := range after {
		if ancestors[i] == nil {
			visit(i)
		}
	}
	return ancestors
}

// moment is when an expression is needed.
type moment struct {
	step int  // before this one begins; -1: when all are over
	undo bool // while the chain is undone
}

func (c *compiler) expressions() {
	for i, s := range c.p.definition.Steps {
		at := fmt.Sprintf("steps[%d]", i)
		var when *expression
		if s.When != "" {
			when = c.expression(at+".when", s.When, cel.BoolType, moment{step: i})
		}
		c.p.when = append(c.p.when, when)
		c.p.maps = append(c.p.maps, c.fields(at+".map", s.Map, moment{step: i}))
		var undo fields
		if s.Compensation != nil {
			undo = c.fields(at+".compensation.map", s.Compensation.Map, moment{step: -1, undo: true})
		}
		c.p.undo = append(c.p.undo, undo)
	}
	if text := c.p.definition.Output; text != "" {
		c.p.output = c.expression("output", text, nil, moment{step: -1})
	}
}

func (c *compiler) fields(at string, texts map[string]string, when moment) fields {
	all := fields{}
	for _, name := range slices.Sorted(maps.Keys(texts)) {
		if e := c.expression(at+"["+strconv.Quote(name)+"]", texts[name], nil, when); e != nil {
			all = append(all, struct {
				name string
				*expression
			}{name, e})
		}
	}
	return all
}

// expression checks one; nil where it is wrong.
func (c *compiler) expression(at, text string, want *cel.Type, when moment) *expression {
	language := c.steps
	if when.undo {
		language = c.undo
	}
	e := parse(language, at, text, want, func(format string, args ...any) { c.refuse(at, format, args...) })
	if e == nil {
		return nil
	}
	told := make(map[string]bool)
	for _, read := range e.steps {
		i, exists := c.p.index[read.step]
		var wrong string
		switch {
		case !exists:
			wrong = "there is no such step; known: " + c.known()
		case when.undo:
		case read.field == errorField:
			wrong = "errors are known to compensations alone: a step that failed ends the chain"
		case when.step == i:
			wrong = "it is this step's own, and not over by then"
		case when.step >= 0 && c.ancestors != nil && !c.ancestors[when.step][i]:
			wrong = fmt.Sprintf("it may not be over by then; name %q in after, or use steps that come before", read.step)
		}
		if wrong != "" && !told[read.step] {
			told[read.step] = true
			c.refuse(at, "steps.%s.%s: %s", read.step, read.field, wrong)
		}
	}
	return e
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// Names returns the names of the steps, in the order of the definition.
func (p *Program) Names() []string {
	names := make([]string, 0, len(p.index))
	for _, step := range p.definition.Steps {
		names = append(names, step.Name)
	}
	return names
}

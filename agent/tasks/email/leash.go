package email

import (
	"fmt"
	"strings"
	"text/template/parse"
	"time"
)

const (
	// maxSteps is how many writes, turns of loops and calls of templates a
	// rendering may take.
	maxSteps = 200_000
	// maxTime is how long a rendering may take.
	maxTime = 2 * time.Second
	// maxCalls is how many calls of functions a template may have.
	maxCalls = 1000
)

// boundError is what a template is stopped with.
type boundError struct{ what string }

func (e *boundError) Error() string { return e.what }

// meter takes what a template writes and stops it at the bounds. Each turn of a
// loop and each call of a template writes, if only nothing: see leash.
type meter struct {
	out   strings.Builder
	steps int
	// until is when the time is up, after within.
	until  time.Time
	within time.Duration
}

func (m *meter) Write(p []byte) (int, error) {
	m.steps++
	switch {
	case m.out.Len()+len(p) > maxRendered:
		return 0, &boundError{fmt.Sprintf("it makes more than %d bytes", maxRendered)}
	case m.steps > maxSteps:
		return 0, &boundError{fmt.Sprintf("it takes more than %d steps", maxSteps)}
	case m.steps%64 == 0 && time.Now().After(m.until):
		return 0, &boundError{fmt.Sprintf("it takes more than %v", m.within)}
	}
	return m.out.Write(p)
}

// leash puts an empty text at the beginning of every template and every body of a
// loop, so that a meter hears of each turn: templates can't be interrupted
// otherwise. It refuses those that call themselves, whose depth would be memory.
type leash struct {
	trees map[string]*parse.Tree
	// uses are which templates each one calls.
	uses  map[string][]string
	calls int
}

func (l *leash) add(name string, tree *parse.Tree) {
	if l.trees == nil {
		l.trees, l.uses = make(map[string]*parse.Tree), make(map[string][]string)
	}
	if tree != nil && tree.Root != nil { // a name that nothing was defined for
		l.trees[name] = tree
	}
}

// tighten does it, once all templates are there.
func (l *leash) tighten() error {
	for name, tree := range l.trees {
		l.list(name, tree.Root)
		begin(tree.Root)
	}
	if l.calls > maxCalls {
		return fmt.Errorf("it calls functions at %d places; at most %d are allowed", l.calls, maxCalls)
	}
	done := make(map[string]bool)
	for name := range l.trees {
		if err := l.visit(name, done, nil); err != nil {
			return err
		}
	}
	return nil
}

// visit follows the calls of a template.
func (l *leash) visit(name string, done map[string]bool, path []string) error {
	for i, caller := range path {
		if caller == name {
			return fmt.Errorf("template %q calls itself (%s), which is not allowed", name, strings.Join(append(path[i:], name), " → "))
		}
	}
	if done[name] {
		return nil
	}
	for _, used := range l.uses[name] {
		if err := l.visit(used, done, append(path, name)); err != nil {
			return err
		}
	}
	done[name] = true
	return nil
}

// begin puts the empty text in place.
func begin(list *parse.ListNode) {
	empty := &parse.TextNode{NodeType: parse.NodeText, Pos: list.Pos, Text: []byte{}}
	list.Nodes = append([]parse.Node{empty}, list.Nodes...)
}

// list looks at what a list has in it.
func (l *leash) list(name string, list *parse.ListNode) {
	if list == nil {
		return
	}
	for _, node := range list.Nodes {
		switch node := node.(type) {
		case *parse.ActionNode:
			l.pipe(node.Pipe)
		case *parse.TemplateNode:
			l.uses[name] = append(l.uses[name], node.Name)
			l.pipe(node.Pipe)
		case *parse.IfNode:
			l.branch(name, &node.BranchNode)
		case *parse.WithNode:
			l.branch(name, &node.BranchNode)
		case *parse.RangeNode:
			l.branch(name, &node.BranchNode)
			begin(node.List)
		}
	}
}

func (l *leash) branch(name string, node *parse.BranchNode) {
	l.pipe(node.Pipe)
	l.list(name, node.List)
	l.list(name, node.ElseList)
}

// pipe counts the functions in a pipeline.
func (l *leash) pipe(pipe *parse.PipeNode) {
	if pipe == nil {
		return
	}
	for _, command := range pipe.Cmds {
		for _, arg := range command.Args {
			l.argument(arg)
		}
	}
}

func (l *leash) argument(node parse.Node) {
	switch node := node.(type) {
	case *parse.IdentifierNode:
		l.calls++
	case *parse.PipeNode:
		l.pipe(node)
	case *parse.ChainNode:
		l.argument(node.Node)
	}
}

package chain

import (
	"errors"
	"fmt"
	"math"
	"strings"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/functions"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

const (
	// maxMade is the size of a text that one call makes, in bytes.
	maxMade = 4 << 20
	// maxCompared is how many comparisons of characters one search may take: some
	// 100 ms; maxMatched is that of one match of a regular expression, which are slower.
	maxCompared = 100_000_000
	maxMatched  = 10 * maxCost
)

// bounded is a member function of plain, behind a check of its arguments. CEL counts what a
// call cost only when it is over, which is too late where a call can cost more than
// in proportion to its arguments.
func bounded(plain *cel.Env, name string, check func([]ref.Val) error) cel.EnvOption {
	return func(e *cel.Env) (*cel.Env, error) {
		function := plain.Functions()[name]
		if function == nil {
			return nil, fmt.Errorf("there is no function %s", name)
		}
		bindings, err := function.Bindings()
		if err != nil {
			return nil, err
		}
		calls := make(map[string]functions.FunctionOp, len(bindings))
		for _, b := range bindings {
			calls[b.Operator] = call(b)
		}
		var overloads []cel.FunctionOpt
		for _, o := range function.OverloadDecls() {
			plainly := calls[o.ID()]
			if plainly == nil {
				return nil, fmt.Errorf("the function %s has no %s", name, o.ID())
			}
			overloads = append(overloads, cel.MemberOverload(o.ID(), o.ArgTypes(), o.ResultType(), binding(len(o.ArgTypes()), func(args ...ref.Val) ref.Val {
				if err := check(args); err != nil {
					return types.NewErr("%s: %v", name, err)
				}
				return plainly(args...)
			})))
		}
		return cel.Function(name, overloads...)(e)
	}
}

// call is how an overload is called with any number of arguments.
func call(o *functions.Overload) functions.FunctionOp {
	switch {
	case o.Unary != nil:
		return func(args ...ref.Val) ref.Val { return o.Unary(args[0]) }
	case o.Binary != nil:
		return func(args ...ref.Val) ref.Val { return o.Binary(args[0], args[1]) }
	default:
		return o.Function
	}
}

// binding of a function by how many arguments it has.
func binding(arguments int, f functions.FunctionOp) cel.OverloadOpt {
	switch arguments {
	case 1:
		return cel.UnaryBinding(func(a ref.Val) ref.Val { return f(a) })
	case 2:
		return cel.BinaryBinding(func(a, b ref.Val) ref.Val { return f(a, b) })
	default:
		return cel.FunctionBinding(f)
	}
}

// sizes counts the bytes of values with all that is in them. What is too large to
// count has math.MaxUint32.
var sizes = types.NewSizeCalculator(
	types.SizeCalculatorStringUnitLength(1),
	types.SizeCalculatorMaxDepth(2*maxDepth),
	types.SizeCalculatorMaxTraversal(maxCost),
)

func makes(n int) error {
	if n > maxMade {
		return fmt.Errorf("this makes %d bytes or more, at most %d are allowed", n, maxMade)
	}
	return nil
}

func compares(a, b, most int) error {
	if n := product(a, b); n > most {
		return fmt.Errorf("this takes up to %d comparisons, at most %d are allowed: search in a shorter text", n, most)
	}
	return nil
}

// product is a × b, or what is more than anything allows.
func product(a, b int) int {
	if b != 0 && a > math.MaxInt32/b {
		return math.MaxInt32
	}
	return a * b
}

// text is an argument's, empty for what is none: the function itself refuses that.
func text(args []ref.Val, i int) string {
	s, _ := args[i].(types.String)
	return string(s)
}

// boundReplace is for text.replace(old, new) and text.replace(old, new, n).
func boundReplace(args []ref.Val) error {
	more := len(text(args, 2)) - len(text(args, 1))
	if more <= 0 {
		return nil
	}
	found := strings.Count(text(args, 0), text(args, 1))
	if len(args) > 3 {
		if n, ok := args[3].(types.Int); ok && n >= 0 {
			found = int(min(int64(found), int64(n)))
		}
	}
	return makes(product(found, more) + len(text(args, 0)))
}

// boundJoin is for list.join() and list.join(separator).
func boundJoin(args []ref.Val) error {
	n := int(sizes.AggregateSize(args[0]))
	if len(args) > 1 {
		if list, ok := args[0].(traits.Sizer); ok {
			if length, ok := list.Size().(types.Int); ok {
				n += product(int(length), len(text(args, 1)))
			}
		}
	}
	return makes(n)
}

// boundFormat is for text.format(list), whose numbers are short.
func boundFormat(args []ref.Val) error {
	return makes(len(text(args, 0)) + int(sizes.AggregateSize(args[1])))
}

// matches is the standard function, which can't be declared a second time: behind its
// check it is the same.
func matches(value, pattern ref.Val) ref.Val {
	within, ok1 := value.(types.String)
	expression, ok2 := pattern.(types.String)
	if !ok1 || !ok2 {
		return types.MaybeNoSuchOverloadErr(value)
	}
	if err := boundMatches(len(within), string(expression)); err != nil {
		return types.NewErr("matches: %v", err)
	}
	return within.Match(expression)
}

func boundMatches(length int, pattern string) error {
	if len(pattern) > maxPattern {
		return fmt.Errorf("the pattern has %d bytes, at most %d are allowed", len(pattern), maxPattern)
	}
	states, err := types.RegexProgramSize(pattern)
	if err != nil { // it quotes the pattern
		return errors.New("this is no regular expression of RE2's syntax")
	}
	if states > maxStates {
		return fmt.Errorf("the pattern has %d states, at most %d are allowed: repeat less in it", states, maxStates)
	}
	return compares(length, states, maxMatched)
}

// boundIndex is for text.indexOf(search), lastIndexOf and both with an offset.
func boundIndex(args []ref.Val) error {
	return compares(len(text(args, 0)), len(text(args, 1)), maxCompared)
}

package chain

import (
	"math"

	"cel.dev/cel-go/common/operators"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/interpreter"
)

// costs are those of calls that CEL has no count for, or one that is far from the
// time and memory that they take. They go by the function: of values whose type is
// known only when they are there, as everything that was JSON is, CEL does not say
// which overload ran, and counts 1.
type costs struct{}

// CallCost is what a call cost; nil: what CEL says.
func (costs) CallCost(function, _ string, args []ref.Val, result ref.Val) *uint64 {
	n := uint64(1)
	switch function {
	case operators.Equals, operators.NotEquals:
		n += compared(args[0])
	case operators.In:
		n += searched(args[0], args[1])
	case "matches":
		if types.IsError(result) { // refused before it began
			break
		}
		pattern, _ := args[1].(types.String)
		if states, err := types.RegexProgramSize(string(pattern)); err == nil {
			n += length(args[0]) * uint64(states) / 10
		}
	case "parse_json":
		n += length(args[0]) // each character may be a value
	case "json", "format":
		n += length(result) / 2
	case "string", "bytes", "size", "timestamp", "duration", "base64.encode", "base64.decode":
		n += length(args[0]) / 10
	case "getFullYear", "getMonth", "getDate", "getDayOfMonth", "getDayOfWeek", "getDayOfYear", "getHours", "getMinutes", "getSeconds", "getMilliseconds":
		n += uint64(100 * (len(args) - 1)) // a time zone is looked up
	default:
		return nil
	}
	return &n
}

func length(v ref.Val) uint64 {
	switch v := v.(type) {
	case types.String:
		return uint64(len(v))
	case types.Bytes:
		return uint64(len(v))
	}
	return 0
}

// compared is what comparing a value with another may cost.
func compared(v ref.Val) uint64 {
	switch v.(type) {
	case traits.Lister, traits.Mapper:
		return uint64(sizes.AggregateSize(v))
	}
	return length(v) / 10
}

// searched is what looking for a value in a list may cost.
func searched(v, in ref.Val) uint64 {
	list, ok := in.(traits.Lister)
	if !ok {
		return 0
	}
	switch v.(type) {
	case traits.Lister, traits.Mapper:
		return uint64(sizes.AggregateSize(in))
	}
	n, _ := list.Size().(types.Int)
	return uint64(max(0, min(int64(n), math.MaxUint32)))
}

// paidBefore has comparisons counted before they are made. CEL counts when they are
// over, which may be never: a short expression can make a list that holds itself, in
// effect, more often than there is time to look.
func paidBefore(i interpreter.InterpretableV2) (interpreter.InterpretableV2, error) {
	call, ok := i.(interpreter.InterpretableCall)
	if !ok || len(call.Args()) != 2 {
		return i, nil
	}
	switch call.Function() {
	case operators.Equals, operators.NotEquals, operators.In:
		return comparison{call}, nil
	}
	return i, nil
}

// comparison is ==, != or in.
type comparison struct{ interpreter.InterpretableCall }

// Eval is for activations of CEL's first interface.
func (c comparison) Eval(vars interpreter.Activation) ref.Val {
	return interpreter.EvalActivation(vars, c.Exec)
}

// Exec evaluates both sides, pays, and compares.
func (c comparison) Exec(frame *interpreter.ExecutionFrame) ref.Val {
	left, right := c.Args()[0].Exec(frame), c.Args()[1].Exec(frame)
	if types.IsUnknownOrError(left) {
		return left
	}
	if types.IsUnknownOrError(right) {
		return right
	}
	if tracker := frame.CostTracker(); tracker != nil {
		tracker.EvalBinary(frame, c.ID(), c, left, right, types.True)
	}
	switch c.Function() {
	case operators.Equals:
		return types.Equal(left, right)
	case operators.NotEquals:
		return types.Bool(types.Equal(left, right) != types.True)
	}
	if in, ok := right.(traits.Container); ok {
		return in.Contains(left)
	}
	return types.LabelErrNode(c.ID(), types.MaybeNoSuchOverloadErr(right))
}

package chain

import (
	"errors"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/env"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/ext"
)

const (
	// maxNesting is how deep expressions nest, in the parser's count.
	maxNesting = 64
	// maxPattern is the length of a regular expression, in bytes, and maxStates what
	// it may become.
	maxPattern = 1024
	maxStates  = 1000
)

// Variables of expressions.
const (
	inputVariable  = "input"
	chainVariable  = "chain"
	stepsVariable  = "steps"
	failedVariable = "failed"
)

// languages are what expressions of steps know, and what those of compensations do.
// They are made once, when the first chain is compiled.
var languages = sync.OnceValues(func() (*dialects, error) {
	steps, err := newLanguage()
	if err != nil {
		return nil, err
	}
	undo, err := steps.Extend(cel.Variable(failedVariable, cel.StringType))
	if err != nil {
		return nil, err
	}
	return &dialects{steps: steps, undo: undo}, nil
})

type dialects struct{ steps, undo *cel.Env }

// newLanguage is CEL's standard library, the string functions and base64 of cel-go's
// extensions, json and parse_json. Nothing in it reads a clock or reaches outside.
func newLanguage() (*cel.Env, error) {
	plain, err := cel.NewCustomEnv(ext.Strings())
	if err != nil {
		return nil, err
	}
	return cel.NewCustomEnv(
		// matches is declared below, behind a check.
		cel.StdLib(cel.StdLibSubset(env.NewLibrarySubset().AddExcludedFunctions(env.NewFunction("matches")))),
		cel.Variable(inputVariable, cel.DynType),
		cel.Variable(chainVariable+".id", cel.StringType),
		cel.Variable(stepsVariable, cel.MapType(cel.StringType, cel.MapType(cel.StringType, cel.DynType))),
		// An expression means the same on every machine, and however a program wrote a
		// number.
		cel.DefaultUTCTimeZone(true),
		cel.CrossTypeNumericComparisons(true),
		cel.ParserExpressionSizeLimit(MaxExpression),
		cel.ParserRecursionLimit(maxNesting),
		cel.ASTValidators(cel.ValidateDurationLiterals(), cel.ValidateTimestampLiterals(), cel.ValidateRegexLiterals(),
			cel.ValidateRegexProgramSizeLimit(maxStates)),
		ext.Strings(),
		bounded(plain, "replace", boundReplace),
		bounded(plain, "join", boundJoin),
		bounded(plain, "format", boundFormat),
		bounded(plain, "indexOf", boundIndex),
		bounded(plain, "lastIndexOf", boundIndex),
		cel.Function("matches",
			cel.Overload("matches", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType),
			cel.MemberOverload("matches_string", []*cel.Type{cel.StringType, cel.StringType}, cel.BoolType),
			cel.SingletonBinaryBinding(matches)),
		// Later versions bring YAML and optional values.
		ext.Encoders(ext.EncodersVersion(0)),
		cel.Function("json", cel.Overload("json_dyn", []*cel.Type{cel.DynType}, cel.StringType, cel.UnaryBinding(toJSON))),
		cel.Function("parse_json",
			cel.Overload("parse_json_string", []*cel.Type{cel.StringType}, cel.DynType, cel.UnaryBinding(parseJSON)),
			cel.Overload("parse_json_bytes", []*cel.Type{cel.BytesType}, cel.DynType, cel.UnaryBinding(parseJSON)),
		),
	)
}

func toJSON(v ref.Val) ref.Val {
	left := maxMade
	native, err := goValue(v, &left)
	var text []byte
	if err == nil {
		text, err = encode(native)
	}
	switch {
	case errors.Is(err, errTooLarge) || len(text) > maxMade:
		return types.NewErr("json: this makes more than the %d bytes that are allowed", maxMade)
	case err != nil:
		return types.NewErr("json: %v", err)
	}
	return types.String(text)
}

func parseJSON(v ref.Val) ref.Val {
	var text []byte
	switch v := v.(type) {
	case types.String:
		text = []byte(v)
	case types.Bytes:
		text = v
	}
	native, err := decode(text)
	if errors.Is(err, errNotJSON) { // what the decoder says quotes the text
		err = errNotJSON
	}
	if err != nil {
		return types.NewErr("parse_json: %v", err)
	}
	return types.DefaultTypeAdapter.NativeToValue(native)
}

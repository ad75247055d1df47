package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"
	"sync"

	"cel.dev/cel-go/cel"
	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
	"cel.dev/cel-go/ext"
)

// Limits of an evaluation: CEL's units of cost, and the bytes of what comes of it.
const (
	maxCost   = 2_000_000
	maxResult = 16 << 20
	maxDepth  = 64
)

// environment is what expressions know: input, steps, chain and failed; CEL's own
// functions, those for strings and base64, json(x) and parse_json(text). Nothing in
// it reads a clock or reaches outside.
var environment = sync.OnceValues(func() (*cel.Env, error) {
	return cel.NewEnv(
		cel.Variable("input", cel.DynType),
		cel.Variable("steps", cel.DynType),
		cel.Variable("chain", cel.MapType(cel.StringType, cel.StringType)),
		cel.Variable("failed", cel.StringType),
		ext.Strings(), ext.Encoders(),
		cel.Function("json", cel.Overload("json_dyn", []*cel.Type{cel.DynType}, cel.StringType, cel.UnaryBinding(toJSON))),
		cel.Function("parse_json",
			cel.Overload("parse_json_string", []*cel.Type{cel.StringType}, cel.DynType, cel.UnaryBinding(parseJSON)),
			cel.Overload("parse_json_bytes", []*cel.Type{cel.BytesType}, cel.DynType, cel.UnaryBinding(parseJSON)),
		),
	)
})

func toJSON(v ref.Val) ref.Val {
	native, err := goValue(v, 0)
	if err != nil {
		return types.NewErr("json: %v", err)
	}
	text, err := encode(native)
	if err != nil {
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
	if err != nil {
		return types.NewErr("parse_json: %v", err)
	}
	return types.DefaultTypeAdapter.NativeToValue(native)
}

// known makes a value as expressions see it: what JSON holds, or bytes.
func (v Value) known() any {
	if v.JSON {
		if native, err := decode(v.Data); err == nil {
			return native
		}
	}
	if v.Data == nil {
		return types.NullValue
	}
	return v.Data
}

// decode reads JSON; whole numbers stay whole.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, err
	}
	if d.More() {
		return nil, errors.New("more than one value")
	}
	return numbers(v), nil
}

func numbers(v any) any {
	switch v := v.(type) {
	case json.Number:
		if i, err := strconv.ParseInt(string(v), 10, 64); err == nil {
			return i
		}
		if u, err := strconv.ParseUint(string(v), 10, 64); err == nil {
			return u
		}
		f, err := v.Float64()
		if err != nil {
			return string(v)
		}
		return f
	case []any:
		for i := range v {
			v[i] = numbers(v[i])
		}
	case map[string]any:
		for k := range v {
			v[k] = numbers(v[k])
		}
	case nil:
		return types.NullValue
	}
	return v
}

// goValue makes a Go value of one of CEL's.
func goValue(v ref.Val, depth int) (any, error) {
	if depth > maxDepth {
		return nil, fmt.Errorf("it is nested deeper than %d", maxDepth)
	}
	switch v := v.(type) {
	case types.Null:
		return nil, nil
	case types.Bool:
		return bool(v), nil
	case types.Int:
		return int64(v), nil
	case types.Uint:
		return uint64(v), nil
	case types.Double:
		if math.IsNaN(float64(v)) || math.IsInf(float64(v), 0) {
			return nil, errors.New("it is no number that JSON has")
		}
		return float64(v), nil
	case types.String:
		return string(v), nil
	case types.Bytes:
		return []byte(v), nil
	case *types.Optional:
		if !v.HasValue() {
			return nil, nil
		}
		return goValue(v.GetValue(), depth+1)
	case types.Timestamp, types.Duration:
		return goValue(v.ConvertToType(types.StringType), depth+1)
	case traits.Lister:
		list := []any{}
		for i := v.Iterator(); i.HasNext() == types.True; {
			item, err := goValue(i.Next(), depth+1)
			if err != nil {
				return nil, err
			}
			list = append(list, item)
		}
		return list, nil
	case traits.Mapper:
		m := make(map[string]any)
		for i := v.Iterator(); i.HasNext() == types.True; {
			key := i.Next()
			name, ok := key.ConvertToType(types.StringType).(types.String)
			if !ok {
				return nil, fmt.Errorf("a key of the map is a %s; want strings", key.Type().TypeName())
			}
			item, err := goValue(v.Get(key), depth+1)
			if err != nil {
				return nil, err
			}
			m[string(name)] = item
		}
		return m, nil
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a %s is no value that can be kept", v.Type().TypeName())
}

// encode writes JSON; bytes in it are base64.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	text := bytes.TrimRight(b.Bytes(), "\n")
	if len(text) > maxResult {
		return nil, fmt.Errorf("it has %d bytes; want %d at most", len(text), maxResult)
	}
	return text, nil
}

// ValueOf makes a payload of what an expression evaluated to: bytes stay as they
// are, anything else is JSON.
func ValueOf(v any) (Value, error) {
	if data, ok := v.([]byte); ok {
		return Value{Data: data}, nil
	}
	text, err := encode(v)
	if err != nil {
		return Value{}, err
	}
	return Value{JSON: true, Data: text}, nil
}

package chain

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strconv"

	"cel.dev/cel-go/common/types"
	"cel.dev/cel-go/common/types/ref"
	"cel.dev/cel-go/common/types/traits"
)

// maxDepth is how deep values nest.
const maxDepth = 64

// valueCost is what a value counts beside the bytes that are in it.
const valueCost = 16

var (
	errNotJSON  = errors.New("this is not JSON")
	errTooDeep  = fmt.Errorf("it is nested deeper than %d", maxDepth)
	errTooLarge = fmt.Errorf("it makes more than may come of one event, some %d MiB", maxResults>>20)
)

// known is a value as expressions see it: what JSON holds, or bytes; null where there
// is nothing.
func (v Value) known() (any, error) {
	switch {
	case len(v.Data) == 0: // no bytes and nothing are the same once they were kept
		return types.NullValue, nil
	case v.JSON:
		return decode(v.Data)
	}
	return v.Data, nil
}

// decode reads JSON. Numbers that are written as integers stay exact as far as 64 bits
// go; others are doubles.
func decode(text []byte) (any, error) {
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return nil, errNotJSON
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: there is more after its end", errNotJSON)
	}
	return exact(v, 0)
}

// exact gives numbers the type that holds them, in place.
func exact(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	var err error
	switch v := v.(type) {
	case json.Number:
		return number(string(v))
	case []any:
		for i := range v {
			if v[i], err = exact(v[i], depth+1); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for k := range v {
			if v[k], err = exact(v[k], depth+1); err != nil {
				return nil, err
			}
		}
	case nil:
		return types.NullValue, nil
	}
	return v, nil
}

func number(text string) (any, error) {
	if i, err := strconv.ParseInt(text, 10, 64); err == nil {
		return i, nil
	}
	if u, err := strconv.ParseUint(text, 10, 64); err == nil {
		return u, nil
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil {
		return nil, errors.New("a number in it is too large")
	}
	return f, nil
}

// goValue makes a Go value of one of CEL's. CEL's lists may hold the same one many
// times, so that a small expression can mean more than fits into memory: left is how
// much may still be made, in bytes or about.
func goValue(v ref.Val, left *int) (any, error) {
	if int(sizes.AggregateSize(v)) > *left {
		return nil, errTooLarge
	}
	return goValueAt(v, left, 0)
}

func goValueAt(v ref.Val, left *int, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errTooDeep
	}
	if !spend(left, valueCost) {
		return nil, errTooLarge
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
		if !spend(left, len(v)) {
			return nil, errTooLarge
		}
		return string(v), nil
	case types.Bytes:
		if !spend(left, len(v)) {
			return nil, errTooLarge
		}
		return []byte(v), nil
	case types.Timestamp, types.Duration:
		return goValueAt(v.ConvertToType(types.StringType), left, depth+1)
	case traits.Lister:
		return goList(v, left, depth)
	case traits.Mapper:
		return goMap(v, left, depth)
	case *types.Err:
		return nil, v
	}
	return nil, fmt.Errorf("a %s is no value that can be kept; write string(…)", v.Type().TypeName())
}

func goList(v traits.Lister, left *int, depth int) (any, error) {
	if folds, ok := v.(traits.Foldable); ok {
		f := folding{list: []any{}, left: left, depth: depth + 1}
		folds.Fold(&f)
		return f.list, f.err
	}
	list := []any{}
	for i := v.Iterator(); i.HasNext() == types.True; {
		item, err := goValueAt(i.Next(), left, depth+1)
		if err != nil {
			return nil, err
		}
		list = append(list, item)
	}
	return list, nil
}

// folding goes through a list; an iterator looks each item of a list that was put
// together up from its beginning.
type folding struct {
	list  []any
	left  *int
	depth int
	err   error
}

// FoldEntry takes the next item.
func (f *folding) FoldEntry(_, item any) bool {
	if f.err != nil {
		return false
	}
	var v any
	if v, f.err = goValueAt(types.DefaultTypeAdapter.NativeToValue(item), f.left, f.depth); f.err != nil {
		f.list = nil
		return false
	}
	f.list = append(f.list, v)
	return true
}

func goMap(v traits.Mapper, left *int, depth int) (any, error) {
	m := make(map[string]any)
	for i := v.Iterator(); i.HasNext() == types.True; {
		key := i.Next()
		name, ok := key.ConvertToType(types.StringType).(types.String)
		if !ok || key.Type() == types.DoubleType {
			return nil, fmt.Errorf("a key of the map is a %s; want strings", key.Type().TypeName())
		}
		if _, twice := m[string(name)]; twice {
			return nil, errors.New("a key of the map is there twice, once as a string and once as something else")
		}
		if !spend(left, len(name)) {
			return nil, errTooLarge
		}
		item, err := goValueAt(v.Get(key), left, depth+1)
		if err != nil {
			return nil, err
		}
		m[string(name)] = item
	}
	return m, nil
}

func spend(left *int, n int) bool {
	*left -= n
	return *left >= 0
}

// encode writes JSON; bytes in it are base64.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
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

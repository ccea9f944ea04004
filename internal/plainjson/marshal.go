package plainjson

import (
	"encoding"
	"encoding/json"
	"maps"
	"reflect"
	"slices"
	"strconv"
)

// Marshal is json.Marshal; all that is out of the ordinary is left to that.
func Marshal(v any) ([]byte, error) {
	d := decoder{types: make(map[reflect.Type][]field)}
	if b, ok := d.append(nil, reflect.ValueOf(v), 0); ok {
		return b, nil
	}
	return json.Marshal(v)
}

// append appends a value; not ok: it is encoding/json's.
func (d *decoder) append(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	if depth > maxDepth || !v.IsValid() {
		return nil, false
	}
	if v.Type().PkgPath() != "" {
		switch m := v.Interface().(type) {
		case json.Marshaler, encoding.TextMarshaler:
			own, err := json.Marshal(m)
			return append(b, own...), err == nil
		}
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return append(b, "null"...), true
		}
		return d.append(b, v.Elem(), depth+1)
	case reflect.Struct:
		return d.appendStruct(b, v, depth)
	case reflect.Map:
		return d.appendMap(b, v, depth)
	case reflect.Slice:
		return d.appendSlice(b, v, depth)
	case reflect.String:
		return AppendString(b, v.String()), true
	case reflect.Bool:
		return strconv.AppendBool(b, v.Bool()), true
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return strconv.AppendInt(b, v.Int(), 10), true
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return strconv.AppendUint(b, v.Uint(), 10), true
	}
	return nil, false
}

func (d *decoder) appendStruct(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	fs, err := d.fields(v.Type())
	if err != nil {
		return nil, false
	}
	b = append(b, '{')
	first := true
	for i := range fs {
		f := v.FieldByIndex(fs[i].index)
		if fs[i].omitEmpty && empty(f) {
			continue
		}
		if !first {
			b = append(b, ',')
		}
		first = false
		b = append(AppendString(b, fs[i].name), ':')
		if b, ok = d.append(b, f, depth+1); !ok {
			return nil, false
		}
	}
	return append(b, '}'), true
}

// empty is what omitempty leaves out.
func empty(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Map, reflect.Slice, reflect.String:
		return v.Len() == 0
	case reflect.Struct, reflect.Array:
		return false
	}
	return v.IsZero()
}

func (d *decoder) appendMap(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	t := v.Type()
	if t.Key().Kind() != reflect.String || t.Key().PkgPath() != "" {
		return nil, false
	}
	if v.IsNil() {
		return append(b, "null"...), true
	}
	values := make(map[string]reflect.Value, v.Len())
	for it := v.MapRange(); it.Next(); {
		values[it.Key().String()] = it.Value()
	}
	b = append(b, '{')
	for i, k := range slices.Sorted(maps.Keys(values)) {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(AppendString(b, k), ':')
		if b, ok = d.append(b, values[k], depth+1); !ok {
			return nil, false
		}
	}
	return append(b, '}'), true
}

func (d *decoder) appendSlice(b []byte, v reflect.Value, depth int) (_ []byte, ok bool) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		return nil, false
	}
	if v.IsNil() {
		return append(b, "null"...), true
	}
	b = append(b, '[')
	for i := range v.Len() {
		if i > 0 {
			b = append(b, ',')
		}
		if b, ok = d.append(b, v.Index(i), depth+1); !ok {
			return nil, false
		}
	}
	return append(b, ']'), true
}

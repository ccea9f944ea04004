// Package plainjson decodes JSON into plain structs, and encodes them, as encoding/json does,
// for programs that do so once and end: encoding/json first prepares to encode and decode every
// type that the target could ever hold, which takes longer than the document itself.
package plainjson

import (
	"encoding"
	"encoding/json"
	"errors"
	"reflect"
	"strconv"
	"strings"
)

// Unmarshal is json.Unmarshal into what v points to, which must be its zero value. All
// that is out of the ordinary is left to that: syntax errors and their texts, numbers that
// are no integers, keys that come twice, types with a decoder of their own.
func Unmarshal(data []byte, v any) error {
	p := reflect.ValueOf(v)
	if p.Kind() != reflect.Pointer || p.IsNil() {
		return json.Unmarshal(data, v)
	}
	d := decoder{data: data, types: make(map[reflect.Type][]field)}
	if d.value(p.Elem(), 0) == nil {
		d.space()
		if d.at == len(d.data) {
			return nil
		}
	}
	p.Elem().SetZero()
	return json.Unmarshal(data, v)
}

// errOther leaves the document to encoding/json.
var errOther = errors.New("not plain")

// maxDepth is how deep values are nested that are decoded here.
const maxDepth = 100

type decoder struct {
	data  []byte
	at    int
	types map[reflect.Type][]field
}

// field is a field of a struct, or of one embedded in it.
type field struct {
	name      string
	index     []int
	omitEmpty bool
}

// fields lists the fields of t that have names; nil when embedding makes that a question
// of rules.
func (d *decoder) fields(t reflect.Type) ([]field, error) {
	if fs, ok := d.types[t]; ok {
		return fs, nil
	}
	var fs []field
	for i := range t.NumField() {
		f := t.Field(i)
		tag := f.Tag.Get("json")
		name, opts, _ := strings.Cut(tag, ",")
		if f.Anonymous && name == "" {
			if f.Type.Kind() != reflect.Struct {
				return nil, errOther
			}
			inner, err := d.fields(f.Type)
			if err != nil {
				return nil, err
			}
			for _, x := range inner {
				fs = append(fs, field{x.name, append([]int{i}, x.index...), x.omitEmpty})
			}
			continue
		}
		if !f.IsExported() || tag == "-" {
			continue
		}
		if opts != "" && opts != "omitempty" {
			return nil, errOther
		}
		if name == "" {
			name = f.Name
		}
		fs = append(fs, field{name, []int{i}, opts != ""})
	}
	for i, f := range fs {
		for _, g := range fs[:i] {
			if strings.EqualFold(f.name, g.name) {
				return nil, errOther
			}
		}
	}
	d.types[t] = fs
	return fs, nil
}

func (d *decoder) space() {
	for d.at < len(d.data) {
		switch d.data[d.at] {
		case ' ', '\t', '\n', '\r':
			d.at++
		default:
			return
		}
	}
}

// next returns the next byte that is no space without taking it; 0 at the end.
func (d *decoder) next() byte {
	d.space()
	if d.at == len(d.data) {
		return 0
	}
	return d.data[d.at]
}

// take takes one byte, which must be c.
func (d *decoder) take(c byte) error {
	if d.next() != c {
		return errOther
	}
	d.at++
	return nil
}

func (d *decoder) word(w string) error {
	if len(d.data)-d.at < len(w) || string(d.data[d.at:d.at+len(w)]) != w {
		return errOther
	}
	d.at += len(w)
	return nil
}

// text takes a string. Those with escapes, or bytes that are not ASCII, are encoding/json's.
func (d *decoder) text() (string, error) {
	if err := d.take('"'); err != nil {
		return "", err
	}
	start, plain := d.at, true
	for d.at < len(d.data) {
		switch c := d.data[d.at]; {
		case c == '"':
			d.at++
			if plain {
				return string(d.data[start : d.at-1]), nil
			}
			var s string
			err := json.Unmarshal(d.data[start-1:d.at], &s)
			return s, err
		case c < ' ':
			return "", errOther
		case c == '\\':
			plain = false
			d.at++
		case c >= 0x80:
			plain = false
		}
		d.at++
	}
	return "", errOther
}

// number takes an integer.
func (d *decoder) number() (string, error) {
	start := d.at
	if d.next() == '-' {
		d.at++
	}
	first := d.at
	for d.at < len(d.data) && d.data[d.at] >= '0' && d.data[d.at] <= '9' {
		d.at++
	}
	n := d.at - first
	if n == 0 || n > 1 && d.data[first] == '0' || d.at < len(d.data) && strings.IndexByte(".eE", d.data[d.at]) >= 0 {
		return "", errOther
	}
	return string(d.data[start:d.at]), nil
}

// each takes an array or object, whose elements f takes.
func (d *decoder) each(begin, end byte, f func() error) error {
	if err := d.take(begin); err != nil {
		return err
	}
	if d.next() == end {
		d.at++
		return nil
	}
	for {
		d.space()
		if err := f(); err != nil {
			return err
		}
		if d.next() == end {
			d.at++
			return nil
		}
		if err := d.take(','); err != nil {
			return err
		}
	}
}

func (d *decoder) key() (string, error) {
	k, err := d.text()
	if err == nil {
		err = d.take(':')
	}
	return k, err
}

// skip takes a value that nobody wants.
func (d *decoder) skip(depth int) (err error) {
	if depth > maxDepth {
		return errOther
	}
	switch d.next() {
	case '{':
		return d.each('{', '}', func() error {
			if _, err := d.key(); err != nil {
				return err
			}
			return d.skip(depth + 1)
		})
	case '[':
		return d.each('[', ']', func() error { return d.skip(depth + 1) })
	case '"':
		_, err = d.text()
	case 't':
		err = d.word("true")
	case 'f':
		err = d.word("false")
	case 'n':
		err = d.word("null")
	default:
		_, err = d.number()
	}
	return err
}

// own tells whether v's type decodes itself.
func own(v reflect.Value) bool {
	if v.Type().PkgPath() == "" {
		return false
	}
	switch v.Addr().Interface().(type) {
	case json.Unmarshaler, encoding.TextUnmarshaler:
		return true
	}
	return false
}

// value takes one value into v, which is zero.
func (d *decoder) value(v reflect.Value, depth int) error {
	if depth > maxDepth {
		return errOther
	}
	if own(v) {
		d.space()
		start := d.at
		if err := d.skip(depth); err != nil {
			return err
		}
		return json.Unmarshal(d.data[start:d.at], v.Addr().Interface())
	}
	if d.next() == 'n' {
		return d.word("null") // leaves a zero value
	}
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			return errOther
		}
		v.Set(reflect.New(v.Type().Elem()))
		return d.value(v.Elem(), depth+1)
	case reflect.Struct:
		return d.object(v, depth)
	case reflect.Map:
		return d.table(v, depth)
	case reflect.Slice:
		if v.Type().Elem().Kind() == reflect.Uint8 || !v.IsNil() {
			return errOther
		}
		v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		return d.each('[', ']', func() error {
			n := v.Len()
			v.Grow(1)
			v.SetLen(n + 1)
			v.Index(n).SetZero()
			return d.value(v.Index(n), depth+1)
		})
	}
	return d.scalar(v)
}

func (d *decoder) scalar(v reflect.Value) error {
	switch v.Kind() {
	case reflect.String:
		s, err := d.text()
		v.SetString(s)
		return err
	case reflect.Bool:
		if d.next() == 't' {
			v.SetBool(true)
			return d.word("true")
		}
		v.SetBool(false)
		return d.word("false")
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		s, err := d.number()
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(s, 10, v.Type().Bits())
		v.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		s, err := d.number()
		if err != nil {
			return err
		}
		n, err := strconv.ParseUint(s, 10, v.Type().Bits())
		v.SetUint(n)
		return err
	}
	return errOther
}

// object takes an object into a struct.
func (d *decoder) object(v reflect.Value, depth int) error {
	fs, err := d.fields(v.Type())
	if err != nil {
		return err
	}
	return d.each('{', '}', func() error {
		k, err := d.key()
		if err != nil {
			return err
		}
		for i := range fs {
			if strings.EqualFold(fs[i].name, k) {
				f := v.FieldByIndex(fs[i].index)
				if !f.IsZero() { // it came before
					return errOther
				}
				return d.value(f, depth+1)
			}
		}
		return d.skip(depth + 1)
	})
}

// table takes an object into a map.
func (d *decoder) table(v reflect.Value, depth int) error {
	t := v.Type()
	if t.Key().Kind() != reflect.String || t.Key().PkgPath() != "" || !v.IsNil() {
		return errOther
	}
	v.Set(reflect.MakeMap(t))
	return d.each('{', '}', func() error {
		k, err := d.key()
		if err != nil {
			return err
		}
		e := reflect.New(t.Elem()).Elem()
		if err := d.value(e, depth+1); err != nil {
			return err
		}
		v.SetMapIndex(reflect.ValueOf(k), e)
		return nil
	})
}

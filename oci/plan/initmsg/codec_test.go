package initmsg

import (
	"reflect"
	"testing"
)

// fill sets every field of v to something not zero, so that a field forgotten in
// the codec shows.
func fill(v reflect.Value, n *int) {
	switch v.Kind() {
	case reflect.Struct:
		for i := range v.NumField() {
			fill(v.Field(i), n)
		}
	case reflect.Slice:
		s := reflect.MakeSlice(v.Type(), 2, 2)
		for i := range 2 {
			fill(s.Index(i), n)
		}
		v.Set(s)
	case reflect.String:
		*n++
		v.SetString("s" + string(rune('a'+*n%26)))
	case reflect.Bool:
		v.SetBool(true)
	default:
		*n++
		v.Set(reflect.ValueOf(*n % 200).Convert(v.Type()))
	}
}

func TestRoundTripOfEveryField(t *testing.T) {
	var m Message
	n := 0
	fill(reflect.ValueOf(&m).Elem(), &n)
	b := Encode(&m)
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&m, got) {
		t.Errorf("got %+v\nwant %+v", got, &m)
	}
	for i := range b {
		if _, err := Decode(b[:i]); err == nil {
			t.Fatalf("%d of %d bytes decode", i, len(b))
		}
	}
}

func FuzzDecode(f *testing.F) {
	var m Message
	n := 0
	fill(reflect.ValueOf(&m).Elem(), &n)
	f.Add(Encode(&m))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		if _, err := Decode(Encode(m)); err != nil {
			t.Errorf("what was decoded does not encode: %v", err)
		}
	})
}

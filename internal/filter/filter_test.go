package filter

import (
	"fmt"
	"reflect"
	"testing"

	"github.com/containerd/errdefs"
)

func TestParse(t *testing.T) {
	for in, want := range map[string]Args{
		"":                                nil,
		"{}":                              {},
		`{"a":{"y":true,"x":true}}`:       {"a": {"x", "y"}},
		`{"a":{"x":false}}`:               {},
		`{"a":["x","y"],"b":["z"]}`:       {"a": {"x", "y"}, "b": {"z"}},
		`{"label":{"k=v":true,"l":true}}`: {"label": {"k=v", "l"}},
	} {
		t.Run(in, func(t *testing.T) {
			got, err := Parse(in)
			if err != nil || !reflect.DeepEqual(got, want) {
				t.Errorf("%s: %v %v", in, got, err)
			}
		})
	}
	for _, in := range []string{"x", "[]", `{"a":1}`, `{"a":{"b":2}}`, `{"a":["b",1]}`} {
		t.Run(in, func(t *testing.T) {
			if got, err := Parse(in); !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s: %v %v", in, got, err)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	a := Args{"x": {"1"}}
	if err := a.Check("x", "y"); err != nil {
		t.Error(err)
	}
	if err := a.Check("y"); !errdefs.IsInvalidArgument(err) || err.Error() != "invalid filter 'x'" {
		t.Error(err)
	}
}

func TestAnyAndBool(t *testing.T) {
	a := Args{"n": {"a", "b"}, "t": {"true"}, "f": {"0"}, "bad": {"maybe"}, "two": {"true", "false"}}
	is := func(s string) func(string) bool { return func(v string) bool { return v == s } }
	if !a.Any("absent", is("x")) || !a.Any("n", is("b")) || a.Any("n", is("c")) {
		t.Error("Any")
	}
	for _, c := range []struct {
		key       string
		def, want bool
		bad       bool
	}{{"t", false, true, false}, {"f", true, false, false}, {"absent", true, true, false}, {"bad", false, false, true}, {"two", false, false, true}} {
		t.Run(c.key, func(t *testing.T) {
			got, err := a.Bool(c.key, c.def)
			if got != c.want || (err != nil) != c.bad {
				t.Errorf("%s: %v %v", c.key, got, err)
			}
		})
	}
}

func TestLabels(t *testing.T) {
	labels := map[string]string{"a": "1", "b": ""}
	for _, c := range []struct {
		args Args
		want bool
	}{
		{Args{}, true},
		{Args{"label": {"a"}}, true},
		{Args{"label": {"a=1"}}, true},
		{Args{"label": {"a=2"}}, false},
		{Args{"label": {"a", "c"}}, false},
		{Args{"label": {"b="}}, true},
		{Args{"label!": {"c"}}, true},
		{Args{"label!": {"a=1"}}, false},
	} {
		t.Run(fmt.Sprint(c.args), func(t *testing.T) {
			if got := c.args.Labels("label", labels); got != c.want {
				t.Errorf("%v: %v", c.args, got)
			}
		})
	}
}

func FuzzParse(f *testing.F) {
	f.Add(`{"a":{"x":true}}`)
	f.Add(`{"a":["x"]}`)
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			if !errdefs.IsInvalidArgument(err) {
				t.Error(err)
			}
			return
		}
		_ = a.Check("a")
		a.Labels("a", nil)
	})
}

package opts

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	units "github.com/docker/go-units"
	"github.com/spf13/pflag"
)

// Each flag type: what a series of values makes of it, how help and errors show it, and what
// it refuses in which words.
func TestValues(t *testing.T) {
	upper := func(v string) (string, error) { return strings.ToUpper(v), nil }
	for _, c := range []struct {
		name  string
		value pflag.Value
		set   []string
		err   string // of the last
		get   func(pflag.Value) any
		want  any
		text  string
		kind  string
	}{
		{"list", NewList(nil), []string{"b", "a", "b"}, "", func(v pflag.Value) any { return v.(*List).All() }, []string{"b", "a", "b"}, "[b a b]", "list"},
		{"no list", NewList(nil), nil, "", func(v pflag.Value) any { return [2]bool{v.(*List).All() == nil, v.(*List).NonNil() == nil} }, [2]bool{true, false}, "", "list"},
		{"checked list", NewList(upper), []string{"a"}, "", func(v pflag.Value) any { return v.(*List).NonNil() }, []string{"A"}, "[A]", "list"},
		{"refused", NewList(Label), []string{"a=b", "=x"}, "invalid label '=x': empty name", func(v pflag.Value) any { return v.(*List).All() }, []string{"a=b"}, "[a=b]", "list"},
		{"map", NewMap(nil), []string{"a=1", "b", "c=x=y", "a=2"}, "", func(v pflag.Value) any { return v.(*Map).All() }, map[string]string{"a": "2", "b": "", "c": "x=y"}, "map[a:2 b: c:x=y]", "map"},
		{"no map", NewMap(nil), nil, "", func(v pflag.Value) any { return v.(*Map).All() }, map[string]string{}, "map[]", "map"},
		{"bytes", &Bytes{}, []string{"64m"}, "", func(v pflag.Value) any { return v.(*Bytes).N }, int64(64 << 20), "64MiB", "bytes"},
		{"kilobytes", &Bytes{}, []string{"1.5kb"}, "", func(v pflag.Value) any { return v.(*Bytes).N }, int64(1536), "1.5KiB", "bytes"},
		{"no bytes", &Bytes{}, []string{"x"}, "invalid size: 'x'", func(v pflag.Value) any { return v.(*Bytes).N }, int64(0), "0", "bytes"},
		{"no limit of memory", &Bytes{}, []string{"-1"}, "invalid size: '-1'", func(v pflag.Value) any { return v.(*Bytes).N }, int64(0), "0", "bytes"},
		{"no limit of swap", &Bytes{Swap: true}, []string{"-1"}, "", func(v pflag.Value) any { return v.(*Bytes).N }, int64(-1), "0", "bytes"},
		{"cpus", &CPUs{}, []string{"1.5"}, "", func(v pflag.Value) any { return v.(*CPUs).Nano }, int64(15e8), "1.500", "decimal"},
		{"fraction", &CPUs{}, []string{"1/4"}, "", func(v pflag.Value) any { return v.(*CPUs).Nano }, int64(25e7), "0.250", "decimal"},
		{"no cpus", &CPUs{}, []string{"x"}, "failed to parse x as a rational number", func(v pflag.Value) any { return v.(*CPUs).Nano }, int64(0), "", "decimal"},
		{"part of a nanosecond", &CPUs{}, []string{"0.0000000001"}, "value is too precise", func(v pflag.Value) any { return v.(*CPUs).Nano }, int64(0), "", "decimal"},
		{
			"ulimits", &Ulimits{},
			[]string{"nofile=1:2", "core=3", "nofile=5"},
			"", func(v pflag.Value) any { return v.(*Ulimits).All() },
			[]*units.Ulimit{{Name: "core", Soft: 3, Hard: 3}, {Name: "nofile", Soft: 5, Hard: 5}},
			"[core=3:3 nofile=5:5]", "ulimit",
		},
		{"no ulimit", &Ulimits{}, []string{"x=1"}, "invalid ulimit type: x", func(v pflag.Value) any { return len(v.(*Ulimits).All()) }, 0, "[]", "ulimit"},
		{
			"filter", &Filter{},
			[]string{"Label=a=b", " status = up ", "label=c", ""},
			"", func(v pflag.Value) any { return v.(*Filter).All() },
			map[string]map[string]bool{"label": {"a=b": true, "c": true}, "status": {"up": true}},
			"", "filter",
		},
		{"no filter", &Filter{}, []string{"x"}, "bad format of filter (expected name=value)", func(v pflag.Value) any { return v.(*Filter).All() == nil }, true, "", "filter"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var err error
			for _, s := range c.set {
				err = c.value.Set(s)
			}
			if got := errText(err); got != c.err {
				t.Errorf("error %q, want %q", got, c.err)
			}
			if got := c.get(c.value); !reflect.DeepEqual(got, c.want) {
				t.Errorf("value %#v, want %#v", got, c.want)
			}
			if got := c.value.String(); got != c.text {
				t.Errorf("shown as %q, want %q", got, c.text)
			}
			if got := c.value.Type(); got != c.kind {
				t.Errorf("type %q, want %q", got, c.kind)
			}
		})
	}
}

func errText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestParsePermissions(t *testing.T) {
	for mode, want := range map[string]bool{"r": true, "rwm": true, "mw": true, "": false, "rr": false, "x": false, "rwx": false} {
		t.Run(mode, func(t *testing.T) {
			if got := ParsePermissions(mode); got != want {
				t.Errorf("%q: %t", mode, got)
			}
		})
	}
}

func TestAbsSource(t *testing.T) {
	t.Chdir(t.TempDir())
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for src, want := range map[string]string{
		"/a": "/a", "vol": "vol", ".": dir, "./a": filepath.Join(dir, "a"), "../a": filepath.Join(filepath.Dir(dir), "a"),
	} {
		t.Run(src, func(t *testing.T) {
			if got, err := AbsSource(src); err != nil || got != want {
				t.Errorf("%q, %v; want %q", got, err, want)
			}
		})
	}
}

func TestKVToMap(t *testing.T) {
	got := KVToMap([]string{"a=1", "b", "c=x=y", "a=2"})
	if want := map[string]string{"a": "2", "b": "", "c": "x=y"}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

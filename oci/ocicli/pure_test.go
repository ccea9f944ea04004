package ocicli

import (
	"strings"
	"testing"

	"github.com/gantry/gantry/oci"
)

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args, rest, got string
		stop            bool
	}{
		{"--name x id", "id", "x", false},
		{"--name=x id", "id", "x", false},
		{"-name x id", "id", "x", false},
		{"-n x -s id", "id", "x,switch", false},
		{"id --name x more", "id more", "x", false},
		{"id --name x more", "id --name x more", "", true},
		{"--switch=false -- --name", "--name", "", false},
		{"id -", "id -", "", false},
		{"--name", "", "error: flag needs an argument: -name", false},
		{"--nope", "", "error: flag provided but not defined: -nope", false},
		{"--switch=perhaps", "", `error: invalid value "perhaps" for flag -switch: strconv.ParseBool: parsing "perhaps": invalid syntax`, false},
	} {
		t.Run(c.args+" "+c.rest, func(t *testing.T) {
			f := &flags{stopAtArg: c.stop}
			var name string
			var on bool
			f.str(&name, "name,n", "X", "")
			f.boolean(&on, "switch,s", "")
			rest, err := f.parse(strings.Fields(c.args))
			got := name
			if on {
				got += ",switch"
			}
			if err != nil {
				got = "error: " + err.Error()
			}
			if got != c.got || strings.Join(rest, " ") != c.rest {
				t.Errorf("%q: %q, rest %q", c.args, got, rest)
			}
		})
	}
}

func TestSizes(t *testing.T) {
	for in, want := range map[string]int64{
		"-1": -1, "0": 0, "512": 512, "1k": 1 << 10, "64m": 64 << 20, "64MB": 64 << 20, "2GiB": 2 << 30, " 1g ": 1 << 30,
		"": -9, "m": -9, "x": -9, "1x": -9, "-1m": -9, "9999999999g": -9, "b": -9,
	} {
		t.Run(in, func(t *testing.T) {
			got, err := size(in)
			if err != nil {
				got = -9
			}
			if got != want {
				t.Errorf("%q: %d, want %d", in, got, want)
			}
		})
	}
}

func TestSubCgroup(t *testing.T) {
	ref := oci.CgroupRef{Paths: map[string]string{"memory": "/a", "pids": "/b"}}
	for in, want := range map[string]string{
		"x": "/a/x /b/x", "/x/": "/a/x /b/x", "memory:y": "/a/y /b", "memory,pids:z": "/a/z /b/z", "": "/a /b",
		"../x": "error", "x/../..": "error", "nope:x": "error", "memory:..": "error",
	} {
		t.Run(in, func(t *testing.T) {
			out, err := subCgroup(ref, []string{in})
			got := out.Paths["memory"] + " " + out.Paths["pids"]
			if err != nil {
				got = "error"
			}
			if got != want {
				t.Errorf("%q: %q, want %q", in, got, want)
			}
		})
	}
	if ref.Paths["memory"] != "/a" {
		t.Error("the argument was changed")
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 77 1 2"))
	f.Add([]byte("1 (x) R"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if st, err := parseStat(b); err == nil && st.state == 0 {
			t.Errorf("no state from %q", b)
		}
	})
	if st, err := parseStat([]byte("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 77 1 2")); err != nil || st != (procStat{'S', 77}) {
		f.Errorf("%+v %v", st, err)
	}
}

func FuzzFlags(f *testing.F) {
	f.Add("create\x00--bundle\x00x\x00-d")
	f.Fuzz(func(_ *testing.T, s string) {
		a := &app{}
		for _, c := range commands() {
			fl := new(flags)
			c.setup(a, fl)
			_, _ = fl.parse(strings.Split(s, "\x00"))
		}
	})
}

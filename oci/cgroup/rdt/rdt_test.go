package rdt

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	specs "github.com/opencontainers/runtime-spec/specs-go"
)

// tree is a resctrl of plain files: the kernel's makes them with a directory, here
// the test does.
func tree(t *testing.T, classes ...string) string {
	t.Helper()
	root := t.TempDir()
	for _, c := range append([]string{""}, classes...) {
		d := filepath.Join(root, c)
		if err := os.MkdirAll(filepath.Join(d, "mon_groups"), 0o755); err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(d, "schemata"), "    L3:0=fffff;1=00fff\n    MB:0= 100;1=  50\n")
		put(t, filepath.Join(d, "tasks"), "")
	}
	return root
}

func put(t *testing.T, p, s string) {
	t.Helper()
	if err := os.WriteFile(p, []byte(s), 0o644); err != nil {
		t.Fatal(err)
	}
}

func get(t *testing.T, p string) string {
	t.Helper()
	b, err := os.ReadFile(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// list is everything below root.
func list(t *testing.T, root string) (out []string) {
	t.Helper()
	err := filepath.WalkDir(root, func(p string, d os.DirEntry, err error) error {
		if rel, _ := filepath.Rel(root, p); d.IsDir() && rel != "." {
			out = append(out, rel)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestExistingClass(t *testing.T) {
	for i, c := range []struct {
		rdt specs.LinuxIntelRdt
		ok  bool
	}{
		{specs.LinuxIntelRdt{ClosID: "gold"}, true},
		{specs.LinuxIntelRdt{ClosID: "gold", L3CacheSchema: "L3:0=fffff;1=fff", MemBwSchema: "MB:0=100;1=50"}, true},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:1=0FFF"}}, true},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:0=ff"}}, false},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L3:7=ff"}}, false},
		{specs.LinuxIntelRdt{ClosID: "gold", Schemata: []string{"L2:0=ff"}}, false},
		{specs.LinuxIntelRdt{ClosID: "gold", MemBwSchema: "MB:0=20"}, false},
		{specs.LinuxIntelRdt{ClosID: "silver"}, false},
		{specs.LinuxIntelRdt{ClosID: "/"}, true},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			root := tree(t, "gold")
			before := list(t, root)
			g, err := Plan(root, "box", &c.rdt)
			if err != nil {
				t.Fatal(err)
			}
			err = g.Create()
			if c.ok && err != nil || !c.ok && !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", c.rdt, err)
			}
			if got := get(t, filepath.Join(root, "gold/schemata")); !strings.Contains(got, "L3:0=fffff;1=00fff") {
				t.Errorf("%+v: somebody else's schemata became %q", c.rdt, got)
			}
			if c.ok {
				if err := g.Join(os.Getpid()); err != nil {
					t.Error(err)
				}
				if err := g.Remove(); err != nil {
					t.Error(err)
				}
			}
			if after := list(t, root); !slices.Equal(before, after) {
				t.Errorf("%+v: %v, was %v", c.rdt, after, before)
			}
		})
	}
}

// TestOwnClass: made, written line by line in the specification's order, joined.
func TestOwnClass(t *testing.T) {
	root := tree(t, "box") // as the kernel fills a directory that is made
	g, err := Plan(root, "box", &specs.LinuxIntelRdt{
		L3CacheSchema: "L3:0=f", MemBwSchema: "MB:0=10", Schemata: []string{"L3:0=ff;1=f", "MB:0=20"}, EnableMonitoring: true,
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"L3:0=f", "MB:0=10", "L3:0=ff;1=f", "MB:0=20"}; !slices.Equal(g.lines, want) {
		t.Errorf("lines %q", g.lines)
	}
	if err := g.Create(); err != nil {
		t.Fatal(err)
	}
	// A plain file has them on top of each other; the last one is what is read first.
	if got := get(t, filepath.Join(root, "box/schemata")); !strings.HasPrefix(got, "MB:0=20\n") {
		t.Errorf("schemata %q", got)
	}
	mon := filepath.Join(root, "box/mon_groups/box")
	put(t, filepath.Join(mon, "tasks"), "")
	if err := g.Join(os.Getpid()); err != nil {
		t.Fatal(err)
	}
	for _, d := range g.Dirs() {
		if got := get(t, filepath.Join(d, "tasks")); got == "" {
			t.Errorf("nobody is in %s", d)
		}
	}
	if err := g.Set("", "MB:0=70"); err != nil {
		t.Fatal(err)
	}
	if got := get(t, filepath.Join(root, "box/schemata")); !strings.HasPrefix(got, "MB:0=70\n") {
		t.Errorf("schemata %q", got)
	}
	if err := g.Set("L3 0=1", ""); !errors.Is(err, errdefs.ErrInvalidArgument) {
		t.Errorf("not a schema: %v", err)
	}
	// The kernel's directories go with what is in them; plain ones are emptied here.
	for _, f := range []string{"mon_groups/box/tasks", "schemata", "tasks"} {
		_ = os.Remove(filepath.Join(root, "box", f))
	}
	_ = os.Remove(mon)
	_ = os.Remove(filepath.Dir(mon))
	for range 2 {
		if err := g.Remove(); err != nil {
			t.Error(err)
		}
	}
	if slices.Contains(list(t, root), "box") {
		t.Error("the class is still there")
	}
}

func TestPlanRefuses(t *testing.T) {
	for i, r := range []specs.LinuxIntelRdt{
		{ClosID: ".."},
		{ClosID: "a/b"},
		{ClosID: "info"},
		{ClosID: "mon_groups"},
		{ClosID: "a\nb"},
		{L3CacheSchema: "L3:0=f\nMB:0=1"},
		{MemBwSchema: "L3:0=f"},
		{Schemata: []string{"x"}},
		{Schemata: []string{"L3:"}},
		{Schemata: []string{"L3:0"}},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			if _, err := Plan("/r", "box", &r); !errors.Is(err, errdefs.ErrInvalidArgument) {
				t.Errorf("%+v: %v", r, err)
			}
		})
	}
}

// TestLastStatus: the kernel's word on a failure is handed on.
func TestLastStatus(t *testing.T) {
	root := tree(t)
	if err := os.MkdirAll(filepath.Join(root, "info"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(root, "info/last_cmd_status"), "Mask out of range\n")
	g, err := Plan(root, "box", &specs.LinuxIntelRdt{Schemata: []string{"L3:0=f"}})
	if err != nil {
		t.Fatal(err)
	}
	// A plain directory has no schemata: the write fails.
	if err := g.Create(); !errors.Is(err, errdefs.ErrInvalidArgument) || !strings.Contains(err.Error(), "(Mask out of range)") {
		t.Errorf("%v", err)
	}
	if slices.Contains(list(t, root), "box") {
		t.Error("a class that failed is still there")
	}
}

func FuzzParseLine(f *testing.F) {
	f.Add("L3:0=ff;1=0f")
	f.Add("MB:0= 100")
	f.Fuzz(func(t *testing.T, l string) {
		if res, vals, ok := parseLine(l); ok && (res == "" || len(vals) == 0) {
			t.Errorf("%q: %q %v", l, res, vals)
		}
	})
}

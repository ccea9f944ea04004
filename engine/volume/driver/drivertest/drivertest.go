// Package drivertest is the suite that every volume driver passes.
package drivertest

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/engine/volume/driver"
)

// Run holds a driver to the seam. factory makes one without volumes; it is called once for each
// test.
func Run(t *testing.T, factory func(t *testing.T) driver.Driver) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, driver.Driver)
	}{
		{"description", description},
		{"a volume's life", life},
		{"idempotence", idempotence},
		{"what is not there", absent},
		{"data is kept", data},
		{"uses are counted by id", uses},
		{"names are taken or refused", names},
		{"many at once", many},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, factory(t)) })
	}
}

func description(t *testing.T, d driver.Driver) {
	desc := d.Describe(t.Context())
	if desc.Name == "" || desc.Scope != driver.ScopeLocal && desc.Scope != driver.ScopeGlobal || desc != d.Describe(t.Context()) {
		t.Errorf("%+v", desc)
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func listed(t *testing.T, d driver.Driver) []string {
	t.Helper()
	list, err := d.List(t.Context())
	must(t, err)
	var all []string
	for _, v := range list {
		if v.Status != nil {
			t.Errorf("a list with status: %+v", v)
		}
		all = append(all, v.Name)
	}
	slices.Sort(all)
	return all
}

func life(t *testing.T, d driver.Driver) {
	if got := listed(t, d); len(got) != 0 {
		t.Fatalf("at first: %v", got)
	}
	must(t, d.Create(t.Context(), "one", nil))
	must(t, d.Create(t.Context(), "two.x", nil))
	if got := strings.Join(listed(t, d), " "); got != "one two.x" {
		t.Errorf("listed: %s", got)
	}
	v, err := d.Get(t.Context(), "one")
	if err != nil || v.Name != "one" {
		t.Errorf("%+v %v", v, err)
	}
	must(t, d.Remove(t.Context(), "one"))
	if got := strings.Join(listed(t, d), " "); got != "two.x" {
		t.Errorf("listed after a removal: %s", got)
	}
	if _, err := d.Get(t.Context(), "one"); !errdefs.IsNotFound(err) {
		t.Errorf("a removed one: %v", err)
	}
}

func idempotence(t *testing.T, d driver.Driver) {
	for range 2 {
		must(t, d.Create(t.Context(), "one", nil))
	}
	first, err := d.Mount(t.Context(), "one", "user")
	must(t, err)
	must(t, os.WriteFile(filepath.Join(first, "f"), []byte("x"), 0o600))
	again, err := d.Mount(t.Context(), "one", "user")
	if err != nil || again != first {
		t.Errorf("mounted twice: %q, %q, %v", first, again, err)
	}
	must(t, d.Create(t.Context(), "one", nil))
	if _, err := os.Stat(filepath.Join(first, "f")); err != nil {
		t.Errorf("made again: %v", err)
	}
	for range 2 {
		must(t, d.Unmount(t.Context(), "one", "user"))
	}
	for range 2 {
		must(t, d.Remove(t.Context(), "one"))
	}
}

func absent(t *testing.T, d driver.Driver) {
	if _, err := d.Get(t.Context(), "nope"); !errdefs.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
	must(t, d.Remove(t.Context(), "nope"))
}

func data(t *testing.T, d driver.Driver) {
	must(t, d.Create(t.Context(), "one", nil))
	for i, id := range []string{"a", "b"} {
		path, err := d.Mount(t.Context(), "one", id)
		must(t, err)
		if !filepath.IsAbs(path) {
			t.Fatalf("path %q", path)
		}
		if told, err := d.Path(t.Context(), "one"); err != nil || told != path {
			t.Errorf("path of a mounted one: %q, %v; mounted at %q", told, err, path)
		}
		if v, err := d.Get(t.Context(), "one"); err != nil || v.Path != path {
			t.Errorf("get of a mounted one: %+v %v", v, err)
		}
		if _, err := os.Stat(filepath.Join(path, "f")); (err == nil) != (i > 0) {
			t.Errorf("as %s: %v", id, err)
		}
		must(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600))
		must(t, d.Unmount(t.Context(), "one", id))
	}
	must(t, d.Remove(t.Context(), "one"))
	must(t, d.Create(t.Context(), "one", nil))
	path, err := d.Mount(t.Context(), "one", "c")
	must(t, err)
	if _, err := os.Stat(filepath.Join(path, "f")); err == nil {
		t.Error("a new one has the removed one's data")
	}
	must(t, d.Unmount(t.Context(), "one", "c"))
}

func uses(t *testing.T, d driver.Driver) {
	must(t, d.Create(t.Context(), "one", nil))
	path, err := d.Mount(t.Context(), "one", "a")
	must(t, err)
	for range 3 {
		_, err = d.Mount(t.Context(), "one", "b")
		must(t, err)
	}
	must(t, d.Unmount(t.Context(), "one", "b"))
	must(t, d.Unmount(t.Context(), "one", "nobody"))
	if told, err := d.Path(t.Context(), "one"); err != nil || told != path {
		t.Errorf("while one of two uses goes on: %q, %v", told, err)
	}
	must(t, os.WriteFile(filepath.Join(path, "f"), []byte("x"), 0o600))
	must(t, d.Unmount(t.Context(), "one", "a"))
	if !d.Describe(t.Context()).Mounts {
		return
	}
	if told, err := d.Path(t.Context(), "one"); err != nil || told != "" {
		t.Errorf("after the last use: %q, %v", told, err)
	}
}

func names(t *testing.T, d driver.Driver) {
	for _, n := range []string{"", ".", "..", "../x", "a/b", "x\x00y", strings.Repeat("n", 300), "-x", "a b"} {
		if err := d.Create(t.Context(), n, nil); err == nil {
			if err := d.Remove(t.Context(), n); err != nil {
				t.Errorf("%.20q was made and cannot be removed: %v", n, err)
			}
		} else if errdefs.IsUnavailable(err) {
			t.Errorf("%.20q: %v", n, err)
		}
		if _, err := d.Get(t.Context(), n); !errdefs.IsNotFound(err) {
			t.Errorf("%.20q: %v", n, err)
		}
	}
	if got := listed(t, d); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

func many(t *testing.T, d driver.Driver) {
	var wg sync.WaitGroup
	for _, n := range []string{"v0", "v1", "v2", "v3", "v4", "v5"} {
		wg.Go(func() {
			for range 5 {
				err := d.Create(t.Context(), n, nil)
				if err == nil {
					_, err = d.Mount(t.Context(), n, "user")
				}
				if err == nil {
					err = d.Unmount(t.Context(), n, "user")
				}
				if err == nil {
					err = d.Remove(t.Context(), n)
				}
				if err != nil {
					t.Errorf("%s: %v", n, err)
				}
			}
		})
	}
	wg.Wait()
	if got := listed(t, d); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
}

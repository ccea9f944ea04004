package userdb

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestCache(t *testing.T) {
	upper, lower := t.TempDir(), t.TempDir()
	r := Root{upper, lower}
	put := func(layer, name, text string) {
		t.Helper()
		p := filepath.Join(layer, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	put(lower, "etc/passwd", "a")
	var c Cache
	expect := func(passwd, group string) {
		t.Helper()
		// Twice: what is kept is what is there, and is not taken for what comes next.
		for range 2 {
			if f, err := c.Read(r); err != nil || string(f.Passwd) != passwd || string(f.Group) != group {
				t.Errorf("%q %q %v, want %q %q", f.Passwd, f.Group, err, passwd, group)
			}
		}
	}
	expect("a", "")
	put(lower, "etc/passwd", "b") // same size
	expect("b", "")
	put(upper, "etc/group", "g")
	expect("b", "g")
	put(upper, "etc/passwd", "c")
	expect("c", "g")
	if err := os.Remove(filepath.Join(upper, "etc/passwd")); err != nil {
		t.Fatal(err)
	}
	expect("b", "g")
	if err := os.Rename(filepath.Join(upper, "etc"), filepath.Join(upper, "other")); err != nil {
		t.Fatal(err)
	}
	expect("b", "")
	if err := os.Symlink("other", filepath.Join(upper, "etc")); err != nil {
		t.Fatal(err)
	}
	expect("", "g")
	if err := os.Remove(filepath.Join(upper, "etc")); err != nil {
		t.Fatal(err)
	}
	later := time.Now().Add(time.Hour)
	if f, err := c.read(r, later); err != nil || string(f.Passwd) != "b" {
		t.Errorf("%q %v", f.Passwd, err)
	}
	c.files.Passwd = []byte("kept")
	if f, err := c.read(r, later); err != nil || string(f.Passwd) != "kept" {
		t.Errorf("read again: %q %v", f.Passwd, err)
	}
	put(lower, "etc/passwd", "other")
	if f, err := c.read(r, later); err != nil || string(f.Passwd) != "other" {
		t.Errorf("after a change: %q %v", f.Passwd, err)
	}
}

// TestMarks: they are of use when nothing has just changed, tell every change, and
// are none with links.
func TestMarks(t *testing.T) {
	layer := t.TempDir()
	r := Root{layer}
	later := time.Now().Add(time.Hour)
	etc, passwd := filepath.Join(layer, "etc"), filepath.Join(layer, "etc/passwd")
	seen := map[[3]mark]string{}
	see := func(what string) {
		t.Helper()
		m := r.marks(later)
		if len(m) != 3 {
			t.Fatalf("%s: %v", what, m)
		}
		if before, ok := seen[[3]mark(m)]; ok {
			t.Errorf("%s looks as %s", what, before)
		}
		seen[[3]mark(m)] = what
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	see("nothing")
	must(os.Mkdir(etc, 0o755))
	see("a directory")
	must(os.WriteFile(passwd, []byte("a"), 0o644))
	see("a file")
	must(os.WriteFile(passwd, []byte("ab"), 0o644))
	see("another size")
	must(os.Remove(passwd))
	must(os.WriteFile(passwd+"2", []byte("xy"), 0o644))
	must(os.Rename(passwd+"2", passwd))
	see("another file")
	if m := r.marks(time.Now()); m != nil {
		t.Errorf("right after a change: %v", m)
	}
	must(os.Remove(passwd))
	must(os.Symlink("group", passwd))
	if m := r.marks(later); m != nil {
		t.Errorf("a link: %v", m)
	}
}

package userdb

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/gantry/gantry/storage/rootview"
	"golang.org/x/sys/unix"
)

// layers are a container's root of two directories, which counts how often it is opened.
type layers struct {
	upper, lower string
	image, own   int
}

func (l *layers) Image() string {
	if l.lower == "" {
		return ""
	}
	return l.lower
}

func (l *layers) Changes() string { return l.upper }

func (l *layers) OpenImage(context.Context) (*os.File, error) {
	l.image++
	return rootview.Merge([]string{l.lower})
}

func (l *layers) Open(context.Context) (*os.File, error) {
	l.own++
	if l.lower == "" {
		return rootview.Merge([]string{l.upper})
	}
	return rootview.Merge([]string{l.upper, l.lower})
}

func do(tb testing.TB, err error) {
	tb.Helper()
	if err != nil {
		tb.Fatal(err)
	}
}

func put(tb testing.TB, p, text string) {
	tb.Helper()
	do(tb, os.MkdirAll(filepath.Dir(p), 0o755))
	do(tb, os.WriteFile(p, []byte(text), 0o644))
}

func newCache(tb testing.TB) *Cache {
	tb.Helper()
	c, err := NewCache()
	do(tb, err)
	return c
}

func TestCache(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlayfs")
	}
	l := &layers{upper: t.TempDir(), lower: t.TempDir()}
	put(t, l.lower+"/etc/passwd", "a")
	put(t, l.lower+"/usr/etc/passwd", "u")
	c := newCache(t)
	expect := func(passwd, group string) {
		t.Helper()
		// Twice: what is kept is what is there, and is not taken for what comes next.
		for range 2 {
			if f, err := c.Read(t.Context(), "c", l); err != nil || string(f.Passwd) != passwd || string(f.Group) != group {
				t.Errorf("%q %q %v, want %q %q", f.Passwd, f.Group, err, passwd, group)
			}
		}
	}
	expect("a", "")
	put(t, l.upper+"/usr/x", "")
	expect("a", "")
	if l.image != 1 || l.own != 0 {
		t.Errorf("the image was opened %d times, the container %d times", l.image, l.own)
	}
	put(t, l.upper+"/etc/group", "g")
	expect("a", "g")
	put(t, l.upper+"/etc/passwd", "c")
	expect("c", "g")
	do(t, os.Remove(l.upper+"/etc/passwd"))
	expect("a", "g")
	do(t, unix.Mknod(l.upper+"/etc/passwd", unix.S_IFCHR, 0))
	expect("", "g")
	do(t, os.Rename(l.upper+"/etc", l.upper+"/other"))
	expect("a", "")
	do(t, os.Symlink("usr/etc", l.upper+"/etc"))
	expect("u", "")
	put(t, l.upper+"/usr/etc/passwd", "v")
	expect("v", "")
	do(t, os.Remove(l.upper+"/etc"))
	do(t, os.Rename(l.upper+"/other", l.upper+"/etc"))
	later := time.Now().Add(time.Hour)
	before := l.own
	for range 3 {
		if f, err := c.read(t.Context(), "c", l, later); err != nil || string(f.Passwd)+string(f.Group) != "g" {
			t.Errorf("%q %v", f.Passwd, err)
		}
	}
	if l.own != before+1 {
		t.Errorf("opened %d times for what did not change", l.own-before)
	}
	put(t, l.upper+"/etc/group", "other")
	if f, err := c.read(t.Context(), "c", l, later); err != nil || string(f.Group) != "other" {
		t.Errorf("after a change: %q %v", f.Group, err)
	}
	c.Forget("c")
	before = l.own
	if _, err := c.read(t.Context(), "c", l, later); err != nil || l.own != before+1 {
		t.Errorf("what was forgotten is still known: %v", err)
	}
}

// TestCacheLinkedImage has an image whose passwd is a link to where a container may write without
// an /etc of its own.
func TestCacheLinkedImage(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root: overlayfs")
	}
	l := &layers{upper: t.TempDir(), lower: t.TempDir()}
	put(t, l.lower+"/usr/passwd", "a")
	do(t, os.Mkdir(l.lower+"/etc", 0o755))
	do(t, os.Symlink("/usr/passwd", l.lower+"/etc/passwd"))
	c := newCache(t)
	for _, step := range []struct {
		name string
		do   func()
		want string
		own  int
	}{
		{"nothing changed", func() {}, "a", 0},
		{"again", func() {}, "a", 0},
		{"written elsewhere", func() { put(t, l.upper+"/usr/passwd", "b") }, "b", 1},
		{"written elsewhere again", func() { put(t, l.upper+"/usr/passwd", "c") }, "c", 2},
	} {
		t.Run(step.name, func(t *testing.T) {
			step.do()
			f, err := c.Read(t.Context(), "c", l)
			if err != nil || string(f.Passwd) != step.want || l.own != step.own {
				t.Errorf("%q %v, opened %d times; want %q, %d", f.Passwd, err, l.own, step.want, step.own)
			}
		})
	}
}

// TestCacheWholeRoot has all in one directory, as a storage driver that copies has it.
func TestCacheWholeRoot(t *testing.T) {
	l := &layers{upper: t.TempDir()}
	c := newCache(t)
	for _, text := range []string{"", "a", "b"} {
		if text != "" {
			put(t, l.upper+"/etc/passwd", text)
		}
		if f, err := c.Read(t.Context(), "c", l); err != nil || string(f.Passwd) != text {
			t.Errorf("%q %v, want %q", f.Passwd, err, text)
		}
	}
	if l.image != 0 {
		t.Error("it has no image")
	}
}

// TestMarks: they are of use when nothing has just changed, tell every change, and
// are none with links.
func TestMarks(t *testing.T) {
	layer := t.TempDir()
	own, err := os.Open(layer)
	do(t, err)
	defer own.Close()
	later := time.Now().Add(time.Hour)
	etc, passwd := filepath.Join(layer, "etc"), filepath.Join(layer, "etc/passwd")
	seen := map[[3]mark]string{}
	see := func(what string) {
		t.Helper()
		m, err := marksOf(own, later)
		if len(m) != 3 || err != nil {
			t.Fatalf("%s: %v %v", what, m, err)
		}
		if before, ok := seen[[3]mark(m)]; ok {
			t.Errorf("%s looks as %s", what, before)
		}
		seen[[3]mark(m)] = what
	}
	if _, err := marksOf(own, later); err == nil {
		t.Error("nothing is there")
	}
	do(t, os.Mkdir(etc, 0o755))
	see("a directory")
	do(t, os.WriteFile(passwd, []byte("a"), 0o644))
	see("a file")
	do(t, os.WriteFile(passwd, []byte("ab"), 0o644))
	see("another size")
	do(t, os.Remove(passwd))
	do(t, os.WriteFile(passwd+"2", []byte("xy"), 0o644))
	do(t, os.Rename(passwd+"2", passwd))
	see("another file")
	if m, _ := marksOf(own, time.Now()); m != nil {
		t.Errorf("right after a change: %v", m)
	}
	do(t, os.Remove(passwd))
	do(t, os.Symlink("group", passwd))
	if m, _ := marksOf(own, later); m != nil {
		t.Errorf("a link: %v", m)
	}
	do(t, os.RemoveAll(etc))
	do(t, os.Symlink("/etc", etc))
	if m, _ := marksOf(own, later); m != nil {
		t.Errorf("a link to the host's: %v", m)
	}
}

func BenchmarkCache(b *testing.B) {
	if os.Geteuid() != 0 {
		b.Skip("needs root: overlayfs")
	}
	l := &layers{upper: b.TempDir(), lower: b.TempDir()}
	put(b, l.lower+"/etc/passwd", string(make([]byte, 900)))
	put(b, l.lower+"/etc/group", string(make([]byte, 500)))
	c := newCache(b)
	run := func(name string, forget bool, now time.Time) {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if forget {
					c.Forget("c")
				}
				if _, err := c.read(b.Context(), "c", l, now); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	run("no etc of its own", true, time.Now())
	put(b, l.upper+"/etc/hosts", "")
	run("its own, seen before", false, time.Now().Add(time.Hour))
	run("its own, first", true, time.Now().Add(time.Hour))
}

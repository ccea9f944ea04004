package drivertest

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/rootview"
	"golang.org/x/sys/unix"
)

// view: a container's root as a mount of its own shows what the container left, and takes what
// its next run finds.
func view(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", dir("d"), file("d/f", "1"), file("f", "1"), file("g", "1"))
	b.layer("b", "a", file("h", "2"))
	lower := b.lower("b")
	cid := id.New()
	l, err := b.Create(b.ctx(), cid, lower)
	b.must(err)
	root, unmount := b.mountOnce(l, lower)
	b.must(errors.Join(os.WriteFile(root+"/f", []byte("mine"), 0o644), os.Remove(root+"/d/f"), os.Symlink("/h", root+"/link"), os.Symlink("../../../h", root+"/up")))
	unmount()
	want := map[string]string{"d": "dir 755", "f": "mine 644", "g": "1 644", "h": "2 644", "link": "-> /h", "up": "-> ../../../h"}

	b.look(cid, lower, rootview.ReadOnly, func(root string, f *os.File) {
		same(t, root, want)
		if err := os.WriteFile(root+"/x", nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("written through a view that is for reading: %v", err)
		}
		for _, name := range []string{"/h", "link", "up", "d/../../h", "/../h"} {
			in, err := rootview.OpenIn(f, name)
			if err != nil {
				t.Errorf("%s: %v", name, err)
				continue
			}
			in.Close()
		}
		if _, err := rootview.OpenIn(f, "/none"); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("what is not there: %v", err)
		}
		// A start may come meanwhile.
		_, unmount := b.mountOnce(l, lower)
		unmount()
	})
	for range 2 { // the first view leaves a work directory behind
		if l.Work != "" {
			b.must(os.MkdirAll(filepath.Join(l.Work, "work/incompat/volatile"), 0o700)) // as a volatile mount does
		}
		b.look(cid, lower, rootview.ReadWrite, func(root string, _ *os.File) {
			same(t, root, want)
			b.must(os.WriteFile(root+"/d/new", []byte("new"), 0o600))
			b.must(os.Remove(root + "/g"))
			b.must(os.WriteFile(root+"/g", []byte("1"), 0o644))
		})
		want["d/new"] = "new 600"
	}
	b.look(cid, lower, rootview.ReadOnly, func(root string, _ *os.File) { same(t, root, want) })
	root, unmount = b.mountOnce(l, lower)
	same(t, root, want)
	unmount()
	if list, err := os.ReadFile("/proc/self/mountinfo"); err != nil || strings.Contains(string(list), b.root) {
		t.Errorf("a view is mounted somewhere: %s, %v", list, err)
	}
	_, err = b.View(id.New(), lower, rootview.ReadOnly)
	if !errdefs.IsNotFound(err) {
		t.Errorf("view of nobody's: %v", err)
	}
	empty, err := b.Create(b.ctx(), id.New(), nil)
	b.must(err)
	for _, a := range []rootview.Access{rootview.ReadOnly, rootview.ReadWrite} {
		b.look(filepath.Base(filepath.Dir(empty.Dirs(nil)[0])), nil, a, func(root string, _ *os.File) { same(t, root, map[string]string{}) })
	}
}

// look opens a view for fn.
func (b *bench) look(cid string, lower []string, a rootview.Access, fn func(root string, f *os.File)) {
	b.t.Helper()
	f, err := b.View(cid, lower, a)
	b.must(err)
	defer f.Close()
	fn(filepath.Join("/proc/self/fd", itoa(int(f.Fd()))), f)
}

// mountOnce is mount until unmount is called.
func (b *bench) mountOnce(l driver.Layer, lower []string) (root string, unmount func()) {
	b.t.Helper()
	if l.Path != "" {
		return l.Path, func() {}
	}
	f, err := rootview.Overlay(l.Upper, l.Work, lower)
	b.must(err)
	return filepath.Join("/proc/self/fd", itoa(int(f.Fd()))), func() { f.Close() }
}

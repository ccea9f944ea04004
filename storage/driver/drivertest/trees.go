package drivertest

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage/driver"
	"golang.org/x/sys/unix"
)

func describe(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	d := b.Describe()
	if d.Name == "" || d.DirLabel == "" || b.Describe() != d {
		t.Errorf("description %+v", d)
	}
	b.restart()
	if b.Describe() != d {
		t.Errorf("another description: %+v", b.Describe())
	}
}

func dir(name string) entry             { return entry{name: name, typ: tar.TypeDir} }
func file(name, body string) entry      { return entry{name: name, body: body} }
func hardlink(name, to string) entry    { return entry{name: name, typ: tar.TypeLink, link: to} }
func symlink(name, target string) entry { return entry{name: name, typ: tar.TypeSymlink, link: target} }

// trees are layers upon layers and the tree that a container sees.
func trees(t *testing.T, open driver.Open) {
	for _, c := range []struct {
		name   string
		layers [][]entry
		want   map[string]string
	}{
		{"kinds", [][]entry{{
			dir("d"), file("d/f", "x"), symlink("d/l", "f"), symlink("abs", "/d/f"),
			{name: "p", typ: tar.TypeFifo, mode: 0o600},
			{name: "null", typ: tar.TypeChar, major: 1, minor: 3, mode: 0o666},
			{name: "blk", typ: tar.TypeBlock, major: 7, minor: 1, mode: 0o660},
			{name: "suid", body: "x", mode: 0o4755},
			{name: "own", body: "x", uid: 1000, mode: 0o600},
			{name: "sticky", typ: tar.TypeDir, mode: 0o1777},
		}}, map[string]string{
			"d": "dir 755", "d/f": "x 644", "d/l": "-> f", "abs": "-> /d/f", "p": "fifo 600", "null": "char 1:3 666", "blk": "block 7:1 660",
			"suid": "x 4755", "own": "x 600 of 1000", "sticky": "dir 1777",
		}},
		{"whiteouts", [][]entry{
			{dir("d"), file("d/a", "1"), file("d/b", "1"), file("top", "1"), dir("gone"), file("gone/x", "1"), symlink("l", "top")},
			{dir("d"), file("d/.wh.a", ""), file(".wh.top", ""), file(".wh.gone", ""), file(".wh.l", ""), file("d/c", "2")},
			{dir("d"), file("d/a", "3")},
		}, map[string]string{"d": "dir 755", "d/a": "3 644", "d/b": "1 644", "d/c": "2 644"}},
		{"opaque", [][]entry{
			{dir("d"), file("d/a", "1"), dir("d/s"), file("d/s/x", "1"), dir("e"), file("e/y", "1")},
			{dir("d"), file("d/.wh..wh..opq", ""), file("d/b", "2")},
			{dir("d"), file("d/c", "3"), dir("d/s"), file("d/s/z", "3")},
		}, map[string]string{
			"d": "dir 755", "d/b": "2 644", "d/c": "3 644", "d/s": "dir 755", "d/s/z": "3 644", "e": "dir 755", "e/y": "1 644",
		}},
		{"directory removed and made again", [][]entry{
			{dir("d"), file("d/a", "1")},
			{file(".wh.d", "")},
			{dir("d"), file("d/b", "3")},
		}, map[string]string{"d": "dir 755", "d/b": "3 644"}},
		{"another kind", [][]entry{
			{dir("d"), file("d/a", "1"), file("f", "1"), symlink("l", "d")},
			{file("d", "now a file"), dir("f"), file("f/x", "2"), dir("l"), file("l/y", "2")},
		}, map[string]string{"d": "now a file 644", "f": "dir 755", "f/x": "2 644", "l": "dir 755", "l/y": "2 644"}},
		{"moved across layers", [][]entry{
			{dir("old"), file("old/f", "1"), dir("old/s"), file("old/s/g", "1"), dir("new")},
			{file(".wh.old", ""), dir("new"), file("new/f", "1"), dir("new/s"), file("new/s/g", "1")},
		}, map[string]string{"new": "dir 755", "new/f": "1 644", "new/s": "dir 755", "new/s/g": "1 644"}},
		{"hard links", [][]entry{
			{file("a", "1"), hardlink("b", "a"), dir("d"), hardlink("d/c", "b"), file("x", "1"), hardlink("y", "x")},
			{file("x", "2")}, // y keeps the old content
		}, map[string]string{"a": "1 644", "b": "= a", "d": "dir 755", "d/c": "= a", "x": "2 644", "y": "1 644"}},
		{"attributes of a directory", [][]entry{
			{dir("d"), file("d/a", "1")},
			{{name: "d", typ: tar.TypeDir, mode: 0o700, uid: 5}},
		}, map[string]string{"d": "dir 700 of 5", "d/a": "1 644"}},
		{"implied directory", [][]entry{
			{{name: "d", typ: tar.TypeDir, mode: 0o711, uid: 7}, file("d/a", "1")},
			{file("d/b", "2")},
		}, map[string]string{"d": "dir 711 of 7", "d/a": "1 644", "d/b": "2 644"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, open)
			parent := ""
			for i, l := range c.layers {
				name := fmt.Sprint("layer", i)
				b.layer(name, parent, l...)
				parent = name
			}
			b.restart()
			_, root := b.container(parent)
			same(t, root, c.want)
			var st unix.Stat_t
			if err := unix.Stat(root+"/.", &st); err != nil || st.Mode&0o7777 != 0o755 {
				t.Errorf("root has mode %o, %v", st.Mode&0o7777, err)
			}
		})
	}
	t.Run("finer points", func(t *testing.T) { finerPoints(t, open) })
}

// finerPoints are what an archive cannot say, or a listing not show.
func finerPoints(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	d := b.prepare("active-a")
	b.fill(d, nil, b.archive([]entry{
		{name: "x", body: "1", xattrs: map[string]string{"user.note": "kept", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"}},
		dir("dir"),
	}))
	b.must(unix.Mknod(filepath.Join(d, "sock"), unix.S_IFSOCK|0o640, 0))
	b.must(os.Chmod(filepath.Join(d, "sock"), 0o640))
	sparse, err := os.Create(filepath.Join(d, "sparse"))
	b.must(err)
	_, err = sparse.WriteAt([]byte("end"), 64<<20)
	b.must(errors.Join(err, sparse.Truncate(80<<20), sparse.Close()))
	b.commit("a", "")
	b.layer("b", "a", file("above", "2"))
	_, root := b.container("b")
	for k, want := range map[string]string{"user.note": "kept", "security.capability": "\x01\x00\x00\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		val := make([]byte, 64)
		if n, err := unix.Lgetxattr(filepath.Join(root, "x"), k, val); err != nil || string(val[:n]) != want {
			t.Errorf("attribute %s: %q, %v", k, val[:max(n, 0)], err)
		}
	}
	for name, mode := range map[string]fs.FileMode{"sock": fs.ModeSocket | 0o640, "x": 0o644, "above": 0o644, "dir": fs.ModeDir | 0o755} {
		fi, err := os.Lstat(filepath.Join(root, name))
		if err != nil || fi.Mode() != mode {
			t.Errorf("%s: %v, %v", name, fi, err)
		} else if name != "sock" && !fi.ModTime().Equal(modTime()) {
			t.Errorf("%s was modified at %v", name, fi.ModTime())
		}
	}
	var st unix.Stat_t
	b.must(unix.Stat(filepath.Join(root, "sparse"), &st))
	if st.Size != 80<<20 || st.Blocks*512 > 1<<20 {
		t.Errorf("sparse file of %d bytes takes %d", st.Size, st.Blocks*512)
	}
	data := make([]byte, 3)
	f, err := os.Open(filepath.Join(root, "sparse"))
	b.must(err)
	defer f.Close()
	if _, err := f.ReadAt(data, 64<<20); err != nil || string(data) != "end" {
		t.Errorf("sparse file: %q, %v", data, err)
	}
}

// prepare are containerd's own promises, as a builder uses them.
func prepare(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", dir("d"), file("d/f", "1"))
	if _, err := b.Snapshots().Prepare(b.ctx(), "active-b", "a"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Snapshots().Prepare(b.ctx(), "active-b", "a"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("prepared twice: %v", err)
	}
	if _, err := b.Snapshots().Prepare(b.ctx(), "active-c", "nope"); !errdefs.IsNotFound(err) {
		t.Errorf("above nothing: %v", err)
	}
	b.must(b.Snapshots().Commit(b.ctx(), "b", "active-b"))
	if info, err := b.Snapshots().Stat(b.ctx(), "b"); err != nil || info.Kind != snapshots.KindCommitted || info.Parent != "a" {
		t.Errorf("%+v, %v", info, err)
	}
	_, root := b.container("b")
	same(t, root, map[string]string{"d": "dir 755", "d/f": "1 644"})
	// What another has committed meanwhile wins; the active snapshot is still there to be removed.
	b.prepare("active-a2")
	if err := b.Snapshots().Commit(b.ctx(), "a", "active-a2"); !errdefs.IsAlreadyExists(err) {
		t.Errorf("committed twice: %v", err)
	}
	b.must(b.Snapshots().Remove(b.ctx(), "active-a2"))
	b.prepare("active-e")
	if err := b.Snapshots().Commit(b.ctx(), "e", "active-e", snapshots.WithParent("nope")); !errdefs.IsNotFound(err) {
		t.Errorf("committed above nothing: %v", err)
	}
	var names []string
	b.must(b.Snapshots().Walk(b.ctx(), func(_ ctx, i snapshots.Info) error { names = append(names, i.Name); return nil }))
	if len(names) != 3 {
		t.Errorf("walked %v", names)
	}
}

func longChain(t *testing.T, open driver.Open) {
	const layers = 120
	b := newBench(t, open)
	parent, want := "", map[string]string{"all": fmt.Sprint(layers-1, " 644")}
	for i := range layers {
		name := fmt.Sprint("layer", i)
		b.layer(name, parent, file(fmt.Sprint("f", i), "x"), file("all", fmt.Sprint(i)))
		want[fmt.Sprint("f", i)] = "x 644"
		parent = name
	}
	_, root := b.container(parent)
	same(t, root, want)
}

// deepTree goes deeper than any open directory per level would be liked.
func deepTree(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	deep := strings.Repeat("d/", 400)
	b.layer("a", "", file(deep+"f", "1"))
	b.layer("b", "a", file(deep+"g", "2"), file(deep+".wh.f", ""))
	cid, root := b.container("b")
	if data, err := os.ReadFile(filepath.Join(root, deep, "g")); err != nil || string(data) != "2" {
		t.Errorf("%q, %v", data, err)
	}
	if _, err := os.Lstat(filepath.Join(root, deep, "f")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("whiteout: %v", err)
	}
	b.must(b.Remove(cid))
}

func usage(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", file("big", strings.Repeat("x", 100_000)), file("other", "1"))
	b.layer("b", "a", file("small", strings.Repeat("y", 3000)))
	if u, err := b.Snapshots().Usage(b.ctx(), "b"); err != nil || u.Size < 3000 || u.Size > 50_000 {
		t.Errorf("a layer counts what is below it: %+v, %v", u, err)
	}
	cid, root := b.container("b")
	lower := b.lower("b")
	measure := func(want int64) {
		t.Helper()
		if u, err := b.Usage(b.ctx(), cid, lower); err != nil || u.Size != want {
			t.Errorf("usage %+v, %v, want %d", u, err, want)
		}
	}
	measure(0)
	b.must(os.WriteFile(filepath.Join(root, "new"), bytes.Repeat([]byte("z"), 1234), 0o600))
	measure(1234)
	b.must(os.WriteFile(filepath.Join(root, "other"), []byte("changed"), 0o644))
	measure(1241)
	b.must(os.Remove(filepath.Join(root, "new")))
	measure(7)
}

package drivertest

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/driver"
	"github.com/gantry/gantry/storage/rootview"
	"golang.org/x/sys/unix"
)

type ctx = context.Context

// cleanup lets a driver that removes files late do so now.
func (b *bench) cleanup() {
	b.t.Helper()
	if c, ok := b.Snapshots().(snapshots.Cleaner); ok {
		b.must(c.Cleanup(b.ctx()))
	}
}

func removalOrder(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", file("f", "1"))
	b.layer("b", "a", file("g", "2"))
	b.layer("c", "b", file("h", "3"))
	a, top := b.lower("a")[0], b.lower("c")[0]
	for _, name := range []string{"a", "b"} {
		if err := b.Snapshots().Remove(b.ctx(), name); !errdefs.IsFailedPrecondition(err) {
			t.Errorf("%s, which others stand on, was removed: %v", name, err)
		}
	}
	b.cleanup()
	_, root := b.container("c")
	same(t, root, map[string]string{"f": "1 644", "g": "2 644", "h": "3 644"})
	b.must(b.Snapshots().Remove(b.ctx(), "c"))
	b.cleanup()
	if _, err := os.Stat(top); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of a removed layer: %v", err)
	}
	if _, err := os.Stat(a); err != nil {
		t.Errorf("the directory of a layer below a removed one: %v", err)
	}
	b.must(b.Snapshots().Remove(b.ctx(), "b"))
	b.must(b.Snapshots().Remove(b.ctx(), "a"))
	if err := b.Snapshots().Remove(b.ctx(), "a"); !errdefs.IsNotFound(err) {
		t.Errorf("removed twice: %v", err)
	}
	b.cleanup()
	if _, err := os.Stat(a); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the directory of a removed layer: %v", err)
	}
}

func containers(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", file("f", "1"))
	old := unix.Umask(0o077)
	cid, root := b.container("a")
	unix.Umask(old)
	lower := b.lower("a")
	if fi, err := os.Stat(root + "/."); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("root under a strict umask: %v, %v", fi, err)
	}
	if _, err := b.Create(b.ctx(), cid, lower); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	for _, bad := range []string{"", "..", "../../x", strings.Repeat("g", 64), cid + "/"} {
		_, cerr := b.Create(b.ctx(), bad, lower)
		_, lerr := b.Layer(bad)
		_, uerr := b.Usage(b.ctx(), bad, lower)
		for what, err := range map[string]error{"create": cerr, "layer": lerr, "usage": uerr, "remove": b.Remove(bad)} {
			if !errdefs.IsInvalidArgument(err) {
				t.Errorf("%s of %q: %v", what, bad, err)
			}
		}
	}
	nobody := id.New()
	if _, err := b.Layer(nobody); !errdefs.IsNotFound(err) {
		t.Errorf("layer of nobody: %v", err)
	}
	if _, err := b.Usage(b.ctx(), nobody, lower); !errdefs.IsNotFound(err) {
		t.Errorf("usage of nobody: %v", err)
	}
	l, err := b.Layer(cid)
	b.must(err)
	empty, _ := b.container("")
	ids, err := b.List()
	slices.Sort(ids)
	want := []string{cid, empty}
	slices.Sort(want)
	if err != nil || !slices.Equal(ids, want) {
		t.Errorf("list %v, %v, want %v", ids, err, want)
	}
	// Whatever a container does to its root, it can be removed.
	in := filepath.Join(root, "ro")
	b.must(errors.Join(os.Mkdir(in, 0o700), os.Symlink("/", filepath.Join(in, "root")), os.WriteFile(filepath.Join(in, "f"), nil, 0), os.Chmod(in, 0)))
	b.restart()
	if again, err := b.Layer(cid); err != nil || again != l {
		t.Errorf("after a restart: %+v, %v, want %+v", again, err, l)
	}
	b.must(b.Remove(cid))
	b.must(b.Remove(cid)) // none is no error
	if _, err := b.Layer(cid); !errdefs.IsNotFound(err) {
		t.Errorf("removed: %v", err)
	}
	b.must(b.Remove(empty))
	if e, _ := os.ReadDir(filepath.Join(b.root, "layers")); len(e) != 0 {
		t.Errorf("left: %v", e)
	}
	if data, err := os.ReadFile(filepath.Join(lower[0], "f")); err != nil || string(data) != "1" {
		t.Errorf("the image lost its file: %q, %v", data, err)
	}
}

// apart: nothing a container writes is seen by another, or by the image.
func apart(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", dir("d"), file("d/f", "1"), file("f", "1"), file("g", "1"), dir("e"), file("e/x", "1"))
	want := map[string]string{"d": "dir 755", "d/f": "1 644", "f": "1 644", "g": "1 644", "e": "dir 755", "e/x": "1 644"}
	one, root := b.container("a")
	same(t, root, want)
	b.must(os.WriteFile(filepath.Join(root, "f"), []byte("mine"), 0o644))
	b.must(os.Remove(filepath.Join(root, "d/f")))
	b.must(os.Rename(filepath.Join(root, "g"), filepath.Join(root, "d/moved")))
	b.must(errors.Join(os.RemoveAll(filepath.Join(root, "e")), os.Mkdir(filepath.Join(root, "e"), 0o755)))
	b.must(os.Chmod(filepath.Join(root, "d"), 0o700))
	got := look(t, root)
	if got["f"] != "mine 644" || got["d"] != "dir 700" || got["d/f"] != "" || got["d/moved"] != "1 644" || got["g"] != "" || got["e"] != "dir 755" || got["e/x"] != "" {
		t.Errorf("what the container wrote: %v", got)
	}
	_, other := b.container("a")
	same(t, other, want)
	b.layer("b", "a", file("h", "2"))
	_, above := b.container("b")
	if got := look(t, above); got["f"] != "1 644" || got["h"] != "2 644" {
		t.Errorf("a layer above sees what a container wrote: %v", got)
	}
	b.must(b.Remove(one))
	same(t, other, want)
}

// crash looks at what is left after work was cut off: here, by not being finished.
func crash(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	b.layer("a", "", file("f", "1"))
	d := b.prepare("half")
	b.fill(d, nil, b.archive([]entry{file("part", "x")}))
	cid, _ := b.container("a")
	// Removals and creations that were cut off, and a stranger's file.
	layers := filepath.Join(b.root, "layers")
	for _, n := range []string{".removing-" + id.New(), ".making-" + id.New()} {
		b.must(errors.Join(os.MkdirAll(filepath.Join(layers, n, "x/y"), 0o000|0o700), os.Chmod(filepath.Join(layers, n, "x"), 0)))
	}
	b.must(os.WriteFile(filepath.Join(layers, "README"), nil, 0o600))
	b.restart()
	if info, err := b.Snapshots().Stat(b.ctx(), "half"); err != nil || info.Kind != snapshots.KindActive {
		t.Errorf("a layer that was being unpacked: %+v, %v", info, err)
	}
	b.must(b.Snapshots().Remove(b.ctx(), "half"))
	b.cleanup()
	if _, err := os.Stat(d); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("its directory: %v", err)
	}
	if ids, err := b.List(); err != nil || !slices.Equal(ids, []string{cid}) {
		t.Errorf("list %v, %v", ids, err)
	}
	b.must(b.Remove(cid))
	b.stop() // it waits for the sweep, or stops it: the next one goes on
	for range 20 {
		if e, _ := os.ReadDir(layers); len(e) == 1 && e[0].Name() == "README" {
			return
		}
		b.start()
		b.stop()
	}
	e, _ := os.ReadDir(layers)
	t.Errorf("left: %v", e)
}

// foreign: the layer of a container that another driver made is told apart, listed and
// removed, and never taken for the driver's own.
func foreign(t *testing.T, open driver.Open) {
	b := newBench(t, open)
	cid := id.New()
	b.must(os.MkdirAll(filepath.Join(b.root, "layers", cid, "something-else"), 0o700))
	if _, err := b.Layer(cid); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("layer: %v", err)
	}
	if _, err := b.Usage(b.ctx(), cid, nil); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("usage: %v", err)
	}
	if _, err := b.View(cid, nil, rootview.ReadOnly); !errdefs.IsFailedPrecondition(err) {
		t.Errorf("view: %v", err)
	}
	if ids, err := b.List(); err != nil || !slices.Equal(ids, []string{cid}) {
		t.Errorf("list %v, %v", ids, err)
	}
	b.must(b.Remove(cid))
	if ids, err := b.List(); err != nil || len(ids) != 0 {
		t.Errorf("list %v, %v", ids, err)
	}
}

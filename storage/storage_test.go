package storage

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/id"
	"github.com/gantry/gantry/storage/driver/overlay"
	"github.com/gantry/gantry/storage/tree"
	"golang.org/x/sys/unix"
)

func openStore(t *testing.T, root string) *Store {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	s, err := Open(root, overlay.Open)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func TestSecondOpen(t *testing.T) {
	root := t.TempDir()
	s := openStore(t, root)
	if _, err := Open(root, overlay.Open); !errdefs.IsFailedPrecondition(err) || !strings.Contains(err.Error(), "another process has it open") {
		t.Errorf("second open: %v", err)
	}
	for _, d := range []string{"image", "layers", "image/leases", "image/overlay"} {
		fi, err := os.Stat(filepath.Join(root, d))
		if err != nil || fi.Mode().Perm() != 0o700 {
			t.Errorf("%s: %v, %v", d, fi.Mode(), err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	openStore(t, root)
}

func TestLayers(t *testing.T) {
	s := openStore(t, t.TempDir())
	l := s.Layers()
	c := id.New()
	old := unix.Umask(0o077)
	layer, err := l.Create(c)
	unix.Umask(old)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(layer.Upper); err != nil || fi.Mode().Perm() != 0o755 {
		t.Errorf("upper: %v, %v", fi.Mode(), err)
	}
	if _, err := l.Create(c); !errdefs.IsAlreadyExists(err) {
		t.Errorf("second create: %v", err)
	}
	for _, bad := range []string{"", "..", "../../x", strings.Repeat("g", 64), c + "/"} {
		if _, err := l.Create(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("create %q: %v", bad, err)
		}
		if err := l.Remove(bad); !errdefs.IsInvalidArgument(err) {
			t.Errorf("remove %q: %v", bad, err)
		}
	}
	if err := os.WriteFile(filepath.Join(layer.Upper, "f"), make([]byte, 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(filepath.Join(layer.Upper, "f"), filepath.Join(layer.Upper, "g")); err != nil {
		t.Fatal(err)
	}
	if u, err := l.Usage(context.Background(), c); err != nil || u.Size != 1000 {
		t.Errorf("usage %+v, %v", u, err)
	}
	if ids, err := l.List(); err != nil || len(ids) != 1 || ids[0] != c {
		t.Errorf("list %v, %v", ids, err)
	}
	// As overlay leaves its work directory, and worse.
	if err := errors.Join(os.Mkdir(filepath.Join(layer.Work, "work"), 0o000), os.Mkdir(filepath.Join(layer.Upper, "ro"), 0o500),
		os.Symlink("/", filepath.Join(layer.Upper, "root"))); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(c); err != nil {
		t.Fatal(err)
	}
	if err := l.Remove(c); err != nil {
		t.Errorf("second remove: %v", err)
	}
	if _, err := l.Get(c); !errdefs.IsNotFound(err) {
		t.Errorf("get: %v", err)
	}
	if e, _ := os.ReadDir(filepath.Dir(filepath.Dir(layer.Upper))); len(e) != 0 {
		t.Errorf("left: %v", e)
	}
}

// TestDeepTree removes a tree far deeper than a path, or the descriptors, go.
func TestDeepTree(t *testing.T) {
	top := t.TempDir()
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	dir := at
	for range 5000 {
		if err := unix.Mkdirat(dir, "d", 0o700); err != nil {
			t.Fatal(err)
		}
		next, err := unix.Openat(dir, "d", unix.O_RDONLY|unix.O_DIRECTORY, 0)
		if err != nil {
			t.Fatal(err)
		}
		if dir != at {
			unix.Close(dir)
		}
		dir = next
	}
	unix.Close(dir)
	if err := tree.Remove(at, "d"); err != nil {
		t.Fatal(err)
	}
	if e, _ := os.ReadDir(top); len(e) != 0 {
		t.Errorf("left: %v", e)
	}
	if err := tree.Remove(at, "d"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
}

func TestImmutable(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	top := t.TempDir()
	if err := errors.Join(os.Mkdir(filepath.Join(top, "d"), 0o700), os.WriteFile(filepath.Join(top, "d/f"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for _, p := range []string{"d/f", "d"} {
		f, err := os.Open(filepath.Join(top, p))
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, 0x10); err != nil {
			t.Skipf("no immutable files here: %v", err)
		}
		f.Close()
	}
	at, err := unix.Open(top, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(at)
	if err := tree.Remove(at, "d"); err != nil {
		t.Error(err)
	}
}

func TestHoldText(t *testing.T) {
	d := "sha256:" + strings.Repeat("a", 64)
	for _, text := range []string{d + "," + d, "," + d, "vfs," + d + "," + d, "vfs,," + d} {
		h, err := parseHold(text)
		if err != nil || h.text() != text || len(h.key()) >= 60 {
			t.Errorf("%q: %+v, %v", text, h, err)
		}
	}
	for _, bad := range []string{"../x", "../x," + d, "vfs", "x"} {
		if h, err := parseHold(bad); err == nil {
			t.Errorf("%q: %+v", bad, h)
		}
	}
}

package pack_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/storage/pack"
	"github.com/gantry/gantry/storage/pack/packtest"
	"golang.org/x/sys/unix"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: mounts and devices")
	}
}

func open(t *testing.T, dir string) *os.File {
	t.Helper()
	f, err := os.OpenFile(dir, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func dirs(t *testing.T, names ...string) []string {
	t.Helper()
	top := t.TempDir()
	for i, n := range names {
		names[i] = filepath.Join(top, n)
		if err := os.Mkdir(names[i], 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return names
}

func TestOverlay(t *testing.T) {
	needRoot(t)
	packtest.Run(t, func(t *testing.T, fill func(string)) packtest.Trees {
		d := dirs(t, "lower", "upper", "work")
		fill(d[0])
		merged := packtest.MountWritable(t, d[1], d[2], d[0])
		return packtest.Trees{Newer: merged, Differ: pack.Overlay(open(t, d[1]), open(t, d[0]))}
	})
}

// TestOverlayMerged has the layers below mounted, as a chain of them is.
func TestOverlayMerged(t *testing.T) {
	needRoot(t)
	packtest.Run(t, func(t *testing.T, fill func(string)) packtest.Trees {
		d := dirs(t, "lower", "empty", "upper", "work")
		fill(d[0])
		below := packtest.Mount(t, d[1], d[0])
		merged := packtest.MountWritable(t, d[2], d[3], d[0])
		return packtest.Trees{Newer: merged, Differ: pack.Overlay(open(t, d[2]), open(t, below))}
	})
}

func TestCompare(t *testing.T) {
	needRoot(t)
	packtest.Run(t, func(t *testing.T, fill func(string)) packtest.Trees {
		d := dirs(t, "older", "newer")
		fill(d[0])
		fill(d[1])
		return packtest.Trees{Newer: d[1], Differ: pack.Compare(open(t, d[1]), open(t, d[0]))}
	})
}

func TestOverlayWithoutLayersBelow(t *testing.T) {
	needRoot(t)
	d := dirs(t, "upper")
	if err := os.MkdirAll(d[0]+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	var got []pack.Change
	err := pack.Overlay(open(t, d[0]), nil).Changes(t.Context(), func(c pack.Change) error {
		got = append(got, c)
		return nil
	})
	if err != nil || len(got) != 2 || got[1] != (pack.Change{Path: "/a/b", Kind: pack.Added}) {
		t.Errorf("%v %v", got, err)
	}
}

// TestOverlayNotes: what upper holds only a note of must not be taken for all of it.
func TestOverlayNotes(t *testing.T) {
	needRoot(t)
	for name, note := range map[string]func(dir string) error{
		"redirect": func(dir string) error {
			return unix.Setxattr(dir+"/d", "trusted.overlay.redirect", []byte("/elsewhere"), 0)
		},
		"metacopy": func(dir string) error {
			return unix.Setxattr(dir+"/d/f", "trusted.overlay.metacopy", nil, 0)
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := dirs(t, "lower", "upper")
			if err := os.Mkdir(d[1]+"/d", 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(d[1]+"/d/f", nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := note(d[1]); err != nil {
				t.Fatal(err)
			}
			err := pack.Overlay(open(t, d[1]), open(t, d[0])).Changes(t.Context(), func(pack.Change) error { return nil })
			if !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

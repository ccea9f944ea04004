package pack_test

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
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
		return packtest.Trees{Newer: merged, Differ: pack.Overlay(open(t, d[1]), open(t, d[0]), pack.DiffOptions{})}
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
		return packtest.Trees{Newer: merged, Differ: pack.Overlay(open(t, d[2]), open(t, below), pack.DiffOptions{})}
	})
}

func TestCompare(t *testing.T) {
	needRoot(t)
	packtest.Run(t, func(t *testing.T, fill func(string)) packtest.Trees {
		d := dirs(t, "older", "newer")
		fill(d[0])
		fill(d[1])
		return packtest.Trees{Newer: d[1], Differ: pack.Compare(open(t, d[1]), open(t, d[0]), pack.DiffOptions{})}
	})
}

func TestOverlayWithoutLayersBelow(t *testing.T) {
	needRoot(t)
	d := dirs(t, "upper")
	if err := os.MkdirAll(d[0]+"/a/b", 0o755); err != nil {
		t.Fatal(err)
	}
	var got []pack.Change
	err := pack.Overlay(open(t, d[0]), nil, pack.DiffOptions{}).Changes(t.Context(), func(c pack.Change) error {
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
			err := pack.Overlay(open(t, d[1]), open(t, d[0]), pack.DiffOptions{}).Changes(t.Context(), func(pack.Change) error { return nil })
			if !errdefs.IsFailedPrecondition(err) {
				t.Errorf("%v", err)
			}
		})
	}
}

// TestMountPoints: what is made to mount something on is no change, and neither are its directories;
// what is put there all the same is one.
func TestMountPoints(t *testing.T) {
	needRoot(t)
	made := func(top string) {
		do(t, os.MkdirAll(top+"/dev/pts", 0o755), os.MkdirAll(top+"/etc", 0o755), os.MkdirAll(top+"/proc", 0o755),
			os.WriteFile(top+"/etc/hosts", nil, 0o644), os.WriteFile(top+"/etc/hostname", nil, 0o644))
	}
	for _, c := range []struct {
		name   string
		older  func(top string)
		change func(top string)
		want   []string
	}{
		{"nothing else", func(string) {}, func(string) {}, nil},
		{"in a directory that was there", func(top string) { do(t, os.Mkdir(top+"/etc", 0o755)) }, func(string) {}, nil},
		{"a directory that was there changed", func(top string) { do(t, os.Mkdir(top+"/etc", 0o755)) }, func(top string) {
			do(t, os.Chmod(top+"/etc", 0o700))
		}, []string{"C /etc"}},
		{"something beside them", func(string) {}, func(top string) {
			do(t, os.WriteFile(top+"/etc/conf", nil, 0o600), os.MkdirAll(top+"/dev/shm/x", 0o755))
		}, []string{"C /dev", "A /dev/shm", "A /dev/shm/x", "C /etc", "A /etc/conf"}},
		{"something in their place", func(string) {}, func(top string) {
			do(t, os.WriteFile(top+"/etc/hosts", []byte("x"), 0o600), os.Remove(top+"/proc"), os.Symlink("etc", top+"/proc"))
		}, []string{"C /etc", "A /etc/hosts", "A /proc"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := dirs(t, "older", "newer")
			c.older(d[0])
			made(d[1])
			c.change(d[1])
			o := pack.DiffOptions{MountPoints: []string{"/dev/pts", "/dev", "/proc", "/etc/hosts", "/etc/hostname"}}
			for name, differ := range map[string]pack.Differ{
				"compare": pack.Compare(open(t, d[1]), open(t, d[0]), o), "overlay": pack.Overlay(open(t, d[1]), open(t, d[0]), o),
			} {
				var got []string
				do(t, differ.Changes(t.Context(), func(c pack.Change) error {
					got = append(got, c.Kind.String()+" "+c.Path)
					return nil
				}))
				if !slices.Equal(got, c.want) {
					t.Errorf("%s: %q, want %q", name, got, c.want)
				}
				var b bytes.Buffer
				do(t, differ.Layer(t.Context(), &b))
				if n := len(read(t, &b)); n != len(c.want) {
					t.Errorf("%s: a layer of %d entries, want %d", name, n, len(c.want))
				}
			}
		})
	}
}

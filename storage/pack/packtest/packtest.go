// Package packtest is the suite that every pack.Differ passes.
package packtest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gantry/gantry/storage/pack"
	"github.com/gantry/gantry/storage/unpack"
	"golang.org/x/sys/unix"
)

// Trees is an older tree and the newer one that began as the same.
type Trees struct {
	Newer  string // a path at which the suite makes changes
	Differ pack.Differ
}

// Factory makes an older tree by calling fill with an empty directory (as often as it needs
// one), and the newer one. What it opens is closed by t.Cleanup.
type Factory func(t *testing.T, fill func(dir string)) Trees

// Run tests a differ: what it reports for each kind of change, and that its layer, unpacked
// over the older tree, makes the newer one. It needs root.
func Run(t *testing.T, f Factory) {
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			lower := t.TempDir()
			base(t, lower)
			trees := f(t, func(dir string) { base(t, dir) })
			c.change(t, trees.Newer)
			got := changes(t, trees.Differ)
			if !slices.Equal(got, c.want) {
				t.Errorf("changes:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
			layer(t, trees, lower)
		})
	}
}

func changes(t *testing.T, d pack.Differ) (list []string) {
	t.Helper()
	err := d.Changes(t.Context(), func(c pack.Change) error {
		list = append(list, c.Kind.String()+" "+c.Path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list
}

// layer unpacks the differ's layer over the older tree and compares with the newer one.
func layer(t *testing.T, trees Trees, lower string) {
	t.Helper()
	var b, again bytes.Buffer
	if err := trees.Differ.Layer(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	if err := trees.Differ.Layer(t.Context(), &again); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(b.Bytes(), again.Bytes()) {
		t.Error("two layers of the same trees differ")
	}
	upper := t.TempDir()
	dir, err := os.Open(upper)
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	low, err := os.Open(lower)
	if err != nil {
		t.Fatal(err)
	}
	defer low.Close()
	base := []int{int(low.Fd())}
	r, err := unpack.Extract(t.Context(), &b, int(dir.Fd()), unpack.Options{Base: base, KnowBase: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := unpack.Complete(int(dir.Fd()), r.Implicit, base); err != nil {
		t.Fatal(err)
	}
	got, want := Listing(t, Mount(t, upper, lower)), Listing(t, trees.Newer)
	if got != want {
		t.Errorf("the layer makes\n%s\nwant\n%s", got, want)
	}
}

// Mount shows directories, topmost first, as overlayfs merges them, at a path that is gone
// when the test ends.
func Mount(t *testing.T, dirs ...string) string {
	t.Helper()
	return mount(t, func(fsfd int) error {
		for _, d := range dirs {
			if err := unix.FsconfigSetString(fsfd, "lowerdir+", d); err != nil {
				return err
			}
		}
		return nil
	})
}

// MountWritable is Mount with a directory upper that takes the changes.
func MountWritable(t *testing.T, upper, work, lower string) string {
	t.Helper()
	return mount(t, func(fsfd int) error {
		for _, o := range [][2]string{{"lowerdir", lower}, {"upperdir", upper}, {"workdir", work}} {
			if err := unix.FsconfigSetString(fsfd, o[0], o[1]); err != nil {
				return err
			}
		}
		return nil
	})
}

func mount(t *testing.T, options func(fsfd int) error) string {
	t.Helper()
	fsfd, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fsfd)
	if err := options(fsfd); err != nil {
		t.Fatal(err)
	}
	if err := unix.FsconfigCreate(fsfd); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Fsmount(fsfd, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fmt.Sprintf("/proc/self/fd/%d/.", fd)
}

// Listing describes all of a tree that a layer can hold, a line an entry; directories' times
// and the root's attributes are left out.
func Listing(t *testing.T, root string) string {
	t.Helper()
	var b strings.Builder
	first := map[uint64]string{}
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil || rel == "." {
			return err
		}
		var st unix.Stat_t
		if err := unix.Lstat(p, &st); err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %o %d:%d %x", rel, st.Mode, st.Uid, st.Gid, st.Rdev)
		switch {
		case d.Type()&fs.ModeSymlink != 0:
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " -> %s", target)
		case d.Type().IsRegular():
			sum, err := digest(p)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %s %s", st.Size, sum, time.Unix(st.Mtim.Sec, 0).UTC().Format(time.RFC3339))
			if st.Nlink > 1 {
				if first[st.Ino] == "" {
					first[st.Ino] = rel
				}
				fmt.Fprintf(&b, " =%s", first[st.Ino])
			}
			value := make([]byte, 64)
			if n, err := unix.Lgetxattr(p, "security.capability", value); err == nil {
				fmt.Fprintf(&b, " cap %x", value[:n])
			}
		}
		b.WriteByte('\n')
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return b.String()
}

func digest(p string) (string, error) {
	f, err := os.Open(p)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return fmt.Sprintf("%x", h.Sum(nil)[:6]), err
}

// must fails the test at the first error.
func must(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

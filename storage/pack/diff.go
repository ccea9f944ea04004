package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Kind is how an entry differs; the values are those of Docker's API.
type Kind int

// What can happen to an entry.
const (
	Modified Kind = iota
	Added
	Deleted
)

// String returns Docker's letter.
func (k Kind) String() string { return [...]string{"C", "A", "D"}[k] }

// Change is one entry in which two trees differ.
type Change struct {
	Path string // absolute in the tree, clean
	Kind Kind
}

// Differ tells in what one tree, the newer, differs from another. What is reported, in this
// order (a directory before what is in it, names sorted):
//
//   - Deleted: an entry that only the older tree has; what was below it is not listed.
//   - Added: an entry that only the newer tree has, and everything below it.
//   - Modified: an entry of both that differs in type, mode, owner, device, capability, size, link target
//     or modification time; and every directory on the way to one of these. A directory's own modification time does
//     not count: whatever happens in it changes that.
//
// Entries that are hard links of a changed file and unchanged names of it are not reported. The
// root itself never is.
//
// Both methods may be called several times, one after another; they read and change nothing.
// Errors are as of Tree. Implementations keep the descriptors they were made of open for nobody:
// these stay the caller's.
type Differ interface {
	// Changes calls fn for each difference and ends with fn's error.
	Changes(ctx context.Context, fn func(Change) error) error
	// Layer writes the differences as an image layer: what is new or changed with its
	// attributes, whiteouts for what is deleted.
	Layer(ctx context.Context, w io.Writer) error
}

// DiffOptions say what does not count as a difference.
type DiffOptions struct {
	// MountPoints are absolute paths at which whoever mounts the newer tree makes empty
	// directories and files, to mount something there. Such a one, and the directories that lead
	// to it, count as being in the older tree as well.
	MountPoints []string
}

// scaffold are mount points and the directories that lead to them, relative to the root.
type scaffold map[string]bool // true: a mount point

func (o DiffOptions) scaffold() scaffold {
	s := make(scaffold, 2*len(o.MountPoints))
	for _, p := range o.MountPoints {
		name := strings.TrimPrefix(path.Clean(p), "/")
		s[name] = true
		for dir := path.Dir(name); dir != "."; dir = path.Dir(dir) {
			if !s[dir] { // it may be a mount point itself
				s[dir] = false
			}
		}
	}
	return s
}

// has reports whether an entry that only the newer tree has is part of the scaffold.
func (s scaffold) has(e *entry) bool {
	point, ok := s[e.name]
	return ok && (e.dir() || point && e.st.Mode&unix.S_IFMT == unix.S_IFREG && e.st.Size == 0)
}

// found is a difference with the newer entry, nil where that was deleted.
type found struct {
	Change
	e *entry
}

// finder is a way to look for differences.
type finder func(ctx context.Context, fn func(found) error) error

// Changes implements Differ.
func (f finder) Changes(ctx context.Context, fn func(Change) error) error {
	if err := f(ctx, func(d found) error { return fn(d.Change) }); err != nil {
		return fmt.Errorf("comparing: %w", err)
	}
	return nil
}

// Layer implements Differ.
func (f finder) Layer(ctx context.Context, w io.Writer) error {
	p := newPacker(ctx, w, Capability)
	err := f(ctx, func(d found) error {
		name := strings.TrimPrefix(d.Path, "/")
		switch {
		case d.Kind == Deleted:
			return p.whiteout(name)
		case strings.HasPrefix(path.Base(name), whiteoutPrefix):
			return errclass.Invalid("an image layer cannot hold a file named %q: it would delete another one", name)
		}
		return p.entry(d.e, name)
	})
	if err != nil {
		return fmt.Errorf("packing changes: %w", err)
	}
	return p.tar.Close()
}

// pending holds back the directories on the way to a change until there is one.
type pending struct {
	fn   func(found) error
	dirs []found
}

// enter notes that the walk goes into a directory which by itself is no change.
func (p *pending) enter(d found) { p.dirs = append(p.dirs, d) }

// leave forgets a directory that was entered last, if nothing in it made it a change.
func (p *pending) leave(path string) {
	if n := len(p.dirs); n > 0 && p.dirs[n-1].Path == path {
		p.dirs = p.dirs[:n-1]
	}
}

// report tells of a change, and before it of the directories that lead there.
func (p *pending) report(d found) error {
	for _, dir := range p.dirs {
		if err := p.fn(dir); err != nil {
			return err
		}
	}
	p.dirs = p.dirs[:0]
	return p.fn(d)
}

// same reports whether two entries of one name are alike, but for what is in a directory.
// Files that look alike are read where the time cannot tell: it was set, not taken from the
// clock (whole seconds), or exact is wanted.
func same(ctx context.Context, a, b *entry, exact bool) (bool, error) {
	if a.st.Mode != b.st.Mode || a.st.Uid != b.st.Uid || a.st.Gid != b.st.Gid || a.st.Rdev != b.st.Rdev {
		return false, nil
	}
	if a.dir() {
		return true, nil
	}
	if a.st.Size != b.st.Size || a.st.Mtim != b.st.Mtim {
		return false, nil
	}
	switch a.st.Mode & unix.S_IFMT {
	case unix.S_IFLNK:
		ta, err := a.readlink()
		if err != nil {
			return false, err
		}
		tb, err := b.readlink()
		return ta == tb, err
	case unix.S_IFREG:
		alike, err := sameCapability(a, b)
		if alike && err == nil && (exact || a.st.Mtim.Nsec == 0) {
			return sameContent(ctx, a, b)
		}
		return alike, err
	}
	return true, nil
}

// maxCapability is more than a file capability takes, in bytes (revision 3 takes 24).
const maxCapability = 64

func sameCapability(a, b *entry) (bool, error) {
	var x, y [maxCapability]byte
	ca, err := a.xattr("security.capability", x[:])
	if err != nil {
		return false, err
	}
	cb, err := b.xattr("security.capability", y[:])
	return string(ca) == string(cb), err
}

func sameContent(ctx context.Context, a, b *entry) (bool, error) {
	fa, err := a.open()
	if err != nil {
		return false, fmt.Errorf("%s: %w", a.name, err)
	}
	x := os.NewFile(uintptr(fa), a.name)
	defer x.Close()
	fb, err := b.open()
	if err != nil {
		return false, fmt.Errorf("%s: %w", b.name, err)
	}
	y := os.NewFile(uintptr(fb), b.name)
	defer y.Close()
	p, q := make([]byte, copySize/2), make([]byte, copySize/2)
	for off := int64(0); off < a.st.Size; off += int64(len(p)) {
		if err := ctx.Err(); err != nil {
			return false, err
		}
		n, err := x.ReadAt(p, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		m, err := y.ReadAt(q, off)
		if err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
	}
	return true, nil
}

// Compare is the differ of two whole trees, each an open descriptor (O_PATH will do) of a
// directory that stays the caller's.
func Compare(newer, older *os.File, o DiffOptions) Differ {
	return finder(func(ctx context.Context, fn func(found) error) error {
		c := &comparison{ctx: ctx, pending: pending{fn: fn}, scaffold: o.scaffold()}
		n, err := openEntry(int(newer.Fd()), ".", ".")
		if err != nil {
			return err
		}
		defer unix.Close(n.fd)
		o, err := openEntry(int(older.Fd()), ".", ".")
		if err != nil {
			return err
		}
		defer unix.Close(o.fd)
		return c.dirs(n, o)
	})
}

// comparison walks two trees side by side.
type comparison struct {
	ctx context.Context
	pending
	scaffold scaffold
}

// dirs compares what is in two directories of one name.
func (c *comparison) dirs(newer, older *entry) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	ns, err := names(newer.fd)
	if err != nil {
		return fmt.Errorf("%s: %w", newer.name, err)
	}
	was, err := names(older.fd)
	if err != nil {
		return fmt.Errorf("%s: %w", older.name, err)
	}
	for len(ns) > 0 || len(was) > 0 {
		switch {
		case len(ns) == 0 || len(was) > 0 && was[0] < ns[0]:
			err = c.deleted(newer, was[0])
			was = was[1:]
		case len(was) > 0 && was[0] == ns[0]:
			err = c.both(newer, older, ns[0])
			ns, was = ns[1:], was[1:]
		default:
			err = c.added(newer, ns[0])
			ns = ns[1:]
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (c *comparison) deleted(dir *entry, name string) error {
	return c.report(found{Change{path.Join("/", dir.name, name), Deleted}, nil})
}

// both compares an entry that both directories list.
func (c *comparison) both(newer, older *entry, name string) error {
	full := path.Join(newer.name, name)
	n, err := openChild(newer, name, full)
	if err != nil {
		return err
	}
	if n == nil { // removed meanwhile
		return c.deleted(newer, name)
	}
	defer unix.Close(n.fd)
	o, err := openChild(older, name, full)
	if err != nil {
		return err
	}
	if o == nil {
		return c.tree(n)
	}
	defer unix.Close(o.fd)
	return c.pair(n, o)
}

// pair compares two entries of one name, and what is below.
func (c *comparison) pair(n, o *entry) error {
	alike, err := same(c.ctx, n, o, false)
	if err != nil {
		return err
	}
	change := found{Change{path.Join("/", n.name), Modified}, n}
	if alike && n.dir() {
		c.enter(change)
		defer c.leave(change.Path)
		return c.dirs(n, o)
	}
	if alike {
		return nil
	}
	if err := c.report(change); err != nil {
		return err
	}
	switch {
	case n.dir() && o.dir():
		return c.dirs(n, o)
	case n.dir():
		return c.inside(n)
	}
	return nil
}

// added reports an entry that only the newer tree has, and all below it.
func (c *comparison) added(parent *entry, name string) error {
	e, err := openChild(parent, name, path.Join(parent.name, name))
	if err != nil || e == nil {
		return err
	}
	defer unix.Close(e.fd)
	return c.tree(e)
}

// tree reports an entry that is new, and what is in it.
func (c *comparison) tree(e *entry) error {
	if err := c.ctx.Err(); err != nil {
		return err
	}
	change := found{Change{path.Join("/", e.name), Added}, e}
	if c.scaffold.has(e) {
		change.Kind = Modified
		c.enter(change)
		defer c.leave(change.Path)
	} else if err := c.report(change); err != nil {
		return err
	}
	if !e.dir() {
		return nil
	}
	return c.inside(e)
}

// inside reports what is in a directory that is new, or took the place of something else.
func (c *comparison) inside(dir *entry) error {
	list, err := names(dir.fd)
	if err != nil {
		return fmt.Errorf("%s: %w", dir.name, err)
	}
	for _, name := range list {
		if err := c.added(dir, name); err != nil {
			return err
		}
	}
	return nil
}

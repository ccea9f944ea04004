package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Overlay is the differ of what a mounted overlay shows and the layers below its writable one:
// it looks only at the directory upper, where overlayfs keeps what was changed, and at the
// names of it in lower, the merged tree of the layers below; nil where there are none. Both are open
// descriptors (O_PATH will do) that stay the caller's. Upper may be in use.
//
// Its methods fail with class FailedPrecondition where upper does not hold all that the mount
// shows: a kernel set to that keeps only a note of renamed directories and of changed
// attributes there (redirect_dir, metacopy). Compare the mounted trees then.
func Overlay(upper, lower *os.File, o DiffOptions) Differ {
	return finder(func(ctx context.Context, fn func(found) error) error {
		d := &overlay{comparison{ctx: ctx, pending: pending{fn: fn}, scaffold: o.scaffold()}}
		u, err := openEntry(int(upper.Fd()), ".", ".")
		if err != nil {
			return err
		}
		defer unix.Close(u.fd)
		if lower == nil {
			return d.dirs(u, nil, false)
		}
		l, err := openEntry(int(lower.Fd()), ".", ".")
		if err != nil {
			return err
		}
		defer unix.Close(l.fd)
		return d.dirs(u, l, false)
	})
}

type overlay struct{ comparison }

// isWhiteout tells what overlayfs writes where a name of the layers below is gone.
func isWhiteout(e *entry) bool { return e.st.Mode&unix.S_IFMT == unix.S_IFCHR && e.st.Rdev == 0 }

// dirs goes through a directory of upper; below is the directory of that name in the layers
// below, nil without one. hidden tells that the mount shows nothing of that: a directory above u
// took the place of one below.
func (d *overlay) dirs(u, below *entry, hidden bool) error {
	if err := d.ctx.Err(); err != nil {
		return err
	}
	list, err := names(u.fd)
	if err != nil {
		return fmt.Errorf("%s: %w", u.name, err)
	}
	var gone []string // names of below that u hides, sorted
	if below != nil {
		opaque, err := d.opaque(u)
		if err != nil {
			return err
		}
		if hidden = hidden || opaque; hidden {
			if gone, err = names(below.fd); err != nil {
				return fmt.Errorf("%s: %w", below.name, err)
			}
		}
	}
	for _, name := range list {
		for len(gone) > 0 && gone[0] < name {
			if err := d.deleted(u, gone[0]); err != nil {
				return err
			}
			gone = gone[1:]
		}
		if len(gone) > 0 && gone[0] == name {
			gone = gone[1:]
		}
		if err := d.child(u, below, name, hidden); err != nil {
			return err
		}
	}
	for _, name := range gone {
		if err := d.deleted(u, name); err != nil {
			return err
		}
	}
	return nil
}

// child compares one entry of a directory of upper with what is below it.
func (d *overlay) child(u, below *entry, name string, hidden bool) error {
	full := path.Join(u.name, name)
	e, err := openChild(u, name, full)
	if err != nil || e == nil {
		return err
	}
	defer unix.Close(e.fd)
	if err := d.complete(e); err != nil {
		return err
	}
	var o *entry
	if below != nil {
		if o, err = openChild(below, name, full); err != nil {
			return err
		}
	}
	if o != nil {
		defer unix.Close(o.fd)
	}
	switch {
	case isWhiteout(e) && o == nil:
		return nil
	case isWhiteout(e):
		return d.deleted(u, name)
	case o == nil:
		return d.fresh(e)
	}
	return d.pair(e, o, hidden)
}

// fresh reports an entry that nothing is below, and what is in it.
func (d *overlay) fresh(e *entry) error {
	change := found{Change{path.Join("/", e.name), Added}, e}
	if d.scaffold.has(e) {
		change.Kind = Modified
		d.enter(change)
		defer d.leave(change.Path)
	} else if err := d.report(change); err != nil {
		return err
	}
	if !e.dir() {
		return nil
	}
	return d.dirs(e, nil, false)
}

// pair compares an entry of upper with the one of that name below.
func (d *overlay) pair(e, o *entry, hidden bool) error {
	// Files are in upper because something opened them for writing: few, so they are read.
	alike, err := same(d.ctx, e, o, true)
	if err != nil {
		return err
	}
	change := found{Change{path.Join("/", e.name), Modified}, e}
	switch {
	case alike && e.dir():
		d.enter(change)
		defer d.leave(change.Path)
	case alike:
		return nil
	default:
		if err := d.report(change); err != nil || !e.dir() {
			return err
		}
	}
	if !o.dir() {
		o = nil
	}
	return d.dirs(e, o, hidden)
}

// complete refuses entries of which upper holds a note only.
func (d *overlay) complete(e *entry) error {
	key := "trusted.overlay.metacopy"
	switch e.st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		key = "trusted.overlay.redirect"
	case unix.S_IFREG:
	default:
		return nil
	}
	_, err := unix.Getxattr(procName(e.fd), key, nil)
	switch {
	case errors.Is(err, unix.ENODATA), errors.Is(err, unix.ENOTSUP):
		return nil
	case err != nil:
		return fmt.Errorf("%s: %w", e.name, err)
	}
	return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("%s is kept by reference (%s): the mounted trees must be compared", e.name, key))
}

// opaque reports whether a directory of upper hides the one below it.
func (d *overlay) opaque(e *entry) (bool, error) {
	var b [8]byte
	v, err := e.xattr("trusted.overlay.opaque", b[:])
	return string(v) == "y", err
}

// Package tree removes, measures and copies directory trees that may be hostile. It works on
// descriptors: it follows no symbolic link, no depth exhausts descriptors or stack, and no mode or
// attribute stops it.
package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	// maxOpen is how many directories of one branch are held open at a time.
	maxOpen = 64
	// batch is how many names are read from a directory at a time.
	batch = 512
	// maxPasses bounds how often a directory is emptied again because somebody writes to it.
	maxPasses = 100
	// maxDepth bounds how deep Usage looks.
	maxDepth = 1024

	fsImmutable  = 0x10
	fsAppendOnly = 0x20
)

// Remove deletes name, whatever it is, and everything below it, in the directory at.
// The error wraps fs.ErrNotExist when there is no such name.
func Remove(at int, name string) error {
	r := &remover{at: at, base: name}
	if err := r.remove(at, name, 0); err != nil {
		return fmt.Errorf("removing %s: %w", name, err)
	}
	// What was too deep has been moved beside name.
	for len(r.deep) > 0 {
		next := r.deep[len(r.deep)-1]
		r.deep = r.deep[:len(r.deep)-1]
		if err := r.remove(at, next, 0); err != nil {
			return fmt.Errorf("removing %s: %w", next, err)
		}
	}
	return nil
}

// Empty deletes everything in the directory that dir is an open descriptor of.
func Empty(dir int) error {
	fd, err := unix.Openat(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("emptying directory: %w", err)
	}
	f := os.NewFile(uintptr(fd), ".")
	defer f.Close()
	for {
		names, err := f.Readdirnames(batch)
		for _, n := range names {
			if err := Remove(fd, n); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("emptying directory: %w", err)
		}
	}
}

type remover struct {
	at    int
	base  string
	deep  []string
	count int
}

func (r *remover) remove(at int, name string, depth int) error {
	err := unix.Unlinkat(at, name, 0)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EISDIR):
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		clearFlags(at, name)
		if err := unix.Unlinkat(at, name, 0); err == nil {
			return nil
		}
	case errors.Is(err, unix.ENOENT):
		return os.ErrNotExist
	default:
		return err
	}
	if depth >= maxOpen {
		r.count++
		moved := r.base + ".deep" + strconv.Itoa(r.count)
		if err := unix.Renameat(at, name, r.at, moved); err != nil {
			return err
		}
		r.deep = append(r.deep, moved)
		return nil
	}
	for range maxPasses {
		if err := r.empty(at, name, depth); err != nil {
			return err
		}
		err = unix.Unlinkat(at, name, unix.AT_REMOVEDIR)
		if err == nil || errors.Is(err, unix.ENOENT) {
			return nil
		}
		if errors.Is(err, unix.EPERM) {
			clearFlags(at, name)
			continue
		}
		if !errors.Is(err, unix.ENOTEMPTY) {
			return err
		}
	}
	return err
}

// empty removes what is in the directory name.
func (r *remover) empty(at int, name string, depth int) error {
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	for {
		names, err := dir.Readdirnames(batch)
		for _, n := range names {
			if err := r.remove(fd, n, depth+1); err != nil && !errors.Is(err, os.ErrNotExist) {
				if !errors.Is(err, unix.EPERM) {
					return err
				}
				// The directory itself may be immutable.
				clearFlags(at, name)
				if err := r.remove(fd, n, depth+1); err != nil && !errors.Is(err, os.ErrNotExist) {
					return err
				}
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// clearFlags takes away chattr's i and a from a directory or regular file.
func clearFlags(at int, name string) {
	var st unix.Stat_t
	if err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return
	}
	if t := st.Mode & unix.S_IFMT; t != unix.S_IFDIR && t != unix.S_IFREG {
		return
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return
	}
	defer unix.Close(fd)
	flags, err := unix.IoctlGetInt(fd, unix.FS_IOC_GETFLAGS)
	if err != nil || flags&(fsImmutable|fsAppendOnly) == 0 {
		return
	}
	_ = unix.IoctlSetPointerInt(fd, unix.FS_IOC_SETFLAGS, flags&^(fsImmutable|fsAppendOnly))
}

// Total is what a tree takes.
type Total struct {
	Size   int64 // bytes of all that is no directory, hard links once
	Inodes int64
}

// Usage measures the tree at name. What vanishes meanwhile is not counted; below
// 1024 levels nothing is.
func Usage(ctx context.Context, at int, name string) (Total, error) {
	return UsageAbove(ctx, at, name, -1)
}

// UsageAbove is Usage without what is in the tree of the directory base as well, with the
// same kind, size, owner, mode and time of modification. base is an open descriptor, or
// -1 for none.
func UsageAbove(ctx context.Context, at int, name string, base int) (Total, error) {
	u := &usage{ctx: ctx, seen: map[inode]struct{}{}}
	if base >= 0 {
		dup, err := unix.FcntlInt(uintptr(base), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return Total{}, fmt.Errorf("measuring %s: %w", name, err)
		}
		defer unix.Close(dup)
		base = dup
	}
	if err := u.dir(at, name, base, 0); err != nil {
		return Total{}, fmt.Errorf("measuring %s: %w", name, err)
	}
	return u.total, nil
}

type inode struct{ dev, ino uint64 }

type usage struct {
	ctx   context.Context
	seen  map[inode]struct{}
	total Total
}

// dir measures a directory; base is the one of the same name in the tree below, or -1.
func (u *usage) dir(at int, name string, base, depth int) error {
	if err := u.ctx.Err(); err != nil {
		return err
	}
	fd, err := unix.Openat(at, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if depth > 0 && (errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP)) {
		return nil // went away, or is another kind of file by now
	}
	if err != nil {
		return err
	}
	dir := os.NewFile(uintptr(fd), name)
	defer dir.Close()
	if base < 0 {
		u.total.Inodes++
	}
	for {
		names, err := dir.Readdirnames(batch)
		for _, n := range names {
			if err := u.entry(fd, n, base, depth); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (u *usage) entry(at int, name string, base, depth int) error {
	var st unix.Stat_t
	switch err := unix.Fstatat(at, name, &st, unix.AT_SYMLINK_NOFOLLOW); {
	case errors.Is(err, unix.ENOENT):
		return nil // went away meanwhile
	case err != nil:
		return err
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		if depth >= maxDepth {
			return nil
		}
		below := -1
		if base >= 0 {
			if fd, err := unix.Openat(base, name, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0); err == nil {
				defer unix.Close(fd)
				below = fd
			}
		}
		return u.dir(at, name, below, depth+1)
	}
	if base >= 0 && sameFile(base, name, &st) {
		return nil
	}
	if st.Nlink > 1 {
		k := inode{st.Dev, st.Ino}
		if _, ok := u.seen[k]; ok {
			return nil
		}
		u.seen[k] = struct{}{}
	}
	u.total.Inodes++
	u.total.Size += st.Size
	return nil
}

func sameFile(at int, name string, st *unix.Stat_t) bool {
	var old unix.Stat_t
	err := unix.Fstatat(at, name, &old, unix.AT_SYMLINK_NOFOLLOW)
	return err == nil && old.Mode == st.Mode && old.Size == st.Size && old.Uid == st.Uid && old.Gid == st.Gid &&
		old.Rdev == st.Rdev && old.Mtim == st.Mtim
}

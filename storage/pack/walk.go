package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// entry is one file of a tree while it is looked at.
type entry struct {
	name string // relative to the tree's root, "." for the root
	fd   int    // O_PATH, of the file itself and never of what a link leads to
	st   unix.Stat_t
}

func (e *entry) dir() bool { return e.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// procName names what fd is open for where a system call takes no O_PATH descriptor: the
// kernel goes to that very file, through no path.
func procName(fd int) string { return "/proc/self/fd/" + strconv.Itoa(fd) }

// open opens a regular file for reading. It is not a fifo or a device: the descriptor tells.
func (e *entry) open() (int, error) {
	return unix.Open(procName(e.fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
}

func (e *entry) readlink() (string, error) {
	b := make([]byte, maxPath)
	n, err := unix.Readlinkat(e.fd, "", b)
	return string(b[:max(n, 0)]), err
}

// xattr reads one attribute into buf; nil when there is none.
func (e *entry) xattr(key string, buf []byte) ([]byte, error) {
	n, err := unix.Getxattr(procName(e.fd), key, buf)
	if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: extended attribute %s: %w", e.name, key, err)
	}
	return buf[:n], nil
}

func (e *entry) xattrs() ([]string, error) {
	b := make([]byte, maxXattr)
	n, err := unix.Listxattr(procName(e.fd), b)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: extended attributes: %w", e.name, err)
	}
	list := strings.Split(strings.TrimRight(string(b[:n]), "\x00"), "\x00")
	slices.Sort(list)
	return list, nil
}

// openEntry opens name in the directory at. The error is ENOENT when there is none.
func openEntry(at int, name, full string) (*entry, error) {
	e := &entry{name: full}
	fd, err := unix.Openat(at, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if err := unix.Fstat(fd, &e.st); err != nil {
		unix.Close(fd)
		return nil, err
	}
	e.fd = fd
	return e, nil
}

// maxNames bounds the entries of one directory, which are in memory while it is walked.
const maxNames = 4 << 20

// names lists the directory fd, an O_PATH descriptor, in sorted order. A directory that was
// removed meanwhile is empty. Class InvalidArgument for one with too many entries.
func names(fd int) ([]string, error) {
	dir, err := unix.Openat(fd, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	f := os.NewFile(uintptr(dir), ".")
	defer f.Close()
	list, err := f.Readdirnames(maxNames + 1)
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if len(list) > maxNames {
		return nil, errclass.Invalid("directory has more than %d entries", maxNames)
	}
	slices.Sort(list)
	return list, nil
}

// visitor walks a tree, each directory before what is in it.
type visitor struct {
	ctx  context.Context
	skip func(name string) bool
	fn   func(e *entry) error
}

func (v *visitor) root(root *os.File) error {
	e, err := openEntry(int(root.Fd()), ".", ".")
	if err != nil {
		return err
	}
	defer unix.Close(e.fd)
	return v.walk(e)
}

// walk visits e, which stays the caller's, and what is below.
func (v *visitor) walk(e *entry) error {
	if err := v.ctx.Err(); err != nil {
		return err
	}
	if err := v.fn(e); err != nil || !e.dir() {
		return err
	}
	list, err := names(e.fd)
	if err != nil {
		return fmt.Errorf("%s: %w", e.name, err)
	}
	for _, n := range list {
		if err := v.child(e, n); err != nil {
			return err
		}
	}
	return nil
}

func (v *visitor) child(dir *entry, name string) error {
	full := path.Join(dir.name, name)
	if v.skip != nil && v.skip(full) {
		return nil
	}
	e, err := openChild(dir, name, full)
	if err != nil || e == nil {
		return err
	}
	defer unix.Close(e.fd)
	return v.walk(e)
}

// openChild opens an entry of a directory; nil when it was removed meanwhile. The bound on
// its path also bounds how many directories are open at a time.
func openChild(dir *entry, name, full string) (*entry, error) {
	if len(full) >= maxPath {
		return nil, errclass.Invalid("path of %d bytes is too long for an archive: %.64s…", len(full), full)
	}
	e, err := openEntry(dir.fd, name, full)
	if errors.Is(err, unix.ENOENT) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", full, err)
	}
	return e, nil
}

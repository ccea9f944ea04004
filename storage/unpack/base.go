package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// openParent opens the directory an entry goes into, making what is missing. The
// returned path is where that really is, when links led there.
func (x *extractor) openParent(name string) (int, string, error) {
	fd, err := x.dirs.open(name)
	if err == nil {
		return fd, name, nil
	}
	if !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ENOTDIR) && !errors.Is(err, unix.ELOOP) {
		return -1, "", err
	}
	where, err := x.view.resolve(name)
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return -1, "", err
	}
	if err := x.mkdirs(where); err != nil {
		return -1, "", err
	}
	fd, err = x.dirs.open(where)
	return fd, where, err
}

// mkdirs makes the directories of a path without links, each as it is in the layers
// below when those are known, and else open to all as every unpacker does.
func (x *extractor) mkdirs(name string) error {
	if name == "." {
		return nil
	}
	for end := 0; end < len(name); end++ {
		if next := strings.IndexByte(name[end:], '/'); next >= 0 {
			end += next
		} else {
			end = len(name)
		}
		if err := x.mkdir(name[:end]); err != nil {
			return err
		}
	}
	return nil
}

func (x *extractor) mkdir(dir string) error {
	parent, base := path.Split(dir)
	at, err := x.dirs.open(path.Clean(parent))
	if err != nil {
		return err
	}
	err = unix.Mkdirat(at, base, 0o755)
	hid := false
	if errors.Is(err, unix.EEXIST) {
		var st unix.Stat_t
		if err := unix.Fstatat(at, base, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
		if !isWhiteout(&st) {
			return nil
		}
		hid = true
		if err := unix.Unlinkat(at, base, 0); err != nil {
			return err
		}
		err = unix.Mkdirat(at, base, 0o755)
	}
	if err != nil {
		return err
	}
	fd, err := unix.Openat(at, base, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Fchmod(fd, 0o755); err != nil {
		return err
	}
	if hid {
		return unix.Fsetxattr(fd, opaqueXattr, []byte("y"), 0)
	}
	x.implicit = append(x.implicit, dir)
	return x.remember(dir)
}

// Complete gives the directories that a layer only implies the attributes they have in
// the layers below (base, topmost first). redo means that one of them is a symbolic
// link there, so that the layer must be extracted again with its base known.
func Complete(dir int, implicit []string, base []int) (redo bool, err error) {
	if len(base) == 0 {
		return false, nil
	}
	v := view{layers: base}
	for _, name := range implicit {
		layer, st, err := v.lookup(name)
		if errors.Is(err, unix.ENOENT) {
			continue
		}
		if err != nil {
			return false, fmt.Errorf("layers below: %w", err)
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFLNK:
			return true, nil
		case unix.S_IFDIR:
			if err := copyAttributes(layer, dir, name, &st); err != nil {
				return false, fmt.Errorf("attributes of %q: %w", name, err)
			}
		}
	}
	return false, nil
}

// copyAttributes makes name in dir look as it does in layer.
func copyAttributes(layer, dir int, name string, st *unix.Stat_t) error {
	from, err := openBeneath(layer, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	to, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) {
		return nil // replaced later in the archive
	}
	if err != nil {
		return err
	}
	defer unix.Close(to)
	return copyFdAttributes(from, to, st)
}

func copyFdAttributes(from, to int, st *unix.Stat_t) error {
	if err := unix.Fchown(to, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(to, st.Mode&0o7777); err != nil {
		return err
	}
	if err := copyXattrs(from, to); err != nil {
		return err
	}
	ts := []unix.Timespec{st.Mtim, st.Mtim}
	return unix.UtimesNanoAt(unix.AT_FDCWD, fmt.Sprintf("/proc/self/fd/%d", to), ts, 0)
}

func copyXattrs(from, to int) error {
	list := make([]byte, 64<<10)
	n, err := unix.Flistxattr(from, list)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	val := make([]byte, maxXattrValue)
	for _, k := range strings.Split(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(k, "trusted.") || strings.HasPrefix(k, "user.overlay.") {
			continue
		}
		n, err := unix.Fgetxattr(from, k, val)
		if err == nil {
			err = unix.Fsetxattr(to, k, val[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) && !errors.Is(err, unix.EPERM) {
			return err
		}
	}
	return nil
}

// copyUp copies a file of the layers below into this one, at the same path.
func (x *extractor) copyUp(name string) error {
	layer, st, err := x.view.lookup(name)
	if errors.Is(err, unix.ENOENT) {
		return errclass.Invalid("hard link to %q, which does not exist", name)
	}
	if err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return errclass.Invalid("hard link to %q of a layer below, which is no file", name)
	}
	if st.Size > x.left {
		return errclass.Invalid("layer holds more than %d bytes", x.o.Limits.Bytes)
	}
	x.left -= st.Size
	from, err := openBeneath(layer, name, unix.O_RDONLY|unix.O_NONBLOCK)
	if err != nil {
		return err
	}
	defer unix.Close(from)
	parent, base := path.Split(name)
	if err := x.mkdirs(path.Clean(parent)); err != nil {
		return err
	}
	at, err := openBeneath(x.root, path.Clean(parent), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	to, err := unix.Openat(at, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	for off := int64(0); off < st.Size; {
		n, err := unix.Pread(from, x.buf, off)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if err := writeAt(to, x.buf[:n], off); err != nil {
			return err
		}
		off += int64(n)
	}
	return copyFdAttributes(from, to, &st)
}

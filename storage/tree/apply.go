package tree

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	opaqueXattr   = "trusted.overlay.opaque"
	maxXattrList  = 64 << 10
	maxXattrValue = 64 << 10
	copyBuffer    = 256 << 10
)

// Apply puts a layer in overlayfs' form (whiteouts, opaque directories) upon the tree below
// the directory to, so that to holds what an overlay of both would show; from an empty
// directory on, and without whiteouts, it copies. Both are open descriptors of
// directories that nobody else writes to, and are not closed. Kept are kinds, modes,
// owners, times, extended attributes, hard links within the layer, and holes. Contents are
// shared with the layer where the file system can. On error to holds a part.
func Apply(ctx context.Context, layer, to int) error {
	a := &applier{ctx: ctx, from: layer, to: to, links: map[inode]string{}}
	a.dirs = []string{"."}
	for len(a.dirs) > 0 {
		next := a.dirs[len(a.dirs)-1]
		a.dirs = a.dirs[:len(a.dirs)-1]
		if err := a.dir(next); err != nil {
			return fmt.Errorf("copying %q: %w", next, err)
		}
	}
	return nil
}

// applier goes through a layer directory by directory. It opens each by its path below the
// root, so that it holds two at a time however deep the tree is; no link is followed.
type applier struct {
	ctx      context.Context
	from, to int
	dirs     []string         // to be done
	links    map[inode]string // of files with several names: where in to the first one is
	buf      []byte
}

func openDir(root int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_DIRECTORY | unix.O_CLOEXEC | unix.O_NOFOLLOW),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return fd, err
	}
}

// dir does what is in one directory, and then the directory's own attributes: nothing is
// made in it any more.
func (a *applier) dir(name string) error {
	fd, err := openDir(a.from, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	from := os.NewFile(uintptr(fd), name)
	defer from.Close()
	to, err := openDir(a.to, name, unix.O_RDONLY)
	if err != nil {
		return err
	}
	defer unix.Close(to)
	for {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		names, err := from.Readdirnames(batch)
		for _, n := range names {
			if err := a.entry(fd, to, name, n); err != nil {
				return fmt.Errorf("%q: %w", n, err)
			}
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	return copyAttributes(fd, to, ".", &st)
}

// entry does one name of a directory.
func (a *applier) entry(from, to int, dir, name string) error {
	var st, old unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	kind := st.Mode & unix.S_IFMT
	err := unix.Fstatat(to, name, &old, unix.AT_SYMLINK_NOFOLLOW)
	there := err == nil
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return err
	}
	merges := there && kind == unix.S_IFDIR && old.Mode&unix.S_IFMT == unix.S_IFDIR && !isOpaque(from, name)
	if there && !merges {
		if err := Remove(to, name); err != nil {
			return err
		}
	}
	switch {
	case kind == unix.S_IFCHR && st.Rdev == 0:
		return nil // a whiteout
	case kind == unix.S_IFDIR:
		a.dirs = append(a.dirs, path.Join(dir, name))
		if merges {
			return nil
		}
		return unix.Mkdirat(to, name, 0o700)
	case st.Nlink > 1:
		key := inode{st.Dev, st.Ino}
		if first, ok := a.links[key]; ok {
			return a.link(first, to, name)
		}
		a.links[key] = path.Join(dir, name)
	}
	if err := a.make(from, to, name, &st); err != nil {
		return err
	}
	return copyAttributes(from, to, name, &st)
}

func isOpaque(at int, name string) bool {
	var b [2]byte
	n, err := unix.Lgetxattr(inDir(at, name), opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// inDir names a file of an open directory for calls that take no descriptor.
func inDir(at int, name string) string { return fmt.Sprintf("/proc/self/fd/%d/%s", at, name) }

// link gives a file of to that is made already one more name.
func (a *applier) link(first string, to int, name string) error {
	at, err := openDir(a.to, path.Dir(first), unix.O_PATH)
	if err != nil {
		return err
	}
	defer unix.Close(at)
	return unix.Linkat(at, path.Base(first), to, name, 0)
}

// make makes anything but a directory, with its content.
func (a *applier) make(from, to int, name string, st *unix.Stat_t) error {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		return a.file(from, to, name, st.Size)
	case unix.S_IFLNK:
		buf := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, buf)
		if err != nil {
			return err
		}
		return unix.Symlinkat(string(buf[:n]), to, name)
	default:
		return unix.Mknodat(to, name, st.Mode&unix.S_IFMT|0o600, int(st.Rdev))
	}
}

func (a *applier) file(from, to int, name string, size int64) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	if size == 0 {
		return nil
	}
	if err := unix.IoctlFileClone(dst, src); err == nil {
		return nil
	}
	if err := unix.Ftruncate(dst, size); err != nil {
		return err
	}
	for off := int64(0); off < size; {
		start, err := unix.Seek(src, off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil // the rest is a hole
		}
		end := size
		if err == nil {
			end, err = unix.Seek(src, start, unix.SEEK_HOLE)
		}
		if errors.Is(err, unix.EINVAL) { // a file system without holes
			start, end, err = off, size, nil
		}
		if err != nil {
			return err
		}
		if err := a.content(src, dst, start, min(end, size)); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// content copies the bytes from start to end.
func (a *applier) content(src, dst int, start, end int64) error {
	for start < end {
		in, out := start, start
		n, err := unix.CopyFileRange(src, &in, dst, &out, int(min(end-start, 1<<30)), 0)
		if err == nil && n > 0 {
			start += int64(n)
			if err := a.ctx.Err(); err != nil {
				return err
			}
			continue
		}
		if err == nil || errors.Is(err, unix.EXDEV) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) || errors.Is(err, unix.EOPNOTSUPP) {
			return a.slowly(src, dst, start, end)
		}
		if !errors.Is(err, unix.EINTR) {
			return err
		}
	}
	return nil
}

func (a *applier) slowly(src, dst int, start, end int64) error {
	if a.buf == nil {
		a.buf = make([]byte, copyBuffer)
	}
	for start < end {
		if err := a.ctx.Err(); err != nil {
			return err
		}
		n, err := unix.Pread(src, a.buf[:min(end-start, copyBuffer)], start)
		if err != nil {
			return err
		}
		if n == 0 {
			return io.ErrUnexpectedEOF
		}
		for w := 0; w < n; {
			m, err := unix.Pwrite(dst, a.buf[w:n], start+int64(w))
			if err != nil {
				return err
			}
			w += m
		}
		start += int64(n)
	}
	return nil
}

// copyAttributes makes name in to look as it does in from: owner, mode, extended
// attributes, times, in the order in which none of them undoes another.
func copyAttributes(from, to int, name string, st *unix.Stat_t) error {
	if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	if err := copyXattrs(inDir(from, name), inDir(to, name)); err != nil {
		return err
	}
	ts := []unix.Timespec{st.Atim, st.Mtim}
	return unix.UtimesNanoAt(to, name, ts, unix.AT_SYMLINK_NOFOLLOW)
}

// copyXattrs leaves out what overlayfs writes for itself.
func copyXattrs(from, to string) error {
	var few [256]byte
	list := few[:]
	n, err := unix.Llistxattr(from, list)
	if errors.Is(err, unix.ERANGE) {
		list = make([]byte, maxXattrList)
		n, err = unix.Llistxattr(from, list)
	}
	if errors.Is(err, unix.ENOTSUP) || err == nil && n == 0 {
		return nil
	}
	if err != nil {
		return fmt.Errorf("extended attributes: %w", err)
	}
	val := make([]byte, maxXattrValue)
	for k := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(k, "trusted.overlay.") || strings.HasPrefix(k, "user.overlay.") {
			continue
		}
		n, err := unix.Lgetxattr(from, k, val)
		if err == nil {
			err = unix.Lsetxattr(to, k, val[:n], 0)
		}
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.ENODATA) {
			return fmt.Errorf("extended attribute %s: %w", k, err)
		}
	}
	return nil
}

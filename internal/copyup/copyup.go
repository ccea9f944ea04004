// Package copyup copies the content of a directory by descriptors: what an image has at a path
// goes into the tmpfs or the volume that is mounted over it. It follows no link.
package copyup

import (
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"
)

// maxCopyUp bounds the entries of one copy, maxDepth their nesting.
const (
	maxCopyUp = 1 << 20
	maxDepth  = 256
)

// Copy copies what is below the directory from (O_PATH will do) into the directory to, with
// owners, modes, times and the extended attributes user.* and security.capability. Both stay
// the caller's. The directory's own owner and mode are left as they are.
func Copy(from, to int) error {
	n := maxCopyUp
	dir, err := unix.Openat(from, ".", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return copyDir(dir, to, &n, 0)
}

func copyDir(from, to int, left *int, depth int) error {
	if depth > maxDepth {
		return errors.New("directories nested too deeply")
	}
	buf := make([]byte, 16<<10)
	for {
		n, err := unix.ReadDirent(from, buf)
		if err != nil || n <= 0 {
			return err
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if *left--; *left < 0 {
				return errors.New("too many files")
			}
			if err := copyEntry(from, to, name, left, depth); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
	}
}

func copyEntry(from, to int, name string, left *int, depth int) error {
	var st unix.Stat_t
	if err := unix.Fstatat(from, name, &st, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return err
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err := unix.Mkdirat(to, name, 0o700); err != nil {
			return err
		}
		src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(src)
		dst, err := unix.Openat(to, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(dst)
		if err := copyDir(src, dst, left, depth+1); err != nil {
			return err
		}
		copyAttrs(src, dst)
	case unix.S_IFLNK:
		b := make([]byte, unix.PathMax)
		n, err := unix.Readlinkat(from, name, b)
		if err != nil {
			return err
		}
		if err := unix.Symlinkat(string(b[:n]), to, name); err != nil {
			return err
		}
	case unix.S_IFREG:
		if err := copyFile(from, to, name); err != nil {
			return err
		}
	default:
		if err := unix.Mknodat(to, name, st.Mode, int(st.Rdev)); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG { // copyFile has
		if err := unix.Fchownat(to, name, int(st.Uid), int(st.Gid), unix.AT_SYMLINK_NOFOLLOW); err != nil {
			return err
		}
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Fchmodat(to, name, st.Mode&0o7777, 0); err != nil {
			return err
		}
	}
	return unix.UtimesNanoAt(to, name, []unix.Timespec{st.Atim, st.Mtim}, unix.AT_SYMLINK_NOFOLLOW)
}

func copyFile(from, to int, name string) error {
	src, err := unix.Openat(from, name, unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(src)
	dst, err := unix.Openat(to, name, unix.O_CREAT|unix.O_EXCL|unix.O_WRONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return err
	}
	defer unix.Close(dst)
	for {
		n, err := unix.Sendfile(dst, src, nil, 1<<20)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
	}
	// The owner first: changing it takes file capabilities away.
	var st unix.Stat_t
	if err := unix.Fstat(src, &st); err != nil {
		return err
	}
	if err := unix.Fchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	copyAttrs(src, dst)
	return nil
}

// maxAttrs bounds the list of names and one value, in bytes, as the kernel does.
const maxAttrs = 64 << 10

// copyAttrs copies what a file system that knows no attributes may do without.
func copyAttrs(src, dst int) {
	list := make([]byte, maxAttrs)
	n, err := unix.Flistxattr(src, list)
	if err != nil || n == 0 {
		return
	}
	value := make([]byte, maxAttrs)
	for name := range strings.SplitSeq(string(list[:n]), "\x00") {
		if !strings.HasPrefix(name, "user.") && name != "security.capability" {
			continue
		}
		if n, err := unix.Fgetxattr(src, name, value); err == nil {
			_ = unix.Fsetxattr(dst, name, value[:n], 0)
		}
	}
}

// Package userdb looks up users and groups in a container's own /etc/passwd and /etc/group. The
// files are foreign input: they are read by descriptor through the layers of the overlay, symbolic
// links are followed inside the root only, and parsing is bounded.
package userdb

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"
)

// maxLinks bounds how many symbolic links one lookup follows, as the kernel's 40.
const maxLinks = 40

// Root is a container's root as a stack of directories, topmost first, as overlayfs
// merges them.
type Root []string

// Open opens a regular file of the merged tree for reading. Errors: fs.ErrNotExist
// when it is not there or not a regular file. The caller closes it.
func (r Root) Open(name string) (*os.File, error) {
	todo := split(name)
	var done []string
	for links := 0; ; {
		f, link, at, err := r.walk(todo)
		if err != nil || f != nil {
			return f, err
		}
		if links++; links > maxLinks {
			return nil, &fs.PathError{Op: "open", Path: name, Err: unix.ELOOP}
		}
		done = todo[:at]
		if path.IsAbs(link) {
			done = nil
		}
		// A link that climbs above the root stays in it: Join with "/" cleans it.
		next := path.Join("/", strings.Join(done, "/"), link)
		todo = append(split(next), todo[at+1:]...)
	}
}

func split(name string) []string {
	name = strings.Trim(path.Clean("/"+name), "/")
	if name == "" {
		return nil
	}
	return strings.Split(name, "/")
}

// walk goes down the components in all layers at once. It returns the file, or the
// text of a symbolic link met and the index of its component.
func (r Root) walk(parts []string) (f *os.File, link string, at int, err error) {
	missing := &fs.PathError{Op: "open", Path: "/" + strings.Join(parts, "/"), Err: fs.ErrNotExist}
	var dirs []int
	defer func() { closeAll(dirs) }()
	for _, layer := range r {
		fd, err := unix.Open(layer, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		if err == nil {
			dirs = append(dirs, fd)
		} else if !errors.Is(err, unix.ENOENT) {
			return nil, "", 0, err
		}
	}
	for i, name := range parts {
		next, leaf, err := descend(dirs, name)
		closeAll(dirs)
		dirs = next
		if err != nil {
			return nil, "", 0, err
		}
		switch {
		case leaf >= 0:
			defer unix.Close(leaf)
			var st unix.Stat_t
			if err := unix.Fstat(leaf, &st); err != nil {
				return nil, "", 0, err
			}
			switch {
			case st.Mode&unix.S_IFMT == unix.S_IFLNK:
				text, err := readlink(leaf)
				return nil, text, i, err
			case st.Mode&unix.S_IFMT == unix.S_IFREG && i == len(parts)-1:
				f, err := os.Open(procFD(leaf))
				return f, "", 0, err
			}
			return nil, "", 0, missing
		case len(dirs) == 0:
			return nil, "", 0, missing
		}
	}
	return nil, "", 0, missing
}

// descend looks name up in every directory: either the directories of that name in the
// layers that are merged there, or one leaf that is none (-1: no leaf).
func descend(dirs []int, name string) (next []int, leaf int, err error) {
	for _, d := range dirs {
		fd, err := unix.Openat(d, name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) {
			continue
		}
		if err != nil {
			return next, -1, err
		}
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			unix.Close(fd)
			return next, -1, err
		}
		switch {
		case st.Mode&unix.S_IFMT == unix.S_IFDIR:
			next = append(next, fd)
			if opaque(fd) {
				return next, -1, nil
			}
		case st.Mode&unix.S_IFMT == unix.S_IFCHR && st.Rdev == 0: // a whiteout
			unix.Close(fd)
			return next, -1, nil
		case len(next) == 0:
			return nil, fd, nil
		default: // hidden by the directory above
			unix.Close(fd)
			return next, -1, nil
		}
	}
	return next, -1, nil
}

// opaque reports whether a directory hides those below it.
func opaque(fd int) bool {
	var b [2]byte
	n, err := unix.Getxattr(procFD(fd), "trusted.overlay.opaque", b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

func readlink(fd int) (string, error) {
	var b [unix.PathMax]byte
	n, err := unix.Readlinkat(fd, "", b[:])
	return string(b[:max(n, 0)]), err
}

func procFD(fd int) string { return "/proc/self/fd/" + itoa(fd) }

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

// read returns at most limit bytes of a file of the tree; nil when it is not there.
func (r Root) read(name string, limit int64) ([]byte, error) {
	f, err := r.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}

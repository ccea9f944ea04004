package unpack

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// maxLinks bounds the symbolic links on the way to one file, as the kernel does.
const maxLinks = 40

// openBeneath opens a clean path below root without following any link.
func openBeneath(root int, name string, flags int) (int, error) {
	for {
		fd, err := unix.Openat2(root, name, &unix.OpenHow{
			Flags:   uint64(flags | unix.O_CLOEXEC | unix.O_NOFOLLOW),
			Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
		})
		if errors.Is(err, unix.EINTR) || errors.Is(err, unix.EAGAIN) {
			continue
		}
		return fd, err
	}
}

// view shows layers, topmost first, as overlay would show them mounted.
type view struct{ layers []int }

// lookup finds a clean path without following links, and says in which layer.
func (v view) lookup(name string) (layer int, st unix.Stat_t, err error) {
	for _, l := range v.layers {
		found, masked, err := lookupIn(l, name, &st)
		if err != nil {
			return 0, st, err
		}
		if found {
			return l, st, nil
		}
		if masked {
			break
		}
	}
	return 0, st, unix.ENOENT
}

// lookupIn looks into one layer. masked means that what is below must not be looked at.
func lookupIn(layer int, name string, st *unix.Stat_t) (found, masked bool, err error) {
	if name == "." {
		return true, false, unix.Fstat(layer, st)
	}
	at := layer
	defer func() {
		if at != layer {
			unix.Close(at)
		}
	}()
	// Step by step, each from the directory before: a deep path from the root at every
	// step would take its depth to the power of three for an archive's directories.
	for rest, more := name, true; more; {
		var base string
		base, rest, more = strings.Cut(rest, "/")
		err = unix.Fstatat(at, base, st, unix.AT_SYMLINK_NOFOLLOW)
		opaque := isOpaque(at)
		switch {
		case errors.Is(err, unix.ENOENT):
			return false, masked || opaque, nil
		case err != nil:
			return false, false, err
		case isWhiteout(st):
			return false, true, nil
		case !more:
			return true, false, nil
		case st.Mode&unix.S_IFMT != unix.S_IFDIR:
			return false, true, nil
		}
		masked = masked || opaque
		next, err := openBeneath(at, base, unix.O_PATH|unix.O_DIRECTORY)
		if err != nil {
			return false, false, fmt.Errorf("layer: %w", err)
		}
		if at != layer {
			unix.Close(at)
		}
		at = next
	}
	return false, masked, nil
}

func isOpaque(at int) bool {
	var b [2]byte
	n, err := unix.Getxattr(fmt.Sprintf("/proc/self/fd/%d", at), opaqueXattr, b[:])
	return err == nil && n == 1 && b[0] == 'y'
}

// resolve follows the links in a directory's path inside the view. What is missing
// from some component on stays as it is; the error is then ENOENT beside the path.
func (v view) resolve(name string) (string, error) {
	todo := strings.Split(name, "/")
	done := "."
	missing := false
	for links := 0; len(todo) > 0; {
		c := todo[0]
		todo = todo[1:]
		switch c {
		case "", ".":
			continue
		case "..":
			if done == "." {
				continue // the root is its own parent
			}
			done = path.Dir(done)
			continue
		}
		next := path.Join(done, c)
		if missing {
			done = next
			continue
		}
		layer, st, err := v.lookup(next)
		if errors.Is(err, unix.ENOENT) {
			missing = true
			done = next
			continue
		}
		if err != nil {
			return "", err
		}
		switch st.Mode & unix.S_IFMT {
		case unix.S_IFDIR:
			done = next
		case unix.S_IFLNK:
			if links++; links > maxLinks {
				return "", errclass.Invalid("too many symbolic links in %q", name)
			}
			target, err := readlink(layer, next)
			if err != nil {
				return "", err
			}
			if strings.HasPrefix(target, "/") {
				done = "."
			}
			todo = append(strings.Split(target, "/"), todo...)
			if len(todo) > maxPath {
				return "", errclass.Invalid("path %q is too long", name)
			}
		default:
			return "", errclass.Invalid("%q is no directory", next)
		}
	}
	if missing {
		return done, unix.ENOENT
	}
	return done, nil
}

func readlink(layer int, name string) (string, error) {
	parent, base := path.Split(name)
	at, err := openBeneath(layer, path.Clean(parent), unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return "", err
	}
	defer unix.Close(at)
	buf := make([]byte, maxPath)
	n, err := unix.Readlinkat(at, base, buf)
	if err != nil {
		return "", err
	}
	return string(buf[:n]), nil
}

// dirCache keeps the directories in use open: archives go through a tree in order.
type dirCache struct {
	root    int
	entries []cachedDir // most recently used last
}

type cachedDir struct {
	path string
	fd   int
}

const cachedDirs = 16

// open opens a directory of the layer for use as a parent; the cache owns it.
func (c *dirCache) open(name string) (int, error) {
	if name == "." {
		return c.root, nil
	}
	for i := len(c.entries) - 1; i >= 0; i-- {
		if e := c.entries[i]; e.path == name {
			copy(c.entries[i:], c.entries[i+1:])
			c.entries[len(c.entries)-1] = e
			return e.fd, nil
		}
	}
	fd, err := openBeneath(c.root, name, unix.O_PATH|unix.O_DIRECTORY)
	if err != nil {
		return -1, err
	}
	if len(c.entries) == cachedDirs {
		unix.Close(c.entries[0].fd)
		copy(c.entries, c.entries[1:])
		c.entries = c.entries[:cachedDirs-1]
	}
	c.entries = append(c.entries, cachedDir{name, fd})
	return fd, nil
}

// flush closes all; a directory may have been replaced.
func (c *dirCache) flush() {
	for _, e := range c.entries {
		unix.Close(e.fd)
	}
	c.entries = c.entries[:0]
}

// forget closes what is cached at or below a directory that is being removed.
func (c *dirCache) forget(name string) {
	kept := c.entries[:0]
	for _, e := range c.entries {
		if e.path == name || strings.HasPrefix(e.path, name+"/") {
			unix.Close(e.fd)
			continue
		}
		kept = append(kept, e)
	}
	c.entries = kept
}

// Package rootview opens trees of files as mounts that are attached nowhere: merged layers,
// the root of a container that does not run, the root of one that does. Each is an O_PATH
// descriptor of a directory; no path leads there but through it, and the mount is gone when
// the descriptor is closed. Paths inside belong to an image or a container, so they are
// looked up with OpenIn only.
package rootview

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Access says what may be done with a view.
type Access int

const (
	// ReadOnly views refuse every write (EROFS).
	ReadOnly Access = iota
	// ReadWrite views write where the container writes.
	ReadWrite
)

// attrs are those of a view's mount: nothing of it is executed or used as a device by us.
func (a Access) attrs() uint64 {
	const none = unix.MOUNT_ATTR_NODEV | unix.MOUNT_ATTR_NOEXEC | unix.MOUNT_ATTR_NOSUID
	if a == ReadWrite {
		return none
	}
	return none | unix.MOUNT_ATTR_RDONLY
}

// Merge opens the tree that overlayfs makes of layers, topmost first, read-only. The layers may
// be in use, also as the writable one of another mount: what is changed there while the view
// is open shows in it, or does not. One layer is its own directory. The caller closes it.
func Merge(layers []string) (*os.File, error) {
	if len(layers) == 1 { // an overlay needs two
		return os.OpenFile(layers[0], unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	return overlay(layers, "", "", ReadOnly)
}

// Overlay opens the root of a container as its start would mount it, for writing: upper and work
// above lower, topmost first. Nothing else may have upper and work mounted until the view is
// closed. A work directory that a volatile mount has left behind is taken all the same, as
// a start takes it: what the machine's end made of it is not looked at. The caller closes the view.
func Overlay(upper, work string, lower []string) (*os.File, error) {
	// Overlayfs refuses a work directory with this note; nothing in work is a container's.
	if err := os.RemoveAll(filepath.Join(work, "work", "incompat")); err != nil {
		return nil, fmt.Errorf("opening a container's root: %w", err)
	}
	return overlay(lower, upper, work, ReadWrite)
}

// Directory opens a directory, and nothing that is mounted below it, as a view. name is looked up
// in the open directory at (or unix.AT_FDCWD) and must not be a symbolic link. The caller closes it.
func Directory(at int, name string, a Access) (*os.File, error) {
	fd, err := unix.OpenTree(at, name, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_SYMLINK_NOFOLLOW)
	if err != nil {
		return nil, fmt.Errorf("opening a directory as a root: %w", err)
	}
	return detached(fd, a)
}

// detached makes the cloned mount fd a view: with its attributes, and without what is mounted
// on its original later.
func detached(fd int, a Access) (*os.File, error) {
	attr := unix.MountAttr{Attr_set: a.attrs(), Propagation: unix.MS_PRIVATE}
	if err := unix.MountSetattr(fd, "", unix.AT_EMPTY_PATH, &attr); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("opening a root: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

func overlay(lower []string, upper, work string, a Access) (*os.File, error) {
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening overlayfs: %w", err)
	}
	defer unix.Close(fs)
	if err := configure(fs, lower, upper, work); err != nil {
		return nil, fmt.Errorf("viewing layers: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, int(a.attrs()))
	if err != nil {
		return nil, fmt.Errorf("viewing layers: %w", err)
	}
	return os.NewFile(uintptr(fd), "root"), nil
}

func configure(fs int, lower []string, upper, work string) error {
	// Without an index the layers may be in use by other mounts; a kernel that has none lets them.
	_ = unix.FsconfigSetString(fs, "index", "off")
	if upper != "" {
		if err := unix.FsconfigSetString(fs, "upperdir", upper); err != nil {
			return err
		}
		if err := unix.FsconfigSetString(fs, "workdir", work); err != nil {
			return err
		}
	}
	for i, l := range lower {
		err := unix.FsconfigSetString(fs, "lowerdir+", l)
		if i == 0 && errors.Is(err, unix.EINVAL) {
			return createShort(fs, lower)
		}
		if err != nil {
			return err
		}
	}
	return unix.FsconfigCreate(fs)
}

// createShort is for kernels before 6.7, which want all layers in one string of at most
// 255 bytes: descriptors have short names.
func createShort(fs int, lower []string) error {
	names := make([]string, 0, len(lower))
	for _, l := range lower {
		f, err := os.OpenFile(l, unix.O_PATH|unix.O_DIRECTORY, 0)
		if err != nil {
			return err
		}
		defer f.Close()
		names = append(names, filepath.Join("/proc/self/fd", strconv.Itoa(int(f.Fd()))))
	}
	if err := unix.FsconfigSetString(fs, "lowerdir", strings.Join(names, ":")); err != nil {
		return err
	}
	return unix.FsconfigCreate(fs)
}

// OpenIn opens (O_PATH) what name is in root when root is "/": symbolic links and ".." stay
// in it. The error wraps fs.ErrNotExist when there is no such thing. The caller closes the file.
func OpenIn(root *os.File, name string) (*os.File, error) {
	how := unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	}
	var err error
	for range tries {
		var fd int
		if fd, err = unix.Openat2(int(root.Fd()), name, &how); err == nil {
			return os.NewFile(uintptr(fd), name), nil
		}
		// The kernel could not tell whether ".." stays inside: somebody renamed something.
		if !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return nil, &os.PathError{Op: "open", Path: name, Err: err}
}

// tries bounds how often OpenIn is foiled by renames, which a container can go on with for ever.
const tries = 128

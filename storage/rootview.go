package storage

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// RootView returns the merged tree of the layers lower (topmost first), read-only, as a
// directory (O_PATH) that is mounted nowhere: it is gone when the file is closed, by the
// caller. Paths in it are the image's: OpenIn looks them up.
func RootView(lower []string) (*os.File, error) {
	if len(lower) == 1 { // an overlay needs two
		return os.OpenFile(lower[0], unix.O_PATH|unix.O_DIRECTORY, 0)
	}
	fs, err := unix.Fsopen("overlay", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("opening overlayfs: %w", err)
	}
	defer unix.Close(fs)
	if err := createOverlay(fs, lower); err != nil {
		return nil, fmt.Errorf("viewing an image's layers: %w", err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, unix.MOUNT_ATTR_RDONLY|unix.MOUNT_ATTR_NODEV|unix.MOUNT_ATTR_NOEXEC|unix.MOUNT_ATTR_NOSUID)
	if err != nil {
		return nil, fmt.Errorf("viewing an image's layers: %w", err)
	}
	return os.NewFile(uintptr(fd), "image"), nil
}

func createOverlay(fs int, lower []string) error {
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
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS,
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

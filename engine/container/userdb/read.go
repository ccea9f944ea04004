package userdb

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"github.com/gantry/gantry/storage/rootview"
	"golang.org/x/sys/unix"
)

// maxFile bounds how much of passwd or group is looked at, in bytes.
const maxFile = 4 << 20

// Read reads both files of a root, an open directory (O_PATH) that stays the caller's. Files that
// are not there, or are no regular files, are empty. linked tells that a symbolic link leads to
// one of them: then what the files are depends on more than /etc.
func Read(root *os.File) (f Files, linked bool, err error) {
	for _, x := range []struct {
		name string
		to   *[]byte
	}{{"etc/passwd", &f.Passwd}, {"etc/group", &f.Group}} {
		data, link, err := read(root, x.name)
		if err != nil {
			return f, linked, fmt.Errorf("reading /%s: %w", x.name, err)
		}
		*x.to, linked = data, linked || link
	}
	return f, linked, nil
}

func read(root *os.File, name string) (data []byte, linked bool, err error) {
	at, linked, err := open(root, name)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
		return nil, linked, nil
	}
	if err != nil {
		return nil, linked, err
	}
	defer at.Close()
	var st unix.Stat_t
	if err := unix.Fstat(int(at.Fd()), &st); err != nil {
		return nil, linked, err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG {
		return nil, linked, nil
	}
	// The very file that was looked at. It is no fifo or device that could keep us waiting.
	fd, err := unix.Open("/proc/self/fd/"+itoa(int(at.Fd())), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, linked, err
	}
	file := os.NewFile(uintptr(fd), name)
	defer file.Close()
	data, err = io.ReadAll(io.LimitReader(file, maxFile))
	return data, linked, err
}

// open opens name (O_PATH), by symbolic links only where there is no other way.
func open(root *os.File, name string) (f *os.File, linked bool, err error) {
	fd, err := unix.Openat2(int(root.Fd()), name, &unix.OpenHow{
		Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_SYMLINKS,
	})
	if err == nil {
		return os.NewFile(uintptr(fd), name), false, nil
	}
	if !errors.Is(err, unix.ELOOP) {
		return nil, false, err
	}
	f, err = rootview.OpenIn(root, name)
	return f, true, err
}

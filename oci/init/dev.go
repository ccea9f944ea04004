package ociinit

import (
	"errors"
	"fmt"
	"path"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// setUpDev makes device nodes and the customary links. /dev is a file system that
// this process has just mounted; nothing of the image is in it.
func setUpDev(r root, m *initmsg.Message) error {
	dev, err := r.open("/dev", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fail("open /dev", err)
	}
	defer unix.Close(dev)
	for i := range m.Devices {
		if err := makeDevice(r, &m.Devices[i]); err != nil {
			return fmt.Errorf("error creating device nodes: %s: %w", m.Devices[i].Path, err)
		}
	}
	for _, l := range [...][2]string{
		{"/proc/self/fd", "fd"},
		{"/proc/self/fd/0", "stdin"},
		{"/proc/self/fd/1", "stdout"},
		{"/proc/self/fd/2", "stderr"},
		{"pts/ptmx", "ptmx"},
		{"/proc/kcore", "core"},
	} {
		if l[1] == "core" && unix.Access(l[0], unix.F_OK) != nil {
			continue // a kernel without /proc/kcore; the host's tree is still the root here
		}
		if err := unix.Symlinkat(l[0], dev, l[1]); err != nil && !errors.Is(err, unix.EEXIST) {
			return fail("link /dev/"+l[1], err)
		}
	}
	for i := range m.Mounts {
		if mt := &m.Mounts[i]; mt.Dest == "/dev" && mt.Set&unix.MOUNT_ATTR_RDONLY != 0 {
			if err := mountAttr(dev, unix.MOUNT_ATTR_RDONLY, 0, 0); err != nil {
				return fail("make /dev read-only", err)
			}
		}
	}
	return nil
}

func makeDevice(r root, d *initmsg.Device) error {
	var typ uint32
	switch d.Type {
	case 'c':
		typ = unix.S_IFCHR
	case 'b':
		typ = unix.S_IFBLK
	case 'p':
		typ = unix.S_IFIFO
	default:
		return errclass.Invalid("device type %q", d.Type)
	}
	parent, base := path.Split(d.Path)
	dir, err := r.dir(path.Clean(parent), unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	rdev := unix.Mkdev(d.Major, d.Minor)
	err = unix.Mknodat(dir, base, typ|d.Mode, int(rdev))
	if errors.Is(err, unix.EPERM) {
		return bindDevice(dir, base, d.Path, typ, rdev)
	}
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := checkDevice(fd, typ, rdev); err != nil {
		return err
	}
	if d.UID != 0 || d.GID != 0 {
		return unix.Fchownat(fd, "", int(d.UID), int(d.GID), unix.AT_EMPTY_PATH)
	}
	return nil
}

// bindDevice takes the host's node where making one is not allowed.
func bindDevice(dir int, base, hostPath string, typ uint32, rdev uint64) error {
	tree, err := unix.OpenTree(unix.AT_FDCWD, hostPath, unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC)
	if err != nil {
		return err
	}
	if err := checkDevice(tree, typ, rdev); err != nil {
		return err
	}
	fd, err := unix.Openat(dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	return attach(tree, fd)
}

func checkDevice(fd int, typ uint32, rdev uint64) error {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != typ || (typ != unix.S_IFIFO && st.Rdev != rdev) {
		return errclass.Invalid("exists and is another device")
	}
	return nil
}

// openTerminal allocates a terminal in the container's own devpts and returns its
// two sides. The slave comes from the master by ioctl: no path is involved that
// the container could have prepared.
func openTerminal(r root, p *initmsg.Process) (master, slave int, err error) {
	fd, err := r.open("/dev/pts/ptmx", unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, -1, fail("open /dev/pts/ptmx", err)
	}
	var fst unix.Statfs_t
	if err := unix.Fstatfs(fd, &fst); err != nil {
		return -1, -1, err
	}
	if fst.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, -1, errors.New("/dev/pts is not a devpts")
	}
	if err := checkDevice(fd, unix.S_IFCHR, unix.Mkdev(5, 2)); err != nil {
		return -1, -1, fail("/dev/pts/ptmx", err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return -1, -1, fail("unlock terminal", err)
	}
	peer, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if errno != 0 {
		return -1, -1, fail("open terminal", errno)
	}
	slave = int(peer)
	if p.Rows != 0 || p.Cols != 0 {
		ws := &unix.Winsize{Row: uint16(p.Rows), Col: uint16(p.Cols)}
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, ws); err != nil {
			return -1, -1, fail("set terminal size", err)
		}
	}
	return fd, slave, nil
}

// bindConsole puts the terminal on /dev/console.
func bindConsole(r root, slave int) error {
	dev, err := r.open("/dev", unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fail("open /dev", err)
	}
	defer unix.Close(dev)
	fd, err := unix.Openat(dev, "console", unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o620)
	if err != nil {
		if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.EROFS) {
			return nil // a bind of the host's /dev, or a device of that name
		}
		return fail("make /dev/console", err)
	}
	defer unix.Close(fd)
	tree, err := unix.OpenTree(slave, "", unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if err != nil {
		return fail("bind /dev/console", err)
	}
	if err := attach(tree, fd); err != nil {
		return fail("bind /dev/console", err)
	}
	return nil
}

package ociinit

import (
	"errors"
	"fmt"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

// makeLink makes a link in the directory dev, unless something of that name is there.
func makeLink(dev int, l rootfs.Link) error {
	if err := unix.Symlinkat(l.Target, dev, l.Name); err != nil && !errors.Is(err, unix.EEXIST) {
		return fail("link "+rootfs.Dev+"/"+l.Name, err)
	}
	return nil
}

// makeDevice makes a device's node, or proves that the one there is it.
func makeDevice(r root, d *initmsg.Device) error {
	if err := makeNode(r, d); err != nil {
		return fmt.Errorf("error creating device nodes: %s: %w", d.Path, err)
	}
	return nil
}

func makeNode(r root, d *initmsg.Device) error {
	parent, base, typ := rootfs.Node(d)
	if typ == 0 {
		return errclass.Invalid("device type %q", d.Type)
	}
	dir, err := r.dir(parent, unix.RESOLVE_NO_SYMLINKS)
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
	fd, err := r.open(rootfs.Ptmx, unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return -1, -1, fail("open "+rootfs.Ptmx, err)
	}
	var fst unix.Statfs_t
	if err := unix.Fstatfs(fd, &fst); err != nil {
		return -1, -1, err
	}
	if fst.Type != unix.DEVPTS_SUPER_MAGIC {
		return -1, -1, errors.New("/dev/pts is not a devpts")
	}
	if err := checkDevice(fd, unix.S_IFCHR, unix.Mkdev(rootfs.PtmxMajor, rootfs.PtmxMinor)); err != nil {
		return -1, -1, fail(rootfs.Ptmx, err)
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
	dev, err := r.open(rootfs.Dev, unix.O_PATH|unix.O_DIRECTORY, unix.RESOLVE_NO_SYMLINKS)
	if err != nil {
		return fail("open /dev", err)
	}
	defer unix.Close(dev)
	fd, err := unix.Openat(dev, rootfs.Console, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, rootfs.ConsoleMode)
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

package sysprog

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Target is a place below a root, for Mkpath.
type Target struct {
	// Ways are the path itself and then its parents, up to the root.
	Ways []Way
	// Dir opens a directory, Any what may be a file.
	Dir, Any unix.OpenHow
}

// Way is a path and its last component: strings of the block.
type Way struct{ Full, Base uintptr }

// FS is a new instance of a file system: what fsopen(2), fsconfig(2) and fsmount(2)
// take. Strings are the block's.
type FS struct {
	Type   uintptr
	Params []Param
	Attrs  uintptr // MOUNT_ATTR_*
}

// Param is one fsconfig(2); an error of one that is Soft does not count.
type Param struct {
	Cmd, Key, Value uintptr
	Soft            bool
}

// HomeText is the environment variable HOME, whose value is looked up by Home.
type HomeText [len("HOME=") + maxHome + 1]byte

const maxHome = 1000

// mountStep does the steps that have to do with files.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) mountStep(k Kind, a *[5]uintptr) (uintptr, syscall.Errno) {
	switch k {
	case Open:
		return open(a[0], a[1], a[2])
	case Mkpath:
		return p.makePath(a[0], (*Target)(at(&a[1])), a[2])
	case Mode:
		return 0, p.octalMode(a[0], (*[8]byte)(at(&a[1])))
	case NewFS:
		return newFS((*FS)(at(&a[0])))
	case FSType:
		return 0, p.checkFS(a[0], a[1], a[2] != 0)
	case Node:
		return 0, p.checkNode(a)
	case Cover:
		return 0, p.cover(a[0], a[1], a[2])
	case Home:
		return 0, p.home(a)
	}
	return 0, unix.ENOSYS
}

// at is the place in the block that an argument names.
//
//go:nosplit
//go:norace
func at(u *uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(u)) }

// stat leaves the status of fd in p.st.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) stat(fd uintptr) syscall.Errno {
	empty := 0 // a string of no bytes
	_, _, e := syscall.RawSyscall6(unix.SYS_STATX, fd, uintptr(unsafe.Pointer(&empty)), unix.AT_EMPTY_PATH, unix.STATX_BASIC_STATS, uintptr(unsafe.Pointer(&p.st)), 0)
	return e
}

//go:nosplit
//go:norace
func (p *Program) isDir() bool { return p.st.Mode&unix.S_IFMT == unix.S_IFDIR }

// makePath opens a mount target as init does: what is missing is made in its parent's
// descriptor and opened without following links. Links to what is missing are not
// followed: that is an error.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) makePath(root uintptr, t *Target, source uintptr) (fd uintptr, e syscall.Errno) {
	how, file := uintptr(unsafe.Pointer(&t.Dir)), false
	if source != None {
		if e = p.stat(source); e != 0 {
			return 0, e
		}
		if file = !p.isDir(); file {
			how = uintptr(unsafe.Pointer(&t.Any))
		}
	}
	fd, e = open(root, t.Ways[0].Full, how)
	n := 0
	for e == unix.ENOENT && n+1 < len(t.Ways) {
		n++
		fd, e = open(root, t.Ways[n].Full, uintptr(unsafe.Pointer(&t.Dir)))
	}
	for ; e == 0 && n > 0; n-- {
		parent := fd
		fd, e = makeIn(parent, t.Ways[n-1].Base, file && n == 1)
		closeFD(parent)
	}
	if e == 0 && file {
		if e = p.stat(fd); e == 0 && p.isDir() {
			e = unix.EISDIR
		}
	}
	return fd, e
}

// makeIn makes base in the directory dir and opens it.
//
//go:nosplit
//go:noinline
//go:norace
func makeIn(dir, base uintptr, file bool) (fd uintptr, e syscall.Errno) {
	const flags = unix.O_PATH | unix.O_NOFOLLOW | unix.O_CLOEXEC
	if file {
		fd, _, e = syscall.RawSyscall6(syscall.SYS_OPENAT, dir, base, unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o644, 0, 0)
		if e != 0 {
			return 0, e
		}
		closeFD(fd)
		fd, _, e = syscall.RawSyscall6(syscall.SYS_OPENAT, dir, base, flags, 0, 0, 0)
		return fd, e
	}
	_, _, e = syscall.RawSyscall(syscall.SYS_MKDIRAT, dir, base, 0o755)
	if e != 0 && e != unix.EEXIST {
		return 0, e
	}
	fd, _, e = syscall.RawSyscall6(syscall.SYS_OPENAT, dir, base, flags|unix.O_DIRECTORY, 0, 0, 0)
	return fd, e
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) octalMode(fd uintptr, to *[8]byte) syscall.Errno {
	e := p.stat(fd)
	m := uint(p.st.Mode) & 0o7777
	at := 0
	for shift := 9; shift >= 0; shift -= 3 {
		d := byte(m>>uint(shift)) & 7
		if d == 0 && at == 0 && shift != 0 {
			continue
		}
		to[at&7] = '0' + d
		at++
	}
	to[at&7] = 0
	return e
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func newFS(f *FS) (mnt uintptr, e syscall.Errno) {
	fs, _, e := syscall.RawSyscall(unix.SYS_FSOPEN, f.Type, unix.FSOPEN_CLOEXEC, 0)
	if e != 0 {
		return 0, e
	}
	for i := 0; e == 0 && i < len(f.Params); i++ {
		c := &f.Params[i]
		_, _, e = syscall.RawSyscall6(unix.SYS_FSCONFIG, fs, c.Cmd, c.Key, c.Value, 0, 0)
		if c.Soft {
			e = 0
		}
	}
	if e == 0 {
		_, _, e = syscall.RawSyscall6(unix.SYS_FSCONFIG, fs, unix.FSCONFIG_CMD_CREATE, 0, 0, 0, 0)
	}
	if e == 0 {
		mnt, _, e = syscall.RawSyscall(unix.SYS_FSMOUNT, fs, unix.FSMOUNT_CLOEXEC, f.Attrs)
	}
	closeFD(fs)
	return mnt, e
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) checkFS(fd, magic uintptr, other bool) syscall.Errno {
	_, _, e := syscall.RawSyscall(syscall.SYS_FSTATFS, fd, uintptr(unsafe.Pointer(&p.fs)), 0)
	if e == 0 && (uintptr(p.fs.Type) == magic) == other {
		e = unix.EINVAL
	}
	return e
}

//go:nosplit
//go:noinline
//go:norace
func (p *Program) checkNode(a *[5]uintptr) syscall.Errno {
	e := p.stat(a[0])
	if e != 0 {
		return e
	}
	if uintptr(p.st.Mode)&unix.S_IFMT != a[1] || a[1] != unix.S_IFIFO && (uintptr(p.st.Rdev_major) != a[2] || uintptr(p.st.Rdev_minor) != a[3]) {
		return unix.EINVAL
	}
	return 0
}

// cover hides fd. The first directory gets the new file system itself, the others copies
// of it: before Linux 6.15 only what is attached can be copied.
//
//go:nosplit
//go:noinline
//go:norace
func (p *Program) cover(fd, null, fs uintptr) (e syscall.Errno) {
	if e = p.stat(fd); e != 0 {
		return e
	}
	over := null
	if p.isDir() {
		if p.empty == 0 {
			if p.empty, e = newFS((*FS)(at(&fs))); e != 0 {
				return e
			}
			return move(p.empty, fd)
		}
		over = p.empty
	}
	empty := 0
	t, _, e := syscall.RawSyscall(unix.SYS_OPEN_TREE, over, uintptr(unsafe.Pointer(&empty)), unix.OPEN_TREE_CLONE|unix.OPEN_TREE_CLOEXEC|unix.AT_EMPTY_PATH)
	if e != 0 {
		return e
	}
	e = move(t, fd)
	closeFD(t)
	return e
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func move(tree, target uintptr) syscall.Errno {
	empty := 0
	at := uintptr(unsafe.Pointer(&empty))
	_, _, e := syscall.RawSyscall6(unix.SYS_MOVE_MOUNT, tree, at, target, at, unix.MOVE_MOUNT_F_EMPTY_PATH|unix.MOVE_MOUNT_T_EMPTY_PATH, 0)
	return e
}

package become

import (
	"strings"

	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/rootfs"
	"golang.org/x/sys/unix"
)

// Str puts a string for the kernel into the block.
func (f *Plan) Str(s string) uintptr {
	f.bad = f.bad || strings.IndexByte(s, 0) >= 0
	return f.Block.Str(s)
}

// On adds a system call on a register, its first argument.
func (f *Plan) On(what string, r sysprog.Reg, nr uintptr, args ...uintptr) {
	f.From(what, r, 0, nr, args...)
}

// From is On with a result.
func (f *Plan) From(what string, r, to sysprog.Reg, nr uintptr, args ...uintptr) {
	s := sysprog.Step{Nr: nr, To: to}
	s.Regs[0] = r
	copy(s.Args[1:], args)
	f.Add(what, s)
}

// CloseFD closes the descriptor in a register.
func (f *Plan) CloseFD(r sysprog.Reg) { f.On("close", r, unix.SYS_CLOSE) }

// InRoot is how paths are opened below a root: links are followed inside it only, those
// of procfs never.
func InRoot(flags, resolve uint64) unix.OpenHow {
	return unix.OpenHow{Flags: flags | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT | unix.RESOLVE_NO_MAGICLINKS | resolve}
}

// Open is the step that opens p below the root in a register.
func (f *Plan) Open(root, to sysprog.Reg, p string, flags, resolve uint64) sysprog.Step {
	return sysprog.Step{Kind: sysprog.Open, To: to, Regs: [5]sysprog.Reg{root}, Args: [5]uintptr{0, f.Str(p), sysprog.Put(f.Block, InRoot(flags, resolve))}}
}

// Node proves that a register is the node it should be.
func (f *Plan) Node(what string, r sysprog.Reg, typ, major, minor uint32) {
	f.Add(what, sysprog.Step{Kind: sysprog.Node, Regs: [5]sysprog.Reg{r}, Args: [5]uintptr{0, uintptr(typ), uintptr(major), uintptr(minor)}})
}

// FSType proves that a register is in a file system of that kind, or, with other, of any
// other.
func (f *Plan) FSType(what string, r sysprog.Reg, magic uintptr, other bool) {
	s := sysprog.Step{Kind: sysprog.FSType, Regs: [5]sysprog.Reg{r}, Args: [5]uintptr{1: magic}}
	if other {
		s.Args[2] = 1
	}
	f.Add(what, s)
}

// Terminal opens a terminal of the devpts below the root in a register, sends its master
// side away and makes the other one the controlling terminal and the streams. The slave
// comes from the master by ioctl: no path is involved that the container could have
// prepared. console is called where the slave is open.
func (f *Plan) Terminal(root sysprog.Reg, console func(slave sysprog.Reg)) {
	p := f.proc
	const what = byInit
	master, slave := f.Reg(), f.Reg()
	f.Add(what, f.Open(root, master, rootfs.Ptmx, unix.O_RDWR|unix.O_NOCTTY, unix.RESOLVE_NO_SYMLINKS))
	f.FSType(what, master, unix.DEVPTS_SUPER_MAGIC, false)
	f.Node(what, master, unix.S_IFCHR, rootfs.PtmxMajor, rootfs.PtmxMinor)
	f.On(what, master, unix.SYS_IOCTL, unix.TIOCSPTLCK, sysprog.Put(f.Block, int32(0)))
	f.From(what, master, slave, unix.SYS_IOCTL, unix.TIOCGPTPEER, unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC)
	if p.Rows != 0 || p.Cols != 0 {
		f.On(what, master, unix.SYS_IOCTL, unix.TIOCSWINSZ, sysprog.Put(f.Block, unix.Winsize{Row: uint16(p.Rows), Col: uint16(p.Cols)}))
	}
	console(slave)
	f.Add(what, sysprog.Step{Kind: sysprog.Send, Regs: [5]sysprog.Reg{master}})
	f.CloseFD(master)
	f.On(what, slave, unix.SYS_IOCTL, unix.TIOCSCTTY, 0)
	for fd := range uintptr(3) {
		f.On(what, slave, unix.SYS_DUP3, fd, 0)
	}
	f.CloseFD(slave)
	if p.UID != 0 {
		f.ownStream(0) // all three are it, and it is root's
	}
}

// NeedsHome tells that nobody says what HOME is: it is in the container's passwd file.
func NeedsHome(p *initmsg.Process) (missing bool) {
	initmsg.Environment(p.Env, func() string { missing = true; return "" })
	return missing
}

// Home looks up what HOME is, below the root in a register, for LookUp; 0: somebody says.
func (f *Plan) Home(root sysprog.Reg) uintptr {
	if !NeedsHome(f.proc) {
		return 0
	}
	var t sysprog.HomeText
	copy(t[:], "HOME=/")
	if f.proc.UID == 0 {
		copy(t[:], "HOME=/root")
	}
	at := sysprog.Put(f.Block, t)
	s := f.Open(root, 0, "/etc/passwd", unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY, 0)
	s.Kind, s.Args[3], s.Args[4] = sysprog.Home, uintptr(f.proc.UID), at
	f.Add(byInit, s)
	return at
}

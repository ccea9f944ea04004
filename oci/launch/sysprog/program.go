// Package sysprog runs short programs of system calls in child processes without Go's
// runtime. Such a process has nothing of this one's memory but the code and its program;
// it allocates nothing. The package does not know what the programs are for.
package sysprog

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is a kind of step.
type Kind uint8

// The kinds of steps. More are in mount.go and hold.go.
const (
	Call    Kind = iota // one system call, Nr with Args
	OOM                 // write OOMText to the file OOMPath
	Again               // go on in a child whose parent is ours, born as Args[0] says (Birth; 0: here); tell its pid and end
	Cwd                 // enter the working directory; a denial is left for CwdUser
	CwdUser             // again, with the user's rights, when that was denied
	Look                // choose the first of Files that is a program
	Ready               // tell that execve follows
	Exec                // execve of what was chosen
	Reaper              // the same for the file Args[0] alone, with what was chosen as argument Args[1]

	Copy   // the result is Args[0]
	Open   // openat2 of Args[1] in the directory Args[0] as the OpenHow Args[2] says
	Mkpath // open the Target Args[1] below the directory Args[0], make what is missing; Args[2]: what is to be mounted there, None: a directory
	Mode   // put the mode of Args[0], in octal, into the text Args[1]
	NewFS  // make the FS Args[0], mounted nowhere
	FSType // Args[0] must be of the file system with the magic number Args[1]; with Args[2] of any other
	Node   // Args[0] must be a file of the type (S_IFMT) Args[1] and have the numbers Args[2], Args[3]
	Cover  // hide Args[0] behind Args[1], when it is a directory, behind an empty one: the FS Args[2]
	Home   // find the home directory of user Args[3] in the passwd file Args[1], opened like Open, and put it into the HomeText Args[4]

	Send // send the descriptor Args[0] with a report
	Held // tell that all is done but for execve, and read a byte from Args[0]; or, when it is not None, from a connection to Args[1]
)

// Reg is a register: what a step results in, for later ones. 0 is none.
type Reg uint8

// regs is how many registers there are, 0 among them; a power of two.
const regs = 64

// LastReg is the last register.
const LastReg Reg = regs - 1

// None is what a register has without a result, and stands for no descriptor.
const None = ^uintptr(0)

// Step is one thing the process does. Its error, unless it is one to ignore,
// is reported and ends the process; with Soft it goes on.
type Step struct {
	Kind Kind
	Soft bool
	// Skip is how many of the following steps are left out after an error to ignore.
	Skip uint8
	// To keeps the result; Regs are the registers whose values the arguments are.
	To     Reg
	Regs   [5]Reg
	Ignore [3]syscall.Errno
	Nr     uintptr
	Args   [5]uintptr
	// What is what the step does, a string of the block, where a starter of a held
	// process may have to say so; 0: nothing.
	What uintptr
}

// ErrAny ignores every error, as the first of Step.Ignore.
const ErrAny syscall.Errno = 1<<20 + 1

// The kinds of reports.
const (
	ReportPid   = iota // Extra: the pid of the process that goes on
	ReportError        // Errno of Step; Extra: the index in Files of the candidate
	ReportReady        // execve follows
	ReportFD           // a descriptor comes along
	ReportHeld         // it waits
)

// Report is what the process writes to its pipe: one write, never partial.
type Report struct {
	Kind, Step, Errno, Extra uint32
}

// ReportSize is how many bytes a report has in the pipe.
const ReportSize = int(unsafe.Sizeof(Report{}))

// ParseReport reads one from its ReportSize bytes.
func ParseReport(b []byte) (r Report) {
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&r)), ReportSize), b)
	return r
}

// ErrBreakout in a report of Cwd: the working directory is outside of the root. No
// errno is that high.
const ErrBreakout syscall.Errno = 1 << 20

// Program is what the process does, prepared to the last byte. It runs on a
// stack of its own, in a process that has nothing of this one's memory but the
// code and the block that the program is in: no heap, no globals, no Go runtime.
// So all that it points to is in that block (Block.Str, Place), and what runs
// there may neither allocate nor grow its stack nor touch a variable outside.
type Program struct {
	Steps []Step
	Out   uintptr // descriptor for reports

	OOMPath, OOMText uintptr // strings
	OOMLen           uintptr // of OOMText
	Cwd              uintptr // string
	How              unix.OpenHow
	Files            []uintptr // strings: candidates for the program
	Look             bool      // they come from PATH
	Argv, Envv       uintptr

	// What the process writes to, in its copy of the block.
	later  bool // the working directory wants the user's rights
	frames bool // what is told are frames of init's
	chosen int
	empty  uintptr // see Cover
	regs   [regs]uintptr
	st     unix.Statx_t
	fs     unix.Statfs_t
	path   [unix.PathMax]byte
	rep    Report
	msg    message
	passwd passwd
}

// runProgram does all steps; it never returns.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func runProgram(p *Program) {
	for i := 0; i < len(p.Steps); i++ {
		s := &p.Steps[i]
		for j := range s.Regs {
			if s.Regs[j] != 0 {
				s.Args[j] = p.regs[s.Regs[j]%regs]
			}
		}
		r, e := p.step(s, i)
		if e == 0 {
			p.regs[s.To%regs] = r
			continue
		}
		if s.Ignore[0] == ErrAny || e == s.Ignore[0] || e == s.Ignore[1] || e == s.Ignore[2] {
			i += int(s.Skip)
			continue
		}
		p.tell(ReportError, i, e, uint32(p.chosen))
		if !s.Soft {
			break
		}
	}
	exit(1)
}

// step does one.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) step(s *Step, i int) (r uintptr, e syscall.Errno) {
	a := &s.Args
	switch s.Kind {
	case Call:
		r, _, e = syscall.RawSyscall6(s.Nr, a[0], a[1], a[2], a[3], a[4], 0)
	case OOM:
		e = p.oomScore()
	case Again:
		if a[0] != 0 {
			r, _, e = syscall.RawSyscall(unix.SYS_CLONE3, a[0], unsafe.Sizeof(birth{}), 0)
		} else {
			r, _, e = syscall.RawSyscall6(syscall.SYS_CLONE, unix.CLONE_PARENT, 0, 0, 0, 0, 0)
		}
		if e == 0 && r != 0 {
			p.tell(ReportPid, i, 0, uint32(r))
			exit(0)
		}
	case Cwd:
		e = p.enterCwd()
		if e == unix.EACCES || e == unix.EPERM {
			p.later, e = true, 0
		}
	case CwdUser:
		if p.later && p.enterCwd() != 0 {
			e = unix.EACCES
		}
	case Look:
		e = p.lookUp()
	case Ready:
		p.tell(ReportReady, i, 0, 0)
	case Exec:
		_, _, e = syscall.RawSyscall(syscall.SYS_EXECVE, p.Files[p.chosen], p.Argv, p.Envv)
	case Reaper:
		*(*uintptr)(unsafe.Add(at(&p.Argv), a[1]*unsafe.Sizeof(r))) = p.Files[p.chosen]
		_, _, e = syscall.RawSyscall6(unix.SYS_EXECVEAT, a[0], a[2], p.Argv, p.Envv, unix.AT_EMPTY_PATH, 0)
	case Copy:
		r = a[0]
	case Send:
		e = p.send(a[0])
	case Held:
		e = p.hold(a, i)
	default:
		return p.mountStep(s.Kind, a)
	}
	return r, e
}

//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) tell(kind uint32, step int, e syscall.Errno, extra uint32) {
	if p.frames {
		p.tellFrame(kind, step, e)
		return
	}
	p.rep.Kind, p.rep.Step, p.rep.Errno, p.rep.Extra = kind, uint32(step), uint32(e), extra
	for {
		_, _, e := syscall.RawSyscall(syscall.SYS_WRITE, p.Out, uintptr(unsafe.Pointer(&p.rep)), unsafe.Sizeof(p.rep))
		if e != unix.EINTR {
			return
		}
	}
}

//go:nosplit
//go:norace
func exit(code uintptr) {
	for {
		_, _, _ = syscall.RawSyscall(syscall.SYS_EXIT_GROUP, code, 0, 0)
	}
}

//go:nosplit
//go:norace
func (p *Program) oomScore() syscall.Errno {
	fd, _, e := syscall.RawSyscall6(syscall.SYS_OPENAT, atCwd, p.OOMPath, unix.O_WRONLY|unix.O_CLOEXEC, 0, 0, 0)
	if e != 0 {
		return e
	}
	_, _, e = syscall.RawSyscall(syscall.SYS_WRITE, fd, p.OOMText, p.OOMLen)
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
	return e
}

// atCwd is AT_FDCWD as system calls take it.
const atCwd = ^uintptr(99)

// enterCwd is what init does: without procfs's magic links, below the root, which
// the kernel itself is asked for in the end.
//
//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) enterCwd() syscall.Errno {
	fd, e := open(atCwd, p.Cwd, uintptr(unsafe.Pointer(&p.How)))
	if e != 0 {
		return e
	}
	_, _, e = syscall.RawSyscall(syscall.SYS_FCHDIR, fd, 0, 0)
	closeFD(fd)
	if e != 0 {
		return e
	}
	n, _, e := syscall.RawSyscall(syscall.SYS_GETCWD, uintptr(unsafe.Pointer(&p.path)), unsafe.Sizeof(p.path), 0)
	if e != 0 {
		return e
	}
	if n < 1 || p.path[0] != '/' {
		return ErrBreakout
	}
	return 0
}

// open is openat2(2); a resolution that raced with a rename is repeated.
//
//go:nosplit
//go:noinline
//go:norace
func open(dir, path, how uintptr) (fd uintptr, e syscall.Errno) {
	const tries = 128
	e = unix.EAGAIN
	for i := 0; i < tries && (e == unix.EAGAIN || e == unix.EINTR); i++ {
		fd, _, e = syscall.RawSyscall6(unix.SYS_OPENAT2, dir, path, how, unsafe.Sizeof(unix.OpenHow{}), 0, 0)
	}
	return fd, e
}

//go:nosplit
//go:noinline
//go:norace
func closeFD(fd uintptr) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0) }

// lookUp chooses the first candidate that is a program.
//
//go:nosplit
//go:norace
func (p *Program) lookUp() syscall.Errno {
	err := unix.ENOENT
	for i := 0; i < len(p.Files); i++ {
		e := p.executable(p.Files[i])
		if e == 0 {
			p.chosen = i
			return 0
		}
		if !p.Look || e == unix.EACCES {
			err = e
		}
	}
	return err
}

//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) executable(file uintptr) syscall.Errno {
	_, _, e := syscall.RawSyscall6(unix.SYS_STATX, atCwd, file, 0, unix.STATX_TYPE|unix.STATX_MODE, uintptr(unsafe.Pointer(&p.st)), 0)
	if e != 0 {
		return e
	}
	if p.st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return unix.EISDIR
	}
	if p.st.Mode&0o111 == 0 {
		return unix.EACCES
	}
	_, _, e = syscall.RawSyscall6(unix.SYS_FACCESSAT2, atCwd, file, unix.X_OK, unix.AT_EACCESS, 0, 0)
	if e == unix.ENOSYS || e == unix.EPERM {
		return 0
	}
	return e
}

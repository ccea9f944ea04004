// Package fork runs short programs of system calls in forks of this process: in
// processes that have nothing of its memory but the code and what their program
// says, in which no Go runtime runs and nothing can be allocated. The package does
// not know what the programs are for.
package fork

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Kind is a kind of step.
type Kind uint8

// The kinds of steps.
const (
	Call    Kind = iota // one system call, Nr with Args
	OOM                 // write OOMText to the file OOMPath
	Again               // go on in a child whose parent is ours, born as Args[0] says (Birth; 0: here); tell its pid and end
	Cwd                 // enter the working directory; a denial is left for CwdUser
	CwdUser             // again, with the user's rights, when that was denied
	Look                // choose the first of Files that is a program
	Ready               // tell that execve follows
	Exec                // execve of what was chosen
)

// Step is one thing a forked process does. Its error, unless it is one to ignore,
// is reported and ends the process; with Soft it goes on.
type Step struct {
	Kind   Kind
	Soft   bool
	Ignore [3]syscall.Errno
	Nr     uintptr
	Args   [5]uintptr
}

// The kinds of reports.
const (
	ReportPid   = iota // Extra: the pid of the process that goes on
	ReportError        // Errno of Step; Extra: the index in Files of the candidate
	ReportReady        // execve follows
)

// Report is what a forked process writes to its pipe: one write, never partial.
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

// Program is what a forked process does, prepared to the last byte. It runs on a
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

	// What the forked process writes to, in its copy of the block.
	later  bool // the working directory wants the user's rights
	chosen int
	st     unix.Statx_t
	path   [unix.PathMax]byte
	rep    Report
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
		var e syscall.Errno
		switch s.Kind {
		case Call:
			_, _, e = syscall.RawSyscall6(s.Nr, s.Args[0], s.Args[1], s.Args[2], s.Args[3], s.Args[4], 0)
		case OOM:
			e = p.oomScore()
		case Again:
			var r uintptr
			if s.Args[0] != 0 {
				r, _, e = syscall.RawSyscall(unix.SYS_CLONE3, s.Args[0], unsafe.Sizeof(birth{}), 0)
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
		}
		if e == 0 || e == s.Ignore[0] || e == s.Ignore[1] || e == s.Ignore[2] {
			continue
		}
		p.tell(ReportError, i, e, uint32(p.chosen))
		if !s.Soft {
			break
		}
	}
	exit(1)
}

//go:nosplit
//go:norace
//go:nocheckptr
func (p *Program) tell(kind uint32, step int, e syscall.Errno, extra uint32) {
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
	const tries = 128 // a resolution that raced with a rename is repeated
	var fd uintptr
	e := unix.EAGAIN
	for i := 0; i < tries && (e == unix.EAGAIN || e == unix.EINTR); i++ {
		fd, _, e = syscall.RawSyscall6(unix.SYS_OPENAT2, atCwd, p.Cwd, uintptr(unsafe.Pointer(&p.How)), unsafe.Sizeof(p.How), 0, 0)
	}
	if e != 0 {
		return e
	}
	_, _, e = syscall.RawSyscall(syscall.SYS_FCHDIR, fd, 0, 0)
	_, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, fd, 0, 0)
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

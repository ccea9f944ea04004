package sysprog

import (
	"syscall"
	"unsafe"

	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// message is what sendmsg(2) takes, all of it: a header that points to the rest. Not
// package unix's types: storing pointers asks Go's collector.
type message struct {
	name                uintptr
	nameLen, _          uint32
	iov, iovLen         uintptr
	control, controlLen uintptr
	flags, _            uint32

	data, dataLen uintptr // the vector
	rights        struct {
		length     uintptr
		level, typ uint32
		fd, _      uint32
	}
}

// send sends fd along with a report.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) send(fd uintptr) (e syscall.Errno) {
	p.rep.Kind, p.rep.Step, p.rep.Errno, p.rep.Extra = ReportFD, 0, 0, 0
	m := &p.msg
	m.data, m.dataLen = uintptr(unsafe.Pointer(&p.rep)), unsafe.Sizeof(p.rep)
	m.iov, m.iovLen = uintptr(unsafe.Pointer(&m.data)), 1
	m.rights.length, m.rights.level, m.rights.typ = 20, unix.SOL_SOCKET, unix.SCM_RIGHTS // CMSG_LEN of one
	m.rights.fd = uint32(fd)
	m.control, m.controlLen = uintptr(unsafe.Pointer(&m.rights)), unsafe.Sizeof(m.rights)
	e = unix.EINTR
	for e == unix.EINTR {
		_, _, e = syscall.RawSyscall(syscall.SYS_SENDMSG, p.Out, uintptr(unsafe.Pointer(m)), unix.MSG_NOSIGNAL)
	}
	return e
}

// hold waits for the byte that lets it go on.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) hold(a *[5]uintptr, step int) syscall.Errno {
	p.tell(ReportHeld, step, 0, 0)
	if a[1] == None {
		return p.readGo(a[0])
	}
	for {
		fd, _, e := syscall.RawSyscall6(syscall.SYS_ACCEPT4, a[1], 0, 0, unix.SOCK_CLOEXEC, 0, 0)
		if e == unix.EINTR || e == unix.ECONNABORTED {
			continue
		}
		if e != 0 {
			return e
		}
		// Who goes away without saying so changes nothing.
		if p.readGo(fd) != 0 {
			closeFD(fd)
			continue
		}
		closeFD(a[1])
		closeFD(p.Out)
		p.Out, p.frames = fd, true
		return 0
	}
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) readGo(fd uintptr) syscall.Errno {
	for {
		n, _, e := syscall.RawSyscall(syscall.SYS_READ, fd, uintptr(unsafe.Pointer(&p.path)), 1)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0:
			return e
		case n != 1 || p.path[0] != initmsg.GoByte:
			return unix.ECONNRESET
		}
		return 0
	}
}

// tellFrame is tell for whoever starts a held process: in init's frames, since he
// does not know the program.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) tellFrame(kind uint32, step int, e syscall.Errno) {
	const header, most = 5, 1024
	n := 0
	b := &p.path
	switch kind {
	case ReportReady:
		b[0] = initmsg.FrameExec
	case ReportError:
		b[0] = initmsg.FrameErrno
		b[header] = initmsg.ErrnoOther
		text := p.Steps[step].What
		if p.Steps[step].Kind == Exec {
			b[header], text = initmsg.ErrnoExec, p.Files[p.chosen]
		}
		for i := 0; i < 4; i++ {
			b[header+1+i] = byte(e >> (8 * i))
		}
		n = 5
		for ; text != 0 && n < most; n++ {
			c := *(*byte)(at(&text))
			if c == 0 {
				break
			}
			b[header+n] = c
			text++
		}
	default:
		return
	}
	for i := 0; i < 4; i++ {
		b[1+i] = byte(n >> (8 * i))
	}
	for {
		_, _, e := syscall.RawSyscall6(syscall.SYS_SENDTO, p.Out, uintptr(unsafe.Pointer(b)), uintptr(header+n), unix.MSG_NOSIGNAL, 0, 0)
		if e != unix.EINTR {
			return
		}
	}
}

package sysprog

import (
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxPasswd bounds how much of an image's passwd file is read.
const maxPasswd = 1 << 20

// passwd finds the home directory of a user in a passwd file that comes byte by
// byte: the sixth field of the first line whose third is the user's number.
type passwd struct {
	uid    uint64
	field  int
	number uint64
	digits bool // the third field is a number so far
	match  bool // this is the line
	length int
}

// add takes the next byte. done: the home is complete, length bytes of it are in to.
// One that is too long or has a zero byte is an error.
//
//go:nosplit
//go:norace
func (w *passwd) add(c byte, to *HomeText) (done bool, e syscall.Errno) {
	switch {
	case c == '\n' || c == ':':
		if w.field == 5 && w.match {
			return true, 0
		}
		if w.field == 2 {
			w.match = w.digits && w.number == w.uid
		}
		w.field++
		if c == '\n' {
			w.field, w.match = 0, false
		}
		w.number, w.digits = 0, false
	case w.field == 2:
		d := uint64(c) - '0'
		// Nothing comes back from what is no number or too large for one.
		if d > 9 || w.number > 1<<32 {
			w.number = 1 << 33
			return false, 0
		}
		w.number, w.digits = w.number*10+d, true
	case w.field == 5 && w.match:
		if c == 0 {
			return false, unix.EINVAL
		}
		if w.length >= maxHome {
			return false, unix.ENAMETOOLONG
		}
		to[(len("HOME=")+w.length)%len(to)] = c
		w.length++
	}
	return false, 0
}

// home looks a home directory up; without one the text stays as it is.
//
//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) home(a *[5]uintptr) syscall.Errno {
	fd, e := open(a[0], a[1], a[2])
	if e != 0 {
		return 0
	}
	e = p.stat(fd)
	if e == 0 && p.st.Mode&unix.S_IFMT == unix.S_IFREG {
		e = p.findHome(fd, uint64(a[3]), (*HomeText)(at(&a[4])))
	}
	closeFD(fd)
	return e
}

//go:nosplit
//go:noinline
//go:norace
//go:nocheckptr
func (p *Program) findHome(fd uintptr, uid uint64, to *HomeText) syscall.Errno {
	w := &p.passwd
	w.uid = uid
	left := min(p.st.Size, maxPasswd)
	for at := uintptr(0); left > 0; {
		n, _, e := syscall.RawSyscall6(syscall.SYS_PREAD64, fd, uintptr(unsafe.Pointer(&p.path)), min(unsafe.Sizeof(p.path), uintptr(left)), at, 0, 0)
		if e != 0 {
			return e
		}
		if n == 0 || n > uintptr(len(p.path)) {
			break
		}
		for i := uintptr(0); i < n; i++ {
			if done, e := w.add(p.path[i%uintptr(len(p.path))], to); done || e != 0 {
				return w.end(to, e)
			}
		}
		at += n
		left -= min(uint64(n), left)
	}
	_, e := w.add('\n', to) // the last line may have no end
	return w.end(to, e)
}

//go:nosplit
//go:norace
func (w *passwd) end(to *HomeText, e syscall.Errno) syscall.Errno {
	if e == 0 && w.length > 0 {
		to[(len("HOME=")+w.length)%len(to)] = 0
	}
	return e
}

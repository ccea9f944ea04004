package ociruntime

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci"
	"golang.org/x/sys/unix"
)

// consoleWait bounds how long a runtime that has made a process may take to send its
// terminal; it has sent it before it ended, so this is for one that never does.
const consoleWait = 10 * time.Second

// consoleSocket is where a runtime sends the master side of a terminal
// (--console-socket).
type consoleSocket struct {
	dir  *os.File
	name string // in dir
	f    *os.File
}

// listenConsole makes the socket in a directory. It is bound by the directory's
// descriptor: an address has room for 108 bytes, and paths may be longer.
func listenConsole(dir, name string) (*consoleSocket, error) {
	d, err := os.Open(dir)
	if err != nil {
		return nil, err
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		d.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: fmt.Sprintf("/proc/self/fd/%d/%s", d.Fd(), name)})
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
		d.Close()
		return nil, fmt.Errorf("console socket: %w", err)
	}
	return &consoleSocket{dir: d, name: name, f: os.NewFile(uintptr(fd), "console socket")}, nil
}

func (s *consoleSocket) close() {
	s.f.Close()
	_ = unix.Unlinkat(int(s.dir.Fd()), s.name, 0)
	s.dir.Close()
}

// receive takes the terminal that was sent, non-blocking, and sets its size.
func (s *consoleSocket) receive(ctx context.Context, size oci.WinSize) (*os.File, error) {
	deadline := time.Now().Add(consoleWait)
	if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
		deadline = d
	}
	conn, err := s.accept(deadline)
	if err != nil {
		return nil, fmt.Errorf("the runtime has sent no terminal: %w", err)
	}
	defer conn.Close()
	if err := conn.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	var name [4096]byte // of the terminal; nobody needs it
	_, fds, err := fdpass.ReceiveFile(conn, name[:], 1)
	if err == nil && len(fds) == 0 {
		err = io.ErrUnexpectedEOF
	}
	if err != nil {
		return nil, fmt.Errorf("the runtime has sent no terminal: %w", err)
	}
	fd := fds[0]
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, err
	}
	if size != (oci.WinSize{}) {
		if err := unix.IoctlSetWinsize(fd, unix.TIOCSWINSZ, &unix.Winsize{Row: size.Rows, Col: size.Cols}); err != nil {
			unix.Close(fd)
			return nil, errclass.Internal("what the runtime has sent is no terminal: %v", err)
		}
	}
	return os.NewFile(uintptr(fd), "pty"), nil
}

func (s *consoleSocket) accept(deadline time.Time) (*os.File, error) {
	if err := s.f.SetReadDeadline(deadline); err != nil {
		return nil, err
	}
	rc, err := s.f.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd, aerr := -1, error(nil)
	err = rc.Read(func(l uintptr) bool {
		fd, _, aerr = unix.Accept4(int(l), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		return !errors.Is(aerr, unix.EAGAIN) && !errors.Is(aerr, unix.EINTR)
	})
	if err = errors.Join(err, aerr); err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), "console"), nil
}

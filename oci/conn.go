package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// maxInitFDs is how many descriptors init may send before they are taken: a terminal, or
// the listener of a filter.
const maxInitFDs = 4

// initConn is the runtime's end of the socket to a container's init.
type initConn struct {
	f   *os.File // non-blocking, in the poller
	buf []byte
	fds []int // received, not taken yet
}

// newInitConn makes the socket; child is the end to give to init, which the
// caller closes.
func newInitConn() (c *initConn, child int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	return &initConn{f: os.NewFile(uintptr(p[0]), "init")}, p[1], nil
}

func (c *initConn) close() {
	c.f.Close()
	fdpass.Close(c.fds)
	c.fds = nil
}

func (c *initConn) sendMessage(m *initmsg.Message) error {
	b := initmsg.Encode(m)
	if len(b) > initmsg.MaxMessage {
		return errclass.Invalid("the container's configuration is too large: %d bytes", len(b))
	}
	h := make([]byte, 5, 5+len(b))
	h[0] = initmsg.FrameMessage
	binary.LittleEndian.PutUint32(h[1:], uint32(len(b)))
	_, err := c.f.Write(append(h, b...))
	return c.gone(err)
}

func (c *initConn) sendGo() error {
	_, err := c.f.Write([]byte{initmsg.GoByte})
	return c.gone(err)
}

// Release is what a held process is let go by; see held.
func (c *initConn) Release() error {
	defer c.close()
	if err := c.sendGo(); err != nil {
		return err
	}
	return c.awaitExec()
}

// gone words a write that failed because init is no more: why is in what it sent
// last, if anything.
func (c *initConn) gone(err error) error {
	if err == nil || !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	for {
		typ, payload, rerr := c.frame()
		if rerr != nil {
			return initmsg.ErrEndedEarly
		}
		if typ == initmsg.FrameError {
			return initError(payload)
		}
	}
}

// frame reads the next frame. io.EOF: init closed the socket between frames.
func (c *initConn) frame() (typ byte, payload []byte, err error) {
	if err := c.fill(5); err != nil {
		return 0, nil, err
	}
	n := int(binary.LittleEndian.Uint32(c.buf[1:]))
	if n > initmsg.MaxReply+1 {
		return 0, nil, errclass.Internal("init sent a frame of %d bytes", n)
	}
	typ = c.buf[0]
	if err := c.fill(5 + n); err != nil {
		return 0, nil, io.ErrUnexpectedEOF
	}
	payload = c.buf[5 : 5+n : 5+n]
	c.buf = c.buf[5+n:]
	return typ, payload, nil
}

// fill reads until n bytes are buffered.
func (c *initConn) fill(n int) error {
	for len(c.buf) < n {
		b := make([]byte, 1024)
		got, fds, err := fdpass.ReceiveFile(c.f, b, maxInitFDs)
		if err != nil {
			if errors.Is(err, unix.ECONNRESET) {
				return io.EOF
			}
			return err
		}
		if c.fds = append(c.fds, fds...); len(c.fds) > maxInitFDs {
			return errclass.Internal("init sent more descriptors than were asked for")
		}
		if got == 0 {
			return io.EOF
		}
		c.buf = append(c.buf, b[:got]...)
	}
	return nil
}

// takeFD returns the oldest descriptor received, -1 when there is none.
func (c *initConn) takeFD() int {
	if len(c.fds) == 0 {
		return -1
	}
	fd := c.fds[0]
	c.fds = c.fds[1:]
	return fd
}

// awaitExec reads until the program runs, and helps init with an agent: init says that it will call execve, and
// a successful one closes the socket.
func (c *initConn) awaitExec() error { return c.await(false) }

// awaitExecAfter is awaitExec when init has said so already.
func (c *initConn) awaitExecAfter() error { return c.await(true) }

func (c *initConn) await(exec bool) error {
	var a *agent
	defer func() { a.close() }()
	for {
		typ, payload, err := c.frame()
		switch {
		case errors.Is(err, io.EOF) && exec:
			return nil
		case err != nil:
			return initmsg.ErrEndedEarly
		case typ == initmsg.FrameExec:
			exec = true
		case typ == initmsg.FrameAgent || typ == initmsg.FrameListener:
			if a, err = a.frame(c, typ, payload); err != nil {
				return err
			}
		case typ == initmsg.FrameError:
			return initError(payload)
		case typ == initmsg.FrameErrno:
			return initmsg.Failed(payload)
		}
	}
}

func initError(payload []byte) error {
	if len(payload) < 1 {
		return errclass.Internal("the container's init process failed without a reason")
	}
	err := errors.New(string(payload[1:]))
	switch payload[0] {
	case initmsg.ClassNotFound:
		return errclass.With(errdefs.ErrNotFound, err)
	case initmsg.ClassPermission:
		return errclass.With(errdefs.ErrPermissionDenied, err)
	case initmsg.ClassInvalid:
		return errclass.With(errdefs.ErrInvalidArgument, err)
	case initmsg.ClassNotImplemented:
		return errclass.With(errdefs.ErrNotImplemented, err)
	case initmsg.ClassInternal:
		return errclass.With(errdefs.ErrInternal, err)
	}
	return err
}

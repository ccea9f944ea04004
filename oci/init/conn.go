package ociinit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// fail wraps an errno with what was tried.
func fail(what string, err error) error { return fmt.Errorf("%s: %w", what, err) }

// conn is the socket to the runtime.
type conn struct{ fd int }

func (c *conn) readFull(b []byte) error {
	for len(b) > 0 {
		n, err := unix.Read(c.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fail("read from the runtime", err)
		}
		if n == 0 {
			return io.ErrUnexpectedEOF // the runtime is gone: so are we
		}
		b = b[n:]
	}
	return nil
}

// message reads the one message that init gets. Its arrival also says that the
// process is in its cgroups.
func (c *conn) message() (*initmsg.Message, error) {
	var h [5]byte
	if err := c.readFull(h[:]); err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint32(h[1:])
	if h[0] != initmsg.FrameMessage || n > initmsg.MaxMessage {
		return nil, initmsg.ErrCorrupt
	}
	b := make([]byte, n)
	if err := c.readFull(b); err != nil {
		return nil, err
	}
	return initmsg.Decode(b)
}

// awaitGo waits for the permission to execute the program, which comes over
// the socket, or over a connection to the listening socket start when that is not 0.
func (c *conn) awaitGo(start int) error {
	if err := c.frame(initmsg.FrameReady, nil, -1); err != nil {
		return err
	}
	if start != 0 {
		return c.awaitStart(start)
	}
	return c.readGo()
}

func (c *conn) readGo() error {
	var b [1]byte
	if err := c.readFull(b[:]); err != nil {
		return err
	}
	if b[0] != initmsg.GoByte {
		return initmsg.ErrCorrupt
	}
	return nil
}

// frame sends one frame, with a descriptor when pass is not negative.
func (c *conn) frame(typ byte, payload []byte, pass int) error {
	if len(payload) > initmsg.MaxReply {
		payload = payload[:initmsg.MaxReply]
	}
	b := make([]byte, 5, 5+len(payload))
	b[0] = typ
	binary.LittleEndian.PutUint32(b[1:], uint32(len(payload)))
	b = append(b, payload...)
	if pass >= 0 {
		return fdpass.SendAll(c.fd, b, pass)
	}
	for len(b) > 0 { // write(2): a filter that is loaded may know no sendmsg(2)
		n, err := unix.Write(c.fd, b)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return nil
}

func (c *conn) fail(err error) {
	class := byte(initmsg.ClassUnknown)
	switch errclass.Of(err) {
	case errdefs.ErrNotFound:
		class = initmsg.ClassNotFound
	case errdefs.ErrPermissionDenied:
		class = initmsg.ClassPermission
	case errdefs.ErrInvalidArgument:
		class = initmsg.ClassInvalid
	case errdefs.ErrNotImplemented:
		class = initmsg.ClassNotImplemented
	case errdefs.ErrInternal:
		class = initmsg.ClassInternal
	}
	// Nobody is left to tell when this fails.
	_ = c.frame(initmsg.FrameError, append([]byte{class}, err.Error()...), -1)
}

func (c *conn) warn(format string, a ...any) {
	_ = c.frame(initmsg.FrameWarning, fmt.Appendf(nil, format, a...), -1)
}

// Package fdpass sends and receives descriptors over unix sockets (SCM_RIGHTS of
// unix(7)), with one policy for everybody:
//
//   - What is received is close-on-exec, and the receiver's to close.
//   - A receiver says how many descriptors it takes at once. More, or a message whose
//     descriptors the kernel has cut off, is an error of class InvalidArgument.
//   - After any error none of the descriptors that came is open.
//   - What is sent stays the sender's, and goes with the first byte.
//   - Other control messages mean nothing and are passed over.
package fdpass

import (
	"errors"
	"os"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Max is the most descriptors that one message carries (SCM_MAX_FD of the kernel).
const Max = 253

// Receive reads once from the socket into b, which is not empty, with at most limit
// descriptors; n is 0 at the end of a stream. flags are of recvmsg(2). It repeats a call that
// a signal has interrupted; EAGAIN is the caller's to wait for.
func Receive(socket int, b []byte, limit, flags int) (n int, fds []int, err error) {
	oob := make([]byte, unix.CmsgSpace(min(limit, Max)*4))
	var oobn, got int
	for {
		n, oobn, got, _, err = unix.Recvmsg(socket, b, oob, flags|unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			break
		}
	}
	if err != nil {
		return 0, nil, err
	}
	if fds, err = parse(oob[:oobn]); err == nil && (got&unix.MSG_CTRUNC != 0 || len(fds) > limit) {
		err = errclass.Invalid("more than %d descriptors in one message", limit)
	}
	if err != nil {
		Close(fds)
		return 0, nil, err
	}
	return n, fds, nil
}

// parse takes all descriptors of the control messages, also where it returns an error.
func parse(oob []byte) (fds []int, err error) {
	if len(oob) == 0 {
		return nil, nil
	}
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, errclass.Invalid("control message: %w", err)
	}
	for i := range msgs {
		if h := msgs[i].Header; h.Level != unix.SOL_SOCKET || h.Type != unix.SCM_RIGHTS {
			continue
		}
		some, perr := unix.ParseUnixRights(&msgs[i])
		if perr != nil && err == nil {
			err = errclass.Invalid("control message: %w", perr)
		}
		fds = append(fds, some...)
	}
	return fds, err
}

// ReceiveFile is Receive for a socket in Go's poller: it waits, up to the deadline of f.
func ReceiveFile(f *os.File, b []byte, limit int) (n int, fds []int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return 0, nil, err
	}
	rerr := rc.Read(func(s uintptr) bool {
		n, fds, err = Receive(int(s), b, limit, 0)
		return !errors.Is(err, unix.EAGAIN)
	})
	if rerr != nil {
		return 0, nil, rerr
	}
	return n, fds, err
}

// Send writes to the socket once; n may be less than all of b. It repeats a call that a
// signal has interrupted. Class InvalidArgument for more than Max descriptors.
func Send(socket int, b []byte, flags int, fds ...int) (n int, err error) {
	if len(fds) > Max {
		return 0, errclass.Invalid("%d descriptors in one message, at most %d go", len(fds), Max)
	}
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	for {
		n, err = unix.SendmsgN(socket, b, oob, nil, flags|unix.MSG_NOSIGNAL)
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// SendAll writes all of b to a blocking stream socket.
func SendAll(socket int, b []byte, fds ...int) error {
	for len(b) > 0 {
		n, err := Send(socket, b, 0, fds...)
		if err != nil {
			return err
		}
		b, fds = b[n:], nil
	}
	return nil
}

// SendFile writes all of b to a stream socket in Go's poller: it waits, up to the deadline
// of f.
func SendFile(f *os.File, b []byte, fds ...int) error {
	rc, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var serr error
	err = rc.Write(func(s uintptr) bool {
		for len(b) > 0 {
			var n int
			if n, serr = Send(int(s), b, unix.MSG_DONTWAIT, fds...); serr != nil {
				return !errors.Is(serr, unix.EAGAIN)
			}
			b, fds = b[n:], nil
		}
		return true
	})
	if err == nil {
		err = serr
	}
	return err
}

// Close closes raw descriptors.
func Close(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

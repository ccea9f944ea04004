// Package rtnl speaks rtnetlink(7) with as few system calls as possible: several
// requests travel in one datagram and only the last asks for an acknowledgement
// (the kernel answers errors of the others anyway).
package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// Conn is one rtnetlink socket. It belongs to the network namespace of the thread
// that dialled it, wherever it is used from. Safe for concurrent use.
type Conn struct {
	mu  sync.Mutex
	fd  int
	seq uint32
	buf []byte
}

// Dial opens a socket in the calling thread's network namespace.
func Dial() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_ROUTE)
	if err != nil {
		return nil, fmt.Errorf("opening an rtnetlink socket: %w", err)
	}
	c := &Conn{fd: fd}
	// Short acknowledgements and strict dumps; old kernels do without.
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_CAP_ACK, 1)
	_ = unix.SetsockoptInt(fd, unix.SOL_NETLINK, unix.NETLINK_GET_STRICT_CHK, 1)
	return c, nil
}

// Close closes the socket. It may be called more than once.
func (c *Conn) Close() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil
	}
	fd := c.fd
	c.fd = -1
	return unix.Close(fd)
}

// Error is what the kernel answered to one request of a batch.
type Error struct {
	// Op says in words what was asked for.
	Op    string
	Errno unix.Errno
}

func (e *Error) Error() string { return e.Op + ": " + e.Errno.Error() }

// Unwrap gives the errno, for errors.Is with unix.EEXIST and the like.
func (e *Error) Unwrap() error { return e.Errno }

// Do sends the requests as one datagram and waits until the last is acknowledged.
// The kernel works on all of them even when an early one fails; errors are joined in
// order. Echoed messages (requests with Echo set) are returned.
func (c *Conn) Do(reqs ...*Request) ([]Reply, error) {
	if len(reqs) == 0 {
		return nil, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.fd < 0 {
		return nil, errors.New("rtnetlink socket is closed")
	}
	first := c.seq + 1
	var out []byte
	for i, r := range reqs {
		c.seq++
		flags := r.flags | unix.NLM_F_REQUEST
		if i == len(reqs)-1 {
			flags |= unix.NLM_F_ACK
		}
		r.finish(c.seq, flags)
		out = append(out, r.b...)
	}
	if err := sendto(c.fd, out); err != nil {
		return nil, fmt.Errorf("%s: %w", reqs[0].op, err)
	}
	var replies []Reply
	var errs []error
	for {
		msgs, err := c.recv()
		if err != nil {
			return replies, fmt.Errorf("%s: %w", reqs[0].op, err)
		}
		done, err := collect(msgs, first, reqs, &replies)
		if err != nil {
			errs = append(errs, err)
		}
		if done {
			return replies, errors.Join(errs...)
		}
	}
}

// collect sorts one datagram's messages into replies and errors and tells whether
// the last request has been answered.
func collect(msgs []Reply, first uint32, reqs []*Request, replies *[]Reply) (bool, error) {
	var errs []error
	last := first + uint32(len(reqs)) - 1
	for _, m := range msgs {
		if m.seq < first || m.seq > last {
			continue // of an earlier call that was given up
		}
		switch m.Type {
		case unix.NLMSG_ERROR:
			if len(m.Data) < 4 {
				return true, errors.New("rtnetlink: short acknowledgement")
			}
			if code := int32(binary.NativeEndian.Uint32(m.Data)); code != 0 {
				errs = append(errs, &Error{Op: reqs[m.seq-first].op, Errno: unix.Errno(-code)})
			}
			if m.seq == last {
				return true, errors.Join(errs...)
			}
		case unix.NLMSG_DONE:
			return true, errors.Join(errs...)
		default:
			*replies = append(*replies, m)
		}
	}
	return false, errors.Join(errs...)
}

func sendto(fd int, b []byte) error {
	for {
		err := unix.Sendto(fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK})
		if err != unix.EINTR {
			return err
		}
	}
}

// recv reads one datagram and cuts it into messages, copied out of the buffer.
func (c *Conn) recv() ([]Reply, error) {
	if c.buf == nil {
		c.buf = make([]byte, 32<<10) // the most the kernel puts into one dump datagram
	}
	n, err := c.read()
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), c.buf[:n]...)
	var out []Reply
	for len(b) >= unix.NLMSG_HDRLEN {
		l := int(binary.NativeEndian.Uint32(b))
		if l < unix.NLMSG_HDRLEN || l > len(b) {
			return nil, errors.New("rtnetlink: malformed message")
		}
		out = append(out, Reply{
			Type: binary.NativeEndian.Uint16(b[4:]),
			seq:  binary.NativeEndian.Uint32(b[8:]),
			Data: b[unix.NLMSG_HDRLEN:l],
		})
		b = b[min(align(l), len(b)):]
	}
	return out, nil
}

func (c *Conn) read() (int, error) {
	for {
		n, from, err := unix.Recvfrom(c.fd, c.buf, unix.MSG_TRUNC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, err
		}
		if n > len(c.buf) {
			return 0, errors.New("rtnetlink: message too long")
		}
		if a, ok := from.(*unix.SockaddrNetlink); ok && a.Pid != 0 {
			continue // not from the kernel
		}
		return n, nil
	}
}

// Reply is one message from the kernel: its type and what follows the header.
type Reply struct {
	Type uint16
	Data []byte
	seq  uint32
}

func align(n int) int { return (n + 3) &^ 3 }

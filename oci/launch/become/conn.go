package become

import (
	"errors"
	"fmt"
	"os"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/internal/fdpass"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Socket makes the socket to a process: its messages are reports one way and the byte
// that lets it go on the other. in is our end, which goes through Go's poller, out the
// process's. The caller closes both, out as soon as that has been started.
func Socket() (in *os.File, out int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	if err := unix.SetNonblock(p[0], true); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return nil, -1, fmt.Errorf("socketpair: %w", err)
	}
	return os.NewFile(uintptr(p[0]), "reports"), p[1], nil
}

// Receive reads one report with a descriptor, -1 when there is none. A nil report is the
// end.
func Receive(f *os.File) (r *sysprog.Report, fd int, err error) {
	var b [sysprog.ReportSize]byte
	n, fds, err := fdpass.ReceiveFile(f, b[:], 1)
	switch {
	case errors.Is(err, unix.ECONNRESET), err == nil && n == 0:
		fdpass.Close(fds)
		return nil, -1, nil
	case err != nil:
		return nil, -1, err
	case n != len(b):
		fdpass.Close(fds)
		return nil, -1, initmsg.ErrCorrupt
	}
	fd = -1
	if len(fds) == 1 {
		fd = fds[0]
	}
	rep := sysprog.ParseReport(b[:])
	return &rep, fd, nil
}

// TakeTerminal makes a file, non-blocking, of a terminal's master side that came with a
// report.
func TakeTerminal(to **os.File, fd int) error {
	if fd < 0 || *to != nil {
		if fd >= 0 {
			unix.Close(fd)
		}
		return errclass.Internal("no terminal was sent")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	*to = os.NewFile(uintptr(fd), "pty")
	return nil
}

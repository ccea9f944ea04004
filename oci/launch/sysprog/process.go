package sysprog

import (
	"errors"
	"fmt"
	"iter"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Pipe makes a pipe for reports: in goes through Go's poller, out is a program's Out.
// The caller closes both, out as soon as the process has been started: when all
// that hold it have ended or executed something, in ends.
func Pipe() (in *os.File, out int, err error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return nil, -1, fmt.Errorf("pipe: %w", err)
	}
	if err := unix.SetNonblock(ends[0], true); err != nil {
		unix.Close(ends[0])
		unix.Close(ends[1])
		return nil, -1, fmt.Errorf("pipe: %w", err)
	}
	return os.NewFile(uintptr(ends[0]), "reports"), ends[1], nil
}

// PidFD opens a pidfd of a child of ours that nobody has reaped, so that the number
// is still its own. A child without one cannot be followed: it is killed.
func PidFD(pid int) (*os.File, error) {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		_ = unix.Kill(pid, unix.SIGKILL)
		Reap(pid)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// Kill kills the process of a pidfd; it may be gone, and f closed.
func Kill(f *os.File) {
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { _ = unix.PidfdSendSignal(int(fd), unix.SIGKILL, nil, 0) })
	}
}

// Reap waits for the end of a child of ours, also of one that has not executed
// anything.
func Reap(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WALL, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// Executed tells whether a child that Again made has executed something: one that ended
// before is not reaped as other processes are, only with unix.WALL (Reap). Whether it has
// is final when the reports have ended.
func Executed(pidfd *os.File) bool {
	rc, err := pidfd.SyscallConn()
	if err != nil {
		return false
	}
	executed := false
	_ = rc.Control(func(fd uintptr) {
		// execve(2) makes a child of any kind one whose end raises SIGCHLD: no "clone"
		// child any more (waitid(2), __WCLONE).
		const look = unix.WEXITED | unix.WNOHANG | unix.WNOWAIT | unix.WCLONE
		err := unix.Waitid(unix.P_PIDFD, int(fd), nil, look, nil)
		for err == unix.EINTR {
			err = unix.Waitid(unix.P_PIDFD, int(fd), nil, look, nil)
		}
		executed = err == unix.ECHILD
	})
	return executed
}

// Others are the ranges of descriptors, with their last, that lie between those
// which a program needs, for close_range(2). The standard streams are in none.
func Others(needed []int) iter.Seq[[2]uintptr] {
	needed = slices.Compact(slices.Sorted(slices.Values(needed)))
	return func(yield func([2]uintptr) bool) {
		from := 3
		for _, fd := range needed {
			if fd < from {
				continue
			}
			if fd > from && !yield([2]uintptr{uintptr(from), uintptr(fd - 1)}) {
				return
			}
			from = fd + 1
		}
		yield([2]uintptr{uintptr(from), 1<<32 - 1})
	}
}

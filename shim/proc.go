package shim

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"time"
	"unsafe"

	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// StartTicks reads when process pid started, in clock ticks since boot (field 22
// of /proc/PID/stat, proc_pid_stat(5)). Class NotFound when there is no such process.
func StartTicks(pid int) (uint64, error) {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0, errclass.NotFound("no process %d", pid)
	}
	// The name, field 2, may hold anything, also spaces and parentheses.
	i := bytes.LastIndexByte(b, ')')
	if i < 0 {
		return 0, errclass.Internal("cannot read /proc/%d/stat", pid)
	}
	f := bytes.Fields(b[i+1:])
	if len(f) < 20 {
		return 0, errclass.Internal("cannot read /proc/%d/stat", pid)
	}
	return strconv.ParseUint(string(f[19]), 10, 64)
}

// OpenRunning opens a pidfd of process pid if it is still the one that started at
// startTicks. Class NotFound when it is gone. The caller closes the file.
func OpenRunning(pid int, startTicks uint64) (*os.File, error) {
	if pid <= 0 {
		return nil, errclass.NotFound("no process %d", pid)
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, errclass.NotFound("no process %d", pid)
	}
	// Read after the pidfd was opened: while the pidfd's process lives its pid is
	// not used again, so an equal start time means the pidfd is the right one.
	got, err := StartTicks(pid)
	if err != nil || got != startTicks {
		unix.Close(fd)
		return nil, errclass.NotFound("process %d is not the one that started at %d", pid, startTicks)
	}
	return os.NewFile(uintptr(fd), "pidfd"), nil
}

// ErrNotChild says that the caller is not the parent of a process, or that it was
// reaped already.
var ErrNotChild = errors.New("not a child of this process")

// Reap takes the status of an ended child by its pidfd, without blocking.
// done is false while it runs. For others' children it answers ErrNotChild.
func Reap(pidfd int) (e Exit, done bool, err error) {
	return waitid(unix.P_PIDFD, pidfd, 0)
}

// ReapPid is Reap by pid.
func ReapPid(pid int) (e Exit, done bool, err error) { return waitid(unix.P_PID, pid, 0) }

// WaitPid waits for the end of a child and reaps it; one that is reaped already is no error.
func WaitPid(pid int) error {
	for {
		_, err := unix.Wait4(pid, nil, 0, nil)
		switch err {
		case unix.EINTR:
		case nil, unix.ECHILD:
			return nil
		default:
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
	}
}

// siginfo is siginfo_t as waitid(2) fills it, on the 64-bit architectures we build for.
type siginfo struct {
	signo, errno, code int32
	_                  int32
	pid, uid           int32
	status             int32
	_                  [100]byte
}

// Values of si_code (sigaction(2)).
const (
	cldExited = 1
	cldKilled = 2
	cldDumped = 3
)

// EndedChild tells one child that has ended, without reaping it; 0 when there is none.
func EndedChild() int {
	var si siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, (*unix.Siginfo)(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0
		}
		return int(si.pid)
	}
}

func waitid(kind, id, flags int) (Exit, bool, error) {
	var si siginfo
	for {
		err := unix.Waitid(kind, id, (*unix.Siginfo)(unsafe.Pointer(&si)), unix.WEXITED|unix.WNOHANG|flags, nil)
		switch {
		case err == unix.EINTR:
			continue
		case err == unix.ECHILD:
			return Exit{}, false, ErrNotChild
		case err == unix.EAGAIN:
			return Exit{}, false, nil
		case err != nil:
			return Exit{}, false, fmt.Errorf("waitid: %w", err)
		case si.pid == 0:
			return Exit{}, false, nil
		}
		e := Exit{At: time.Now().UTC()}
		if si.code == cldKilled || si.code == cldDumped {
			e.Signal = int(si.status)
			e.Code = 128 + e.Signal
		} else {
			e.Code = int(si.status)
		}
		return e, true, nil
	}
}

// ExitInfo asks the kernel how the process of pidfd ended after somebody else
// reaped it (ioctl PIDFD_GET_INFO with PIDFD_INFO_EXIT, Linux 6.15). ok is false
// while it is not reaped, and on older kernels.
func ExitInfo(pidfd int) (e Exit, ok bool) {
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	if err := unix.IoctlPidfdInfo(pidfd, &info); err != nil || info.Mask&unix.PIDFD_INFO_EXIT == 0 {
		return Exit{}, false
	}
	e = Exit{At: time.Now().UTC()}
	status := unix.WaitStatus(info.Exit_code)
	if status.Signaled() {
		e.Signal = int(status.Signal())
		e.Code = 128 + e.Signal
	} else {
		e.Code = status.ExitStatus()
	}
	return e, true
}

// UnknownExit is how a process ended of which nobody knows.
func UnknownExit() Exit { return Exit{Code: 255, Unknown: true, At: time.Now().UTC()} }

// PollPidfd waits until the process of pidfd ended (event unix.POLLIN) or was
// reaped (unix.POLLHUP), at most for the given time; negative: for ever.
func PollPidfd(pidfd int, event int16, wait time.Duration) bool {
	deadline := time.Now().Add(wait)
	for {
		ms := -1
		if wait >= 0 {
			ms = int(max(0, time.Until(deadline).Milliseconds()))
		}
		p := []unix.PollFd{{Fd: int32(pidfd), Events: event &^ unix.POLLHUP}}
		n, err := unix.Poll(p, ms)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 && wait >= 0 && ms == 0 {
			return false
		}
		if p[0].Revents&event != 0 || p[0].Revents&unix.POLLNVAL != 0 {
			return p[0].Revents&event != 0
		}
	}
}

// WatchPidfd prepares to wait for the process of pidfd, which it duplicates, in the
// Go poller instead of in a thread. The caller closes the watch.
func WatchPidfd(pidfd int) (*PidWatch, error) {
	fd, err := unix.FcntlInt(uintptr(pidfd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("duplicate pidfd: %w", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("pidfd: %w", err)
	}
	return &PidWatch{f: os.NewFile(uintptr(fd), "pidfd")}, nil
}

// PidWatch waits for the end of one process.
type PidWatch struct{ f *os.File }

// Close ends the watch; Wait returns then.
func (w *PidWatch) Close() error { return w.f.Close() }

// Wait calls f at once and then at every change of the process (it ended, it was
// reaped) until f returns true. An error means that Close ended it.
func (w *PidWatch) Wait(f func(pidfd int) bool) error {
	raw, err := w.f.SyscallConn()
	if err != nil {
		return err
	}
	return raw.Read(func(fd uintptr) bool { return f(int(fd)) })
}

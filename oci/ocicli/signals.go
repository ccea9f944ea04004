package ocicli

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"unsafe"

	"github.com/gantry/gantry/oci/ocicli/signum"
	"golang.org/x/sys/unix"
)

// signals are those that come to this program while it waits for a process.
type signals interface {
	// each calls f for every signal until the process of the pidfd has ended.
	each(pidfd *os.File, f func(unix.Signal)) error
	// stop ends it, as far as there is anybody who cares: this program is about to
	// end. It may be called again.
	stop()
}

// collectSignals begins. children tells that this program runs others meanwhile:
// they must get signals, so that ours come to be unblocked around their forks.
func collectSignals(children bool) signals {
	c := make(notified, 128)
	if !children && signalsBlocked() {
		if fd, err := blockedSignals(); err == nil {
			// The Go runtime unblocks these and a few that mean crashes.
			signal.Notify(c, unix.SIGHUP, unix.SIGINT, unix.SIGQUIT, unix.SIGTERM)
			return &mixed{fd: fd, notified: c}
		}
	}
	signal.Notify(c)
	return c
}

// signalsBlocked tells whether the program began with signals blocked, which then
// are in every thread (package entry).
func signalsBlocked() bool {
	var now unix.Sigset_t
	if unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now) != nil {
		return false
	}
	for _, s := range [...]unix.Signal{unix.SIGUSR1, unix.SIGUSR2, unix.SIGCONT, unix.SIGALRM, unix.SIGTSTP, unix.SIGWINCH, unix.SIGIO, unix.SIGPWR, signum.Max} {
		if now.Val[(s-1)/64]&(1<<((s-1)%64)) == 0 {
			return false
		}
	}
	return true
}

// blockedSignals is a descriptor for what this thread has blocked, and so have all
// others.
func blockedSignals() (int, error) {
	var now unix.Sigset_t
	if err := unix.PthreadSigmask(unix.SIG_BLOCK, nil, &now); err != nil {
		return -1, fmt.Errorf("signal mask: %w", err)
	}
	fd, err := unix.Signalfd(-1, &now, unix.SFD_CLOEXEC|unix.SFD_NONBLOCK)
	if err != nil {
		return -1, fmt.Errorf("signalfd: %w", err)
	}
	return fd, nil
}

// mixed are signals that are blocked in every thread, and the few that are not.
type mixed struct {
	fd int
	notified
}

func (m *mixed) each(pidfd *os.File, f func(unix.Signal)) error {
	go func() {
		for s := range m.notified { // never closed: ends with this process
			if sig, ok := s.(syscall.Signal); ok {
				f(sig)
			}
		}
	}()
	return control(pidfd, func(pid int) error {
		for {
			p := []unix.PollFd{{Fd: int32(pid), Events: unix.POLLIN}, {Fd: int32(m.fd), Events: unix.POLLIN}}
			if _, err := unix.Poll(p, -1); err != nil && !errors.Is(err, unix.EINTR) {
				return fmt.Errorf("wait for a process: %w", err)
			}
			if p[1].Revents != 0 {
				m.read(f)
			}
			if p[0].Revents != 0 {
				return nil
			}
		}
	})
}

func (m *mixed) read(f func(unix.Signal)) {
	var info unix.SignalfdSiginfo
	for {
		n, err := unix.Read(m.fd, (*[unsafe.Sizeof(info)]byte)(unsafe.Pointer(&info))[:])
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n != int(unsafe.Sizeof(info)) {
			return
		}
		f(unix.Signal(info.Signo))
	}
}

// stop leaves all as it is: this program is about to end.
func (m *mixed) stop() {
	if m.fd >= 0 {
		unix.Close(m.fd)
		m.fd = -1
	}
}

// notified are signals that the Go runtime tells.
type notified chan os.Signal

func (c notified) each(pidfd *os.File, f func(unix.Signal)) error {
	done := make(chan error, 1)
	go func() {
		done <- control(pidfd, func(fd int) error {
			for {
				n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, -1)
				if n > 0 {
					return nil
				}
				if err != nil && !errors.Is(err, unix.EINTR) {
					return fmt.Errorf("wait for a process: %w", err)
				}
			}
		})
	}()
	for {
		select {
		case s := <-c:
			if sig, ok := s.(syscall.Signal); ok {
				f(sig)
			}
		case err := <-done:
			return err
		}
	}
}

func (c notified) stop() { signal.Stop(c) }

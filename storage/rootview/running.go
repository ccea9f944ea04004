package rootview

import (
	"fmt"
	"os"
	"runtime"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"golang.org/x/sys/unix"
)

// Running opens the root of the mount namespace ns, which stays the caller's: the container's own
// mount, since a second overlay above directories that one has mounted is undefined. What is
// mounted on it (volumes, /proc) is not in the view, now or later. It stays what it is when the
// container ends; another start of that container does not see what is written to it. The error is of
// class FailedPrecondition when ns is the caller's own namespace, whose root is no container's.
// The caller closes the view. Safe for concurrent use; each call takes a thread of its own for
// the time it lasts.
func Running(ns *os.File, a Access) (*os.File, error) {
	type answer struct {
		f   *os.File
		err error
	}
	done := make(chan answer)
	// Only from within can its mounts be cloned.
	go onThread(func() {
		f, err := inside(ns, a)
		done <- answer{f, err}
	})
	r := <-done
	return r.f, r.err
}

// onThread calls fn on a thread that is never given back: it ends with this goroutine, and nobody
// else runs where fn has moved it. The first thread of a process does not end, it would only be
// parked there for ever (and /proc/self would be what it sees); so it is never taken.
func onThread(fn func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		fn()
		return
	}
	done := make(chan struct{})
	go func() { // on another one, since this one waits
		defer close(done)
		onThread(fn)
	}()
	<-done
	runtime.UnlockOSThread()
}

// inside moves the thread into ns and clones its root.
func inside(ns *os.File, a Access) (*os.File, error) {
	var own, other unix.Stat_t
	if err := unix.Stat("/proc/thread-self/ns/mnt", &own); err != nil {
		return nil, fmt.Errorf("opening a running root: %w", err)
	}
	if err := unix.Fstat(int(ns.Fd()), &other); err != nil {
		return nil, fmt.Errorf("opening a running root: %w", err)
	}
	if own.Dev == other.Dev && own.Ino == other.Ino {
		return nil, errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf("opening a running root: it has no mount namespace of its own"))
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return nil, fmt.Errorf("opening a running root: %w", err)
	}
	if err := unix.Setns(int(ns.Fd()), unix.CLONE_NEWNS); err != nil {
		return nil, fmt.Errorf("entering a mount namespace: %w", err)
	}
	return Directory(unix.AT_FDCWD, "/", a)
}

package ociinit

import (
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// reap is pid 1 of a container with --init: it runs the program, passes signals
// on, reaps orphans, and returns the status to end with. It runs with the
// program's credentials and filter. Whoever started it waits for the end of the socket
// that came along: before that a signal to end would find nobody who passes it on, and
// end this process by its own runtime's rules (status 2).
func reap(exe string, args []string) int {
	debug.SetGCPercent(-1)
	// Not for the program, nor by way of us (ptrace(2), pidfd_getfd(2)) while it is open.
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	_ = unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC)
	sigs := make(chan os.Signal, 128)
	signal.Notify(sigs)
	attr := &syscall.ProcAttr{
		Env:   os.Environ(),
		Files: []uintptr{0, 1, 2},
		Sys:   &syscall.SysProcAttr{Setpgid: true},
	}
	// With a terminal the program's process group becomes the foreground one.
	if _, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err == nil {
		attr.Sys.Foreground = true
		attr.Sys.Ctty = 0
	}
	child, err := syscall.ForkExec(inPath(exe), args, attr)
	started()
	_ = unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0)
	if err != nil {
		fmt.Fprintf(os.Stderr, "exec %s: %v\n", exe, err)
		switch err {
		case syscall.ENOENT:
			return 127
		case syscall.EACCES, syscall.EPERM:
			return 126
		}
		return 255
	}
	for s := range sigs {
		sig, ok := s.(syscall.Signal)
		switch {
		case !ok || sig == unix.SIGURG: // the Go runtime's own
		case sig == unix.SIGCHLD:
			if code, done := reapAll(child); done {
				return code
			}
		case sig == unix.SIGTTIN || sig == unix.SIGTTOU:
		default:
			_ = unix.Kill(child, sig)
		}
	}
	return 255
}

// inPath is where the program is; ours is a path already, another runtime passes on what
// its user has said.
func inPath(exe string) string {
	if strings.Contains(exe, "/") {
		return exe
	}
	for _, dir := range strings.Split(os.Getenv("PATH"), ":") {
		if p := dir + "/" + exe; dir != "" && unix.Access(p, unix.X_OK) == nil {
			return p
		}
	}
	return exe
}

// started closes what came along: of the descriptors beyond the standard streams those that
// are sockets, since the runtime's own poller has some, too.
func started() {
	for fd := 3; fd < maxStartFD; fd++ {
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK {
			unix.Close(fd)
		}
	}
}

// maxStartFD is above it: init's has number 3, a program's is the lowest that is free among some twenty.
const maxStartFD = 64

// reapAll waits for everything that has ended; done when the program has.
func reapAll(child int) (code int, done bool) {
	for {
		var ws unix.WaitStatus
		pid, err := unix.Wait4(-1, &ws, unix.WNOHANG, nil)
		if err == unix.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return code, done
		}
		if pid != child {
			continue
		}
		done = true
		if ws.Signaled() {
			code = 128 + int(ws.Signal())
		} else {
			code = ws.ExitStatus()
		}
	}
}

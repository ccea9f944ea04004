package oci

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/initmsg"
	"golang.org/x/sys/unix"
)

// selfExe is our own executable for init to run from, made once per process: what
// a container can reach through /proc/<pid>/exe of its init cannot be written to
// (CVE-2019-5736).
var selfExe = sync.OnceValues(protectedSelf)

func sealedSelf() (int, error) {
	exe, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open own executable: %w", err)
	}
	const seals = unix.F_SEAL_SEAL | unix.F_SEAL_SHRINK | unix.F_SEAL_GROW | unix.F_SEAL_WRITE
	if s, err := unix.FcntlInt(uintptr(exe), unix.F_GET_SEALS, 0); err == nil && s&seals == seals {
		return exe, nil // we run from such a copy already
	}
	defer unix.Close(exe)
	fd, err := unix.MemfdCreate(initmsg.Arg0, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING|unix.MFD_EXEC)
	if errors.Is(err, unix.EINVAL) { // before Linux 6.3
		fd, err = unix.MemfdCreate(initmsg.Arg0, unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	}
	if err != nil {
		return -1, fmt.Errorf("copy own executable: %w", err)
	}
	for {
		n, err := unix.Sendfile(fd, exe, nil, 1<<30)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("copy own executable: %w", err)
		}
		if n == 0 {
			break
		}
	}
	if _, err := unix.FcntlInt(uintptr(fd), unix.F_ADD_SEALS, seals); err != nil {
		unix.Close(fd)
		return -1, fmt.Errorf("seal own executable: %w", err)
	}
	// A memfd that is open for writing cannot be executed (ETXTBSY).
	ro, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	unix.Close(fd)
	if err != nil {
		return -1, fmt.Errorf("open the copy of the own executable: %w", err)
	}
	return ro, nil
}

// rawFD returns f's descriptor without changing its blocking mode; f must be
// kept alive.
func rawFD(f *os.File) (int, error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	fd := -1
	if err := rc.Control(func(u uintptr) { fd = int(u) }); err != nil {
		return -1, err
	}
	return fd, nil
}

// child is an init process that this process forked.
type child struct {
	pid   int
	pidfd *os.File
	conn  *initConn
}

// spawnOpts says how init is forked.
type spawnOpts struct {
	stdio Stdio
	// extra become descriptors initmsg.FDFirst and following in init.
	extra []int
	flags uintptr // CLONE_NEW*
	// pidNS is a descriptor for setns(2): the child is born in its pid namespace; -1: none.
	pidNS      int
	uids, gids []syscall.SysProcIDMap
	// unmapped: we write the mappings of its user namespace after the fork.
	unmapped bool
	// bare: the child is only there to hold its namespaces.
	bare bool
	// userNS is the user namespace to be born in; nil: ours, or a new one.
	userNS *os.File
	// joins are the namespaces to join but for the user namespace.
	joins []join
	// stage is set when init is forked in steps; flags, pidNS, uids and gids are not
	// looked at then.
	stage *stage
}

// spawn forks init from our protected executable. It waits for its message then.
func spawn(o *spawnOpts) (*child, error) {
	exe, err := selfExe()
	if err != nil {
		return nil, err
	}
	files := make([]uintptr, 0, 8)
	null := -1
	for _, f := range []*os.File{o.stdio.In, o.stdio.Out, o.stdio.Err} {
		fd := null
		if f != nil {
			if fd, err = rawFD(f); err != nil {
				return nil, fmt.Errorf("standard streams: %w", err)
			}
		} else if null < 0 {
			if null, err = unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
				return nil, fmt.Errorf("open /dev/null: %w", err)
			}
			defer unix.Close(null)
			fd = null
		}
		files = append(files, uintptr(fd))
	}
	conn, sock, err := newInitConn()
	if err != nil {
		return nil, err
	}
	files = append(files, uintptr(sock), uintptr(exe))
	for _, fd := range o.extra {
		files = append(files, uintptr(fd))
	}
	pidfd := -1
	attr := &syscall.ProcAttr{
		Dir: "/",
		// Go's runtime sends its threads no signals: under a filter one may not even
		// return from a handler.
		Env:   []string{"GOMAXPROCS=2", "GOGC=off", "GODEBUG=asyncpreemptoff=1"},
		Files: files,
		Sys:   &syscall.SysProcAttr{Cloneflags: o.flags, PidFD: &pidfd, UidMappings: o.uids, GidMappings: o.gids},
	}
	if o.flags&unix.CLONE_NEWUSER != 0 && !o.bare {
		if o.uids != nil {
			// Root of the new namespace, or execve would take the capabilities away.
			attr.Sys.Credential = &syscall.Credential{}
		} else {
			// Nobody yet, which execve takes them from unless they are ambient.
			for c := range uintptr(len(capNames)) {
				if lastCap() >= c {
					attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, c)
				}
			}
		}
	}
	attr.Sys.GidMappingsEnableSetgroups = o.gids != nil
	argv := []string{initmsg.Arg0, initmsg.Arg1}
	if o.unmapped {
		argv[1] = initmsg.Arg1Unmapped
	}
	path := fmt.Sprintf("/proc/self/fd/%d", initmsg.FDSelf)
	var pid int
	switch {
	case o.stage != nil:
		if pid, err = o.stage.run(files, argv, attr.Env); err == nil {
			if pidfd, err = unix.PidfdOpen(pid, 0); err != nil {
				_ = unix.Kill(pid, unix.SIGKILL)
				reapPid(pid)
			}
		}
	case o.pidNS >= 0:
		pid, err = forkInPidNS(o.pidNS, path, argv, attr)
	default:
		pid, err = syscall.ForkExec(path, argv, attr)
	}
	unix.Close(sock)
	runtime.KeepAlive(o)
	if err != nil {
		conn.close()
		return nil, err
	}
	return &child{pid: pid, pidfd: os.NewFile(uintptr(pidfd), "pidfd"), conn: conn}, nil
}

// lastCap is the last capability that this kernel knows.
var lastCap = sync.OnceValue(func() uintptr {
	for c := uintptr(0); c < 63; c++ {
		if _, err := unix.PrctlRetInt(unix.PR_CAPBSET_READ, c+1, 0, 0, 0); err != nil {
			return c
		}
	}
	return 63
})

// forkInPidNS forks a child into another pid namespace. That setting is the
// thread's, so the thread is kept from others meanwhile and set back.
func forkInPidNS(ns int, path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	own, err := unix.Open("/proc/thread-self/ns/pid", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open own pid namespace: %w", err)
	}
	defer unix.Close(own)
	runtime.LockOSThread()
	if err := unix.Setns(ns, unix.CLONE_NEWPID); err != nil {
		runtime.UnlockOSThread()
		return -1, err
	}
	pid, err := syscall.ForkExec(path, argv, attr)
	if rerr := unix.Setns(own, unix.CLONE_NEWPID); rerr == nil {
		runtime.UnlockOSThread()
	} // otherwise the thread stays locked and ends with its goroutine
	return pid, err
}

// kill ends and reaps the child and lets go of everything it holds here.
func (c *child) kill() {
	fd, err := rawFD(c.pidfd)
	if err == nil {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		for {
			if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	c.pidfd.Close()
	c.conn.close()
}

// signal sends sig, once; the process may be gone.
func (c *child) signal(sig unix.Signal) {
	if fd, err := rawFD(c.pidfd); err == nil {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// setOOMScore writes the score of a process that is ours. It reports whether it
// could: lowering needs CAP_SYS_RESOURCE.
func setOOMScore(pid, score int) error {
	f, err := os.OpenFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = fmt.Fprint(f, score)
	return err
}

func precondition(format string, a ...any) error {
	return errclass.With(errdefs.ErrFailedPrecondition, fmt.Errorf(format, a...))
}

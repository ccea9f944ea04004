package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/entry"
	"github.com/gantry/gantry/oci/launch/nsenter"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

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
	conn  *initConn // nil when it was forked without init
}

// spawnOpts says how init is forked.
type spawnOpts struct {
	stdio Stdio
	// extra become descriptors initmsg.FDFirst and following in init.
	extra      []int
	flags      uintptr // CLONE_NEW*
	uids, gids []syscall.SysProcIDMap
	// unmapped: we write the mappings of its user namespace after the fork.
	unmapped bool
	// bare: the child is only there to hold its namespaces.
	bare bool
	// userNS is the user namespace to be born in; nil: ours, or a new one.
	userNS *os.File
	// joins are the namespaces to join but for the user namespace.
	joins []nsenter.Join
	// enter is set when init is started by package nsenter; flags, uids and gids are not
	// looked at then.
	enter *nsenter.Entry
}

// spawn forks init from our protected executable. It waits for its message then. ctx ends
// the attempt where others can stop what is forked.
func spawn(ctx context.Context, o *spawnOpts) (*child, error) {
	exe, err := selfexe.Exe()
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
			for c := range min(caps.Count(), uintptr(len(plan.CapabilityNames()))) {
				attr.Sys.AmbientCaps = append(attr.Sys.AmbientCaps, c)
			}
		}
	}
	attr.Sys.GidMappingsEnableSetgroups = o.gids != nil
	argv := []string{initmsg.Arg0, initmsg.Arg1}
	if o.unmapped {
		argv[1] = initmsg.Arg1Unmapped
	}
	path := fmt.Sprintf("/proc/self/fd/%d", initmsg.FDSelf)
	c := &child{conn: conn}
	if o.enter != nil {
		c.pid, c.pidfd, err = o.enter.Start(ctx, files, argv, attr.Env)
	} else if c.pid, err = forkExec(path, argv, attr); err == nil {
		c.pidfd = os.NewFile(uintptr(pidfd), "pidfd")
	}
	unix.Close(sock)
	runtime.KeepAlive(o)
	if err != nil {
		conn.close()
		return nil, err
	}
	return c, nil
}

// forkExec is that of package syscall from a thread as the program was started with.
func forkExec(path string, argv []string, attr *syscall.ProcAttr) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	entry.Settle()
	return syscall.ForkExec(path, argv, attr)
}

// kill ends and reaps the child and lets go of everything it holds here.
func (c *child) kill() {
	fd, err := rawFD(c.pidfd)
	if err == nil {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		for {
			if err := unix.Waitid(unix.P_PIDFD, fd, nil, unix.WEXITED|unix.WALL, nil); !errors.Is(err, unix.EINTR) {
				break
			}
		}
	}
	c.pidfd.Close()
	if c.conn != nil {
		c.conn.close()
	}
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

// Package execprog starts further processes in containers without init: instead of a
// fresh Go process, a copy of this one goes into the container and executes the
// program, by system calls alone.
//
// The first copy stays in the host's pid namespace, where the container cannot see
// it: it closes all descriptors but the streams and a few of its own, enters the
// container's namespaces and forks the second one, which is born in the
// container's pid namespace and is our child (CLONE_PARENT). From there on the
// container's processes see it, and it still has the runtime's memory, as a copy,
// and its capabilities, until it executes. So nobody in there may look into it or
// take it over. What protects it:
//
//   - It is not dumpable, which also hides /proc/PID/{mem,fd,exe,…}; changes of
//     credentials, which could change that, are followed by the same call again.
//   - Its permitted capabilities are no subset of the container's, which tracing
//     asks for even with the same uid.
//   - Both do not hold against CAP_SYS_PTRACE; nor should those with as much power
//     over the machine come near. With one of these in the container's bounding
//     set, or in that of this process, the exec takes the way through init.
//
// Whoever may signal it in there can stop or kill it: it is a copy, so nothing here
// waits but this one exec, which its context ends. A process of another container
// that joined the pid namespace is not seen here; as with init, to do harm it
// needs CAP_SYS_PTRACE in the host's user namespace.
package execprog

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/containerd/errdefs"
	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// tracers are the capabilities that reach into other processes' memory, or into
// the kernel's.
const tracers = 1<<unix.CAP_SYS_PTRACE | 1<<unix.CAP_SYS_ADMIN | 1<<unix.CAP_SYS_MODULE | 1<<unix.CAP_SYS_RAWIO |
	1<<unix.CAP_PERFMON | 1<<unix.CAP_BPF | 1<<unix.CAP_CHECKPOINT_RESTORE

// Possible tells whether p can be started in a container without init. What it
// does not do takes init; so does what would not be safe.
func Possible(p *initmsg.Process) bool {
	switch {
	case p.AppArmor != "", p.SELinux != "", p.SeccompFlags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0, p.NoGroups, !p.Tuning.None():
		return false
	case (p.Caps.Bounding|p.Caps.Permitted)&tracers != 0, caps.Held()&(1<<unix.CAP_SYS_PTRACE) == 0:
		return false
	}
	return selfexe.Runs() && sysprog.OpenFiles() != nil
}

// Safe tells whether a container with this first process is one that a copy of
// ours may enter: its pid namespace is its own, and it cannot trace.
func Safe(initPid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(initPid) + "/status")
	return err == nil && ownPidNSWithoutTracers(b)
}

// ownPidNSWithoutTracers reads a /proc/PID/status: the process is the first of a
// pid namespace other than ours, so that is the container's own, and cannot trace.
func ownPidNSWithoutTracers(status []byte) bool {
	first, harmless := false, false
	for line := range bytes.Lines(status) {
		if v, ok := bytes.CutPrefix(line, []byte("NSpid:")); ok {
			f := bytes.Fields(v)
			first = len(f) > 1 && string(f[len(f)-1]) == "1"
		}
		if v, ok := bytes.CutPrefix(line, []byte("CapBnd:")); ok {
			set, err := strconv.ParseUint(string(bytes.TrimSpace(v)), 16, 64)
			harmless = err == nil && set&tracers == 0
		}
	}
	return first && harmless
}

// Exec is a process to start. All descriptors and files stay the caller's.
type Exec struct {
	ID      string // the container's
	Process *initmsg.Process
	Streams [3]*os.File    // nil: /dev/null
	Init    int            // pidfd of the container's first process
	Procs   []cgroup.Procs // of the cgroup to join
	// OOMScore is the score to have; nil: 0, if that can be.
	OOMScore *int
}

// Started is a process whose program runs. The caller reaps it and closes the files.
type Started struct {
	Pid      int
	PidFD    *os.File
	Console  *os.File // non-blocking; nil without a terminal
	Warnings []string // requests that could not be met and are not worth failing for
}

// Start starts the process and returns when its program runs. Its end by ctx kills
// what has been started. Errors are those of init; class ErrFailedPrecondition when
// the container has ended; become.ErrByInit, and the caller has init do it. It is safe for concurrent use.
func (e *Exec) Start(ctx context.Context) (*Started, error) {
	in, out, err := become.Socket()
	if err != nil {
		return nil, err
	}
	defer in.Close()
	p, err := e.plan(out)
	if err != nil {
		unix.Close(out)
		return nil, err
	}
	first, errno := p.Block.Start()
	unix.Close(out)
	p.Close()
	if errno == unix.ENOSYS || errno == unix.EINVAL || errno == unix.EPERM {
		return nil, become.ErrByInit
	}
	if errno != 0 {
		return nil, fmt.Errorf("fork: %w", errno)
	}
	// It ends by itself, whatever the container does: nobody there sees it.
	defer sysprog.Reap(first)
	f := follower{plan: p, ctx: ctx, init: e.Init, stop: func() bool { return true }}
	s, err := f.follow(in)
	f.stop()
	if err != nil && f.started.PidFD != nil {
		sysprog.Kill(f.started.PidFD)
		sysprog.Reap(f.started.Pid)
		f.started.PidFD.Close()
	}
	if err != nil && f.started.Console != nil {
		f.started.Console.Close()
	}
	return s, err
}

// follower reads the reports, which come in any order from the two processes,
// until both have ended or executed, which closes the pipe's other end.
type follower struct {
	plan    *become.Plan
	ctx     context.Context //nolint:containedctx // of the one call
	init    int
	stop    func() bool
	started Started
	told    bool // there was a report
	ready   bool
	failure error
}

func (f *follower) follow(in *os.File) (*Started, error) {
	for {
		r, fd, err := become.Receive(in)
		switch {
		case err != nil:
			return nil, fmt.Errorf("follow the start: %w", err)
		case r == nil && f.failure != nil:
			return nil, f.failure
		case r == nil && !f.told:
			// Not even the steps before the container: the code needs what such a process has not.
			return nil, become.ErrByInit
		case r == nil && (!f.ready || f.started.PidFD == nil || !sysprog.Executed(f.started.PidFD)):
			// Nothing of it, or killed by somebody in the container on its last steps.
			return nil, initmsg.ErrEndedEarly
		case r == nil:
			return &f.started, nil
		}
		if err := f.report(r, fd); err != nil {
			return nil, err
		}
	}
}

func (f *follower) report(r *sysprog.Report, terminal int) error {
	f.told = true
	switch r.Kind {
	case sysprog.ReportPid:
		if f.started.PidFD != nil {
			return initmsg.ErrEndedEarly
		}
		fd, err := sysprog.PidFD(int(r.Extra))
		if err != nil {
			return err
		}
		f.started.Pid, f.started.PidFD = int(r.Extra), fd
		f.stop = context.AfterFunc(f.ctx, func() { sysprog.Kill(fd) })
	case sysprog.ReportReady:
		f.ready = true
	case sysprog.ReportFD:
		return become.TakeTerminal(&f.started.Console, terminal)
	case sysprog.ReportError:
		if !f.plan.Soft(r) {
			f.failure = f.failed(r)
		} else if w := f.plan.Warning(r); w != "" {
			f.started.Warnings = append(f.started.Warnings, w)
		}
	}
	return nil
}

// failed is the error that ended a process. What is impossible since the
// container has ended meanwhile is said so.
func (f *follower) failed(r *sysprog.Report) error {
	if unix.PidfdSendSignal(f.init, 0, nil, 0) != nil {
		return errclass.With(errdefs.ErrFailedPrecondition, errors.New("container is not running"))
	}
	return f.plan.Err(r)
}

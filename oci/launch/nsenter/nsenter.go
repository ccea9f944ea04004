// Package nsenter starts a container's init in namespaces that a Go process cannot enter by
// itself: those that only a process with a single thread may enter, those that must be
// entered in a certain order (user and time namespaces, and others before a user namespace
// takes the rights away), and pid namespaces that have processes already. A child process
// that runs a program of system calls (oci/launch/sysprog) enters them and executes init.
//
// A child that is born into a pid namespace can be stopped by whoever is in there,
// at any moment (kill -STOP -1). With vfork, as package syscall forks, its parent
// would wait for it, with the lock that all forks take. The forks of this package
// share nothing with us, and the context ends the wait for them.
package nsenter

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/launch/sysprog"
	"github.com/gantry/gantry/oci/plan/caps"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"golang.org/x/sys/unix"
)

// Entry says where init starts. The descriptors stay the caller's.
type Entry struct {
	// First are joined with our own rights, then comes the user namespace, then Rest.
	First, Rest []Join
	// User is the user namespace to join; -1: none.
	User int
	// Unshare are new namespaces (CLONE_NEW*), made at last.
	Unshare uintptr
	// Roots: a user namespace is among them all, and init becomes its root.
	Roots bool
}

// Join is one setns(2).
type Join struct {
	FD    int
	Flags uintptr
}

// plan is the program with what its steps are called in errors.
type plan struct {
	prog  sysprog.Program
	block *sysprog.Block
	what  []string
}

func (p *plan) call(what string, nr uintptr, args ...uintptr) {
	s := sysprog.Step{Kind: sysprog.Call, Nr: nr}
	copy(s.Args[:], args)
	p.what = append(p.what, what)
	p.prog.Steps = append(p.prog.Steps, s)
}

// plan makes the program. files become init's descriptors 0, 1, …; out is where
// reports go. All of them are above len(files).
func (st *Entry) plan(files []int, out int, argv, envv []string) (*plan, error) {
	if !sysprog.Works() {
		return nil, errclass.NotImplemented("processes cannot be started in namespaces of others here: clone3(2) does not work")
	}
	b, err := sysprog.New(64 << 10)
	if err != nil {
		return nil, err
	}
	p := &plan{block: b}
	p.prog.Out = uintptr(out)
	p.call("prctl", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	p.closeBut(append(st.needed(), append(slices.Clone(files), out)...))
	setns := func(js []Join) {
		for _, j := range js {
			p.call("join namespaces", unix.SYS_SETNS, uintptr(j.FD), j.Flags)
		}
	}
	setns(st.First)
	if st.User >= 0 {
		p.call("join user namespace", unix.SYS_SETNS, uintptr(st.User), unix.CLONE_NEWUSER)
	}
	setns(st.Rest)
	if st.Unshare != 0 {
		p.call("make namespaces", unix.SYS_UNSHARE, st.Unshare)
	}
	if st.Roots {
		p.ambient()
	}
	p.what = append(p.what, "fork")
	p.prog.Steps = append(p.prog.Steps, sysprog.Step{Kind: sysprog.Again})
	for i, fd := range files {
		p.call("dup3", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	p.call("close_range", unix.SYS_CLOSE_RANGE, uintptr(len(files)), maxFD, unix.CLOSE_RANGE_CLOEXEC)
	p.call("chdir", unix.SYS_CHDIR, b.Str("/"))
	if l := sysprog.OpenFiles(); l != nil {
		p.call("set back RLIMIT_NOFILE", unix.SYS_PRLIMIT64, 0, unix.RLIMIT_NOFILE, sysprog.Put(b, *l), 0)
	}
	p.call("execute init", unix.SYS_EXECVEAT, initmsg.FDSelf, b.Str(""), b.Strs(argv), b.Strs(envv), unix.AT_EMPTY_PATH)
	if err := b.Load(&p.prog); err != nil {
		b.Free()
		return nil, err
	}
	return p, nil
}

const maxFD = 1<<32 - 1

// needed are the descriptors of the namespaces.
func (st *Entry) needed() (fds []int) {
	for _, j := range slices.Concat(st.First, st.Rest) {
		fds = append(fds, j.FD)
	}
	if st.User >= 0 {
		fds = append(fds, st.User)
	}
	return fds
}

// closeBut closes all descriptors but these, before anybody sees the process.
func (p *plan) closeBut(fds []int) {
	for r := range sysprog.Others(fds) {
		p.call("close_range", unix.SYS_CLOSE_RANGE, r[0], r[1], 0)
	}
}

// ambient carries the capabilities in the user namespace, which whoever enters
// one has, over an execve by somebody who is not its root yet.
func (p *plan) ambient() {
	n := caps.Count()
	mask := uint64(1)<<n - 1
	lo, hi := uint32(mask), uint32(mask>>32)
	hdr := sysprog.Put(p.block, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := sysprog.Put(p.block, unix.CapUserData{Effective: lo, Permitted: lo, Inheritable: lo}, unix.CapUserData{Effective: hi, Permitted: hi, Inheritable: hi})
	p.call("set capabilities", unix.SYS_CAPSET, hdr, data)
	for c := range n {
		p.call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
	}
}

// Start forks init and returns its pid and a pidfd, which the caller closes; he
// also reaps it. Init's descriptors 0, 1, … are copies of files; initmsg.FDSelf is
// what is executed. The end of ctx kills what has been started. Class
// ErrNotImplemented where sysprog does not work (sysprog.Works).
func (st *Entry) Start(ctx context.Context, files []uintptr, argv, envv []string) (int, *os.File, error) {
	in, out, err := sysprog.Pipe()
	if err != nil {
		return 0, nil, err
	}
	defer in.Close()
	// Out of the way of the numbers that they are to get.
	high := []int{out}
	for _, fd := range files {
		high = append(high, int(fd))
	}
	for i, fd := range high {
		to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, len(files)+1)
		if i == 0 {
			unix.Close(fd)
		}
		if err != nil {
			closeAll(high[:i])
			return 0, nil, fmt.Errorf("duplicate a descriptor: %w", err)
		}
		high[i] = to
	}
	first, p, err := st.fork(high, argv, envv)
	closeAll(high)
	if err != nil {
		return 0, nil, err
	}
	// It ends by itself: nobody in the namespaces sees it.
	defer sysprog.Reap(first)
	return p.follow(ctx, in)
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
}

func (st *Entry) fork(high []int, argv, envv []string) (int, *plan, error) {
	p, err := st.plan(high[1:], high[0], argv, envv)
	if err != nil {
		return 0, nil, err
	}
	first, errno := p.block.Start()
	p.block.Free()
	if errno != 0 {
		return 0, nil, fmt.Errorf("fork: %w", errno)
	}
	return first, p, nil
}

// follow reads what the processes tell, until init is executed.
func (p *plan) follow(ctx context.Context, in io.Reader) (pid int, pidfd *os.File, err error) {
	stop := func() bool { return true }
	defer func() { stop() }()
	b := make([]byte, sysprog.ReportSize)
	for {
		if _, rerr := io.ReadFull(in, b); rerr != nil {
			if rerr != io.EOF {
				err = errors.Join(err, rerr)
			}
			break
		}
		switch r := sysprog.ParseReport(b); {
		case r.Kind == sysprog.ReportPid && pid == 0:
			pid = int(r.Extra)
			f, perr := sysprog.PidFD(pid)
			if perr != nil {
				return 0, nil, perr
			}
			pidfd, stop = f, context.AfterFunc(ctx, func() { sysprog.Kill(f) })
		case r.Kind == sysprog.ReportError && int(r.Step) < len(p.what):
			err = fmt.Errorf("%s: %w", p.what[r.Step], syscall.Errno(r.Errno))
		}
	}
	if err == nil && pid == 0 {
		err = initmsg.ErrEndedEarly
	}
	if err != nil && pid != 0 {
		sysprog.Kill(pidfd)
		sysprog.Reap(pid)
		pidfd.Close()
		return 0, nil, err
	}
	return pid, pidfd, err
}

package oci

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"syscall"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/fork"
	"github.com/gantry/gantry/oci/initmsg"
	"golang.org/x/sys/unix"
)

// stage is how init comes to be in namespaces that only a process with a single
// thread may enter, or that must be entered in a certain order: user and time
// namespaces, and others before a user namespace takes the rights away. No Go
// process can, so a fork of this one does it by system calls alone and executes
// init then (oci/fork).
type stage struct {
	// first are joined with our own rights, then comes the user namespace, then rest.
	first, rest []join
	// user is joined; it is -1 when none is.
	user int
	// unshare are new namespaces, made at last.
	unshare uintptr
	// roots: a user namespace is among them all, and init becomes its root.
	roots bool
}

// join is one setns(2).
type join struct {
	fd    int
	flags uintptr
}

// stagePlan is the program with what its steps are called in errors.
type stagePlan struct {
	prog  fork.Program
	block *fork.Block
	what  []string
}

func (p *stagePlan) call(what string, nr uintptr, args ...uintptr) {
	s := fork.Step{Kind: fork.Call, Nr: nr}
	copy(s.Args[:], args)
	p.what = append(p.what, what)
	p.prog.Steps = append(p.prog.Steps, s)
}

// plan makes the program. files become init's descriptors 0, 1, …; out is where
// reports go. All of them are above len(files).
func (st *stage) plan(files []int, out int, argv, envv []string) (*stagePlan, error) {
	b, err := fork.New(64 << 10)
	if err != nil {
		return nil, errclass.NotImplemented("joining user and time namespaces is not supported on %s", runtime.GOARCH)
	}
	p := &stagePlan{block: b}
	p.prog.Out = uintptr(out)
	p.call("prctl", unix.SYS_PRCTL, unix.PR_SET_DUMPABLE, 0)
	setns := func(js []join) {
		for _, j := range js {
			p.call("join namespaces", unix.SYS_SETNS, uintptr(j.fd), j.flags)
		}
	}
	setns(st.first)
	if st.user >= 0 {
		p.call("join user namespace", unix.SYS_SETNS, uintptr(st.user), unix.CLONE_NEWUSER)
	}
	setns(st.rest)
	if st.unshare != 0 {
		p.call("make namespaces", unix.SYS_UNSHARE, st.unshare)
	}
	if st.roots {
		p.ambient()
	}
	p.what = append(p.what, "fork")
	p.prog.Steps = append(p.prog.Steps, fork.Step{Kind: fork.Again})
	for i, fd := range files {
		p.call("dup3", unix.SYS_DUP3, uintptr(fd), uintptr(i), 0)
	}
	p.call("close_range", unix.SYS_CLOSE_RANGE, uintptr(len(files)), 1<<32-1, unix.CLOSE_RANGE_CLOEXEC)
	p.call("chdir", unix.SYS_CHDIR, b.Str("/"))
	p.call("execute init", unix.SYS_EXECVEAT, initmsg.FDSelf, b.Str(""), b.Strs(argv), b.Strs(envv), unix.AT_EMPTY_PATH)
	if err := b.Load(&p.prog); err != nil {
		b.Free()
		return nil, err
	}
	return p, nil
}

// ambient carries the capabilities in the user namespace, which whoever enters
// one has, over an execve by somebody who is not its root yet.
func (p *stagePlan) ambient() {
	n := lastCap() + 1
	mask := uint64(1)<<n - 1
	lo, hi := uint32(mask), uint32(mask>>32)
	hdr := fork.Put(p.block, unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3})
	data := fork.Put(p.block, unix.CapUserData{Effective: lo, Permitted: lo, Inheritable: lo}, unix.CapUserData{Effective: hi, Permitted: hi, Inheritable: hi})
	p.call("set capabilities", unix.SYS_CAPSET, hdr, data)
	for c := range n {
		p.call("raise ambient capability", unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, c)
	}
}

// run forks init and returns its pid; the caller reaps it. files are copied.
func (st *stage) run(files []uintptr, argv, envv []string) (int, error) {
	var ends [2]int
	if err := unix.Pipe2(ends[:], unix.O_CLOEXEC); err != nil {
		return 0, fmt.Errorf("pipe: %w", err)
	}
	in := os.NewFile(uintptr(ends[0]), "stage")
	defer in.Close()
	// Out of the way of the numbers that they are to get.
	high := []int{ends[1]}
	for _, fd := range files {
		high = append(high, int(fd))
	}
	for i, fd := range high {
		to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, len(files)+1)
		if i == 0 {
			unix.Close(fd)
		}
		if err != nil {
			return 0, fmt.Errorf("duplicate a descriptor: %w", err)
		}
		high[i] = to
		defer unix.Close(to) //nolint:gocritic // a handful
	}
	p, err := st.plan(high[1:], high[0], argv, envv)
	if err != nil {
		return 0, err
	}
	first, errno := p.block.Start()
	p.block.Free()
	unix.Close(high[0])
	high[0] = -1
	if errno != 0 {
		return 0, fmt.Errorf("fork: %w", errno)
	}
	defer reapPid(first)
	return p.follow(in)
}

// follow reads what the forked processes tell, until init is executed.
func (p *stagePlan) follow(in io.Reader) (int, error) {
	pid := 0
	var failure error
	b := make([]byte, fork.ReportSize)
	for {
		if _, err := io.ReadFull(in, b); err != nil {
			break
		}
		switch r := fork.ParseReport(b); {
		case r.Kind == fork.ReportPid:
			pid = int(r.Extra)
		case r.Kind == fork.ReportError && int(r.Step) < len(p.what):
			failure = fmt.Errorf("%s: %w", p.what[r.Step], syscall.Errno(r.Errno))
		}
	}
	if failure == nil && pid == 0 {
		failure = errclass.Internal("the container's init process ended early")
	}
	if failure != nil && pid != 0 {
		_ = unix.Kill(pid, unix.SIGKILL)
		reapPid(pid)
	}
	return pid, failure
}

func reapPid(pid int) {
	for {
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED, nil); !errors.Is(err, unix.EINTR) {
			return
		}
	}
}

// deniesGroups tells whether setgroups(2) is forbidden in the user namespace of pid.
func deniesGroups(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/setgroups")
	return err == nil && len(b) >= 4 && string(b[:4]) == "deny"
}

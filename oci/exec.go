package oci

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/cgroup/rdt"
	"github.com/gantry/gantry/oci/launch/become"
	"github.com/gantry/gantry/oci/launch/execprog"
	"github.com/gantry/gantry/oci/launch/nsenter"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/tuning"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// Exec starts a further process in the container of o.Init, in all its
// namespaces and its cgroup. Errors and ownership are as with Create;
// ErrFailedPrecondition when the container is gone or paused.
func Exec(ctx context.Context, o *ExecOpts) (*Process, error) {
	if o.Init == nil || o.Process == nil {
		return nil, errclass.Invalid("an exec needs a container and a process")
	}
	s := &starting{ctx: ctx}
	defer s.done()
	if err := s.exec(o); err != nil {
		s.undo()
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		return nil, err
	}
	return s.proc, nil
}

func (s *starting) exec(o *ExecOpts) error {
	p, err := planExec(o)
	if err != nil {
		return err
	}
	t, err := findTarget(o)
	if err != nil {
		return err
	}
	if t.direct(o, p) {
		if err := s.execDirect(o, p, t); err != become.ErrByInit { //nolint:errorlint // that very value
			return err
		}
	}
	return s.execByInit(o, p, t)
}

// planExec is what the process is to be.
func planExec(o *ExecOpts) (*initmsg.Process, error) {
	on := machine(o.Process, "")
	p, err := plan.Process(o.Process, nil, o.Seccomp, o.SeccompFlags, o.ConsoleSize, on)
	if err != nil {
		return nil, err
	}
	if err := plan.CheckLabels(o.Process, on); err != nil {
		return nil, err
	}
	if err := tuning.Process(o.Process, true, &p.Tuning); err != nil {
		return nil, err
	}
	if err := tuning.Placement(o.Personality, o.MemoryPolicy, &p.Tuning); err != nil {
		return nil, err
	}
	return p, nil
}

// target is the container that a further process is started in.
type target struct {
	pidfd int     // of its first process; the caller's
	inner uintptr // the flags of its user and time namespaces, if they are not ours
	group *cgroup.Group
	class *rdt.Group // nil: none
	// chrooted: without a mount namespace of its own a container is where its first process
	// has its root.
	chrooted bool
}

func findTarget(o *ExecOpts) (*target, error) {
	t := new(target)
	var err error
	if t.pidfd, err = rawFD(o.Init); err != nil {
		return nil, err
	}
	if t.inner, err = checkInit(o, t.pidfd); err != nil {
		return nil, err
	}
	sys, err := cgroups()
	if err != nil {
		return nil, err
	}
	if t.group, err = sys.Open(o.Cgroup.Paths); err != nil {
		return nil, err
	}
	if frozen, err := t.group.Frozen(); err == nil && frozen && !o.IgnorePaused {
		return nil, precondition("container is paused")
	}
	if t.class, err = rdt.Of(o.ContainerID, o.Spec); err != nil {
		return nil, err
	}
	if t.chrooted, err = sameNamespace(o.InitPid, "mnt"); err != nil {
		return nil, precondition("container is not running")
	}
	return t, nil
}

// direct tells whether the process may start without init.
func (t *target) direct(o *ExecOpts, p *initmsg.Process) bool {
	return !o.Fresh && t.class == nil && !t.chrooted && !o.IgnorePaused && len(o.Preserve) == 0 && t.inner == 0 &&
		execprog.Possible(p) && execprog.Safe(o.InitPid)
}

// execByInit starts init in the container and has it execute the program.
func (s *starting) execByInit(o *ExecOpts, p *initmsg.Process, t *target) error {
	m, so, err := s.planEntry(o, p, t)
	if err != nil {
		return err
	}
	if s.child, err = spawn(s.ctx, so); err != nil {
		if isGone(err) {
			return precondition("container is not running")
		}
		return fmt.Errorf("start init: %w", err)
	}
	s.watch()
	s.proc = &Process{Pid: s.child.pid, PidFD: s.child.pidfd, Cgroup: o.Cgroup}
	s.oomScore(o.Process.OOMScoreAdj)
	if notifies(m.Process.SeccompFlags) {
		if err := o.Notify.plan(o.ContainerID, specs.StateRunning, o.InitPid, s.child.pid, &m.Process); err != nil {
			return err
		}
	}
	if err := s.child.conn.sendMessage(m); err != nil {
		return err
	}
	// It joins the cgroup when it is ready: init's own threads must not fail by the
	// container's limits, its program must not escape them.
	pid := s.child.pid
	s.late = func() error {
		if t.class != nil {
			if err := t.class.Join(pid); err != nil {
				return err
			}
		}
		return t.group.JoinBeside(pid, o.InitPid)
	}
	return s.await(false)
}

// planEntry says how init gets into the container's namespaces and what it does there.
func (s *starting) planEntry(o *ExecOpts, p *initmsg.Process, t *target) (*initmsg.Message, *spawnOpts, error) {
	m := &initmsg.Message{
		ID: o.ContainerID, Exec: true, WaitGo: true, Process: *p,
		Join: []initmsg.Join{{FD: initmsg.FDFirst, Flags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWCGROUP}},
	}
	so := &spawnOpts{stdio: o.Stdio, extra: []int{t.pidfd}, enter: &nsenter.Entry{User: -1, First: []nsenter.Join{{FD: t.pidfd, Flags: unix.CLONE_NEWPID}}}}
	if t.inner != 0 {
		// One call enters all, and judges by our own rights.
		so.enter.First[0].Flags |= uintptr(m.Join[0].Flags) | t.inner
		so.enter.Roots = t.inner&unix.CLONE_NEWUSER != 0
		m.Join, m.TakeRoot = nil, so.enter.Roots
		m.Process.NoGroups = m.TakeRoot && len(p.Groups) == 0 && deniesGroups(o.InitPid)
	}
	if o.Process.Terminal {
		so.stdio = Stdio{}
	}
	if t.chrooted {
		if err := s.execRoot(o, m, so); err != nil {
			return nil, nil, err
		}
	}
	return m, so, planPreserve(o.Preserve, m, so)
}

// execDirect starts the process without init.
func (s *starting) execDirect(o *ExecOpts, p *initmsg.Process, t *target) error {
	procs, err := t.group.OpenProcs(o.InitPid)
	if err != nil {
		return err
	}
	defer func() {
		for i := range procs {
			unix.Close(procs[i].FD)
		}
	}()
	e := execprog.Exec{ID: o.ContainerID, Process: p, Streams: [...]*os.File{o.Stdio.In, o.Stdio.Out, o.Stdio.Err}, Init: t.pidfd, Procs: procs, OOMScore: o.Process.OOMScoreAdj}
	st, err := e.Start(s.ctx)
	runtime.KeepAlive(o)
	if err != nil {
		return err
	}
	s.proc = &Process{Pid: st.Pid, PidFD: st.PidFD, Console: st.Console, Cgroup: o.Cgroup, Started: time.Now(), Warnings: st.Warnings, direct: true}
	return nil
}

// deniesGroups tells whether setgroups(2) is forbidden in the user namespace of pid.
func deniesGroups(pid int) bool {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/setgroups")
	return err == nil && len(b) >= 4 && string(b[:4]) == "deny"
}

// checkInit proves that the pidfd is InitPid's and alive. inner are those of the
// user and the time namespace that are not ours.
func checkInit(o *ExecOpts, pidfd int) (inner uintptr, err error) {
	if o.InitPid > 0 {
		pid, err := pidOf(pidfd)
		if err != nil {
			return 0, err
		}
		if pid != o.InitPid {
			return 0, precondition("container is not running")
		}
	}
	pid := o.InitPid
	if pid <= 0 {
		return 0, errclass.Invalid("an exec needs the container's pid")
	}
	for _, ns := range [...]struct {
		name string
		flag uintptr
	}{{"user", unix.CLONE_NEWUSER}, {"time", unix.CLONE_NEWTIME}} {
		same, err := sameNamespace(pid, ns.name)
		if err != nil {
			return 0, precondition("container is not running")
		}
		if !same {
			inner |= ns.flag
		}
	}
	if err := unix.PidfdSendSignal(pidfd, 0, nil, 0); err != nil {
		return 0, precondition("container is not running")
	}
	return inner, nil
}

// pidOf reads a pidfd's pid (proc(5), fdinfo); -1 when it has been reaped.
func pidOf(pidfd int) (int, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", pidfd))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, "Pid:"); ok {
			return strconv.Atoi(strings.TrimSpace(v))
		}
	}
	return 0, errclass.Invalid("not a pidfd")
}

func sameNamespace(pid int, ns string) (bool, error) {
	var a, b unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/%s", pid, ns), &a); err != nil {
		return false, err
	}
	if err := unix.Stat("/proc/self/ns/"+ns, &b); err != nil {
		return false, err
	}
	return a.Ino == b.Ino && a.Dev == b.Dev, nil
}

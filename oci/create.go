package oci

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/gantry/gantry/internal/errclass"
	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/cgroup/rdt"
	"github.com/gantry/gantry/oci/launch/netdev"
	"github.com/gantry/gantry/oci/launch/nsenter"
	"github.com/gantry/gantry/oci/plan"
	"github.com/gantry/gantry/oci/plan/initmsg"
	"github.com/gantry/gantry/oci/plan/tuning"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// latePidsLimit: below it the limit is set right before the program starts, since
// init itself is a process of several threads.
const latePidsLimit = 64

// Create makes the container that o describes and starts its first process. It
// returns when the program runs (with Hold: when it is ready to). On success the
// caller reaps the process and later calls DeleteCgroup; on failure nothing is
// left: the process is reaped, the cgroup removed. ctx ends the wait and the
// attempt, not the container.
//
// Errors: the program is missing, ErrNotFound; it cannot be executed,
// ErrPermissionDenied; the spec asks for what is impossible, ErrInvalidArgument;
// a feature that does not exist here, ErrNotImplemented. It is safe for
// concurrent use.
func Create(ctx context.Context, o *CreateOpts) (*Process, error) {
	if err := checkCreate(o); err != nil {
		return nil, err
	}
	opts := *o
	if o.Spec.Linux == nil {
		spec := *o.Spec
		spec.Linux = &specs.Linux{}
		opts.Spec = &spec
	}
	s := &starting{ctx: ctx}
	defer s.done()
	if err := s.create(&opts); err != nil {
		s.undo()
		if cerr := ctx.Err(); cerr != nil {
			return nil, cerr
		}
		return nil, err
	}
	return s.proc, nil
}

func checkCreate(o *CreateOpts) error {
	switch {
	case o.ID == "" || strings.ContainsAny(o.ID, "/\x00"):
		return errclass.Invalid("container id %q is not valid", o.ID)
	case o.Spec == nil:
		return errclass.Invalid("a container needs a spec")
	case o.StartSocket != nil && !o.Hold:
		return errclass.Invalid("a start socket is of use with Hold only")
	}
	return nil
}

// starting is one attempt to start a process, with what must be undone.
type starting struct {
	ctx   context.Context
	group *cgroup.Group // made by this attempt
	// noGroup: the container lives in the cgroup of its maker.
	noGroup bool
	child   *child
	files   []*os.File // to close in any case
	stop    func() bool
	proc    *Process
	// late is applied when init is ready: what its own threads must not be subject to.
	late func() error
	// maps gives a user namespace its mappings when the kernel does not let us do so
	// at the fork.
	maps func(pid int) error
	// unit has systemd make the cgroup with a process in it; nil: it is ours to make.
	unit func(pid int) error
	// owner gets the cgroup, for cgroups of his own below it; nil: nobody.
	owner *uint32
	// rdt is the class of service that was made for it.
	rdt *rdt.Group
	// devices are network devices of the host that are in the container.
	devices *netdev.Moved
	// runtimeHooks runs the hooks that are ours while init waits.
	runtimeHooks func() error
}

func (s *starting) done() {
	if s.devices != nil {
		s.devices.Close()
	}
	for _, f := range s.files {
		f.Close()
	}
}

func (s *starting) undo() {
	if s.stop != nil {
		s.stop()
	}
	if s.proc != nil && s.proc.Console != nil {
		s.proc.Console.Close()
	}
	if s.devices != nil {
		_ = s.devices.Back() // while their namespace is there
		s.devices = nil
	}
	if s.child != nil {
		s.child.kill()
	}
	if s.group != nil {
		// What the start has made is empty now, or its members are dying.
		_ = s.group.Kill(unix.SIGKILL)
		_ = s.group.Delete()
	}
	if s.rdt != nil {
		_ = s.rdt.Remove()
	}
}

func (s *starting) create(o *CreateOpts) error {
	sys, err := cgroups()
	if err != nil {
		return err
	}
	ref, place, err := locateCgroup(s.ctx, sys, o.ID, o.Spec, o.SystemdCgroup)
	if err != nil {
		return err
	}
	group, err := openCgroup(ref)
	if err != nil {
		return err
	}
	if confined() && ref.Systemd == "" {
		if group, ref, err = s.ownGroup(o, sys, group, ref); err != nil {
			return err
		}
	}
	m, err := planCreate(o, cgroupBinds(sys, group))
	if err != nil {
		return err
	}
	so, err := s.namespaces(o, m)
	if err != nil {
		return err
	}
	if err := s.idMaps(o, m, so); err != nil {
		return err
	}
	if err := planExtra(o, m, so); err != nil {
		return err
	}
	if err := s.hostMounts(o, m, so); err != nil {
		return err
	}
	if !confined() {
		s.owner = plan.CgroupOwner(o.Spec)
	}
	s.proc = &Process{Cgroup: ref}
	if ref.Systemd != "" {
		s.unit = func(pid int) error { return startUnit(s.ctx, sys, place, pid, o.Spec.Annotations) }
	}
	if ok, err := s.startDirect(o, m, so, group); ok || err != nil {
		return err
	}
	return s.spawnInit(o, m, so, group)
}

// planCreate says what init is to do, or refuses.
func planCreate(o *CreateOpts, cg *plan.Cgroups) (*initmsg.Message, error) {
	if err := refuse(o.Spec); err != nil {
		return nil, err
	}
	return plan.Create(&plan.Container{
		ID: o.ID, Spec: o.Spec, Rootfs: o.Rootfs, Seccomp: o.Seccomp, SeccompFlags: o.SeccompFlags,
		ConsoleSize: o.ConsoleSize, WaitGo: o.Hold, Reaper: o.InitReaper,
	}, cg, machine(o.Spec.Process, o.Spec.Linux.MountLabel))
}

// spawnInit starts init and has it make the container; its cgroups may be there already.
func (s *starting) spawnInit(o *CreateOpts, m *initmsg.Message, so *spawnOpts, group *cgroup.Group) (err error) {
	so.unmapped = s.maps != nil
	if s.child, err = spawn(s.ctx, so); err != nil {
		return fmt.Errorf("start init: %w", err)
	}
	s.watch()
	if s.maps != nil {
		if err := s.maps(s.child.pid); err != nil {
			return err
		}
	}
	if err := s.moveDevices(o); err != nil {
		return err
	}
	// While init's own runtime starts, its cgroups are made.
	if !s.noGroup {
		if err := s.limitInit(o.Spec.Linux.Resources, m, group); err != nil {
			return err
		}
		if err := group.Join(s.child.pid); err != nil {
			return err
		}
	}
	if err := s.joinRdt(o); err != nil {
		return err
	}
	s.proc.Pid, s.proc.PidFD = s.child.pid, s.child.pidfd
	s.oomScore(o.Spec.Process.OOMScoreAdj)
	if err := s.planHooks(o, m); err != nil {
		return err
	}
	if err := planNotify(o, s.child.pid, &m.Process); err != nil {
		return err
	}
	if err := s.child.conn.sendMessage(m); err != nil {
		return err
	}
	if err := s.await(o.Hold); err != nil {
		return err
	}
	if o.StartSocket != nil {
		s.proc.held = nil
		s.child.conn.close()
	}
	return nil
}

// moveDevices moves network devices into the container's namespace: the one init is born
// in, or that it will join.
func (s *starting) moveDevices(o *CreateOpts) (err error) {
	if len(o.Spec.Linux.NetDevices) == 0 {
		return nil
	}
	ns := o.Namespaces[specs.NetworkNamespace]
	if ns == nil {
		path := fmt.Sprintf("/proc/%d/ns/net", s.child.pid) // our child, not reaped
		for _, n := range o.Spec.Linux.Namespaces {
			if n.Type == specs.NetworkNamespace && n.Path != "" {
				path = n.Path
			}
		}
		if ns, err = openNamespace(path, unix.CLONE_NEWNET); err != nil {
			return err
		}
		s.files = append(s.files, ns)
	}
	s.devices, err = netdev.Move(o.Spec.Linux.NetDevices, ns)
	return err
}

// watch ends the attempt when ctx is over: the child dies, the socket ends.
func (s *starting) watch() {
	c := s.child
	s.stop = context.AfterFunc(s.ctx, func() { c.signal(unix.SIGKILL) })
}

// limitInit makes the cgroup for init, if that has not been done, and sets its limits
// but those that init's own threads must not be subject to.
func (s *starting) limitInit(res *specs.LinuxResources, m *initmsg.Message, g *cgroup.Group) error {
	if res == nil {
		res = &specs.LinuxResources{}
	}
	now := *res
	if p := res.Pids; p != nil && p.Limit != nil && *p.Limit > 0 && *p.Limit < latePidsLimit {
		now.Pids = nil
		s.late = func() error { return g.Set(&specs.LinuxResources{Pids: p}) }
		m.WaitGo = true
	}
	switch {
	case s.unit != nil:
		if err := s.unit(s.child.pid); err != nil {
			return err
		}
		s.group = g
		return s.limit(g, &now)
	case s.group == nil:
		return s.limit(g, &now)
	case s.late == nil:
		return nil
	}
	return g.Set(&specs.LinuxResources{Pids: &specs.LinuxPids{Limit: new(int64)}}) // no limit until init is ready
}

// limit makes the cgroup and sets its limits.
func (s *starting) limit(g *cgroup.Group, res *specs.LinuxResources) error {
	if err := g.Create(); err != nil {
		return err
	}
	s.group = g
	if err := g.Set(res); err != nil {
		return err
	}
	if s.owner != nil {
		if err := g.Delegate(int(*s.owner)); err != nil {
			return fmt.Errorf("give the cgroup to its user: %w", err)
		}
	}
	if confined() && !g.Writable("devices") {
		return nil // the kernel keeps devices from such a user
	}
	return g.SetDevices(append(append([]specs.LinuxDeviceCgroup{}, res.Devices...), cgroup.DefaultDevices()...))
}

// oomScore sets the score; without one the container must not inherit ours.
func (s *starting) oomScore(want *int) {
	score := 0
	if want != nil {
		score = *want
	}
	if err := setOOMScore(s.child.pid, score); err != nil && want != nil {
		s.proc.Warnings = append(s.proc.Warnings, fmt.Sprintf("oom_score_adj %d: %v", score, err))
	}
}

// await follows init until its program runs, or until it is held.
func (s *starting) await(hold bool) error {
	c := s.child.conn
	for {
		typ, payload, err := c.frame()
		if err != nil {
			return initmsg.ErrEndedEarly
		}
		switch typ {
		case initmsg.FrameError:
			return initError(payload)
		case initmsg.FrameWarning:
			s.proc.Warnings = append(s.proc.Warnings, string(payload))
		case initmsg.FrameConsole:
			if err := s.console(c.takeFD()); err != nil {
				return err
			}
		case initmsg.FrameHooks:
			if err := s.runtimeHooks(); err != nil {
				return err
			}
			if err := c.sendGo(); err != nil {
				return err
			}
		case initmsg.FrameReady:
			if s.late != nil {
				if err := s.late(); err != nil {
					return err
				}
			}
			if hold {
				if !s.stop() {
					return s.ctx.Err()
				}
				s.proc.Started = time.Now()
				s.proc.held = c
				return nil
			}
			if err := c.sendGo(); err != nil {
				return err
			}
		case initmsg.FrameExec:
			if err := c.awaitExecAfter(); err != nil {
				return err
			}
			s.proc.Started = time.Now()
			s.stop()
			c.close()
			return nil
		}
	}
}

func (s *starting) console(fd int) error {
	if fd < 0 || s.proc.Console != nil {
		return errclass.Internal("init sent no terminal")
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return err
	}
	s.proc.Console = os.NewFile(uintptr(fd), "pty")
	return nil
}

// planCgroupBinds lists what a cgroup mount shows.
func cgroupBinds(sys *cgroup.System, g *cgroup.Group) *plan.Cgroups {
	if sys.Unified() {
		d, ok := g.Dir("")
		if !ok {
			return new(plan.Cgroups)
		}
		return &plan.Cgroups{V2: d}
	}
	binds := new(plan.Cgroups)
	for _, h := range sys.V1 {
		d, ok := g.Dir(h.Controllers[0])
		if !ok {
			continue // none of its own: there is nothing to show
		}
		name := filepath.Base(h.Mount)
		binds.V1 = append(binds.V1, initmsg.KV{Key: name, Value: d})
		for _, c := range h.Controllers {
			c = strings.TrimPrefix(c, "name=")
			if c != name {
				binds.V1 = append(binds.V1, initmsg.KV{Key: c, Value: "@" + name})
			}
		}
	}
	return binds
}

// namespaces says which namespaces init is born in, joins and makes.
func (s *starting) namespaces(o *CreateOpts, m *initmsg.Message) (*spawnOpts, error) {
	so := &spawnOpts{stdio: o.Stdio, flags: unix.CLONE_NEWNS}
	if o.Spec.Process.Terminal {
		so.stdio = Stdio{}
	}
	seen := make(map[specs.LinuxNamespaceType]bool)
	for _, ns := range o.Spec.Linux.Namespaces {
		flag := plan.NSFlag(ns.Type)
		if flag == 0 {
			return nil, errclass.Invalid("namespace %q does not exist", ns.Type)
		}
		if seen[ns.Type] {
			return nil, errclass.Invalid("malformed spec file: duplicated ns %q", ns.Type)
		}
		seen[ns.Type] = true
		f := o.Namespaces[ns.Type]
		if f == nil && ns.Path != "" {
			var err error
			if f, err = openNamespace(ns.Path, flag); err != nil {
				return nil, err
			}
			s.files = append(s.files, f)
		}
		if err := s.namespace(o, m, so, flag, f); err != nil {
			return nil, err
		}
	}
	for t, f := range o.Namespaces {
		if !seen[t] && f != nil {
			if err := s.namespace(o, m, so, plan.NSFlag(t), f); err != nil {
				return nil, err
			}
		}
	}
	if err := tuning.Time(o.Spec.Linux.TimeOffsets, m); err != nil {
		return nil, err
	}
	if so.flags&unix.CLONE_NEWUTS == 0 && m.Hostname != "" && !joins(so, unix.CLONE_NEWUTS) {
		return nil, errclass.Invalid("unable to set hostname without a private UTS namespace")
	}
	if joins(so, unix.CLONE_NEWNS) {
		so.flags &^= unix.CLONE_NEWNS
	}
	return so, s.arrange(o, m, so)
}

func joins(so *spawnOpts, flag uintptr) bool {
	return slices.ContainsFunc(so.joins, func(j nsenter.Join) bool { return j.Flags == flag })
}

func (s *starting) namespace(o *CreateOpts, m *initmsg.Message, so *spawnOpts, flag uintptr, f *os.File) error {
	switch {
	case flag == unix.CLONE_NEWUSER && f != nil:
		so.userNS = f
		m.TakeRoot = true
		return nil
	case flag == unix.CLONE_NEWUSER:
		so.flags |= flag
		return s.newUser(o.Spec.Linux, m, so)
	case f == nil && flag == unix.CLONE_NEWTIME:
		m.NewTimeNS = true // from inside; execve enters it
		return nil
	case f == nil && flag == unix.CLONE_NEWCGROUP:
		m.NewCgroupNS = true // from inside, when it is in its cgroup
		return nil
	case f == nil:
		so.flags |= flag
		m.LoopbackUp = m.LoopbackUp || flag == unix.CLONE_NEWNET
		return nil
	}
	fd, err := rawFD(f)
	if err != nil {
		return err
	}
	so.joins = append(so.joins, nsenter.Join{FD: fd, Flags: flag})
	return nil
}

// arrange decides who enters the namespaces to join: init itself, or package nsenter
// before it.
func (s *starting) arrange(o *CreateOpts, m *initmsg.Message, so *spawnOpts) error {
	user := so.userNS != nil || so.flags&unix.CLONE_NEWUSER != 0
	entered := so.userNS != nil || user && len(so.joins) != 0
	for _, j := range so.joins {
		entered = entered || j.Flags == unix.CLONE_NEWTIME || j.Flags == unix.CLONE_NEWPID
	}
	if !entered {
		for _, j := range so.joins {
			m.Join = append(m.Join, initmsg.Join{FD: uint32(initmsg.FDFirst + len(so.extra)), Flags: uint64(j.Flags)})
			so.extra = append(so.extra, j.FD)
		}
		return nil
	}
	st := &nsenter.Entry{User: -1, Unshare: so.flags, Roots: user}
	if so.userNS != nil {
		fd, err := rawFD(so.userNS)
		if err != nil {
			return err
		}
		st.User = fd
	}
	if mayMapIDs() {
		st.First = so.joins // they may belong to any namespace below ours
	} else {
		st.Rest = so.joins
	}
	if l := o.Spec.Linux; so.flags&unix.CLONE_NEWUSER != 0 {
		m.TakeRoot = true
		s.maps = func(pid int) error { return writeMaps(pid, l.UIDMappings, l.GIDMappings) }
	}
	so.enter = st
	return nil
}

// openNamespace opens a namespace file and proves that it is one of that type.
func openNamespace(p string, flag uintptr) (*os.File, error) {
	fd, err := unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, errclass.Invalid("namespace %s: %w", p, err)
	}
	var st unix.Statfs_t
	if err := unix.Fstatfs(fd, &st); err != nil || st.Type != unix.NSFS_MAGIC {
		unix.Close(fd)
		return nil, errclass.Invalid("namespace %s: not a namespace", p)
	}
	typ, err := unix.IoctlRetInt(fd, unix.NS_GET_NSTYPE)
	if err != nil || uintptr(typ) != flag {
		unix.Close(fd)
		return nil, errclass.Invalid("namespace %s: of another type", p)
	}
	return os.NewFile(uintptr(fd), p), nil
}

// isGone tells errors of system calls on a process that has ended.
func isGone(err error) bool { return errors.Is(err, unix.ESRCH) }

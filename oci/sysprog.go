package oci

import (
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/gantry/gantry/oci/cgroup"
	"github.com/gantry/gantry/oci/launch/selfexe"
	"github.com/gantry/gantry/oci/launch/startprog"
	"github.com/gantry/gantry/oci/plan/initmsg"
	specs "github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"
)

// startDirect starts the container without init. When it is not done, and there is no
// error, init has to do it: a program of system calls cannot express the start, or a step
// of it has failed, and init has the message.
func (s *starting) startDirect(o *CreateOpts, m *initmsg.Message, so *spawnOpts, g *cgroup.Group) (done bool, err error) {
	if s.wantsInit(o, m, so) {
		return false, nil
	}
	st := startprog.Start{
		Message: m, Streams: [...]*os.File{so.stdio.In, so.stdio.Out, so.stdio.Err}, Flags: so.flags, Joins: so.joins,
		OOMScore: o.Spec.Process.OOMScoreAdj, StartFD: -1,
	}
	if !startprog.Possible(&st) {
		return false, nil
	}
	if o.StartSocket != nil {
		if st.StartFD, err = rawFD(o.StartSocket); err != nil {
			return false, err
		}
	}
	if m.Reaper {
		if st.Exe, err = selfexe.Exe(); err != nil {
			return false, err
		}
	}
	res := o.Spec.Linux.Resources
	if res == nil {
		res = &specs.LinuxResources{}
	}
	if err := s.limit(g, res); err != nil {
		return false, err
	}
	if st.Procs, err = openProcs(g); err != nil {
		return false, err
	}
	defer func() {
		for i := range st.Procs {
			unix.Close(st.Procs[i].FD)
		}
	}()
	p, err := st.Start(s.ctx)
	runtime.KeepAlive(o)
	if err != nil {
		if s.ctx.Err() != nil {
			return false, s.ctx.Err()
		}
		s.proc.refused = err
		return false, nil
	}
	s.proc.Pid, s.proc.PidFD, s.proc.Console, s.proc.Warnings = p.Pid, p.PidFD, p.Console, p.Warnings
	s.proc.Started, s.proc.direct = time.Now(), true
	if p.Held != nil {
		s.proc.held = p.Held
	}
	return true, nil
}

// wantsInit tells which starts a program of system calls cannot do: what others do while init waits (hooks,
// network devices, a class of service, mappings, a cgroup of systemd's, which is made for a
// process that is there already), and what needs nsenter, the host's mounts or an ordinary user.
func (s *starting) wantsInit(o *CreateOpts, m *initmsg.Message, so *spawnOpts) bool {
	l := o.Spec.Linux
	return o.Fresh || o.Spec.Hooks != nil || len(l.NetDevices) != 0 || l.IntelRdt != nil || s.maps != nil || s.proc.Cgroup.Systemd != "" ||
		so.enter != nil || so.userNS != nil || so.uids != nil || m.Extra.HostMountFD != 0 || s.noGroup || confined()
}

// openProcs opens what a process that is to begin in a new, empty cgroup needs. On
// version 2 alone it is born there.
func openProcs(g *cgroup.Group) ([]cgroup.Procs, error) {
	dir, ok := g.Dir("")
	if sys, err := cgroups(); err != nil || !ok || !sys.Unified() {
		return g.OpenProcs(os.Getpid())
	}
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("join cgroup: %w", &os.PathError{Op: "open", Path: dir, Err: err})
	}
	return []cgroup.Procs{{FD: fd, Path: dir, Into: true}}, nil
}

// held is a process that waits before execve.
type held interface {
	// Release has it go on and returns when its program runs, or with the reason why it
	// does not. It closes.
	Release() error
}
